//! Scalars whose text has a canonical form: times, quantities, base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kontiki_api::Quantity;
use serde_json::Value;

const SECONDS: &str = "2006-01-02T15:04:05Z07:00";
const MICROS: &str = "2006-01-02T15:04:05.000000Z07:00";

/// Upstream's text for a quantity that is none.
pub(crate) const BAD_QUANTITY: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Brings a `metav1.Time` into its canonical form.
pub(crate) fn time(s: &mut String) -> Result<(), String> {
    if !is_canonical(s.as_bytes()) {
        let t = parse_time(s, SECONDS)?;
        *s = t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    }
    Ok(())
}

/// Brings a `metav1.MicroTime` into its canonical form. It has to have six digits after the point.
pub(crate) fn micro_time(s: &mut String) -> Result<(), String> {
    let t = parse_time(s, MICROS)?;
    let fraction = s.get(19..).unwrap_or("");
    let digits = fraction
        .strip_prefix('.')
        .map_or(0, |f| f.bytes().take_while(u8::is_ascii_digit).count());
    if digits != 6 {
        return Err(format!(
            "parsing time {s:?} as {MICROS:?}: cannot parse {fraction:?} as \".000000\""
        ));
    }
    *s = t.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    Ok(())
}

/// `YYYY-MM-DDTHH:MM:SSZ` with every number in its range for any month, which is how nearly all times come.
fn is_canonical(s: &[u8]) -> bool {
    let digits = |r: std::ops::Range<usize>| s[r].iter().all(u8::is_ascii_digit);
    let two = |at: usize| (s[at] - b'0') * 10 + (s[at + 1] - b'0');
    s.len() == 20
        && s[4] == b'-'
        && s[7] == b'-'
        && s[10] == b'T'
        && s[13] == b':'
        && s[16] == b':'
        && s[19] == b'Z'
        && [0..4, 5..7, 8..10, 11..13, 14..16, 17..19]
            .into_iter()
            .all(digits)
        && (1..=12).contains(&two(5))
        && (1..=28).contains(&two(8))
        && two(11) < 24
        && two(14) < 60
        && two(17) < 60
}

fn parse_time(s: &str, layout: &str) -> Result<Timestamp, String> {
    // The layout's separators are exact; the library would take a blank or lower-case letters, too.
    let exact = s.as_bytes().get(10) == Some(&b'T')
        && !s.contains(['z', 't', ','])
        && s.get(17..19) != Some("60");
    let parsed = if exact {
        s.parse::<Timestamp>().ok()
    } else {
        None
    };
    parsed.ok_or_else(|| {
        let rest = unparsed(s);
        format!(
            "parsing time {s:?} as {layout:?}: cannot parse {:?} as {:?}",
            rest.0, rest.1
        )
    })
}

/// The rest of a time from the first element that does not parse, and that element of the layout.
fn unparsed(s: &str) -> (&str, &'static str) {
    const ELEMENTS: [(&str, usize); 11] = [
        ("2006", 4),
        ("-", 1),
        ("01", 2),
        ("-", 1),
        ("02", 2),
        ("T", 1),
        ("15", 2),
        (":", 1),
        ("04", 2),
        (":", 1),
        ("05", 2),
    ];
    let mut at = 0;
    for (element, len) in ELEMENTS {
        let piece = s.get(at..at + len);
        let fits = piece.is_some_and(|p| {
            if len == 1 {
                p == element
            } else {
                p.bytes().all(|b| b.is_ascii_digit())
            }
        });
        if !fits {
            return (s.get(at..).unwrap_or(""), element);
        }
        at += len;
    }
    (s.get(at..).unwrap_or(""), "Z07:00")
}

/// Brings a quantity, given as text or as a number, into its canonical form.
pub(crate) fn quantity(v: &mut Value) -> Result<(), String> {
    let parsed = match &*v {
        Value::String(s) => s.parse::<Quantity>(),
        other => other.to_string().parse::<Quantity>(),
    };
    let canonical = parsed.map_err(|_| BAD_QUANTITY.to_owned())?.to_string();
    if v.as_str() != Some(&canonical) {
        *v = Value::String(canonical);
    }
    Ok(())
}

/// Brings base64 text into its canonical form (padded, without line breaks).
pub(crate) fn bytes(s: &mut String) -> Result<(), String> {
    if s.contains(['\n', '\r']) {
        s.retain(|c| c != '\n' && c != '\r');
    }
    match STANDARD.decode(s.as_bytes()) {
        Ok(_) => Ok(()),
        Err(e) => {
            let at = match e {
                base64::DecodeError::InvalidByte(at, _)
                | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                // Go names the place where the missing byte would stand.
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                    s.len() / 4 * 4
                }
            };
            Err(format!("illegal base64 data at input byte {at}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_canonical() {
        for (given, canonical) in [
            ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"),
            ("2024-01-02T03:04:05.999Z", "2024-01-02T03:04:05Z"),
            ("2024-01-02T03:04:05+02:00", "2024-01-02T01:04:05Z"),
            ("2024-02-29T23:59:59-01:30", "2024-03-01T01:29:59Z"),
        ] {
            let mut s = given.to_owned();
            time(&mut s).unwrap();
            assert_eq!(s, canonical);
        }
        let mut s = "2024-01-02T03:04:05.123456+01:00".to_owned();
        micro_time(&mut s).unwrap();
        assert_eq!(s, "2024-01-02T02:04:05.123456Z");
    }

    #[test]
    fn bad_times_say_where() {
        let e = |s: &str| time(&mut s.to_owned()).unwrap_err();
        assert_eq!(
            e("x"),
            r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#
        );
        assert_eq!(
            e("2024-01-02 03:04:05Z"),
            r#"parsing time "2024-01-02 03:04:05Z" as "2006-01-02T15:04:05Z07:00": cannot parse " 03:04:05Z" as "T""#
        );
        assert!(e("2023-02-29T00:00:00Z").starts_with("parsing time"));
        let micro = micro_time(&mut "2024-01-02T03:04:05Z".to_owned()).unwrap_err();
        assert!(
            micro.ends_with(r#"cannot parse "Z" as ".000000""#),
            "{micro}"
        );
    }

    #[test]
    fn quantities_come_as_text_or_number() {
        for (given, canonical) in [
            (Value::from("1000m"), "1"),
            (Value::from(2), "2"),
            (Value::from(0.5), "500m"),
            (Value::from("1024Mi"), "1Gi"),
        ] {
            let mut v = given;
            quantity(&mut v).unwrap();
            assert_eq!(v, canonical);
        }
        assert_eq!(quantity(&mut Value::from("x")).unwrap_err(), BAD_QUANTITY);
    }

    #[test]
    fn base64_is_checked() {
        let mut s = "aGVs\nbG8=".to_owned();
        bytes(&mut s).unwrap();
        assert_eq!(s, "aGVsbG8=");
        assert_eq!(
            bytes(&mut "a%==".to_owned()).unwrap_err(),
            "illegal base64 data at input byte 1"
        );
        assert_eq!(
            bytes(&mut "aGVsbG8".to_owned()).unwrap_err(),
            "illegal base64 data at input byte 4"
        );
    }
}
