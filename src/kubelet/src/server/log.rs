//! The logs of a container.

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use kontiki_api::{ApiError, Reason};
use serde_json::Value;

use super::containers::Place;
use super::query::Query;
use super::respond::{self, Body, runtime_error};
use super::router::State;
use crate::cri::{Runtime, v1 as cri};
use crate::logs::{Alive, Options, Reader, Stream};
use crate::pod::{ContainerStatusView, Pod};

/// What the query asks for.
fn options(q: &Query, now: Timestamp) -> Result<Options, ApiError> {
    let since = match (q.get("sinceTime"), q.number("sinceSeconds")?) {
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request(
                "at most one of sinceTime or sinceSeconds may be specified",
            ));
        }
        (Some(time), None) => {
            let wrong = |_| ApiError::bad_request(format!("sinceTime={time:?} is not a time"));
            Some(time.parse().map_err(wrong)?)
        }
        (None, Some(seconds)) => Some(
            now.checked_sub(Duration::from_secs(seconds))
                .unwrap_or(Timestamp::MIN),
        ),
        (None, None) => None,
    };
    let stream = match q.get("stream") {
        None | Some("All") => None,
        Some("Stdout") => Some(Stream::Stdout),
        Some("Stderr") => Some(Stream::Stderr),
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "stream={other:?} is none of All, Stdout, Stderr"
            )));
        }
    };
    Ok(Options {
        follow: q.flag("follow"),
        tail_lines: q.number("tailLines")?,
        since,
        timestamps: q.flag("timestamps"),
        limit_bytes: q.number("limitBytes")?,
        stream,
    })
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatusView> {
    let all = pod
        .status
        .container_statuses
        .iter()
        .chain(&pod.status.init_container_statuses);
    all.into_iter().find(|s| s.name == container)
}

/// The container that ended before the one that runs, in the API's words.
fn terminated_id(pod: Option<&Pod>, container: &str) -> Option<String> {
    let last = &status(pod?, container)?.last_state;
    let id = last
        .pointer("/terminated/containerID")
        .and_then(Value::as_str)?;
    Some(id.split_once("://").map_or(id, |(_, id)| id).to_owned())
}

/// Picks the container whose log is meant. `found` has the newest first.
fn pick<'a>(
    found: &'a [cri::Container],
    previous: bool,
    pod: Option<&Pod>,
    container: &str,
) -> Option<&'a cri::Container> {
    if !previous {
        return found.first();
    }
    let told = terminated_id(pod, container).and_then(|id| found.iter().find(|c| c.id == id));
    told.or_else(|| found.get(1).filter(|c| c.pod_uid() == found[0].pod_uid()))
}

trait PodUid {
    fn pod_uid(&self) -> Option<&String>;
}

impl PodUid for cri::Container {
    fn pod_uid(&self) -> Option<&String> {
        self.labels.get(crate::sandbox::POD_UID_LABEL)
    }
}

/// Why there is no log to read.
fn missing(place: &Place<'_>, previous: bool, pod: Option<&Pod>, pods_known: bool) -> ApiError {
    let Place {
        pod: name,
        container,
        ..
    } = place;
    let Some(pod) = pod else {
        let why = if pods_known {
            format!("pod {name:?} does not exist")
        } else {
            format!("pod {name:?} is not known yet")
        };
        return ApiError::new(Reason::NotFound, why);
    };
    if !pod.all_containers().any(|c| c.name == *container) {
        return ApiError::new(
            Reason::NotFound,
            format!("container {container:?} not found in pod {name:?}"),
        );
    }
    if previous {
        return ApiError::bad_request(format!(
            "previous terminated container {container:?} in pod {name:?} not found"
        ));
    }
    let waiting = status(pod, container)
        .and_then(|s| s.state.pointer("/waiting/reason"))
        .and_then(Value::as_str);
    ApiError::bad_request(match waiting {
        Some(reason) => {
            format!("container {container:?} in pod {name:?} is waiting to start: {reason}")
        }
        None => format!("container {container:?} in pod {name:?} is not available"),
    })
}

fn alive(runtime: &Runtime, id: &str) -> Alive {
    let (runtime, id) = (runtime.clone(), id.to_owned());
    Box::new(move || {
        let (runtime, container_id) = (runtime.clone(), id.clone());
        Box::pin(async move {
            let request = cri::ContainerStatusRequest {
                container_id,
                verbose: false,
            };
            match runtime.container_status(request).await {
                Ok(answer) => answer
                    .status
                    .is_some_and(|s| s.state() == cri::ContainerState::ContainerRunning),
                Err(e) if e.is_not_found() => false,
                // A runtime that restarts has its containers running all the same.
                Err(_) => true,
            }
        })
    })
}

