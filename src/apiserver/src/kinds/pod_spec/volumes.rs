//! Checks of volumes.

use std::collections::HashSet;

use kontiki_api::field::{Error, Path};
use kontiki_api::names;
use kontiki_api::object::{int, list, text};
use serde_json::Value;

use super::env::{field_ref, resource_ref};
use crate::kinds::checks::{Errors, complain, local_path, member, no_backsteps, unsupported};

/// The sources of a volume, in the order in which upstream looks at them.
const SOURCES: [&str; 29] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
];
const HOST_PATHS: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
/// The fields of a pod that a file may hold.
const FILE_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
const MODE_RANGE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
/// The shortest time that a token may be valid.
const TOKEN_SECONDS_MIN: i64 = 600;
/// The longest time that a token may be valid.
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// All volumes of a pod. Answers the names of those that are in order, which mounts may name.
pub(super) fn all<'a>(errors: &mut Errors, at: &Path, volumes: &'a [Value]) -> HashSet<&'a str> {
    let mut seen = HashSet::with_capacity(volumes.len());
    for (i, v) in volumes.iter().enumerate() {
        let at = at.index(i);
        let before = errors.len();
        source(errors, &at, v);
        let name = text(v, &["name"]);
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else {
            complain(errors, &at.child("name"), name, names::dns1123_label(name));
        }
        if seen.contains(name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        }
        if errors.len() == before {
            seen.insert(name);
        }
    }
    seen
}

fn source(errors: &mut Errors, at: &Path, v: &Value) {
    let mut found = 0;
    for key in SOURCES {
        let Some(s) = member(v, key) else { continue };
        found += 1;
        let at = at.child(key);
        if found > 1 {
            errors.push(Error::forbidden(
                &at,
                "may not specify more than 1 volume type",
            ));
            continue;
        }
        check(errors, &at, key, s);
    }
    if found == 0 && member(v, "image").is_none() {
        errors.push(Error::required(at, "must specify a volume type"));
    }
}

fn check(errors: &mut Errors, at: &Path, key: &str, s: &Value) {
    let mut need = |keys: &[&str]| {
        errors.extend(
            keys.iter()
                .filter(|k| text(s, &[k]).is_empty())
                .map(|k| Error::required(&at.child(k), "")),
        );
    };
    match key {
        "hostPath" => host_path(errors, at, s),
        "secret" => {
            need(&["secretName"]);
            files(errors, at, s);
        }
        "configMap" => {
            need(&["name"]);
            files(errors, at, s);
        }
        "persistentVolumeClaim" => need(&["claimName"]),
        "nfs" => {
            need(&["server", "path"]);
            let path = text(s, &["path"]);
            if !path.is_empty() && !path.starts_with('/') {
                errors.push(Error::invalid(
                    &at.child("path"),
                    path,
                    "must be an absolute path",
                ));
            }
        }
        "iscsi" => iscsi(errors, at, s),
        "downwardAPI" => {
            mode(errors, at, s, "defaultMode");
            downward(errors, &at.child("items"), list(s, &["items"]));
        }
        "projected" => projected(errors, at, s),
        "csi" => need(&["driver"]),
        "ephemeral" if member(s, "volumeClaimTemplate").is_none() => {
            errors.push(Error::required(&at.child("volumeClaimTemplate"), ""));
        }
        _ => {}
    }
}

/// The checks of a path on the node, for pods and for persistent volumes.
pub(in crate::kinds) fn host_path(errors: &mut Errors, at: &Path, s: &Value) {
    let path = text(s, &["path"]);
    if path.is_empty() {
        return errors.push(Error::required(&at.child("path"), ""));
    }
    no_backsteps(errors, &at.child("path"), path);
    let kind = text(s, &["type"]);
    if !HOST_PATHS.contains(&kind) {
        errors.push(unsupported(&at.child("type"), kind, &HOST_PATHS));
    }
}

fn iscsi(errors: &mut Errors, at: &Path, s: &Value) {
    if text(s, &["targetPortal"]).is_empty() {
        errors.push(Error::required(&at.child("targetPortal"), ""));
    }
    let iqn = text(s, &["iqn"]);
    if iqn.is_empty() {
        errors.push(Error::required(&at.child("iqn"), ""));
    } else if !["iqn", "eui", "naa"].iter().any(|p| iqn.starts_with(p)) {
        errors.push(Error::invalid(
            &at.child("iqn"),
            iqn,
            "must be valid format starting with iqn, eui, or naa",
        ));
    }
    let lun = int(s, &["lun"]).unwrap_or_default();
    if !(0..=255).contains(&lun) {
        errors.push(Error::invalid(
            &at.child("lun"),
            lun,
            "must be between 0 and 255, inclusive",
        ));
    }
}

fn mode(errors: &mut Errors, at: &Path, s: &Value, key: &str) {
    if let Some(n) = int(s, &[key])
        && !(0..=0o777).contains(&n)
    {
        errors.push(Error::invalid(&at.child(key), n, MODE_RANGE));
    }
}

