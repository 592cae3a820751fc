//! Events, of `v1` and of `events.k8s.io/v1`: the same objects with other names for some fields.
//!
//! The engine stores them as `v1`, and hooks see what is stored; what was written through the newer group is held to its
//! stricter rules.

use std::borrow::Cow;

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{get, int, text};
use serde_json::Value;

use super::checks::{Errors, complain, immutable, member};
use super::columns::{since, string, wide};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of events.
pub(super) struct Event {
    /// Whether these are the rules of `events.k8s.io/v1`.
    pub(super) strict: bool,
}

static COLUMNS: [Column; 10] = [
    string(
        "Last Seen",
        "The time at which the most recent occurrence of this event was recorded.",
    ),
    string(
        "Type",
        "Type of this event (Normal, Warning), new types could be added in the future",
    ),
    string(
        "Reason",
        "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
    ),
    string("Object", "The object that this event is about."),
    wide(
        "Subobject",
        "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \"name\" refers to the name of the container that triggered the event) or if no container name is specified \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have some well-defined way of referencing a part of an object.",
    ),
    wide(
        "Source",
        "The component reporting this event. Should be a short machine understandable string.",
    ),
    string(
        "Message",
        "A human-readable description of the status of this operation.",
    ),
    wide(
        "First Seen",
        "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
    ),
    wide("Count", "The number of times this event has occurred."),
    Column {
        priority: 1,
        ..super::columns::NAME
    },
];

/// The namespace of events about objects that are in none.
const CLUSTER_NAMESPACES: [&str; 2] = ["default", "kube-system"];
/// The most bytes of a reason, an action or a reporter of the newer group.
const WORD_BYTES_MAX: usize = 128;
/// The most bytes of a note of the newer group.
const NOTE_BYTES_MAX: usize = 1024;

/// A field by its name in `v1`, or by that in `events.k8s.io/v1`.
fn either<'a>(o: &'a Value, old: &str, new: &str) -> Option<&'a Value> {
    member(o, old).or_else(|| member(o, new))
}

fn either_text<'a>(o: &'a Value, old: &str, new: &str) -> &'a str {
    either(o, old, new)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn about(o: &Value) -> &Value {
    either(o, "involvedObject", "regarding").unwrap_or(&Value::Null)
}

impl Strategy for Event {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        if self.strict {
            return names::dns1123_subdomain(if prefix {
                name.trim_end_matches('-')
            } else {
                name
            });
        }
        // Older events are named after what they are about, whatever its name looks like.
        Vec::new()
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let own = match kontiki_api::object::namespace(object) {
            "" => cx.namespace,
            ns => ns,
        };
        let other = text(about(object), &["namespace"]);
        let matches = if other.is_empty() {
            CLUSTER_NAMESPACES.contains(&own)
        } else {
            other == own
        };
        let timed = !text(object, &["eventTime"]).is_empty();
        if !matches {
            let path = Path::new("involvedObject").child("namespace");
            errors.push(Error::invalid(
                &path,
                other,
                "does not match event.namespace",
            ));
        }
        if self.strict || timed {
            reporter(&mut errors, object, self.strict);
        }
        if self.strict {
            strict(&mut errors, object, timed);
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        if !self.strict {
            return self.validate(cx, new);
        }
        let mut errors = Errors::new();
        let fields = [
            ("involvedObject", "regarding"),
            // Upstream looks at the reason twice, and says so twice.
            ("reason", "reason"),
            ("reason", "reason"),
            ("message", "note"),
            ("source", "deprecatedSource"),
            ("firstTimestamp", "deprecatedFirstTimestamp"),
            ("lastTimestamp", "deprecatedLastTimestamp"),
            ("count", "deprecatedCount"),
            ("type", "type"),
            ("eventTime", "eventTime"),
            ("action", "action"),
            ("related", "related"),
            ("reportingComponent", "reportingController"),
            ("reportingInstance", "reportingInstance"),
        ];
        for (stored, served) in fields {
            let shown = if stored == "reportingComponent" {
                served
            } else {
                stored
            };
            immutable(
                &mut errors,
                &Path::new(shown),
                either(new, stored, served),
                either(old, stored, served),
            );
        }
        errors
    }

