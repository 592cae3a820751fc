//! APIServices.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{int, list, name, text, truth};
use serde_json::{Value, json};

use super::checks::{Errors, PORT_RANGE, clear, default_int, is_port, keep, map_of, member};
use super::columns::{AGE, NAME, named_row, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of apiservices.
pub(super) struct ApiService;

static COLUMNS: [Column; 4] = [
    NAME,
    string(
        "Service",
        "The reference to the service that hosts this API endpoint.",
    ),
    string("Available", "Whether this service is available."),
    AGE,
];

const GROUP_PRIORITY_MAX: i64 = 20000;
const VERSION_PRIORITY_MAX: i64 = 1000;

impl Strategy for ApiService {
    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        names::path_segment(name)
    }

    fn default(&self, object: &mut Value) {
        if let Some(s) = map_of(object, "spec").and_then(|s| map_of(s, "service")) {
            default_int(s, "port", 443);
        }
    }

    fn prepare_for_create(&self, cx: &Context<'_>, object: &mut Value) {
        clear(object, "status");
        let local = object
            .get("spec")
            .is_none_or(|s| member(s, "service").is_none());
        object["status"] = if local {
            // The server answers these itself, as long as it is there.
            json!({"conditions": [{
                "type": "Available", "status": "True", "lastTransitionTime": cx.now,
                "reason": "Local", "message": "Local APIServices are always available",
            }]})
        } else {
            json!({})
        };
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let of = |key: &str| text(object, &["spec", key]);
        let wanted = format!("{}.{}", of("version"), of("group"));
        if name(object) != wanted {
            let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            errors.push(Error::invalid(
                &Path::new("metadata").child("name"),
                name(object),
                why,
            ));
        }
        for (key, max) in [
            ("groupPriorityMinimum", GROUP_PRIORITY_MAX),
            ("versionPriority", VERSION_PRIORITY_MAX),
        ] {
            let n = int(object, &["spec", key]).unwrap_or(0);
            if n <= 0 || n > max {
                let why = format!("must be positive and less than {max}");
                errors.push(Error::invalid(&at.child(key), n, why));
            }
        }
        let insecure = truth(object, &["spec", "insecureSkipTLSVerify"]);
        let bundle = !of("caBundle").is_empty();
        match object.get("spec").and_then(|s| member(s, "service")) {
            None => {
                if bundle {
                    let why = "local APIServices may not have a caBundle";
                    errors.push(Error::invalid(&at.child("caBundle"), of("caBundle"), why));
                }
                if insecure {
                    let why = "local APIServices may not have insecureSkipTLSVerify";
                    errors.push(Error::invalid(
                        &at.child("insecureSkipTLSVerify"),
                        true,
                        why,
                    ));
                }
            }
            Some(s) => {
                let at = at.child("service");
                for key in ["namespace", "name"] {
                    if text(s, &[key]).is_empty() {
                        errors.push(Error::required(&at.child(key), ""));
                    }
                }
                if let Some(p) = int(s, &["port"]).filter(|p| !is_port(*p)) {
                    errors.push(Error::invalid(&at.child("port"), p, PORT_RANGE));
                }
                if insecure && bundle {
                    let why = "may not be true if caBundle is present";
                    errors.push(Error::invalid(
                        &Path::new("spec").child("insecureSkipTLSVerify"),
                        true,
                        why,
                    ));
                }
            }
        }
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let service = object.get("spec").and_then(|s| member(s, "service"));
        let shown = service.map_or("Local".into(), |s| {
            format!("{}/{}", text(s, &["namespace"]), text(s, &["name"]))
        });
        let condition = list(object, &["status", "conditions"])
            .iter()
            .find(|c| text(c, &["type"]) == "Available");
        let available = condition.map_or("Unknown".into(), |c| match text(c, &["status"]) {
            "True" => "True".to_owned(),
            other => format!("{other} ({})", text(c, &["reason"])),
        });
        named_row(object, now, [shown.into(), available.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    #[test]
    fn names_and_priorities_fit_the_group() {
        let o = json!({"metadata": {"name": "v2.g"}, "spec": {
            "group": "g", "version": "v1", "versionPriority": 10, "insecureSkipTLSVerify": true, "caBundle": "eA==",
            "service": {"namespace": "n", "name": "s"},
        }});
        let o = idempotent(&ApiService, o);
        assert_eq!(o["spec"]["service"]["port"], 443);
        assert_eq!(
            fields(&ApiService.validate(&cx(), &o)),
            [
                "metadata.name",
                "spec.groupPriorityMinimum",
                "spec.insecureSkipTLSVerify"
            ]
        );
    }

    #[test]
    fn local_ones_are_available_at_once() {
        let mut o = json!({"metadata": {"name": "v1."}, "spec": {
            "version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1,
        }});
        ApiService.prepare_for_create(&cx(), &mut o);
        assert!(ApiService.validate(&cx(), &o).is_empty());
        assert_eq!(
            ApiService.row(&o, Timestamp::UNIX_EPOCH)[1..3],
            ["Local", "True"]
        );
    }
}
