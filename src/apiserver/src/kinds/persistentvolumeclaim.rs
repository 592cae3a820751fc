//! PersistentVolumeClaims.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, list, map_mut, name, text};
use kontiki_api::{ApiError, Quantity, names};
use serde_json::{Value, json};

use super::checks::{
    Errors, add_finalizer, clear, complain, default_text, default_value, keep, label_selector,
    map_of, member, same,
};
use super::columns::{AGE, NAME, age, string, wide};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of persistentvolumeclaims.
pub(super) struct PersistentVolumeClaim;

static COLUMNS: [Column; 9] = [
    NAME,
    string(
        "Status",
        "phase represents the current phase of PersistentVolumeClaim.",
    ),
    string(
        "Volume",
        "volumeName is the binding reference to the PersistentVolume backing this claim.",
    ),
    string(
        "Capacity",
        "capacity represents the actual resources of the underlying volume.",
    ),
    string(
        "Access Modes",
        "accessModes contains the actual access modes the volume backing the PVC has. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes-1",
    ),
    string("StorageClass", "StorageClass of the pvc"),
    string("VolumeAttributesClass", "VolumeAttributesClass of the pvc"),
    AGE,
    wide(
        "VolumeMode",
        "volumeMode defines what type of volume is required by the claim. Value of Filesystem is implied when not included in claim spec.",
    ),
];

/// The finalizer that keeps a claim while pods use it.
const PROTECTION: &str = "kubernetes.io/pvc-protection";
/// The annotation of a storage class that claims without a class get.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// The ways in which a volume can be mounted.
pub(super) const ACCESS_MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
/// How a volume is presented.
pub(super) const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// The defaults of a claim, also of one in a template.
pub(super) fn default_claim(claim: &mut Value) {
    default_value(claim, "spec", json!({}));
    if let Some(spec) = map_of(claim, "spec") {
        default_value(spec, "resources", json!({}));
        default_value(spec, "volumeMode", "Filesystem");
    }
    default_value(claim, "status", json!({}));
    if let Some(status) = map_of(claim, "status") {
        default_text(status, "phase", "Pending");
    }
}

impl Strategy for PersistentVolumeClaim {
    fn default(&self, object: &mut Value) {
        default_claim(object);
    }

    fn prepare_for_create(&self, _cx: &Context<'_>, object: &mut Value) {
        map_mut(object, &[]).insert("status".into(), json!({"phase": "Pending"}));
        // Only a source that can be cloned or restored means anything.
        let source = get(object, &["spec", "dataSource"]);
        let kind = source.map_or("", |s| text(s, &["kind"]));
        if source.is_some()
            && !matches!(kind, "PersistentVolumeClaim" | "VolumeSnapshot")
            && let Some(spec) = map_of(object, "spec")
        {
            clear(spec, "dataSource");
        }
    }

    fn admit_create(&self, cx: &Context<'_>, object: &mut Value) -> Result<(), ApiError> {
        add_finalizer(object, PROTECTION);
        if member(&object["spec"], "storageClassName").is_some() {
            return Ok(());
        }
        // The default class; of several, the newest.
        let mut found: Option<(String, String)> = None;
        cx.objects
            .each("storage.k8s.io", "storageclasses", &mut |c| {
                let made = text(c, &["metadata", "creationTimestamp"]);
                let newer = found
                    .as_ref()
                    .is_none_or(|(t, n)| (made, n.as_str()) > (t, name(c)));
                if text(c, &["metadata", "annotations", DEFAULT_CLASS]) == "true" && newer {
                    found = Some((made.to_owned(), name(c).to_owned()));
                }
            });
        if let Some((_, class)) = found {
            map_mut(object, &["spec"]).insert("storageClassName".into(), class.into());
        }
        Ok(())
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let Some(spec) = object.get("spec") else {
            return errors;
        };
        access_modes(&mut errors, &at, spec);
        if let Some(s) = member(spec, "selector") {
            label_selector(&mut errors, &at.child("selector"), s);
        }
        let path = at.child("resources").key("storage");
        match get(spec, &["resources", "requests", "storage"]).and_then(Value::as_str) {
            None => errors.push(Error::required(&path, "")),
            Some(s)
                if s.parse::<Quantity>()
                    .is_ok_and(|q| q.is_zero() || q.is_negative()) =>
            {
                errors.push(Error::invalid(&path, s, "must be greater than zero"));
            }
            Some(_) => {}
        }
        let class = text(spec, &["storageClassName"]);
        if !class.is_empty() {
            complain(
                &mut errors,
                &at.child("storageClassName"),
                class,
                names::dns1123_subdomain(class),
            );
        }
        volume_mode(&mut errors, &at, spec);
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(cx, new);
        let at = Path::new("spec");
        let (mut spec, mut was) = (new["spec"].clone(), old["spec"].clone());
        let size = |v: &Value| get(v, &["resources", "requests", "storage"]).cloned();
        let bound = text(old, &["status", "phase"]) == "Bound";
        let parsed = |v: Option<Value>| v.and_then(|s| s.as_str()?.parse::<Quantity>().ok());
        let smaller = parsed(size(&spec)) < parsed(size(&was));
        if bound && smaller {
            let why = "field can not be less than status.capacity";
            errors.push(Error::forbidden(
                &at.child("resources").child("requests").child("storage"),
                why,
            ));
        }
        for v in [&mut spec, &mut was] {
            // A claim may be bound once, grow once it is bound, and change its attributes.
            clear(v, "volumeAttributesClassName");
            if bound {
                clear(v, "resources");
            }
        }
        if text(&was, &["volumeName"]).is_empty() {
            clear(&mut spec, "volumeName");
        }
        if was.get("storageClassName").is_none() {
            clear(&mut spec, "storageClassName");
        }
        if !same(Some(&spec), Some(&was)) {
            let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
            errors.push(Error::forbidden(&at, why));
        }
        errors
    }

