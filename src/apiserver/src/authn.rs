//! Who asks: client certificate, token of a service account, or nobody; and in whose name.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use kontiki_api::{ApiError, Reason};

use crate::engine::Engine;
use crate::tls::Peer;
use crate::token::Tokens;
use crate::user::{AUTHENTICATED, UNAUTHENTICATED, User};

/// The refusal of a credential.
pub(crate) fn unauthorized() -> ApiError {
    ApiError::new(Reason::Unauthorized, "Unauthorized")
}

/// Whose request it is. A credential that is not valid is refused; no credential at all is `system:anonymous`.
pub(crate) fn authenticate(
    peer: &Peer,
    headers: &HeaderMap,
    tokens: &Tokens,
    engine: &Engine,
) -> Result<User, ApiError> {
    let bearer = headers
        .get(AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .or_else(|| websocket_bearer(headers));
    match (peer, bearer) {
        (Peer::User(u), _) => Ok(u.clone()),
        (_, Some(token)) => {
            let decoded = decode_bearer(token);
            tokens
                .authenticate(&decoded, engine)
                .ok_or_else(unauthorized)
        }
        (Peer::Foreign, None) => Err(unauthorized()),
        (Peer::None, None) => Ok(User::anonymous()),
    }
}

/// What browsers use, that cannot set headers on WebSockets: a subprotocol that carries the token.
const WEBSOCKET_BEARER: &str = "base64url.bearer.authorization.k8s.io.";

fn websocket_bearer(headers: &HeaderMap) -> Option<&str> {
    let protocols = headers.get("sec-websocket-protocol")?.to_str().ok()?;
    protocols
        .split(',')
        .find_map(|p| p.trim().strip_prefix(WEBSOCKET_BEARER).map(|_| p.trim()))
}

fn decode_bearer(token: &str) -> String {
    use base64::Engine as _;
    let Some(encoded) = token.strip_prefix(WEBSOCKET_BEARER) else {
        return token.to_owned();
    };
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(encoded)
        .unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// The user in whose name an administrator acts; `None` without the headers.
pub(crate) fn impersonated(headers: &HeaderMap) -> Result<Option<User>, ApiError> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let all = |name: &str| -> Vec<String> {
        headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok().map(str::to_owned))
            .collect()
    };
    let (name, uid, mut groups) = (
        text("impersonate-user"),
        text("impersonate-uid"),
        all("impersonate-group"),
    );
    let extra: Vec<(String, Vec<String>)> = headers
        .keys()
        .filter_map(|k| {
            let key = k.as_str().strip_prefix("impersonate-extra-")?;
            Some((crate::request::decode(key), all(k.as_str())))
        })
        .collect();
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        return Err(ApiError::internal(
            "requested impersonation without impersonating a user",
        ));
    }
    if let Some(rest) = name.strip_prefix("system:serviceaccount:")
        && groups.is_empty()
        && let Some((namespace, _)) = rest.split_once(':')
    {
        groups = vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{namespace}"),
        ];
    }
    let group = if name == "system:anonymous" {
        UNAUTHENTICATED
    } else {
        AUTHENTICATED
    };
    if !groups.iter().any(|g| g == group) {
        groups.push(group.into());
    }
    Ok(Some(User {
        name,
        uid,
        groups,
        extra,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impersonation_needs_a_user_and_adds_the_usual_groups() {
        let mut h = HeaderMap::new();
        assert_eq!(impersonated(&h).expect("none"), None);
        h.insert("impersonate-group", "g".parse().expect("value"));
        assert!(impersonated(&h).is_err());
        h.remove("impersonate-group");
        h.insert(
            "impersonate-user",
            "system:serviceaccount:ns:a".parse().expect("value"),
        );
        let u = impersonated(&h).expect("valid").expect("there");
        assert_eq!(
            u.groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:ns",
                AUTHENTICATED
            ]
        );
    }
}