    fn field<'a>(&self, object: &'a Value, field: &str) -> Option<Cow<'a, str>> {
        if !self.selectable_fields().contains(&field) {
            return None;
        }
        let reporter = || either_text(object, "reportingComponent", "reportingController");
        Some(match field.split_once('.') {
            Some((_, member)) => text(about(object), &[member]).into(),
            None => match field {
                "reportingComponent" | "reportingController" => reporter().into(),
                "source" => match text(object, &["source", "component"]) {
                    "" => reporter().into(),
                    component => component.into(),
                },
                other => text(object, &[other]).into(),
            },
        })
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        // The engine has put the names of `v1` in the place of those of the newer group.
        if self.strict {
            return &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "source",
                "type",
            ];
        }
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let event_time = text(object, &["eventTime"]);
        let or_event_time = |t| if str::is_empty(t) { event_time } else { t };
        let first = or_event_time(either_text(
            object,
            "firstTimestamp",
            "deprecatedFirstTimestamp",
        ));
        let series = text(object, &["series", "lastObservedTime"]);
        let last = if series.is_empty() {
            or_event_time(either_text(
                object,
                "lastTimestamp",
                "deprecatedLastTimestamp",
            ))
        } else {
            series
        };
        let count = int(object, &["series", "count"]).or_else(|| {
            either(object, "count", "deprecatedCount")
                .and_then(Value::as_i64)
                .filter(|n| *n != 0)
        });
        let about = about(object);
        vec![
            since(last, now).into(),
            text(object, &["type"]).into(),
            text(object, &["reason"]).into(),
            format!(
                "{}/{}",
                text(about, &["kind"]).to_lowercase(),
                text(about, &["name"])
            )
            .into(),
            text(about, &["fieldPath"]).into(),
            source(object).into(),
            either_text(object, "message", "note").trim().into(),
            since(first, now).into(),
            count.unwrap_or(1).into(),
            kontiki_api::object::name(object).into(),
        ]
    }
}

/// Who says so, and where.
fn source(object: &Value) -> String {
    let source = either(object, "source", "deprecatedSource").unwrap_or(&Value::Null);
    let or = |a: &'_ str, b: &'_ str| {
        if a.is_empty() {
            b.to_owned()
        } else {
            a.to_owned()
        }
    };
    let component = or(
        text(source, &["component"]),
        either_text(object, "reportingComponent", "reportingController"),
    );
    let host = or(
        text(source, &["host"]),
        text(object, &["reportingInstance"]),
    );
    if host.is_empty() {
        component
    } else {
        format!("{component}, {host}")
    }
}

/// Who reports has to be named where the time of the event is.
fn reporter(errors: &mut Errors, object: &Value, strict: bool) {
    let controller = either_text(object, "reportingComponent", "reportingController");
    let path = Path::new("reportingController");
    if controller.is_empty() {
        errors.push(Error::required(&path, ""));
    }
    complain(errors, &path, controller, names::qualified_name(controller));
    for key in ["reportingInstance", "action", "reason"] {
        let value = text(object, &[key]);
        if value.is_empty() {
            errors.push(Error::required(&Path::new(key), ""));
        } else if value.len() > WORD_BYTES_MAX && (strict || key != "reason") {
            let why = format!("can have at most {WORD_BYTES_MAX} characters");
            errors.push(Error::invalid(&Path::new(key), "", why));
        }
    }
}

