//! `/healthz`, `/livez`, `/readyz`: what is checked, and how it is shown.

use http::{Response, StatusCode};

use crate::body::Body;
use crate::engine::Engine;
use crate::request::Query;
use crate::respond;

/// What a live server does; the hooks are those of upstream's that have a counterpart here.
const LIVE: [&str; 11] = [
    "ping",
    "log",
    "etcd",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/bootstrap-controller",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
];
/// The same for a server that takes requests.
const READY: [&str; 12] = [
    "ping",
    "log",
    "etcd-readiness",
    "informer-sync",
    LIVE[3],
    LIVE[4],
    LIVE[5],
    LIVE[6],
    LIVE[7],
    LIVE[8],
    LIVE[9],
    LIVE[10],
];

/// The checks that each endpoint makes, by upstream's names where it has them.
fn checks(endpoint: &str) -> &'static [&'static str] {
    match endpoint {
        "readyz" => &READY,
        _ => &LIVE,
    }
}

async fn passes(check: &str, engine: &Engine, ready: bool) -> Result<(), String> {
    match check {
        "etcd" | "etcd-readiness" => engine
            .store()
            .read_index()
            .await
            .map(drop)
            .map_err(|e| e.to_string()),
        "informer-sync" if !ready => Err("the caches are not filled yet".into()),
        // The objects that every cluster has are made in one go.
        hook if !ready && (hook.starts_with("poststarthook/") || hook == LIVE[10]) => {
            Err("not finished".into())
        }
        _ => Ok(()),
    }
}

/// The paths of the single checks, as the root of the API lists them.
pub(crate) fn paths() -> impl Iterator<Item = String> {
    ["healthz", "livez", "readyz"].into_iter().flat_map(|e| {
        let checks = checks(e).iter().filter(|c| !c.starts_with("etcd"));
        checks.map(move |c| format!("/{e}/{c}"))
    })
}

/// Answers a health endpoint; `None` if there is no such check.
pub(crate) async fn answer(
    path: &str,
    q: &Query,
    engine: &Engine,
    ready: bool,
) -> Option<Response<Body>> {
    let mut parts = path.trim_matches('/').splitn(2, '/');
    let endpoint = parts.next().unwrap_or_default();
    let all = checks(endpoint);
    if let Some(one) = parts.next() {
        let check = all
            .iter()
            .find(|c| **c == one && !one.starts_with("etcd"))?;
        return Some(match passes(check, engine, ready).await {
            Ok(()) => {
                let mut r = respond::text(StatusCode::OK, "ok");
                r.headers_mut().remove("x-content-type-options");
                r
            }
            Err(e) => respond::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("internal server error: {e}\n"),
            ),
        });
    }
    let excluded: Vec<&str> = q.all("exclude").collect();
    let (mut lines, mut failed) = (String::new(), Vec::new());
    for check in all {
        if excluded.contains(check) {
            lines.push_str(&format!("[+]{check} excluded: ok\n"));
            continue;
        }
        match passes(check, engine, ready).await {
            Ok(()) => lines.push_str(&format!("[+]{check} ok\n")),
            Err(e) => {
                tracing::debug!(endpoint, check, error = e, "a health check fails");
                lines.push_str(&format!("[-]{check} failed: reason withheld\n"));
                failed.push(*check);
            }
        }
    }
    let unknown: Vec<&&str> = excluded.iter().filter(|e| !all.contains(e)).collect();
    if !unknown.is_empty() {
        let names: Vec<String> = unknown.iter().map(|u| format!("{u:?}")).collect();
        lines.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {}\n",
            names.join(",")
        ));
    }
    Some(if failed.is_empty() {
        if q.has("verbose") {
            respond::text(StatusCode::OK, format!("{lines}{endpoint} check passed\n"))
        } else {
            respond::text(StatusCode::OK, "ok")
        }
    } else {
        respond::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{lines}{endpoint} check failed\n"),
        )
    })
}