/// The files that keys of a config map or a secret become.
fn files(errors: &mut Errors, at: &Path, s: &Value) {
    mode(errors, at, s, "defaultMode");
    for (i, item) in list(s, &["items"]).iter().enumerate() {
        let at = at.child("items").index(i);
        if text(item, &["key"]).is_empty() {
            errors.push(Error::required(&at.child("key"), ""));
        }
        file_path(errors, &at, item);
        mode(errors, &at, item, "mode");
    }
}

fn file_path(errors: &mut Errors, at: &Path, item: &Value) {
    let path = text(item, &["path"]);
    if path.is_empty() {
        return errors.push(Error::required(&at.child("path"), ""));
    }
    local_path(errors, &at.child("path"), path);
    if path.starts_with("..") && path.split('/').next() != Some("..") {
        errors.push(Error::invalid(
            &at.child("path"),
            path,
            "must not start with '..'",
        ));
    }
}

fn downward(errors: &mut Errors, at: &Path, items: &[Value]) {
    for (i, item) in items.iter().enumerate() {
        let at = at.index(i);
        file_path(errors, &at, item);
        match (member(item, "fieldRef"), member(item, "resourceFieldRef")) {
            (Some(f), other) => {
                field_ref(errors, &at.child("fieldRef"), f, &FILE_FIELDS);
                if other.is_some() {
                    errors.push(Error::invalid(
                        &at,
                        "resource",
                        "fieldRef and resourceFieldRef can not be specified simultaneously",
                    ));
                }
            }
            (None, Some(r)) => resource_ref(errors, &at.child("resourceFieldRef"), r, true),
            (None, None) => errors.push(Error::required(
                &at.child("fieldRef"),
                "one of fieldRef and resourceFieldRef is required",
            )),
        }
        mode(errors, &at, item, "mode");
    }
}

fn projected(errors: &mut Errors, at: &Path, s: &Value) {
    mode(errors, at, s, "defaultMode");
    for (i, source) in list(s, &["sources"]).iter().enumerate() {
        let at = at.child("sources").index(i);
        let mut found = 0;
        for key in [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ] {
            let Some(v) = member(source, key) else {
                continue;
            };
            found += 1;
            let at = at.child(key);
            if found > 1 {
                errors.push(Error::forbidden(
                    &at,
                    "may not specify more than 1 volume type per source",
                ));
                continue;
            }
            match key {
                "secret" | "configMap" => {
                    if text(v, &["name"]).is_empty() {
                        errors.push(Error::required(&at.child("name"), ""));
                    }
                    files(errors, &at, v);
                }
                "downwardAPI" => downward(errors, &at.child("items"), list(v, &["items"])),
                "serviceAccountToken" => token(errors, &at, v),
                _ => {}
            }
        }
        if found == 0 {
            errors.push(Error::required(&at, "must specify a source"));
        }
    }
}

fn token(errors: &mut Errors, at: &Path, v: &Value) {
    let seconds = int(v, &["expirationSeconds"]).unwrap_or(TOKEN_SECONDS_MIN);
    let path = at.child("expirationSeconds");
    if seconds < TOKEN_SECONDS_MIN {
        errors.push(Error::invalid(
            &path,
            seconds,
            "may not specify a duration less than 10 minutes",
        ));
    } else if seconds > TOKEN_SECONDS_MAX {
        errors.push(Error::invalid(
            &path,
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        ));
    }
    match text(v, &["path"]) {
        "" => errors.push(Error::required(&at.child("path"), "")),
        p => local_path(errors, &at.child("path"), p),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::fields;

    fn of(volumes: Value) -> Vec<String> {
        let mut e = Errors::new();
        all(&mut e, &Path::new("v"), volumes.as_array().expect("a list"));
        fields(&e)
    }

    #[test]
    fn a_volume_with_mistakes_is_not_there_for_mounts() {
        let volumes = json!([{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}, "hostPath": {"path": "/"}}]);
        let mut e = Errors::new();
        let names = all(&mut e, &Path::new("v"), volumes.as_array().expect("a list"));
        assert_eq!(names, HashSet::from(["a"]));
        assert_eq!(fields(&e), ["v[1].hostPath"]);
    }

    #[test]
    fn sources_are_checked() {
        assert_eq!(
            of(
                json!([{"name": "a", "hostPath": {"path": "../x"}}, {"name": "b", "secret": {}},
                {"name": "c", "configMap": {"name": "c", "defaultMode": 512, "items": [{"key": "k", "path": "/p"}]}},
                {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 1}}]}}])
            ),
            [
                "v[0].hostPath.path",
                "v[1].secret.secretName",
                "v[2].configMap.defaultMode",
                "v[2].configMap.items[0].path",
                "v[3].projected.sources[0].serviceAccountToken.expirationSeconds"
            ]
        );
        assert_eq!(
            of(json!([{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}])),
            ["v[1].name"]
        );
    }
}
