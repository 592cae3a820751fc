//! CSIDrivers.

use jiff::Timestamp;
use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, list, name, text, truth};
use serde_json::{Value, json};

use super::checks::{Errors, default_value, immutable, items_mut, map_of, unsupported};
use super::columns::{AGE, NAME, age, boolean, string};
use crate::strategy::{Column, Context, Strategy};

/// The strategy of csidrivers.
pub(super) struct CsiDriver;

static COLUMNS: [Column; 8] = [
    NAME,
    boolean(
        "AttachRequired",
        "attachRequired indicates this CSI volume driver requires an attach operation (because it implements the CSI ControllerPublishVolume() method), and that the Kubernetes attach detach controller should call the attach volume interface which checks the volumeattachment status and waits until the volume is attached before proceeding to mounting. The CSI external-attacher coordinates with CSI volume driver and updates the volumeattachment status when the attach operation is complete. If the value is specified to false, the attach operation will be skipped. Otherwise the attach operation will be called.\n\nThis field is immutable.",
    ),
    boolean(
        "PodInfoOnMount",
        "podInfoOnMount indicates this CSI volume driver requires additional pod information (like podName, podUID, etc.) during mount operations, if set to true. If set to false, pod information will not be passed on mount. Default is false.\n\nThe CSI driver specifies podInfoOnMount as part of driver deployment. If true, Kubelet will pass pod information as VolumeContext in the CSI NodePublishVolume() calls. The CSI driver is responsible for parsing and validating the information passed in as VolumeContext.\n\nThe following VolumeContext will be passed if podInfoOnMount is set to true. This list might grow, but the prefix will be used. \"csi.storage.k8s.io/pod.name\": pod.Name \"csi.storage.k8s.io/pod.namespace\": pod.Namespace \"csi.storage.k8s.io/pod.uid\": string(pod.UID) \"csi.storage.k8s.io/ephemeral\": \"true\" if the volume is an ephemeral inline volume\n                                defined by a CSIVolumeSource, otherwise \"false\"\n\n\"csi.storage.k8s.io/ephemeral\" is a new feature in Kubernetes 1.16. It is only required for drivers which support both the \"Persistent\" and \"Ephemeral\" VolumeLifecycleMode. Other drivers can leave pod info disabled and/or ignore this field. As Kubernetes 1.15 doesn't support this field, drivers can only support one mode when deployed on such a cluster and the deployment determines which mode that is, for example via a command line parameter of the driver.\n\nThis field was immutable in Kubernetes < 1.29 and now is mutable.",
    ),
    boolean(
        "StorageCapacity",
        "storageCapacity indicates that the CSI volume driver wants pod scheduling to consider the storage capacity that the driver deployment will report by creating CSIStorageCapacity objects with capacity information, if set to true.\n\nThe check can be enabled immediately when deploying a driver. In that case, provisioning new volumes with late binding will pause until the driver deployment has published some suitable CSIStorageCapacity object.\n\nAlternatively, the driver can be deployed with the field unset or false and it can be flipped later when storage capacity information has been published.\n\nThis field was immutable in Kubernetes <= 1.22 and now is mutable.",
    ),
    string(
        "TokenRequests",
        "tokenRequests indicates the CSI driver needs pods' service account tokens it is mounting volume for to do necessary authentication. Kubelet will pass the tokens in VolumeContext in the CSI NodePublishVolume calls. The CSI driver should parse and validate the following VolumeContext: \"csi.storage.k8s.io/serviceAccount.tokens\": {\n  \"<audience>\": {\n    \"token\": <token>,\n    \"expirationTimestamp\": <expiration timestamp in RFC3339>,\n  },\n  ...\n}\n\nNote: Audience in each TokenRequest should be different and at most one token is empty string. To receive a new token after expiry, RequiresRepublish can be used to trigger NodePublishVolume periodically.",
    ),
    boolean(
        "RequiresRepublish",
        "requiresRepublish indicates the CSI driver wants `NodePublishVolume` being periodically called to reflect any possible change in the mounted volume. This field defaults to false.\n\nNote: After a successful initial NodePublishVolume call, subsequent calls to NodePublishVolume should only update the contents of the volume. New mount points will not be seen by a running container.",
    ),
    string(
        "Modes",
        "volumeLifecycleModes defines what kind of volumes this CSI volume driver supports. The default if the list is empty is \"Persistent\", which is the usage defined by the CSI specification and implemented in Kubernetes via the usual PV/PVC mechanism.\n\nThe other mode is \"Ephemeral\". In this mode, volumes are defined inline inside the pod spec with CSIVolumeSource and their lifecycle is tied to the lifecycle of that pod. A driver has to be aware of this because it is only going to get a NodePublishVolume call for such a volume.\n\nFor more information about implementing this mode, see https://kubernetes-csi.github.io/docs/ephemeral-local-volumes.html A driver can support one or more of these modes and more modes may be added in the future.\n\nThis field is beta. This field is immutable.",
    ),
    AGE,
];

