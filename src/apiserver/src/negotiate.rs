//! Which form of an answer the client accepts (upstream's content negotiation).

use kontiki_api::{ApiError, Reason};

use crate::request::Query;

/// A media type that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
    Protobuf,
}

impl Format {
    /// The media type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
            Format::Protobuf => kontiki_schema::protobuf::MEDIA_TYPE,
        }
    }

    /// The media type of a watch.
    pub(crate) fn stream_type(self) -> &'static str {
        match self {
            Format::Json | Format::Yaml => "application/json",
            Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }
}

/// What is made of the objects before they are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transform {
    None,
    Table,
    Partial,
    PartialList,
}

/// How much of an object a table's row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

/// What the client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) format: Format,
    pub(crate) transform: Transform,
    /// Version of the transformed kinds in `meta.k8s.io`.
    pub(crate) version: &'static str,
    pub(crate) include: Include,
}

impl Accepted {
    pub(crate) const JSON: Accepted = Accepted {
        format: Format::Json,
        transform: Transform::None,
        version: "v1",
        include: Include::Metadata,
    };

    /// Whether stored bytes can be sent as they are.
    pub(crate) fn is_plain(&self) -> bool {
        self.format == Format::Json && self.transform == Transform::None
    }
}

/// One clause of an Accept header.
struct Clause<'a> {
    media: &'a str,
    params: Vec<(&'a str, &'a str)>,
    quality: f32,
}

fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut out: Vec<Clause<'_>> = accept
        .split(',')
        .map(|c| {
            let mut parts = c.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let mut quality = 1.0;
            let mut params = Vec::new();
            for p in parts {
                let (k, v) = p.split_once('=').unwrap_or((p, ""));
                if k == "q" {
                    quality = v.parse().unwrap_or(0.0);
                } else {
                    params.push((k, v));
                }
            }
            Clause {
                media,
                params,
                quality,
            }
        })
        .filter(|c| !c.media.is_empty())
        .collect();
    out.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    out
}

fn format_of(media: &str) -> Option<Format> {
    match media {
        "application/json" | "*/*" | "application/*" => Some(Format::Json),
        "application/yaml" => Some(Format::Yaml),
        kontiki_schema::protobuf::MEDIA_TYPE => Some(Format::Protobuf),
        _ => None,
    }
}

/// Chooses the form of an answer; `tables` says whether the kind can be printed and cut to its metadata.
///
/// # Errors
/// 406 if nothing that is served is accepted.
pub(crate) fn negotiate(accept: &str, q: &Query, tables: bool) -> Result<Accepted, ApiError> {
    let mut a = Accepted::JSON;
    a.include = match q.get("includeObject") {
        "None" => Include::None,
        "Object" => Include::Object,
        _ => Include::Metadata,
    };
    if accept.trim().is_empty() {
        return Ok(a);
    }
    for c in clauses(accept) {
        let Some(format) = format_of(c.media) else {
            continue;
        };
        let param = |name: &str| c.params.iter().find(|(k, _)| *k == name).map(|(_, v)| *v);
        a.format = format;
        let (kind, group, version) = (param("as"), param("g"), param("v"));
        a.transform = match kind {
            None => Transform::None,
            Some(_) if !tables || group != Some("meta.k8s.io") => continue,
            Some("Table") => Transform::Table,
            Some("PartialObjectMetadata") => Transform::Partial,
            Some("PartialObjectMetadataList") => Transform::PartialList,
            Some(_) => continue,
        };
        a.version = match version {
            Some("v1beta1") => "v1beta1",
            Some("v1") | None => "v1",
            Some(_) => continue,
        };
        return Ok(a);
    }
    Err(not_acceptable())
}

fn not_acceptable() -> ApiError {
    ApiError::new(
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(accept: &str) -> Option<(Format, Transform)> {
        negotiate(accept, &Query::default(), true)
            .ok()
            .map(|a| (a.format, a.transform))
    }

    #[test]
    fn the_first_form_that_is_served_is_taken() {
        assert_eq!(choose(""), Some((Format::Json, Transform::None)));
        assert_eq!(choose("*/*"), Some((Format::Json, Transform::None)));
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(choose(kubectl), Some((Format::Json, Transform::Table)));
        assert_eq!(
            choose("application/vnd.kubernetes.protobuf, */*"),
            Some((Format::Protobuf, Transform::None))
        );
        assert_eq!(
            choose("text/html;q=1, application/yaml;q=0.2"),
            Some((Format::Yaml, Transform::None))
        );
        assert_eq!(
            choose("application/json;as=Table;v=v9;g=meta.k8s.io,application/json"),
            Some((Format::Json, Transform::None))
        );
        assert_eq!(choose("text/html"), None);
    }
}
