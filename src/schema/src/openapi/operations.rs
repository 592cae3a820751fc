//! The operations of every resource, in a form from which both versions of the document are written.

use std::collections::BTreeMap;

use super::Api;
use super::parameters::Parameter;

mod resource;

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// An object of this definition.
    Required(String),
    /// `DeleteOptions`, which may be left out.
    Optional(String),
    /// A patch.
    Patch,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// An object of this definition.
    Object(String),
    /// A list that can be watched.
    List(String),
    /// Text.
    Text,
    /// Whatever the other end says.
    Stream,
    /// JSON without a schema, as a string.
    Plain,
}

/// One operation.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    /// The HTTP method, in lower case.
    pub(super) method: &'static str,
    pub(super) id: String,
    pub(super) tag: String,
    pub(super) description: String,
    /// `x-kubernetes-action`, or empty.
    pub(super) action: &'static str,
    /// Group, version and kind of what it is about.
    pub(super) gvk: Option<(String, String, String)>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Body>,
    pub(super) answer: Answer,
    /// The status codes of success.
    pub(super) codes: &'static [u16],
}

/// The operations on one path.
#[derive(Clone, Debug, Default)]
pub(super) struct PathItem {
    /// The parameters in the path.
    pub(super) parameters: Vec<Parameter>,
    pub(super) operations: Vec<Operation>,
}

/// Operations by path.
pub(super) type Paths = BTreeMap<String, PathItem>;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const OK: &[u16] = &[200];

/// Everything that is served under a group and version.
pub(super) fn of_group_version(api: &Api<'_>, group: &str, version: &str) -> Paths {
    let mut paths = Paths::new();
    for r in api
        .resources
        .iter()
        .filter(|r| r.group == group && r.version == version)
    {
        resource::operations(r, &mut paths);
    }
    if !paths.is_empty() {
        let base = if group.is_empty() {
            format!("/api/{version}/")
        } else {
            format!("/apis/{group}/{version}/")
        };
        let id = format!("get{}APIResources", camel(group, version));
        let list = format!("{META}.APIResourceList");
        paths.insert(
            base,
            discovery(
                id,
                tag(group, version),
                "get available resources",
                Answer::Object(list),
            ),
        );
    }
    paths
}

/// What is served beside the resources, under the name that the index has for it.
pub(super) fn of_machinery(api: &Api<'_>, name: &str) -> Paths {
    let one = |id: &str, tag: &str, description: &str, answer| {
        Paths::from([(
            format!("/{name}/"),
            discovery(id.into(), tag.into(), description, answer),
        )])
    };
    match name {
        "api" => one(
            "getCoreAPIVersions",
            "core",
            "get available API versions",
            object("APIVersions"),
        ),
        "apis" => one(
            "getAPIVersions",
            "apis",
            "get available API versions",
            object("APIGroupList"),
        ),
        "version" => {
            let info = Answer::Object("io.k8s.apimachinery.pkg.version.Info".into());
            one(
                "getCodeVersion",
                "version",
                "get the version information for this server",
                info,
            )
        }
        ".well-known/openid-configuration" => one(
            "getServiceAccountIssuerOpenIDConfiguration",
            "WellKnown",
            "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            Answer::Plain,
        ),
        "openid/v1/jwks" => one(
            "getServiceAccountIssuerOpenIDKeyset",
            "openid",
            "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
            Answer::Plain,
        ),
        _ => match name.strip_prefix("apis/") {
            Some(group) if api.resources.iter().any(|r| r.group == group) => {
                let id = format!("get{}APIGroup", camel(group, ""));
                let tag = tag(group, "");
                let tag = tag.trim_end_matches('_');
                one(&id, tag, "get information of a group", object("APIGroup"))
            }
            _ => Paths::new(),
        },
    }
}

fn object(kind: &str) -> Answer {
    Answer::Object(format!("{META}.{kind}"))
}

fn discovery(id: String, tag: String, description: &str, answer: Answer) -> PathItem {
    let operation = Operation {
        method: "get",
        id,
        tag,
        description: description.into(),
        action: "",
        gvk: None,
        parameters: Vec::new(),
        body: None,
        answer,
        codes: OK,
    };
    PathItem {
        parameters: Vec::new(),
        operations: vec![operation],
    }
}

/// `RbacAuthorizationV1` for group `rbac.authorization.k8s.io`.
fn camel(group: &str, version: &str) -> String {
    let group = if group.is_empty() {
        "core"
    } else {
        group.trim_end_matches(".k8s.io")
    };
    group.split('.').chain([version]).map(title).collect()
}

fn tag(group: &str, version: &str) -> String {
    let group = if group.is_empty() {
        "core"
    } else {
        group.trim_end_matches(".k8s.io")
    };
    let words: Vec<String> = group
        .split('.')
        .enumerate()
        .map(|(i, w)| if i == 0 { w.into() } else { title(w) })
        .collect();
    format!("{}_{version}", words.concat())
}

fn title(s: &str) -> String {
    let mut c = s.chars();
    c.next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(c).collect())
}
