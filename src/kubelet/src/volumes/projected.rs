//! `configMap`, `secret`, `downwardAPI` and `projected`: files made from objects of the API, replaced as they change.

use std::fs;
use std::path::PathBuf;

use async_trait::async_trait;

use super::atomic::{self, Files};
use super::{Context, Plugin, VolumeError, file_error};
use crate::downward::{field_value, resource_value};
use crate::materials::Data;
use crate::pod::volume::{DownwardSource, KeyToPath, Projection, TokenProjection};
use crate::pod::{Amount, Pod, Volume};

const MODE_DEFAULT: u32 = 0o644;

/// The plugin.
#[derive(Debug)]
pub struct Projected;

#[async_trait]
impl Plugin for Projected {
    fn dir_name(&self) -> &'static str {
        "kubernetes.io~projected"
    }

    fn handles(&self, v: &Volume) -> bool {
        v.config_map.is_some()
            || v.secret.is_some()
            || v.downward_api.is_some()
            || v.projected.is_some()
    }

    async fn set_up(&self, c: &Context<'_>, volume: &Volume) -> Result<PathBuf, VolumeError> {
        if !c.dir.is_dir() {
            fs::create_dir_all(&c.dir).map_err(file_error("make", &c.dir))?;
            // Secrets never touch a disk.
            if (volume.secret.is_some() || volume.projected.is_some())
                && !c.mounts.below(&c.dir)?.contains(&c.dir)
            {
                c.mounts.tmpfs(&c.dir, None)?;
            }
        }
        atomic::write(&c.dir, &files(c, volume).await?)?;
        Ok(c.dir.clone())
    }

    async fn refresh(&self, c: &Context<'_>, volume: &Volume) -> Result<(), VolumeError> {
        let changed = atomic::write(&c.dir, &files(c, volume).await?)?;
        if let Some(group) = c
            .pod
            .spec
            .security_context
            .as_ref()
            .and_then(|s| s.fs_group)
            .filter(|_| changed)
        {
            super::own_by_group(&c.dir, group)?;
        }
        Ok(())
    }
}

async fn files(c: &Context<'_>, volume: &Volume) -> Result<Files, VolumeError> {
    let (sources, default_mode) = match (
        &volume.projected,
        &volume.config_map,
        &volume.secret,
        &volume.downward_api,
    ) {
        (Some(p), ..) => (p.sources.clone(), p.default_mode),
        (_, Some(m), ..) => (
            vec![Projection {
                config_map: Some(m.clone()),
                ..Projection::default()
            }],
            m.default_mode,
        ),
        (_, _, Some(s), _) => (
            vec![Projection {
                secret: Some(s.clone()),
                ..Projection::default()
            }],
            s.default_mode,
        ),
        (_, _, _, Some(d)) => (
            vec![Projection {
                downward_api: Some(d.clone()),
                ..Projection::default()
            }],
            d.default_mode,
        ),
        _ => (Vec::new(), None),
    };
    let mode = default_mode.unwrap_or(MODE_DEFAULT);
    let mut out = Files::new();
    for s in &sources {
        if let Some(m) = &s.config_map {
            let data = c.materials.config_map(&m.name);
            out.extend(keyed(
                "configmap",
                c.pod,
                &m.name,
                data,
                &m.items,
                m.optional == Some(true),
                mode,
            )?);
        }
        if let Some(m) = &s.secret {
            let data = c.materials.secret(&m.secret_name);
            out.extend(keyed(
                "secret",
                c.pod,
                &m.secret_name,
                data,
                &m.items,
                m.optional == Some(true),
                mode,
            )?);
        }
        if let Some(d) = &s.downward_api {
            out.extend(downward(c, d, mode)?);
        }
        if let Some(t) = &s.service_account_token {
            out.insert(
                t.path.clone(),
                (token(c, t).await?, token_mode(c.pod, mode)),
            );
        }
    }
    Ok(out)
}

