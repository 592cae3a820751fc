use proptest::prelude::*;

use super::*;

fn error(s: &str) -> String {
    parse(s.as_bytes()).unwrap_err().to_string()
}

#[test]
fn errors_read_as_upstreams() {
    for (body, expected) in [
        ("", "unexpected end of JSON input"),
        ("{\"a\":", "unexpected end of JSON input"),
        ("tru", "unexpected end of JSON input"),
        ("x", "invalid character 'x' looking for beginning of value"),
        (
            "\u{feff}{}",
            "invalid character 'ï' looking for beginning of value",
        ),
        (
            "{a}",
            "invalid character 'a' looking for beginning of object key string",
        ),
        ("{\"a\" 1}", "invalid character '1' after object key"),
        (
            "{\"a\":1 \"b\"}",
            "invalid character '\"' after object key:value pair",
        ),
        ("[1 2]", "invalid character '2' after array element"),
        ("{} x", "invalid character 'x' after top-level value"),
        (
            "nulx",
            "invalid character 'x' in literal null (expecting 'l')",
        ),
        ("-x", "invalid character 'x' in numeric literal"),
        (
            "1.x",
            "invalid character 'x' after decimal point in numeric literal",
        ),
        (
            "1ex",
            "invalid character 'x' in exponent of numeric literal",
        ),
        ("01", "invalid character '1' after top-level value"),
        ("\"\n\"", "invalid character '\\n' in string literal"),
        ("\"\\x\"", "invalid character 'x' in string escape code"),
        (
            "\"\\u00g0\"",
            "invalid character 'g' in \\u hexadecimal character escape",
        ),
        (
            "1e999",
            "json: cannot unmarshal number 1e999 into Go value of type float64",
        ),
    ] {
        assert_eq!(error(body), expected, "{body:?}");
    }
}

#[test]
fn duplicates_are_found_where_they_are() {
    let p = parse(br#"{"a":1,"b":[{"c":1,"c":2,"c":3}],"a":2}"#).unwrap();
    assert_eq!(p.duplicates, ["b[0].c", "a"]);
    assert_eq!(p.value, serde_json::json!({"a": 2, "b": [{"c": 3}]}));
}

#[test]
fn depth_is_bounded() {
    let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
    assert!(parse(deep(DEPTH_MAX).as_bytes()).is_ok());
    assert_eq!(error(&deep(DEPTH_MAX + 1)), "exceeded max depth");
}

#[test]
fn numbers_keep_their_kind() {
    let p = parse(br#"[1, -0, 18446744073709551615, 1.0, 1e2, -9223372036854775808]"#).unwrap();
    assert_eq!(
        p.value.to_string(),
        "[1,0,18446744073709551615,1.0,100.0,-9223372036854775808]"
    );
}

#[test]
fn text_that_is_not_unicode_is_replaced() {
    assert_eq!(parse(b"\"a\xffb\"").unwrap().value, "a\u{fffd}b");
    assert_eq!(
        parse(br#""\ud83d\ude00 \ud83d x""#).unwrap().value,
        "😀 \u{fffd} x"
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|n| Value::Number(n.into())),
        any::<String>().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|m| m.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(v in any_json()) {
        let p = parse(v.to_string().as_bytes()).unwrap();
        prop_assert_eq!(p.value, v);
        prop_assert!(p.duplicates.is_empty());
    }

    #[test]
    fn it_accepts_what_serde_accepts(bytes in prop::collection::vec(prop::sample::select(b"{}[]\":,01-+.eE\\un tfalsr".to_vec()), 0..24)) {
        let theirs = serde_json::from_slice::<Value>(&bytes);
        let ours = parse(&bytes);
        // Only halves of surrogate pairs, which become U+FFFD here, are refused there.
        if theirs.is_ok() {
            prop_assert!(ours.is_ok());
        }
    }
}
