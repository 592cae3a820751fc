//! Kinds that are questions: who am I, may I, whose token is this. They are answered and never stored.

use kontiki_api::{ApiError, object};
use serde_json::{Value, json};

use crate::authz::{self, Attributes};
use crate::engine::Engine;
use crate::token::Tokens;
use crate::user::{AUTHENTICATED, User};

/// Whether objects of this resource are questions.
pub(crate) fn is_review(group: &str, plural: &str) -> bool {
    matches!(group, "authentication.k8s.io" | "authorization.k8s.io") && plural.ends_with("reviews")
}

/// Answers a question: the object with its status filled in.
pub(crate) fn answer(
    plural: &str,
    namespace: &str,
    mut v: Value,
    user: &User,
    tokens: &Tokens,
    engine: &Engine,
) -> Result<Value, ApiError> {
    let status = match plural {
        "selfsubjectreviews" => json!({"userInfo": user.to_value()}),
        "tokenreviews" => token_review(&v, tokens, engine)?,
        "selfsubjectaccessreviews" => {
            decision(user, object::get(&v, &["spec"]).unwrap_or(&Value::Null))
        }
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            let spec = v.get("spec").cloned().unwrap_or_default();
            if plural.starts_with("local")
                && object::text(&spec, &["resourceAttributes", "namespace"]) != namespace
            {
                let path = kontiki_api::field::Path::new("spec")
                    .child("resourceAttributes")
                    .child("namespace");
                let e = kontiki_api::field::Error::invalid(
                    &path,
                    object::text(&spec, &["resourceAttributes", "namespace"]),
                    "must match metadata.namespace",
                );
                return Err(ApiError::invalid(
                    "authorization.k8s.io",
                    "LocalSubjectAccessReview",
                    "",
                    &[e],
                ));
            }
            let groups = object::list(&spec, &["groups"])
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            let subject = User {
                name: object::text(&spec, &["user"]).to_owned(),
                groups,
                ..User::default()
            };
            if subject.name.is_empty() && subject.groups.is_empty() {
                let path = kontiki_api::field::Path::new("spec").child("user");
                let e = kontiki_api::field::Error::invalid(
                    &path,
                    "",
                    "at least one of user or group must be specified",
                );
                let kind = if plural.starts_with("local") {
                    "LocalSubjectAccessReview"
                } else {
                    "SubjectAccessReview"
                };
                return Err(ApiError::invalid("authorization.k8s.io", kind, "", &[e]));
            }
            decision(&subject, &spec)
        }
        _ => rules(user),
    };
    v["status"] = status;
    Ok(v)
}

fn decision(user: &User, spec: &Value) -> Value {
    let text = |path: &[&str]| object::text(spec, path);
    let a = if spec.get("resourceAttributes").is_some() {
        let of = |k| text(&["resourceAttributes", k]);
        Attributes {
            verb: of("verb"),
            group: of("group"),
            namespace: of("namespace"),
            resource: of("resource"),
            subresource: of("subresource"),
            name: of("name"),
            path: "",
        }
    } else {
        let of = |k| text(&["nonResourceAttributes", k]);
        Attributes {
            verb: of("verb"),
            path: of("path"),
            ..Attributes::default()
        }
    };
    json!({"allowed": authz::allowed(user, &a)})
}

fn rules(user: &User) -> Value {
    let all = authz::allowed(
        user,
        &Attributes {
            verb: "list",
            resource: "secrets",
            ..Attributes::default()
        },
    );
    let (mut resources, mut paths) = (
        vec![
            json!({"verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]}),
        ],
        vec![
            json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"]}),
        ],
    );
    if all {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}

fn token_review(v: &Value, tokens: &Tokens, engine: &Engine) -> Result<Value, ApiError> {
    let token = object::text(v, &["spec", "token"]);
    if token.is_empty() {
        return Err(ApiError::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let audiences: Vec<&str> = object::list(v, &["spec", "audiences"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    Ok(match tokens.review(token, &audiences, engine) {
        Some((mut user, fit)) => {
            if !user.is_in(AUTHENTICATED) {
                user.groups.push(AUTHENTICATED.into());
            }
            json!({"authenticated": true, "user": user.to_value(), "audiences": fit})
        }
        None => json!({"user": {}, "error": "invalid bearer token"}),
    })
}
