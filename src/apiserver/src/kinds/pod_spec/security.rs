//! Checks of the security contexts of pods and of containers.

use kontiki_api::field::{Error, Path};
use kontiki_api::object::{get, list, text, truth};
use serde_json::Value;

use crate::kinds::checks::{Errors, invalid_shown, member, unsupported};

const ID_RANGE: &str = "must be between 0 and 2147483647, inclusive";
const SECCOMP: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

fn is_id(n: i64) -> bool {
    (0..=i64::from(i32::MAX)).contains(&n)
}

fn id(errors: &mut Errors, at: &Path, v: &Value, key: &str) {
    if let Some(n) = v.get(key).and_then(Value::as_i64)
        && !is_id(n)
    {
        errors.push(Error::invalid(&at.child(key), n, ID_RANGE));
    }
}

/// The security context of a pod.
pub(super) fn of_pod(errors: &mut Errors, at: &Path, sc: &Value, spec: &Value) {
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(errors, at, sc, key);
    }
    for (i, n) in list(sc, &["supplementalGroups"])
        .iter()
        .filter_map(Value::as_i64)
        .enumerate()
    {
        if !is_id(n) {
            errors.push(Error::invalid(
                &at.child("supplementalGroups").index(i),
                n,
                ID_RANGE,
            ));
        }
    }
    if truth(spec, &["shareProcessNamespace"]) && truth(spec, &["hostPID"]) {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(Error::invalid(
            &at.child("shareProcessNamespace"),
            true,
            why,
        ));
    }
    for (i, s) in list(sc, &["sysctls"]).iter().enumerate() {
        sysctl(errors, &at.child("sysctls").index(i), s);
    }
    let policy = text(sc, &["fsGroupChangePolicy"]);
    if !policy.is_empty() && !["Always", "OnRootMismatch"].contains(&policy) {
        errors.push(unsupported(
            &at.child("fsGroupChangePolicy"),
            policy,
            &["Always", "OnRootMismatch"],
        ));
    }
    profiles(errors, at, sc);
}

fn sysctl(errors: &mut Errors, at: &Path, s: &Value) {
    let name = text(s, &["name"]);
    let segment = |s: &str| {
        let edge =
            |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(s.chars().next())
            && edge(s.chars().next_back())
            && s.bytes()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_')
    };
    if name.is_empty() {
        errors.push(Error::required(&at.child("name"), ""));
    } else if name.len() > 253 || !name.split(['.', '/']).all(segment) {
        let why = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
        errors.push(Error::invalid(&at.child("name"), name, why));
    }
}

/// Seccomp and AppArmor profiles.
fn profiles(errors: &mut Errors, at: &Path, sc: &Value) {
    for key in ["seccompProfile", "appArmorProfile"] {
        let Some(p) = member(sc, key) else { continue };
        let at = at.child(key);
        let kind = text(p, &["type"]);
        let local = member(p, "localhostProfile").and_then(Value::as_str);
        match kind {
            "" => errors.push(Error::required(
                &at.child("type"),
                format!("type is required when {key} is set"),
            )),
            "Localhost" if local.is_none_or(str::is_empty) => {
                let why = "must be set when seccomp type is Localhost";
                errors.push(Error::required(&at.child("localhostProfile"), why));
            }
            "RuntimeDefault" | "Unconfined" if local.is_some() => {
                let why = "can only be set when seccomp type is Localhost";
                errors.push(Error::invalid(
                    &at.child("localhostProfile"),
                    local.unwrap_or_default(),
                    why,
                ));
            }
            k if !SECCOMP.contains(&k) => errors.push(unsupported(&at.child("type"), k, &SECCOMP)),
            _ => {}
        }
    }
}

/// The security context of a container.
pub(super) fn of_container(errors: &mut Errors, at: &Path, sc: &Value, host_users: Option<bool>) {
    id(errors, at, sc, "runAsUser");
    id(errors, at, sc, "runAsGroup");
    let mount = text(sc, &["procMount"]);
    if !mount.is_empty() && !["Default", "Unmasked"].contains(&mount) {
        errors.push(unsupported(
            &at.child("procMount"),
            mount,
            &["Default", "Unmasked"],
        ));
    }
    if mount == "Unmasked" && host_users != Some(false) {
        let why = "`hostUsers` must be false to use `Unmasked`";
        errors.push(Error::invalid(&at.child("procMount"), mount, why));
    }
    profiles(errors, at, sc);
    if sc.get("allowPrivilegeEscalation") != Some(&Value::Bool(false)) {
        return;
    }
    if truth(sc, &["privileged"]) {
        let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(invalid_shown(at, internal_form(sc), why));
    }
    if list(sc, &["capabilities", "add"])
        .iter()
        .any(|c| c == "CAP_SYS_ADMIN" || c == "SYS_ADMIN")
    {
        let why =
            "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.push(invalid_shown(at, internal_form(sc), why));
    }
}

/// A security context as upstream prints its internal type: every field, by the names of the Go struct.
fn internal_form(sc: &Value) -> String {
    const FIELDS: [(&str, &str); 12] = [
        ("Capabilities", "capabilities"),
        ("Privileged", "privileged"),
        ("SELinuxOptions", "seLinuxOptions"),
        ("WindowsOptions", "windowsOptions"),
        ("RunAsUser", "runAsUser"),
        ("RunAsGroup", "runAsGroup"),
        ("RunAsNonRoot", "runAsNonRoot"),
        ("ReadOnlyRootFilesystem", "readOnlyRootFilesystem"),
        ("AllowPrivilegeEscalation", "allowPrivilegeEscalation"),
        ("ProcMount", "procMount"),
        ("SeccompProfile", "seccompProfile"),
        ("AppArmorProfile", "appArmorProfile"),
    ];
    let field = |(go, json): (&str, &str)| {
        let value = match json {
            "capabilities" if sc.get(json).is_some() => {
                let part = |k| get(sc, &[json, k]).unwrap_or(&Value::Null);
                format!("{{\"Add\":{},\"Drop\":{}}}", part("add"), part("drop"))
            }
            _ => sc.get(json).unwrap_or(&Value::Null).to_string(),
        };
        format!("\"{go}\":{value}")
    };
    format!("{{{}}}", FIELDS.map(field).join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::fields;

    #[test]
    fn privileged_escalates() {
        let mut e = Errors::new();
        of_container(
            &mut e,
            &Path::new("sc"),
            &json!({"privileged": true, "allowPrivilegeEscalation": false}),
            None,
        );
        assert_eq!(fields(&e), ["sc"]);
        assert!(
            e[0].value
                .as_ref()
                .is_some_and(|v| v.starts_with("{\"Capabilities\":null,\"Privileged\":true,"))
        );
        e.clear();
        of_container(&mut e, &Path::new("sc"), &json!({"privileged": true}), None);
        assert!(e.is_empty());
    }

    #[test]
    fn ids_and_profiles_are_checked() {
        let mut e = Errors::new();
        let sc = json!({"runAsUser": -1, "supplementalGroups": [1, -2], "seccompProfile": {"type": "Localhost"},
            "sysctls": [{"name": "net.core.somaxconn"}, {"name": "A"}]});
        of_pod(&mut e, &Path::new("sc"), &sc, &json!({}));
        assert_eq!(
            fields(&e),
            [
                "sc.runAsUser",
                "sc.supplementalGroups[1]",
                "sc.sysctls[1].name",
                "sc.seccompProfile.localhostProfile"
            ]
        );
    }
}
