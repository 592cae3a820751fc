//! What the tables of several kinds share: columns, ages, and lists of containers.

use jiff::Timestamp;
use kontiki_api::labels::LabelSelector;
use kontiki_api::object::{get, list, name, text};
use serde::Deserialize;
use serde_json::Value;

use crate::strategy::{CREATED_DESCRIPTION, Column, NAME_DESCRIPTION};

/// The name column.
pub(super) const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: NAME_DESCRIPTION,
    priority: 0,
};
/// The age column.
pub(super) const AGE: Column = string("Age", CREATED_DESCRIPTION);

/// What the API's document says of a field of a struct of this group's `v1`.
///
/// # Panics
/// There is no such struct or field.
pub(super) fn described(group: &str, of: &str, path: &[&str]) -> &'static str {
    described_in(group, "v1", of, path)
}

/// The same for another version.
pub(super) fn described_in(group: &str, version: &str, of: &str, path: &[&str]) -> &'static str {
    let short = group.split('.').next().unwrap_or_default();
    let definition = format!("io.k8s.api.{short}.{version}.{of}");
    let mut schema = kontiki_schema::Schemas::builtin()
        .definition(&definition)
        .unwrap_or_else(|| panic!("there is no {definition}"))
        .schema();
    let mut words = "";
    for name in path {
        let p = schema
            .property(name)
            .unwrap_or_else(|| panic!("{definition} has no {name}"));
        words = p.description.as_ref();
        schema = &p.node;
    }
    words
}

/// A column of text.
pub(super) const fn string(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        kind: "string",
        format: "",
        description,
        priority: 0,
    }
}

/// A column of text for `-o wide`.
pub(super) const fn wide(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        kind: "string",
        format: "",
        description,
        priority: 1,
    }
}

/// A column of whole numbers.
pub(super) const fn integer(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        kind: "integer",
        format: "",
        description,
        priority: 0,
    }
}

/// A column of yes and no.
pub(super) const fn boolean(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        kind: "boolean",
        format: "",
        description,
        priority: 0,
    }
}

/// How long ago a duration is, as `kubectl get` prints it: at most two units, and fewer the longer it is.
pub(super) fn human_duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".into();
    }
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let pair = |big: i64, unit: char, rest: i64, small: char| match rest {
        0 => format!("{big}{unit}"),
        n => format!("{big}{unit}{n}{small}"),
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        pair(minutes, 'm', seconds % 60, 's')
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        pair(hours, 'h', minutes % 60, 'm')
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 192 {
        pair(days, 'd', hours % 24, 'h')
    } else if days < 365 * 2 {
        format!("{days}d")
    } else if days < 365 * 8 {
        pair(days / 365, 'y', days % 365, 'd')
    } else {
        format!("{}y", days / 365)
    }
}

/// How long before `now` a time of an object was.
pub(super) fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(t) => human_duration(now.as_second() - t.as_second()),
        Err(_) => "<unknown>".into(),
    }
}

/// The age of an object.
pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    since(text(object, &["metadata", "creationTimestamp"]), now).into()
}

/// The name and the age of an object with cells between them.
pub(super) fn named_row<const N: usize>(
    object: &Value,
    now: Timestamp,
    cells: [Value; N],
) -> Vec<Value> {
    let mut row = Vec::with_capacity(N + 2);
    row.push(name(object).into());
    row.extend(cells);
    row.push(age(object, now));
    row
}

/// The number at a path; 0 if there is none.
pub(super) fn number(object: &Value, path: &[&str]) -> Value {
    get(object, path)
        .and_then(Value::as_i64)
        .unwrap_or(0)
        .into()
}

/// The text, or `<none>` for an empty one.
pub(super) fn or_none(text: &str) -> Value {
    if text.is_empty() {
        "<none>".into()
    } else {
        text.into()
    }
}

/// The names and the images of a template's containers.
pub(super) fn containers(template: Option<&Value>) -> [Value; 2] {
    let all = template.map_or(&[][..], |t| list(t, &["spec", "containers"]));
    let join = |key| {
        all.iter()
            .map(|c| text(c, &[key]))
            .collect::<Vec<_>>()
            .join(",")
            .into()
    };
    [join("name"), join("image")]
}

/// A label selector in its text form; `<none>` if it takes everything.
pub(super) fn selector(selector: Option<&Value>) -> Value {
    let parsed = selector.and_then(|s| LabelSelector::deserialize(s).ok());
    match parsed.map(|s| s.to_selector()) {
        None => "<none>".into(),
        Some(Ok(s)) => or_none(&s.to_string()),
        Some(Err(_)) => "<error>".into(),
    }
}

/// A map of labels as `a=b,c=d`; `<none>` if it is empty.
pub(super) fn map_text(map: Option<&Value>) -> Value {
    let Some(map) = map.and_then(Value::as_object) else {
        return "<none>".into();
    };
    let pairs: Vec<String> = map
        .iter()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    or_none(&pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_lose_precision_as_they_grow() {
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (600, "10m"),
            (179 * 60, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (8 * 3600, "8h"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (49 * 3600, "2d1h"),
            (8 * 86400, "8d"),
            (729 * 86400, "729d"),
            (731 * 86400, "2y1d"),
            (3000 * 86400, "8y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn a_missing_time_is_unknown() {
        assert_eq!(since("", Timestamp::UNIX_EPOCH), "<unknown>");
        assert_eq!(
            since(
                "1970-01-01T00:00:00Z",
                Timestamp::from_second(5).expect("valid")
            ),
            "5s"
        );
    }
}