const MODES: [&str; 2] = ["Persistent", "Ephemeral"];
const POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];
/// How long a token for a driver is valid if it does not say.
const TOKEN_SECONDS: i64 = 3600;

impl Strategy for CsiDriver {
    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        default_value(object, "spec", json!({}));
        let Some(spec) = map_of(object, "spec") else {
            return;
        };
        default_value(spec, "attachRequired", true);
        default_value(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        for key in [
            "podInfoOnMount",
            "requiresRepublish",
            "seLinuxMount",
            "storageCapacity",
        ] {
            default_value(spec, key, false);
        }
        if list(spec, &["volumeLifecycleModes"]).is_empty() {
            spec["volumeLifecycleModes"] = json!(["Persistent"]);
        }
        for request in items_mut(spec, "tokenRequests") {
            default_value(request, "expirationSeconds", TOKEN_SECONDS);
        }
    }

    fn validate(&self, _cx: &Context<'_>, object: &Value) -> Errors {
        let mut errors = Errors::new();
        let at = Path::new("spec");
        for mode in list(object, &["spec", "volumeLifecycleModes"])
            .iter()
            .filter_map(Value::as_str)
        {
            if !MODES.contains(&mode) {
                errors.push(unsupported(&at.child("volumeLifecycleModes"), mode, &MODES));
            }
        }
        let policy = text(object, &["spec", "fsGroupPolicy"]);
        if !POLICIES.contains(&policy) {
            errors.push(Error::not_supported(
                &at.child("fsGroupPolicy"),
                policy,
                &POLICIES,
            ));
        }
        errors
    }

    fn validate_update(&self, cx: &Context<'_>, new: &Value, old: &Value) -> Errors {
        let mut errors = self.validate(cx, new);
        for key in ["attachRequired", "volumeLifecycleModes"] {
            let of = |v| get(v, &["spec", key]);
            immutable(&mut errors, &Path::new("spec").child(key), of(new), of(old));
        }
        errors
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let tokens = !list(new, &["spec", "tokenRequests"]).is_empty();
        if tokens && old.is_none() && get(new, &["spec", "serviceAccountTokenInSecrets"]).is_none()
        {
            return vec!["spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes".into()];
        }
        Vec::new()
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let flag = |key: &str| Value::from(truth(object, &["spec", key]));
        let joined = |all: Vec<&str>, none: &str| {
            if all.is_empty() {
                none.into()
            } else {
                all.join(",").into()
            }
        };
        let audiences = list(object, &["spec", "tokenRequests"])
            .iter()
            .map(|t| text(t, &["audience"]))
            .collect();
        let modes = list(object, &["spec", "volumeLifecycleModes"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        vec![
            name(object).into(),
            flag("attachRequired"),
            flag("podInfoOnMount"),
            flag("storageCapacity"),
            joined(audiences, "<unset>"),
            flag("requiresRepublish"),
            joined(modes, "<none>"),
            age(object, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cx, fields, idempotent};
    use super::*;

    #[test]
    fn defaults_and_checks() {
        let mut o = idempotent(
            &CsiDriver,
            json!({"spec": {"tokenRequests": [{"audience": "a"}]}}),
        );
        assert!(CsiDriver.validate(&cx(), &o).is_empty());
        assert_eq!(o["spec"]["volumeLifecycleModes"], json!(["Persistent"]));
        assert_eq!(
            (
                CsiDriver.warnings(&o, None).len(),
                CsiDriver.warnings(&o, Some(&o)).len()
            ),
            (1, 0)
        );
        o["spec"]["fsGroupPolicy"] = "x".into();
        o["spec"]["volumeLifecycleModes"] = json!(["x"]);
        assert_eq!(
            fields(&CsiDriver.validate(&cx(), &o)),
            ["spec.volumeLifecycleModes", "spec.fsGroupPolicy"]
        );
    }
}