/// What only the newer group asks for.
fn strict(errors: &mut Errors, object: &Value, timed: bool) {
    if !timed {
        errors.push(Error::required(&Path::new("eventTime"), ""));
    }
    if either_text(object, "message", "note").len() > NOTE_BYTES_MAX {
        let why = format!("can have at most {NOTE_BYTES_MAX} characters");
        errors.push(Error::invalid(&Path::new("message"), "", why));
    }
    let kind = text(object, &["type"]);
    if !["Normal", "Warning"].contains(&kind) {
        errors.push(Error::invalid(
            &Path::new("type"),
            "",
            format!("has invalid value: {kind}"),
        ));
    }
    // These come with the older group only.
    let source = either(object, "source", "deprecatedSource").unwrap_or(&Value::Null);
    let set = [
        (
            "firstTimestamp",
            either(object, "firstTimestamp", "deprecatedFirstTimestamp").is_some(),
        ),
        (
            "lastTimestamp",
            either(object, "lastTimestamp", "deprecatedLastTimestamp").is_some(),
        ),
        (
            "count",
            either(object, "count", "deprecatedCount")
                .and_then(Value::as_i64)
                .unwrap_or(0)
                != 0,
        ),
        (
            "source",
            get(source, &["component"]).is_some() || get(source, &["host"]).is_some(),
        ),
    ];
    for (key, _) in set.iter().filter(|(_, is_set)| *is_set) {
        errors.push(Error::invalid(&Path::new(key), "", "needs to be unset"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{cx, fields};
    use super::*;

    const OLD: Event = Event { strict: false };
    const NEW: Event = Event { strict: true };

    #[test]
    fn an_event_is_where_its_object_is() {
        assert!(
            OLD.validate(&cx(), &json!({"involvedObject": {"namespace": "ns"}}))
                .is_empty()
        );
        let wrong = json!({"involvedObject": {"namespace": "other"}});
        assert_eq!(
            fields(&OLD.validate(&cx(), &wrong)),
            ["involvedObject.namespace"]
        );
    }

    #[test]
    fn the_newer_group_asks_for_more() {
        let o = json!({"eventTime": "2020-01-01T00:00:00.000000Z", "reportingComponent": "a/b", "reportingInstance": "i",
            "action": "A", "reason": "R", "type": "Normal", "involvedObject": {"namespace": "ns"}});
        assert!(NEW.validate(&cx(), &o).is_empty());
        let mut bad = o.clone();
        bad["type"] = "x".into();
        bad["eventTime"] = Value::Null;
        bad["count"] = 1.into();
        assert_eq!(
            fields(&NEW.validate(&cx(), &bad)),
            ["eventTime", "type", "count"]
        );
        let mut changed = o.clone();
        changed["reason"] = "S".into();
        assert_eq!(
            fields(&NEW.validate_update(&cx(), &changed, &o)),
            ["reason", "reason"]
        );
    }

    #[test]
    fn a_row_shows_either_form() {
        let now = "2020-01-01T00:01:00Z".parse().expect("a time");
        let old = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p"}, "type": "Normal",
            "source": {"component": "c", "host": "h"}, "lastTimestamp": "2020-01-01T00:00:00Z", "count": 2});
        let row = OLD.row(&old, now);
        assert_eq!(
            (&row[0], &row[3], &row[5], &row[8]),
            (&json!("60s"), &json!("pod/p"), &json!("c, h"), &json!(2))
        );
        let new = json!({"regarding": {"kind": "Pod", "name": "p"}, "reportingController": "c", "reportingInstance": "i",
            "note": "n ", "eventTime": "2020-01-01T00:00:30.000000Z", "series": {"count": 3}});
        let row = NEW.row(&new, now);
        assert_eq!(
            (&row[0], &row[5], &row[6], &row[8]),
            (&json!("30s"), &json!("c, i"), &json!("n"), &json!(3))
        );
    }

    #[test]
    fn fields_are_those_of_the_group() {
        let o = json!({"involvedObject": {"name": "p"}, "source": {"component": "c"}});
        assert_eq!(OLD.field(&o, "involvedObject.name").as_deref(), Some("p"));
        assert_eq!(NEW.field(&o, "involvedObject.name").as_deref(), Some("p"));
        assert_eq!(OLD.field(&o, "source").as_deref(), Some("c"));
        assert!(NEW.field(&o, "reportingComponent").is_none());
    }
}
