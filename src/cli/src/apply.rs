//! `kontiki apply -f FILE`: server-side apply of each document of a file.

use std::io::Write;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use kontiki_api::{Resource, catalogue, object};
use kontiki_client::Remote;
use kontiki_reconcile::PatchKind;
use serde::Deserialize;
use serde_json::Value;

/// One object to apply.
#[derive(Debug, PartialEq)]
pub struct Manifest {
    /// Its resource.
    pub resource: &'static Resource,
    /// Its namespace; `default` where it names none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The object.
    pub object: Value,
}

/// Reads the documents of a YAML or JSON text.
///
/// # Errors
/// A document is not an object of a known kind with a name; the message says which one.
pub fn parse(text: &str) -> Result<Vec<Manifest>> {
    let mut out = Vec::new();
    for (i, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let object = Value::deserialize(document)
            .with_context(|| format!("document {} is not valid YAML", i + 1))?;
        if object.is_null() {
            continue;
        }
        let (api_version, kind) = (
            object::text(&object, &["apiVersion"]),
            object::text(&object, &["kind"]),
        );
        let Some(resource) = catalogue::by_api_version(api_version, kind) else {
            bail!(
                "document {}: there is no kind {kind:?} in version {api_version:?}",
                i + 1
            );
        };
        let name = object::name(&object).to_owned();
        if name.is_empty() {
            bail!("document {}: metadata.name is missing", i + 1);
        }
        let namespace = match object::namespace(&object) {
            _ if !resource.namespaced => "",
            "" => "default",
            ns => ns,
        };
        let namespace = namespace.to_owned();
        out.push(Manifest {
            resource,
            namespace,
            name,
            object,
        });
    }
    Ok(out)
}

/// Applies a text's documents in their order and prints a line for each.
///
/// # Errors
/// A document cannot be read (then nothing is applied), or the server refuses one (then the ones before are applied).
pub async fn run(client: &Remote, text: &str, out: &mut dyn Write) -> Result<()> {
    for m in parse(text)? {
        let path = format!(
            "{}?fieldManager=kontiki&force=true",
            m.resource.path(Some(&m.namespace), Some(&m.name))
        );
        let body = Bytes::from(serde_json::to_vec(&m.object)?);
        let shown =
            format!("{}.{}/{}", m.resource.singular, m.resource.group, m.name).replace("./", "/");
        let answer = client
            .raw(
                http::Method::PATCH,
                &path,
                PatchKind::Apply.content_type(),
                body,
            )
            .await
            .with_context(|| format!("cannot apply {shown}"))?;
        let done = if answer.status == http::StatusCode::CREATED {
            "created"
        } else {
            "serverside-applied"
        };
        writeln!(out, "{shown} {done}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_and_empty_ones_skipped() {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n---\n---\n\
                    apiVersion: v1\nkind: Node\nmetadata: {name: n, namespace: x}\n";
        let m = parse(text).expect("valid");
        let seen: Vec<_> = m
            .iter()
            .map(|m| (m.resource.plural, m.namespace.as_str(), m.name.as_str()))
            .collect();
        assert_eq!(
            seen,
            [("deployments", "default", "web"), ("nodes", "", "n")]
        );
    }

    #[test]
    fn what_cannot_be_applied_is_named() {
        for (text, want) in [
            (
                "kind: Nothing\napiVersion: v1\nmetadata: {name: a}",
                "there is no kind \"Nothing\"",
            ),
            (
                "kind: Pod\napiVersion: v1\nmetadata: {}",
                "metadata.name is missing",
            ),
            ("a: b: c", "document 1 is not valid YAML"),
        ] {
            let e = parse(text).expect_err(text);
            assert!(format!("{e:#}").contains(want), "{e:#}");
        }
    }
}