    fn prepare_for_status_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let deleting = !text(object, &["metadata", "deletionTimestamp"]).is_empty();
        let phase = if deleting {
            "Terminating"
        } else {
            text(object, &["status", "phase"])
        };
        let volume = text(object, &["spec", "volumeName"]);
        let (modes, capacity) = if volume.is_empty() {
            (String::new(), "")
        } else {
            (
                short_modes(list(object, &["status", "accessModes"])),
                text(object, &["status", "capacity", "storage"]),
            )
        };
        let attributes =
            get(object, &["spec", "volumeAttributesClassName"]).and_then(Value::as_str);
        vec![
            name(object).into(),
            phase.into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            text(object, &["spec", "storageClassName"]).into(),
            attributes.unwrap_or("<unset>").into(),
            age(object, now),
            get(object, &["spec", "volumeMode"])
                .and_then(Value::as_str)
                .unwrap_or("<unset>")
                .into(),
        ]
    }
}

/// The access modes of claims.
fn access_modes(errors: &mut Errors, at: &Path, spec: &Value) {
    let modes = list(spec, &["accessModes"]);
    let path = at.child("accessModes");
    if modes.is_empty() {
        errors.push(Error::required(&path, "at least 1 access mode is required"));
    }
    for mode in modes.iter().filter_map(Value::as_str) {
        if !ACCESS_MODES.contains(&mode) {
            errors.push(Error::not_supported(&path, mode, &ACCESS_MODES));
        }
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        errors.push(Error::forbidden(
            &path,
            "may not use ReadWriteOncePod with other access modes",
        ));
    }
}

/// The volume mode of claims and of volumes.
pub(super) fn volume_mode(errors: &mut Errors, at: &Path, spec: &Value) {
    if let Some(mode) = member(spec, "volumeMode").and_then(Value::as_str)
        && !VOLUME_MODES.contains(&mode)
    {
        errors.push(Error::not_supported(
            &at.child("volumeMode"),
            mode,
            &VOLUME_MODES,
        ));
    }
}

/// Access modes in their short form, each once, in upstream's order.
pub(super) fn short_modes(modes: &[Value]) -> String {
    let known = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let shown: Vec<&str> = known
        .iter()
        .filter(|(mode, _)| modes.iter().any(|m| m == mode))
        .map(|(_, s)| *s)
        .collect();
    shown.join(",")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixed, cx, fields, idempotent, with};
    use super::*;

    fn claim() -> Value {
        idempotent(
            &PersistentVolumeClaim,
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        )
    }

    #[test]
    fn a_claim_gets_the_newest_default_class() {
        let class = |name: &str, made: &str, default: &str| {
            let meta = json!({"name": name, "creationTimestamp": made, "annotations": {DEFAULT_CLASS: default}});
            (
                "storage.k8s.io",
                "storageclasses",
                json!({"metadata": meta}),
            )
        };
        let all = Fixed(vec![
            class("a", "2020", "true"),
            class("b", "2021", "true"),
            class("c", "2022", "false"),
        ]);
        let mut o = claim();
        PersistentVolumeClaim
            .admit_create(&with(&all), &mut o)
            .expect("admitted");
        assert_eq!(o["spec"]["storageClassName"], "b");
        assert_eq!(o["metadata"]["finalizers"], json!([PROTECTION]));
    }

    #[test]
    fn mistakes_are_named() {
        let o = json!({"spec": {"accessModes": ["x"], "volumeMode": "y", "storageClassName": "A B",
            "resources": {"requests": {"storage": "0"}}}});
        assert_eq!(
            fields(&PersistentVolumeClaim.validate(&cx(), &o)),
            [
                "spec.accessModes",
                "spec.resources[storage]",
                "spec.storageClassName",
                "spec.volumeMode"
            ]
        );
        assert!(PersistentVolumeClaim.validate(&cx(), &claim()).is_empty());
    }

    #[test]
    fn only_a_bound_claim_grows() {
        let (old, mut new) = (claim(), claim());
        new["spec"]["resources"]["requests"]["storage"] = "2Gi".into();
        assert_eq!(
            fields(&PersistentVolumeClaim.validate_update(&cx(), &new, &old)),
            ["spec"]
        );
        let mut bound = old;
        bound["status"]["phase"] = "Bound".into();
        assert!(
            PersistentVolumeClaim
                .validate_update(&cx(), &new, &bound)
                .is_empty()
        );
        let mut named = new.clone();
        named["spec"]["resources"]["requests"]["storage"] = "1Gi".into();
        named["spec"]["volumeName"] = "v".into();
        assert!(
            PersistentVolumeClaim
                .validate_update(&cx(), &named, &claim())
                .is_empty()
        );
    }
}
