//! Tokens of service accounts: JWTs that this cluster signs (ES256) and reads again.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use kontiki_api::{ApiError, object};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::engine::Engine;
use crate::strategy::Objects;
use crate::user::{AUTHENTICATED, User};

/// The shortest life of a token that may be asked for.
const LIFE_SECONDS_MIN: i64 = 600;
/// The life of a token that does not ask for one.
const LIFE_SECONDS_DEFAULT: i64 = 3600;
/// The longest life of a token that may be asked for.
const LIFE_SECONDS_MAX: i64 = 1 << 32;

/// Signs and reads tokens.
pub(crate) struct Tokens {
    key: EcdsaKeyPair,
    key_id: String,
    issuer: String,
    random: SystemRandom,
    clock: std::sync::Arc<dyn kontiki_base::Clock>,
}

/// What a token is bound to, beside its service account.
struct Bound {
    kind: String,
    name: String,
    uid: String,
}

impl Tokens {
    /// Reads the signing key (PKCS #8).
    pub(crate) fn new(
        key_pem: &str,
        issuer: &str,
        clock: std::sync::Arc<dyn kontiki_base::Clock>,
    ) -> Result<Tokens, kontiki_pki::Error> {
        let refuse = |why: String| kontiki_pki::Error::Parse {
            what: "service account key",
            why,
        };
        let der = kontiki_pki::tls::private_key(key_pem)?;
        let random = SystemRandom::new();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der(), &random)
                .map_err(|e| refuse(format!("it is not an ECDSA P-256 key in PKCS #8: {e}")))?;
        let key_id = BASE64.encode(Sha256::digest(key.public_key().as_ref()));
        Ok(Tokens {
            key,
            key_id,
            issuer: issuer.to_owned(),
            random,
            clock,
        })
    }

    fn now(&self) -> i64 {
        self.clock.now().as_second()
    }

    /// The issuer.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public key as a JSON Web Key.
    pub(crate) fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        json!({"use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256", "x": BASE64.encode(x), "y": BASE64.encode(y)})
    }

    fn sign(&self, claims: &Value) -> Result<String, ApiError> {
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let text = format!(
            "{}.{}",
            BASE64.encode(header.to_string()),
            BASE64.encode(claims.to_string())
        );
        let signature = self
            .key
            .sign(&self.random, text.as_bytes())
            .map_err(|_| ApiError::internal("signing a token failed"))?;
        Ok(format!("{text}.{}", BASE64.encode(signature)))
    }

    /// The claims of a token that this key signed and that is valid now.
    fn verify(&self, token: &str) -> Option<Value> {
        let (text, signature) = token.rsplit_once('.')?;
        let (header, claims) = text.split_once('.')?;
        let header: Value = serde_json::from_slice(&BASE64.decode(header).ok()?).ok()?;
        if header.get("alg")?.as_str()? != "ES256" {
            return None;
        }
        let public =
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        public
            .verify(text.as_bytes(), &BASE64.decode(signature).ok()?)
            .ok()?;
        let claims: Value = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
        let now = self.now();
        let valid = claims.get("iss")?.as_str()? == self.issuer
            && claims.get("exp")?.as_i64()? > now
            && claims
                .get("nbf")
                .and_then(Value::as_i64)
                .is_none_or(|t| t <= now + 60);
        valid.then_some(claims)
    }

    /// The service account whose token it is, if it and what the token is bound to are still there.
    pub(crate) fn authenticate(&self, token: &str, engine: &Engine) -> Option<User> {
        let claims = self.verify(token)?;
        let audiences = claims.get("aud").and_then(Value::as_array);
        if audiences.is_some_and(|a| !a.iter().any(|x| x == self.issuer())) {
            return None;
        }
        self.subject(&claims, engine)
    }

    /// The service account whose token it is for one of these audiences (or for us), and the audiences that fit.
    pub(crate) fn review(
        &self,
        token: &str,
        audiences: &[&str],
        engine: &Engine,
    ) -> Option<(User, Vec<String>)> {
        let claims = self.verify(token)?;
        let own = [self.issuer()];
        let wanted = if audiences.is_empty() {
            &own[..]
        } else {
            audiences
        };
        let has = object::list(&claims, &["aud"]);
        let fit: Vec<String> = wanted
            .iter()
            .filter(|a| has.iter().any(|x| x.as_str() == Some(**a)))
            .map(|a| (*a).to_owned())
            .collect();
        (!fit.is_empty()).then_some(())?;
        Some((self.subject(&claims, engine)?, fit))
    }

    fn subject(&self, claims: &Value, engine: &Engine) -> Option<User> {
        let about = claims.get("kubernetes.io")?;
        let namespace = object::text(about, &["namespace"]);
        let (name, uid) = (
            object::text(about, &["serviceaccount", "name"]),
            object::text(about, &["serviceaccount", "uid"]),
        );
        let exists = |plural: &str, namespace: &str, name: &str, uid: &str| {
            Objects::get(engine, "", plural, namespace, name)
                .is_some_and(|o| object::uid(&o) == uid)
        };
        if !exists("serviceaccounts", namespace, name, uid) {
            return None;
        }
        let mut extra = Vec::new();
        for (key, plural, namespaced) in [
            ("pod", "pods", true),
            ("secret", "secrets", true),
            ("node", "nodes", false),
        ] {
            let (name, uid) = (
                object::text(about, &[key, "name"]),
                object::text(about, &[key, "uid"]),
            );
            if name.is_empty() {
                continue;
            }
            // A node beside a pod only says where the pod runs.
            let beside = key == "node" && about.get("pod").is_some();
            if !beside && !exists(plural, if namespaced { namespace } else { "" }, name, uid) {
                return None;
            }
            extra.push((
                format!("authentication.kubernetes.io/{key}-name"),
                vec![name.to_owned()],
            ));
            extra.push((
                format!("authentication.kubernetes.io/{key}-uid"),
                vec![uid.to_owned()],
            ));
        }
        Some(User {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            uid: uid.to_owned(),
            groups: vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{namespace}"),
                AUTHENTICATED.into(),
            ],
            extra,
        })
    }

    /// Answers a `TokenRequest` for a service account: the request with its status filled in.
    pub(crate) fn request(
        &self,
        account: &Value,
        request: &Value,
        engine: &Engine,
    ) -> Result<Value, ApiError> {
        let (namespace, name) = (object::namespace(account), object::name(account));
        let asked =
            object::int(request, &["spec", "expirationSeconds"]).unwrap_or(LIFE_SECONDS_DEFAULT);
        let path = kontiki_api::field::Path::new("spec").child("expirationSeconds");
        let bad = if asked < LIFE_SECONDS_MIN {
            Some("may not specify a duration less than 10 minutes")
        } else if asked > LIFE_SECONDS_MAX {
            Some("may not specify a duration larger than 2^32 seconds")
        } else {
            None
        };
        if let Some(why) = bad {
            let e = kontiki_api::field::Error::invalid(&path, asked, why);
            return Err(ApiError::invalid(
                "authentication.k8s.io",
                "TokenRequest",
                "",
                &[e],
            ));
        }
        let mut audiences: Vec<Value> = object::list(request, &["spec", "audiences"]).to_vec();
        if audiences.is_empty() {
            audiences.push(self.issuer.as_str().into());
        }
        let bound = bound(request, namespace, engine)?;
        let now = self.now();
        let mut about = json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": object::uid(account)}});
        if let Some(b) = &bound {
            about[b.kind.to_lowercase()] = json!({"name": b.name, "uid": b.uid});
            if b.kind == "Pod"
                && let Some(pod) = Objects::get(engine, "", "pods", namespace, &b.name)
                && let node = object::text(&pod, &["spec", "nodeName"])
                && !node.is_empty()
            {
                let uid =
                    Objects::get(engine, "", "nodes", "", node).map(|n| object::uid(&n).to_owned());
                about["node"] = json!({"name": node, "uid": uid.unwrap_or_default()});
            }
        }
        let claims = json!({
            "aud": audiences, "exp": now + asked, "iat": now, "iss": self.issuer, "jti": uuid::Uuid::new_v4().to_string(),
            "kubernetes.io": about, "nbf": now, "sub": format!("system:serviceaccount:{namespace}:{name}"),
        });
        let expires = jiff::Timestamp::from_second(now + asked).map_err(ApiError::internal)?;
        let mut answer = request.clone();
        let meta = object::map_mut(&mut answer, &["metadata"]);
        meta.insert("name".into(), name.into());
        meta.insert("namespace".into(), namespace.into());
        meta.insert(
            "creationTimestamp".into(),
            object::time_text(self.clock.now()).into(),
        );
        object::map_mut(&mut answer, &["spec"]).insert("expirationSeconds".into(), asked.into());
        object::map_mut(&mut answer, &["spec"]).insert("audiences".into(), audiences.into());
        object::map_mut(&mut answer, &["spec"])
            .entry("boundObjectRef")
            .or_insert(Value::Null);
        answer["status"] = json!({"token": self.sign(&claims)?, "expirationTimestamp": object::time_text(expires)});
        Ok(answer)
    }
}

/// What the token shall be bound to.
fn bound(request: &Value, namespace: &str, engine: &Engine) -> Result<Option<Bound>, ApiError> {
    let Some(reference) =
        object::get(request, &["spec", "boundObjectRef"]).filter(|r| r.is_object())
    else {
        return Ok(None);
    };
    let text = |k: &str| object::text(reference, &[k]).to_owned();
    let (kind, name, uid) = (text("kind"), text("name"), text("uid"));
    let (plural, namespace) = match kind.as_str() {
        "Pod" => ("pods", namespace),
        "Secret" => ("secrets", namespace),
        "Node" => ("nodes", ""),
        other => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount to object {other:?}"
            )));
        }
    };
    let r = kontiki_api::catalogue::by_name("", "v1", plural).expect("it is a core resource");
    let o = Objects::get(engine, "", plural, namespace, &name)
        .ok_or_else(|| ApiError::not_found(r, &name))?;
    if !uid.is_empty() && uid != object::uid(&o) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict(r, &name, why));
    }
    Ok(Some(Bound {
        kind,
        name,
        uid: object::uid(&o).to_owned(),
    }))
}