/// A token is for the owner alone unless the pod's processes run as others.
fn token_mode(pod: &Pod, mode: u32) -> u32 {
    let fs_group = pod.spec.security_context.as_ref().and_then(|s| s.fs_group);
    if fs_group.is_some() {
        mode & !0o077 | 0o040
    } else {
        mode
    }
}

async fn token(c: &Context<'_>, t: &TokenProjection) -> Result<Vec<u8>, VolumeError> {
    let audience = t.audience.as_deref().filter(|a| !a.is_empty());
    let text = c
        .tokens
        .get(c.pod, audience, t.expiration_seconds.unwrap_or(3600))
        .await;
    text.map(String::into_bytes).map_err(VolumeError::Token)
}

fn keyed(
    kind: &'static str,
    pod: &Pod,
    name: &str,
    data: Option<&Data>,
    items: &[KeyToPath],
    optional: bool,
    mode: u32,
) -> Result<Files, VolumeError> {
    let Some(data) = data else {
        if optional {
            return Ok(Files::new());
        }
        return Err(VolumeError::Missing(format!("{kind} {name:?} not found")));
    };
    if items.is_empty() {
        return Ok(data
            .iter()
            .map(|(k, v)| (k.clone(), (v.clone(), mode)))
            .collect());
    }
    let mut out = Files::new();
    for i in items {
        match data.get(&i.key) {
            Some(v) => {
                out.insert(i.path.clone(), (v.clone(), i.mode.unwrap_or(mode)));
            }
            None if optional => {}
            None => {
                let ns = &pod.metadata.namespace;
                return Err(VolumeError::Missing(format!(
                    "{kind} {ns}/{name} references non-existent key: {}",
                    i.key
                )));
            }
        }
    }
    Ok(out)
}

fn downward(c: &Context<'_>, d: &DownwardSource, mode: u32) -> Result<Files, VolumeError> {
    let mut out = Files::new();
    for f in &d.items {
        let value = if let Some(field) = &f.field_ref {
            field_value(c.pod, &field.field_path, c.facts)
        } else if let Some(r) = &f.resource_field_ref {
            let name = r.container_name.as_deref().unwrap_or_default();
            let divisor = r
                .divisor
                .as_ref()
                .map_or(kontiki_api::Quantity::ZERO, Amount::quantity);
            match c.pod.container(name) {
                Some((container, _)) => resource_value(container, &r.resource, divisor, c.facts),
                None => Err(format!("container {name:?} not found")),
            }
        } else {
            Ok(String::new())
        };
        out.insert(
            f.path.clone(),
            (
                value.map_err(VolumeError::Refused)?.into_bytes(),
                f.mode.unwrap_or(mode),
            ),
        );
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_choose_keys_and_missing_ones_count_unless_optional() {
        let pod = Pod::default();
        let data: Data = [
            ("a".to_owned(), b"1".to_vec()),
            ("b".to_owned(), b"2".to_vec()),
        ]
        .into();
        let item = |key: &str| {
            vec![KeyToPath {
                key: key.into(),
                path: "x/y".into(),
                mode: Some(0o400),
            }]
        };
        let all = keyed("configmap", &pod, "m", Some(&data), &[], false, 0o644).expect("there");
        assert_eq!(all.len(), 2);
        let one = keyed(
            "configmap",
            &pod,
            "m",
            Some(&data),
            &item("a"),
            false,
            0o644,
        )
        .expect("there");
        assert_eq!(one["x/y"], (b"1".to_vec(), 0o400));
        assert!(
            keyed(
                "configmap",
                &pod,
                "m",
                Some(&data),
                &item("no"),
                false,
                0o644
            )
            .is_err()
        );
        assert!(
            keyed(
                "configmap",
                &pod,
                "m",
                Some(&data),
                &item("no"),
                true,
                0o644
            )
            .expect("optional")
            .is_empty()
        );
        assert!(keyed("secret", &pod, "m", None, &[], false, 0o644).is_err());
    }
}