/// Answers with the log.
pub(super) async fn answer(
    state: &Arc<State>,
    place: Place<'_>,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let options = options(query, Timestamp::now())?;
    let previous = query.flag("previous");
    let pods = state.pods.list();
    let of_name =
        |p: &&Arc<Pod>| p.metadata.namespace == place.namespace && p.metadata.name == place.pod;
    let pod = pods.iter().flatten().find(of_name).map(|p| &**p);
    let found = place.containers(&state.runtime).await?;
    let none = || missing(&place, previous, pod, pods.is_some());
    let container = pick(&found, previous, pod, place.container).ok_or_else(none)?;
    let request = cri::ContainerStatusRequest {
        container_id: container.id.clone(),
        verbose: false,
    };
    let path = match state.runtime.container_status(request).await {
        Ok(answer) => answer
            .status
            .map(|s| s.log_path)
            .filter(|p| !p.is_empty())
            .ok_or_else(none)?,
        Err(e) if e.is_not_found() => return Err(none()),
        Err(e) => return Err(runtime_error(&e)),
    };
    let opened = Reader::open(path.as_ref(), options, alive(&state.runtime, &container.id)).await;
    let reader = match opened {
        Ok(r) => r,
        // It was made, but has not been started.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(none()),
        Err(e) => {
            return Err(ApiError::internal(format!(
                "the log of container {:?} cannot be read: {e}",
                place.container
            )));
        }
    };
    let token = state.tasks.token().clone();
    let frames = stream::try_unfold(reader, move |mut reader| {
        let token = token.clone();
        async move {
            tokio::select! {
                () = token.cancelled() => Ok(None),
                read = reader.next() => Ok(read?.map(|bytes| (Frame::data(bytes), reader))),
            }
        }
    });
    Ok(respond::content(
        "text/plain",
        StreamBody::new(frames).boxed_unsync(),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(statuses: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [{"name": "c"}]},
            "status": {"containerStatuses": statuses},
        }))
        .expect("a pod")
    }

    fn container(id: &str, uid: &str) -> cri::Container {
        let labels = [(crate::sandbox::POD_UID_LABEL.to_owned(), uid.to_owned())].into();
        cri::Container {
            id: id.into(),
            labels,
            ..cri::Container::default()
        }
    }

    #[test]
    fn the_query_says_what_is_wanted() {
        let now = "2026-11-20T10:00:00Z".parse().expect("a time");
        let parse = |q: &str| options(&Query::parse(Some(q)), now);
        let got = parse(
            "follow=true&tailLines=3&sinceSeconds=60&timestamps=true&limitBytes=9&stream=Stderr",
        )
        .expect("valid");
        let want = Options {
            follow: true,
            tail_lines: Some(3),
            since: Some("2026-11-20T09:59:00Z".parse().expect("a time")),
            timestamps: true,
            limit_bytes: Some(9),
            stream: Some(Stream::Stderr),
        };
        assert_eq!(got, want);
        assert_eq!(parse("stream=All").expect("valid"), Options::default());
        for wrong in [
            "tailLines=-1",
            "tailLines=x",
            "sinceTime=never",
            "sinceTime=2026-11-20T09:59:00Z&sinceSeconds=1",
            "stream=Log",
        ] {
            assert_eq!(parse(wrong).map_err(|e| e.code()), Err(400), "{wrong}");
        }
    }

    #[test]
    fn the_previous_container_is_the_one_the_api_names_or_the_second_newest() {
        let found = [
            container("b", "u"),
            container("a", "u"),
            container("x", "old"),
        ];
        let id =
            |previous, pod: Option<&Pod>| pick(&found, previous, pod, "c").map(|c| c.id.as_str());
        assert_eq!((id(false, None), id(true, None)), (Some("b"), Some("a")));
        let crashed = pod(
            &json!([{"name": "c", "lastState": {"terminated": {"containerID": "containerd://b"}}}]),
        );
        assert_eq!(id(true, Some(&crashed)), Some("b"));
        assert!(
            pick(&found[1..], true, None, "c").is_none(),
            "of another pod"
        );
    }

    #[test]
    fn why_there_is_no_log() {
        let place = Place {
            namespace: "n",
            pod: "p",
            uid: None,
            container: "c",
        };
        let of = |previous, pod: Option<&Pod>| {
            let e = missing(&place, previous, pod, true);
            (e.code(), e.0.message)
        };
        assert_eq!(of(false, None).0, 404);
        let waiting =
            pod(&json!([{"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]));
        assert_eq!(
            of(false, Some(&waiting)),
            (
                400,
                r#"container "c" in pod "p" is waiting to start: ImagePullBackOff"#.into()
            )
        );
        assert_eq!(
            of(true, Some(&waiting)).1,
            r#"previous terminated container "c" in pod "p" not found"#
        );
        let other = Place {
            container: "d",
            ..place
        };
        assert_eq!(missing(&other, false, Some(&waiting), true).code(), 404);
    }
}
