//! Which path is answered by what.

use std::path::PathBuf;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use kontiki_api::{ApiError, Reason};
use kontiki_base::{Metrics, Tasks, metrics};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::Semaphore;

use super::access::Peer;
use super::containers::Place;
use super::query::Query;
use super::respond::{self, Body};
use super::streams::Kind;
use super::{Pods, log, stats, streams};
use crate::cri::Runtime;

/// The labels of a counted request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct RequestLabels {
    path: &'static str,
    code: u16,
}

pub(super) fn requests_metric(m: &Metrics) -> Family<RequestLabels, Counter> {
    m.register(
        "kubelet_http_requests",
        "Requests to the node API.",
        Family::default(),
    )
}

/// What requests are answered with.
pub(super) struct State {
    pub(super) node_name: String,
    pub(super) root_dir: PathBuf,
    pub(super) runtime: Runtime,
    pub(super) pods: Arc<dyn Pods>,
    pub(super) tasks: Tasks,
    pub(super) metrics: Metrics,
    pub(super) requests: Family<RequestLabels, Counter>,
    pub(super) streams: Arc<Semaphore>,
}

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'a> {
    Health,
    Pods,
    RunningPods,
    Metrics,
    ResourceMetrics,
    Summary,
    Logs(Place<'a>),
    Stream(Kind, Place<'a>),
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Option<Route<'a>> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let place = |container: bool| -> Option<Place<'a>> {
            let (namespace, pod, uid, container) = match (parts.get(1..)?, container) {
                ([n, p, u, c], true) => (n, p, Some(*u), *c),
                ([n, p, c], true) => (n, p, None, *c),
                ([n, p, u], false) => (n, p, Some(*u), ""),
                ([n, p], false) => (n, p, None, ""),
                _ => return None,
            };
            Some(Place {
                namespace,
                pod,
                uid,
                container,
            })
        };
        Some(match (parts[0], &parts[1..]) {
            ("healthz", []) => Route::Health,
            ("pods", []) => Route::Pods,
            ("runningpods", []) => Route::RunningPods,
            ("metrics", []) => Route::Metrics,
            ("metrics", ["resource"]) => Route::ResourceMetrics,
            ("stats", ["summary"]) => Route::Summary,
            ("containerLogs", [_, _, _]) => Route::Logs(place(true)?),
            ("exec", _) => Route::Stream(Kind::Exec, place(true)?),
            ("attach", _) => Route::Stream(Kind::Attach, place(true)?),
            ("portForward", _) => Route::Stream(Kind::PortForward, place(false)?),
            _ => return None,
        })
    }

    fn label(self) -> &'static str {
        match self {
            Route::Health => "healthz",
            Route::Pods => "pods",
            Route::RunningPods => "runningpods",
            Route::Metrics | Route::ResourceMetrics => "metrics",
            Route::Summary => "stats",
            Route::Logs(_) => "containerLogs",
            Route::Stream(Kind::Exec, _) => "exec",
            Route::Stream(Kind::Attach, _) => "attach",
            Route::Stream(Kind::PortForward, _) => "portForward",
        }
    }

    fn takes(self, method: &Method) -> bool {
        match self {
            Route::Stream(..) => [Method::GET, Method::POST].contains(method),
            _ => [Method::GET, Method::HEAD].contains(method),
        }
    }
}

/// Answers a request.
pub(super) async fn answer(
    state: &Arc<State>,
    peer: &Peer,
    req: Request<Incoming>,
) -> Response<Body> {
    let path = req.uri().path().to_owned();
    let route = Route::of(&path);
    let answered = match (route, peer.check(req.method(), &path)) {
        (Some(Route::Health), _) => Ok(respond::content(
            "text/plain; charset=utf-8",
            respond::full("ok"),
        )),
        (_, Err(refused)) => Err(refused),
        (None, Ok(())) => Err(ApiError::new(Reason::NotFound, "404 page not found")),
        (Some(r), Ok(())) if !r.takes(req.method()) => Err(ApiError::new(
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )),
        (Some(r), Ok(())) => dispatch(state, r, req).await,
    };
    let answer = answered.unwrap_or_else(|e| respond::refusal(&e));
    let labels = RequestLabels {
        path: route.map_or("", Route::label),
        code: answer.status().as_u16(),
    };
    state.requests.get_or_create(&labels).inc();
    if answer.status() == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::debug!(path, "a request to the node API failed");
    }
    answer
}

async fn dispatch(
    state: &Arc<State>,
    route: Route<'_>,
    req: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let query = Query::parse(req.uri().query());
    match route {
        Route::Health => Ok(respond::content(
            "text/plain; charset=utf-8",
            respond::full("ok"),
        )),
        Route::Pods => Ok(respond::json(&stats::pod_list(
            &state.pods.list().unwrap_or_default(),
        ))),
        Route::RunningPods => stats::running_pods(&state.runtime)
            .await
            .map(|v| respond::json(&v)),
        Route::Metrics => Ok(respond::content(
            metrics::CONTENT_TYPE,
            respond::full(state.metrics.encode()),
        )),
        Route::ResourceMetrics => {
            let text = stats::resource_metrics(
                &stats::usage(&state.runtime).await?,
                &stats::Node::read(&state.root_dir),
            );
            Ok(respond::content(
                "text/plain; version=0.0.4; charset=utf-8",
                respond::full(text),
            ))
        }
        Route::Summary => {
            let usage = stats::usage(&state.runtime).await?;
            Ok(respond::json(&stats::summary(
                &state.node_name,
                &usage,
                &stats::Node::read(&state.root_dir),
            )))
        }
        Route::Logs(place) => log::answer(state, place, &query).await,
        Route::Stream(kind, place) => streams::answer(state, kind, place, &query, req).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_pods_and_containers() {
        let place = Place {
            namespace: "n",
            pod: "p",
            uid: None,
            container: "c",
        };
        assert_eq!(Route::of("/containerLogs/n/p/c"), Some(Route::Logs(place)));
        assert_eq!(
            Route::of("/exec/n/p/c"),
            Some(Route::Stream(Kind::Exec, place))
        );
        let with_uid = Place {
            uid: Some("u"),
            ..place
        };
        assert_eq!(
            Route::of("/attach/n/p/u/c"),
            Some(Route::Stream(Kind::Attach, with_uid))
        );
        let pod = Place {
            container: "",
            ..place
        };
        assert_eq!(
            Route::of("/portForward/n/p"),
            Some(Route::Stream(Kind::PortForward, pod))
        );
        assert_eq!(Route::of("/runningpods/"), Some(Route::RunningPods));
        for wrong in [
            "/",
            "/exec/n/p",
            "/exec",
            "/portForward/n",
            "/containerLogs/n/p/u/c",
            "/stats",
            "/pods/x",
        ] {
            assert_eq!(Route::of(wrong), None, "{wrong}");
        }
        assert!(!Route::Pods.takes(&Method::DELETE));
    }
}
