//! PersistentVolumes.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, list, map_mut, name, text};
use kontiki_api::{ApiError, Quantity, names};
use serde_json::{Value, json};

use super::checks::{
    Errors, add_finalizer, complain, default_text, default_value, keep, map_of, member, same,
};
use super::columns::{AGE, NAME, age, string, wide};
use super::persistentvolumeclaim::{ACCESS_MODES, short_modes, volume_mode};
use super::pod_spec::affinity::node_selector;
use super::pod_spec::defaults::volume_source;
use super::pod_spec::volumes::host_path;
use crate::strategy::{Column, Context, Strategy};

/// The strategy of persistentvolumes.
pub(super) struct PersistentVolume;

static COLUMNS: [Column; 11] = [
    NAME,
    string(
        "Capacity",
        "capacity is the description of the persistent volume's resources and capacity. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#capacity",
    ),
    string(
        "Access Modes",
        "accessModes contains all ways the volume can be mounted. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes",
    ),
    string(
        "Reclaim Policy",
        "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim. Valid options are Retain (default for manually created PersistentVolumes), Delete (default for dynamically provisioned PersistentVolumes), and Recycle (deprecated). Recycle must be supported by the volume plugin underlying this PersistentVolume. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#reclaiming",
    ),
    string(
        "Status",
        "phase indicates if a volume is available, bound to a claim, or released by a claim. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#phase",
    ),
    string(
        "Claim",
        "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim. Expected to be non-nil when bound. claim.VolumeName is the authoritative bind between PV and PVC. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#binding",
    ),
    string("StorageClass", "StorageClass of the pv"),
    string("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
    string(
        "Reason",
        "reason is a brief CamelCase string that describes any failure and is meant for machine parsing and tidy display in the CLI.",
    ),
    AGE,
    wide(
        "VolumeMode",
        "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw block state. Value of Filesystem is implied when not included in spec.",
    ),
];

/// The finalizer that keeps a volume while a claim has it.
const PROTECTION: &str = "kubernetes.io/pv-protection";
const POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
/// The sources of a volume, in the order in which upstream looks at them.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

impl Strategy for PersistentVolume {
    fn default(&self, object: &mut Value) {
        default_value(object, "spec", json!({}));
        if let Some(spec) = map_of(object, "spec") {
            default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
            default_value(spec, "volumeMode", "Filesystem");
            volume_source(spec);
        }
        default_value(object, "status", json!({}));
        if let Some(status) = map_of(object, "status") {
            default_text(status, "phase", "Pending");
        }
    }

    fn prepare_for_create(&self, cx: &Context<'_>, object: &mut Value) {
        let status = json!({"phase": "Pending", "lastPhaseTransitionTime": cx.now});
        map_mut(object, &[]).insert("status".into(), status);
    }

    fn admit_create(&self, _cx: &Context<'_>, object: &mut Value) -> Result<(), ApiError> {
        add_finalizer(object, PROTECTION);
        Ok(())
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        let Some(spec) = object.get("spec") else {
            return errors;
        };
        let modes = list(spec, &["accessModes"]);
        if modes.is_empty() {
            errors.push(Error::required(&at.child("accessModes"), ""));
        }
        for mode in modes
            .iter()
            .filter_map(Value::as_str)
            .filter(|m| !ACCESS_MODES.contains(m))
        {
            errors.push(Error::not_supported(
                &at.child("accessModes"),
                mode,
                &ACCESS_MODES,
            ));
        }
        capacity(&mut errors, &at.child("capacity"), spec);
        source(&mut errors, &at, spec);
        let policy = text(spec, &["persistentVolumeReclaimPolicy"]);
        if !POLICIES.contains(&policy) {
            errors.push(Error::not_supported(
                &at.child("persistentVolumeReclaimPolicy"),
                policy,
                &POLICIES,
            ));
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
        if let Some(selector) = get(spec, &["nodeAffinity", "required"]) {
            node_selector(
                &mut errors,
                &at.child("nodeAffinity").child("required"),
                selector,
            );
        } else if member(spec, "local").is_some() {
            errors.push(Error::required(
                &at.child("nodeAffinity"),
                "Local volume requires node affinity",
            ));
        }
        errors
    }

    fn prepare_for_update(&self, _cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(cx, new);
        let (spec, was) = (&new["spec"], &old["spec"]);
        if SOURCES.iter().any(|key| {
            !same(spec.get(key), was.get(key)) || spec.get(key).is_some() != was.get(key).is_some()
        }) {
            let path = Path::new("spec").child("persistentvolumesource");
            errors.push(Error::forbidden(
                &path,
                "spec.persistentvolumesource is immutable after creation",
            ));
        }
        if !same(spec.get("volumeMode"), was.get("volumeMode")) {
            let path = Path::new("spec").child("volumeMode");
            errors.push(Error::invalid(
                &path,
                spec["volumeMode"].clone(),
                "field is immutable",
            ));
        }
        errors
    }

    fn prepare_for_status_update(&self, cx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
        if text(new, &["status", "phase"]) != text(old, &["status", "phase"]) {
            map_mut(new, &["status"]).insert("lastPhaseTransitionTime".into(), cx.now.into());
        } else if let Some(t) = get(old, &["status", "lastPhaseTransitionTime"]).cloned() {
            map_mut(new, &["status"])
                .entry("lastPhaseTransitionTime")
                .or_insert(t);
        }
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
        let claim = match get(object, &["spec", "claimRef"]) {
            Some(c) => format!("{}/{}", text(c, &["namespace"]), text(c, &["name"])),
            None => String::new(),
        };
        let spec = |key: &str| text(object, &["spec", key]);
        let or_unset = |key: &str| {
            get(object, &["spec", key])
                .and_then(Value::as_str)
                .unwrap_or("<unset>")
                .into()
        };
        vec![
            name(object).into(),
            text(object, &["spec", "capacity", "storage"]).into(),
            short_modes(list(object, &["spec", "accessModes"])).into(),
            spec("persistentVolumeReclaimPolicy").into(),
            phase.into(),
            claim.into(),
            spec("storageClassName").into(),
            or_unset("volumeAttributesClassName"),
            text(object, &["status", "reason"]).into(),
            age(object, now),
            or_unset("volumeMode"),
        ]
    }
}

fn capacity(errors: &mut Errors, at: &Path, spec: &Value) {
    let all = get(spec, &["capacity"])
        .and_then(Value::as_object)
        .filter(|m| !m.is_empty());
    if all.is_none() {
        errors.push(Error::required(at, ""));
    }
    if all.is_none_or(|m| !m.contains_key("storage") || m.len() > 1) {
        let shown = all.map_or_else(|| json!({}), |m| Value::Object(m.clone()));
        errors.push(Error::not_supported(at, shown, &["storage"]));
    }
    for (key, value) in all.into_iter().flatten() {
        let q = value.as_str().and_then(|s| s.parse::<Quantity>().ok());
        if q.is_some_and(|q| q.is_zero() || q.is_negative()) {
            errors.push(Error::invalid(
                &at.key(key),
                value.clone(),
                "must be greater than zero",
            ));
        }
    }
}

fn source(errors: &mut Errors, at: &Path, spec: &Value) {
    let mut found = 0;
    for key in SOURCES {
        let Some(s) = member(spec, key) else { continue };
        found += 1;
        let path = at.child(key);
        if found > 1 {
            errors.push(Error::forbidden(
                &path,
                "may not specify more than 1 volume type",
            ));
            continue;
        }
        match key {
            "hostPath" => host_path(errors, &path, s),
            "csi" => {
                for key in ["driver", "volumeHandle"] {
                    if text(s, &[key]).is_empty() {
                        errors.push(Error::required(&path.child(key), ""));
                    }
                }
            }
            "nfs" => {
                for key in ["server", "path"] {
                    if text(s, &[key]).is_empty() {
                        errors.push(Error::required(&path.child(key), ""));
                    }
                }
            }
            "local" if text(s, &["path"]).is_empty() => {
                errors.push(Error::required(&path.child("path"), ""));
            }
            _ => {}
        }
    }
    if found == 0 {
        errors.push(Error::required(at, "must specify a volume type"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    fn volume() -> Value {
        idempotent(
            &PersistentVolume,
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}}),
        )
    }

    #[test]
    fn a_volume_has_one_source_and_a_size() {
        assert!(PersistentVolume.validate(&cx(), &volume()).is_empty());
        let mut o = volume();
        o["spec"]["csi"] = json!({"driver": "d", "volumeHandle": "h"});
        o["spec"]["capacity"] = json!({});
        assert_eq!(
            fields(&PersistentVolume.validate(&cx(), &o)),
            ["spec.capacity", "spec.capacity", "spec.csi"]
        );
    }

    #[test]
    fn the_source_stays() {
        let (old, mut new) = (volume(), volume());
        new["spec"]["hostPath"]["path"] = "/y".into();
        assert_eq!(
            fields(&PersistentVolume.validate_update(&cx(), &new, &old)),
            ["spec.persistentvolumesource"]
        );
    }
}
