//! Small accessors over an object's JSON value.

use serde_json::{Map, Value};

/// The value at this path of members, if all of them are there.
pub fn get<'a>(v: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(v, |v, k| v.get(k))
}

/// The text at this path; empty if there is none.
pub fn text<'a>(v: &'a Value, path: &[&str]) -> &'a str {
    get(v, path).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at this path.
pub fn int(v: &Value, path: &[&str]) -> Option<i64> {
    get(v, path).and_then(Value::as_i64)
}

/// Whether `true` stands at this path.
pub fn truth(v: &Value, path: &[&str]) -> bool {
    get(v, path).and_then(Value::as_bool).unwrap_or(false)
}

/// The list at this path; empty if there is none.
pub fn list<'a>(v: &'a Value, path: &[&str]) -> &'a [Value] {
    get(v, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The object at this path, made if it is missing or not an object.
pub fn map_mut<'a>(v: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut at = v;
    for k in path {
        at = object_of(at)
            .entry(*k)
            .or_insert_with(|| Value::Object(Map::new()));
    }
    object_of(at)
}

fn object_of(v: &mut Value) -> &mut Map<String, Value> {
    if !v.is_object() {
        *v = Value::Object(Map::new());
    }
    v.as_object_mut().expect("it was just made an object")
}

/// The object's name.
pub fn name(v: &Value) -> &str {
    text(v, &["metadata", "name"])
}

/// The object's namespace, or empty.
pub fn namespace(v: &Value) -> &str {
    text(v, &["metadata", "namespace"])
}

/// The object's uid, or empty.
pub fn uid(v: &Value) -> &str {
    text(v, &["metadata", "uid"])
}

/// Now, as `metav1.Time` is written: RFC 3339 with seconds, in UTC.
pub fn time_text(t: jiff::Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Now, as `metav1.MicroTime` is written: RFC 3339 with microseconds, in UTC.
pub fn micro_time_text(t: jiff::Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_read_and_made() {
        let mut v = json!({"a": {"b": "x"}});
        assert_eq!(text(&v, &["a", "b"]), "x");
        map_mut(&mut v, &["c", "d"]).insert("e".into(), 1.into());
        assert_eq!(int(&v, &["c", "d", "e"]), Some(1));
    }

    #[test]
    fn times_have_the_two_forms() {
        let t = jiff::Timestamp::from_second(0).expect("epoch");
        assert_eq!(time_text(t), "1970-01-01T00:00:00Z");
        assert_eq!(micro_time_text(t), "1970-01-01T00:00:00.000000Z");
    }
}
