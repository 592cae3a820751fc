//! CronJobs.

mod schedule;

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, list, map_mut, name, text, truth};
use serde_json::{Value, json};

use super::checks::{Errors, default_text, default_value, keep, map_of, member, non_negative};
use super::columns::{AGE, NAME, age, boolean, containers, integer, selector, since, string, wide};
use super::job;
use super::pod_spec::default_template;
use crate::strategy::{Column, Context, Strategy};

/// The strategy of cronjobs.
pub(super) struct CronJob;

static COLUMNS: [Column; 10] = [
    NAME,
    string(
        "Schedule",
        "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron.",
    ),
    string(
        "Timezone",
        "The time zone name for the given schedule, see https://en.wikipedia.org/wiki/List_of_tz_database_time_zones. If not specified, this will default to the time zone of the kube-controller-manager process. The set of valid time zone names and the time zone offset is loaded from the system-wide time zone database by the API server during CronJob validation and the controller manager during execution. If no system-wide time zone database can be found a bundled version of the database is used instead. If the time zone name becomes invalid during the lifetime of a CronJob or due to a change in host configuration, the controller will stop creating new new Jobs and will create a system event with the reason UnknownTimeZone. More information can be found in https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#time-zones",
    ),
    boolean(
        "Suspend",
        "This flag tells the controller to suspend subsequent executions, it does not apply to already started executions.  Defaults to false.",
    ),
    integer("Active", "A list of pointers to currently running jobs."),
    string(
        "Last Schedule",
        "Information when was the last time the job was successfully scheduled.",
    ),
    AGE,
    wide("Containers", "Names of each container in the template."),
    wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
    wide(
        "Selector",
        "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

/// The most bytes of a cron job's name: its jobs append the time.
const NAME_BYTES_MAX: usize = 52;
const POLICIES: [&str; 3] = ["Allow", "Forbid", "Replace"];

impl Strategy for CronJob {
    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        default_value(object, "spec", json!({}));
        let Some(spec) = map_of(object, "spec") else {
            return;
        };
        default_text(spec, "concurrencyPolicy", "Allow");
        default_value(spec, "suspend", false);
        default_value(spec, "successfulJobsHistoryLimit", 3);
        default_value(spec, "failedJobsHistoryLimit", 1);
        default_value(spec, "jobTemplate", json!({}));
        let Some(template) = map_of(spec, "jobTemplate") else {
            return;
        };
        default_value(template, "metadata", json!({}));
        default_value(template, "spec", json!({}));
        if let Some(s) = map_of(template, "spec") {
            default_template(s);
        }
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        map_mut(object, &[]).insert("status".into(), json!({}));
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let Some(spec) = object.get("spec") else {
            return errors;
        };
        timing(&mut errors, &at, spec);
        for key in [
            "startingDeadlineSeconds",
            "successfulJobsHistoryLimit",
            "failedJobsHistoryLimit",
        ] {
            non_negative(&mut errors, &at, spec, key);
        }
        let policy = text(spec, &["concurrencyPolicy"]);
        if policy.is_empty() {
            errors.push(Error::required(&at.child("concurrencyPolicy"), ""));
        } else if !POLICIES.contains(&policy) {
            errors.push(Error::not_supported(
                &at.child("concurrencyPolicy"),
                policy,
                &POLICIES,
            ));
        }
        let template = get(spec, &["jobTemplate", "spec"]).unwrap_or(&Value::Null);
        let path = at.child("jobTemplate").child("spec");
        job::validate_spec(&mut errors, &path, template);
        if truth(template, &["manualSelector"]) {
            errors.push(Error::not_supported(
                &path.child("manualSelector"),
                true,
                &["nil", "false"],
            ));
        }
        let own = name(object);
        if own.len() > NAME_BYTES_MAX {
            let why = format!("must be no more than {NAME_BYTES_MAX} characters");
            errors.push(Error::invalid(
                &Path::new("metadata").child("name"),
                own,
                why,
            ));
        }
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn prepare_for_status_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [names, images] = containers(get(object, &["spec", "jobTemplate", "spec", "template"]));
        let last = text(object, &["status", "lastScheduleTime"]);
        let zone = get(object, &["spec", "timeZone"])
            .and_then(Value::as_str)
            .unwrap_or("<none>");
        vec![
            name(object).into(),
            text(object, &["spec", "schedule"]).into(),
            zone.into(),
            if truth(object, &["spec", "suspend"]) {
                "True"
            } else {
                "False"
            }
            .into(),
            list(object, &["status", "active"]).len().into(),
            if last.is_empty() {
                "<none>".into()
            } else {
                since(last, now).into()
            },
            age(object, now),
            names,
            images,
            selector(get(object, &["spec", "jobTemplate", "spec", "selector"])),
        ]
    }
}

fn timing(errors: &mut Errors, at: &Path, spec: &Value) {
    let schedule = text(spec, &["schedule"]);
    let path = at.child("schedule");
    if schedule.is_empty() {
        errors.push(Error::required(&path, ""));
    } else if schedule.contains("TZ") {
        errors.push(Error::invalid(
            &path,
            schedule,
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        ));
    } else if let Err(why) = schedule::check(schedule) {
        errors.push(Error::invalid(&path, schedule, why));
    }
    let Some(zone) = member(spec, "timeZone").and_then(Value::as_str) else {
        return;
    };
    let path = at.child("timeZone");
    if zone.is_empty() {
        errors.push(Error::invalid(
            &path,
            zone,
            "timeZone must be nil or non-empty string",
        ));
    } else if zone.eq_ignore_ascii_case("local") {
        errors.push(Error::invalid(
            &path,
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        ));
    } else if !["UTC", "Etc/UTC"].contains(&zone) && jiff::tz::TimeZone::get(zone).is_err() {
        errors.push(Error::invalid(
            &path,
            zone,
            format!("unknown time zone {zone}"),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    fn cron(spec: Value) -> Vec<String> {
        let mut o = json!({"metadata": {"name": "c"}, "spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template":
            {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}}}});
        o["spec"]
            .as_object_mut()
            .expect("an object")
            .extend(spec.as_object().expect("an object").clone());
        fields(&CronJob.validate(&cx(), &idempotent(&CronJob, o)))
    }

    #[test]
    fn mistakes_are_named() {
        assert!(cron(json!({})).is_empty());
        assert_eq!(cron(json!({"schedule": "x"})), ["spec.schedule"]);
        assert_eq!(cron(json!({"schedule": ""})), ["spec.schedule"]);
        assert_eq!(
            cron(json!({"schedule": "TZ=UTC 0 * * * *"})),
            ["spec.schedule"]
        );
        assert_eq!(cron(json!({"timeZone": "Nope/Nope"})), ["spec.timeZone"]);
        assert_eq!(
            cron(json!({"concurrencyPolicy": "x"})),
            ["spec.concurrencyPolicy"]
        );
    }
}
