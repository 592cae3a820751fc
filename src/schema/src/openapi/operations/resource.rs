//! The operations of one resource: its collection, one object of it, the deprecated watches and its subresources.

use kontiki_api::Resource;
use kontiki_api::catalogue::Subresource;

use super::super::parameters::{self as p, Parameter};
use super::{Answer, Body, META, OK, Operation, PathItem, Paths, camel, object, tag, title};
use crate::builtin::definition_name;

/// Makes the operations of one resource.
struct Maker<'a> {
    r: &'a Resource,
    camel: String,
    tag: String,
    definition: String,
}

/// Adds the operations of a resource.
pub(super) fn operations(r: &Resource, paths: &mut Paths) {
    let maker = Maker {
        r,
        camel: camel(r.group, r.version),
        tag: tag(r.group, r.version),
        definition: definition_name(r.group, r.version, r.kind),
    };
    maker.collection(paths);
    maker.one(paths);
    maker.watches(paths);
    for s in &r.subresources {
        maker.subresource(s, paths);
    }
}

impl Maker<'_> {
    fn base(&self) -> String {
        if self.r.group.is_empty() {
            format!("/api/{}", self.r.version)
        } else {
            format!("/apis/{}/{}", self.r.group, self.r.version)
        }
    }

    /// The path of the collection within its scope, below `middle`.
    fn path(&self, middle: &str) -> String {
        let scope = if self.r.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        format!("{}{middle}{scope}/{}", self.base(), self.r.plural)
    }

    fn scope(&self) -> &'static str {
        if self.r.namespaced { "Namespaced" } else { "" }
    }

    fn path_parameters(&self, named: bool) -> Vec<Parameter> {
        let mut all = Vec::new();
        if named {
            all.push(p::NAME);
        }
        if self.r.namespaced {
            all.push(p::NAMESPACE);
        }
        all
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "a row of a table, written as one"
    )]
    fn operation(
        &self,
        method: &'static str,
        id: String,
        action: &'static str,
        description: String,
        parameters: &[Parameter],
        body: Option<Body>,
        answer: Answer,
        codes: &'static [u16],
    ) -> Operation {
        let gvk = Some((
            self.r.group.into(),
            self.r.version.into(),
            self.r.kind.into(),
        ));
        let (tag, parameters) = (self.tag.clone(), parameters.to_vec());
        Operation {
            method,
            id,
            tag,
            description,
            action,
            gvk,
            parameters,
            body,
            answer,
            codes,
        }
    }

    fn collection(&self, paths: &mut Paths) {
        let (r, camel, scope) = (self.r, &self.camel, self.scope());
        let list = || Answer::List(format!("{}List", self.definition));
        let kind = r.kind;
        let mut item = PathItem {
            parameters: self.path_parameters(false),
            operations: Vec::new(),
        };
        if r.has_verb("list") {
            let words = format!("list or watch objects of kind {kind}");
            let id = format!("list{camel}{scope}{kind}");
            item.operations.push(self.operation(
                "get",
                id,
                "list",
                words.clone(),
                p::LIST,
                None,
                list(),
                OK,
            ));
            if r.namespaced {
                let id = format!("list{camel}{kind}ForAllNamespaces");
                let all = self.operation("get", id, "list", words, p::LIST, None, list(), OK);
                let path = format!("{}/{}", self.base(), r.plural);
                paths.insert(
                    path,
                    PathItem {
                        parameters: Vec::new(),
                        operations: vec![all],
                    },
                );
            }
        }
        if r.has_verb("create") {
            let id = format!("create{camel}{scope}{kind}");
            let words = format!("create {} {kind}", article(kind));
            item.operations
                .push(self.created(id, words, self.definition.clone()));
        }
        if r.has_verb("deletecollection") {
            let id = format!("delete{camel}Collection{scope}{kind}");
            let words = format!("delete collection of {kind}");
            let status = object("Status");
            let parameters = p::DELETE_COLLECTION;
            item.operations.push(self.operation(
                "delete",
                id,
                "deletecollection",
                words,
                parameters,
                Some(Body::Optional(format!("{META}.DeleteOptions"))),
                status,
                OK,
            ));
        }
        if !item.operations.is_empty() {
            paths.insert(self.path(""), item);
        }
    }

    fn created(&self, id: String, words: String, definition: String) -> Operation {
        let body = Some(Body::Required(definition.clone()));
        self.operation(
            "post",
            id,
            "post",
            words,
            p::WRITE,
            body,
            Answer::Object(definition),
            &[200, 201, 202],
        )
    }

    /// The operations on one object, or on its subresource that reads and writes `definition`.
    fn object_operations(
        &self,
        verbs: &[&str],
        suffix: &str,
        of: &str,
        definition: &str,
    ) -> Vec<Operation> {
        let (camel, scope, kind) = (&self.camel, self.scope(), self.r.kind);
        let answer = || Answer::Object(definition.to_owned());
        let mut all = Vec::new();
        for verb in verbs {
            let id = |word: &str| format!("{word}{camel}{scope}{kind}{suffix}");
            all.push(match *verb {
                "get" => {
                    let words = format!("read {of}the specified {kind}");
                    self.operation("get", id("read"), "get", words, p::READ, None, answer(), OK)
                }
                "update" => {
                    let words = format!("replace {of}the specified {kind}");
                    let body = Some(Body::Required(definition.to_owned()));
                    self.operation(
                        "put",
                        id("replace"),
                        "put",
                        words,
                        p::WRITE,
                        body,
                        answer(),
                        &[200, 201],
                    )
                }
                "patch" => {
                    let words = format!("partially update {of}the specified {kind}");
                    let body = Some(Body::Patch);
                    self.operation(
                        "patch",
                        id("patch"),
                        "patch",
                        words,
                        p::PATCH,
                        body,
                        answer(),
                        &[200, 201],
                    )
                }
                "delete" => {
                    let words = format!("delete {} {kind}", article(kind));
                    let body = Some(Body::Optional(format!("{META}.DeleteOptions")));
                    // Pods and a few others answer with the object, the rest with a Status.
                    let answer = if answers_with_object(self.r) {
                        answer()
                    } else {
                        object("Status")
                    };
                    self.operation(
                        "delete",
                        id("delete"),
                        "delete",
                        words,
                        p::DELETE,
                        body,
                        answer,
                        &[200, 202],
                    )
                }
                "create" => self.created(
                    id("create"),
                    format!("create {of}{} {kind}", article(kind)),
                    definition.into(),
                ),
                _ => continue,
            });
        }
        all
    }

    fn one(&self, paths: &mut Paths) {
        let verbs: Vec<&str> = self
            .r
            .verbs
            .iter()
            .copied()
            .filter(|v| *v != "create")
            .collect();
        let operations = self.object_operations(&verbs, "", "", &self.definition);
        if !operations.is_empty() {
            let parameters = self.path_parameters(true);
            paths.insert(
                format!("{}/{{name}}", self.path("")),
                PathItem {
                    parameters,
                    operations,
                },
            );
        }
    }

    /// The deprecated paths that watch without `watch=true`.
    fn watches(&self, paths: &mut Paths) {
        if !self.r.has_verb("watch") {
            return;
        }
        let (camel, scope, kind) = (&self.camel, self.scope(), self.r.kind);
        let event = || Answer::List(format!("{META}.WatchEvent"));
        let watch = |id: String, action, what: &str| {
            let words = format!(
                "watch {what}. deprecated: use the 'watch' parameter with a list operation instead"
            );
            self.operation("get", id, action, words, p::LIST, None, event(), OK)
        };
        let collection = self.path("/watch");
        let item = |parameters, operation| PathItem {
            parameters,
            operations: vec![operation],
        };
        let list = format!("individual changes to a list of {kind}");
        let id = format!("watch{camel}{scope}{kind}");
        let one = watch(
            id.clone(),
            "watch",
            &format!("changes to an object of kind {kind}"),
        );
        paths.insert(
            format!("{collection}/{{name}}"),
            item(self.path_parameters(true), one),
        );
        paths.insert(
            collection,
            item(
                self.path_parameters(false),
                watch(format!("{id}List"), "watchlist", &list),
            ),
        );
        if self.r.namespaced {
            let all = watch(
                format!("watch{camel}{kind}ListForAllNamespaces"),
                "watchlist",
                &list,
            );
            paths.insert(
                format!("{}/watch/{}", self.base(), self.r.plural),
                item(Vec::new(), all),
            );
        }
    }

    fn subresource(&self, s: &Subresource, paths: &mut Paths) {
        let path = format!("{}/{{name}}/{}", self.path(""), s.name);
        let suffix = title(s.name);
        let mut item = PathItem {
            parameters: self.path_parameters(true),
            operations: Vec::new(),
        };
        if s.connect {
            item.operations = self.connects(s, "");
            if s.name == "proxy" {
                let mut below = PathItem {
                    parameters: self.path_parameters(true),
                    operations: self.connects(s, "WithPath"),
                };
                below.parameters.push(p::PATH);
                paths.insert(format!("{path}/{{path}}"), below);
            }
        } else if s.name == "log" {
            let id = format!("read{}{}{}Log", self.camel, self.scope(), self.r.kind);
            let words = format!("read log of the specified {}", self.r.kind);
            item.operations =
                vec![self.operation("get", id, "get", words, p::LOG, None, Answer::Text, OK)];
        } else {
            let (group, version) = if s.version.is_empty() {
                (self.r.group, self.r.version)
            } else {
                (s.group, s.version)
            };
            let definition = definition_name(group, version, s.kind);
            item.operations =
                self.object_operations(&s.verbs, &suffix, &format!("{} of ", s.name), &definition);
            for o in &mut item.operations {
                o.gvk = Some((group.into(), version.into(), s.kind.into()));
            }
        }
        paths.insert(path, item);
    }

    fn connects(&self, s: &Subresource, with: &str) -> Vec<Operation> {
        let methods: &[&'static str] = match s.name {
            "proxy" => &["delete", "get", "head", "options", "patch", "post", "put"],
            _ => &["get", "post"],
        };
        let make = |method: &&'static str| {
            let verb = title(method);
            let id = format!(
                "connect{}{verb}{}{}{}{with}",
                self.camel,
                self.scope(),
                self.r.kind,
                title(s.name)
            );
            let words = format!(
                "connect {} requests to {} of {}",
                method.to_uppercase(),
                s.name,
                self.r.kind
            );
            let mut o = self.operation(
                method,
                id,
                "connect",
                words,
                &p::connect(s.kind),
                None,
                Answer::Stream,
                OK,
            );
            o.gvk = Some((s.group.into(), s.version.into(), s.kind.into()));
            o
        };
        methods.iter().map(make).collect()
    }
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['A', 'E', 'I', 'O']) {
        "an"
    } else {
        "a"
    }
}

/// The kinds whose deletion takes time and is therefore answered with the object.
fn answers_with_object(r: &Resource) -> bool {
    match r.group {
        "" => matches!(
            r.plural,
            "persistentvolumeclaims"
                | "persistentvolumes"
                | "pods"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
                | "services"
        ),
        "storage.k8s.io" => r.plural != "csistoragecapacities",
        "resource.k8s.io" => true,
        _ => false,
    }
}
