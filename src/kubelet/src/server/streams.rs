//! Exec, attach and port-forward: which protocol a client asks for, and what it is connected to.

use std::sync::Arc;

use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kontiki_api::ApiError;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::codec::Framed;

use super::channels::{self, Protocol};
use super::containers::Place;
use super::dial::{Dialed, PROTOCOL_HEADER, dial};
use super::forward;
use super::query::Query;
use super::remote::{self, Wanted};
use super::respond::{self, Body, runtime_error};
use super::router::State;
use super::spdy::{self, Codec};
use crate::cri::v1 as cri;

/// The most bytes of a WebSocket message from a client; kubectl's are some 32 KiB.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// The most ports of one port-forward over channels, whose numbers are a byte.
const PORTS_MAX: usize = 64;
/// What is spoken to the runtime above SPDY.
const REMOTE_COMMAND: HeaderValue = HeaderValue::from_static("v4.channel.k8s.io");
const PORT_FORWARD: HeaderValue = HeaderValue::from_static("portforward.k8s.io");
/// Before the name of a protocol of port-forward: its SPDY comes in the messages of a WebSocket.
const TUNNEL_PREFIX: &str = "SPDY/3.1+";

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Exec,
    Attach,
    PortForward,
}

/// What a client wants to go over to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Upgrade {
    /// SPDY/3.1, which the runtime speaks itself.
    Spdy,
    /// A WebSocket with this key and the protocols that are offered.
    WebSocket {
        key: HeaderValue,
        offered: Vec<String>,
    },
}

fn upgrade(headers: &HeaderMap) -> Result<Upgrade, ApiError> {
    let wanted = headers
        .get(UPGRADE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if wanted.eq_ignore_ascii_case(spdy::NAME) {
        return Ok(Upgrade::Spdy);
    }
    if !wanted.eq_ignore_ascii_case("websocket") {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|v| v != "13") {
        return Err(ApiError::bad_request(
            "only version 13 of WebSocket is spoken here",
        ));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).cloned();
    let key =
        key.ok_or_else(|| ApiError::bad_request("the header Sec-WebSocket-Key is missing"))?;
    let lists = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .into_iter()
        .filter_map(|v| v.to_str().ok());
    let offered = lists
        .flat_map(|l| l.split(','))
        .map(|p| p.trim().to_owned())
        .collect();
    Ok(Upgrade::WebSocket { key, offered })
}

/// How a WebSocket is used.
enum Way {
    Channels(Protocol),
    Tunnel { name: String, protocol: HeaderValue },
}

fn way(kind: Kind, offered: &[String]) -> Result<Way, ApiError> {
    let tunnelled = |o: &String| {
        let inner = o.strip_prefix(TUNNEL_PREFIX)?;
        Some(Way::Tunnel {
            name: o.clone(),
            protocol: HeaderValue::from_str(inner).ok()?,
        })
    };
    if kind == Kind::PortForward
        && let Some(tunnel) = offered.iter().find_map(tunnelled)
    {
        return Ok(tunnel);
    }
    let unknown = || {
        ApiError::bad_request(format!(
            "none of the protocols is spoken here: {}",
            offered.join(", ")
        ))
    };
    channels::choose(offered.iter().map(String::as_str))
        .map(Way::Channels)
        .ok_or_else(unknown)
}

fn wanted(q: &Query) -> Result<Wanted, ApiError> {
    let tty = q.flag("tty");
    // A terminal has one output; the runtime refuses to split it.
    let w = Wanted {
        stdin: q.flag("input"),
        stdout: q.flag("output"),
        stderr: q.flag("error") && !tty,
        tty,
    };
    if !w.stdin && !w.stdout && !w.stderr {
        return Err(ApiError::bad_request(
            "you must specify at least 1 of stdin, stdout, stderr",
        ));
    }
    Ok(w)
}

/// The ports of a port-forward over channels.
fn ports(q: &Query) -> Result<Vec<u16>, ApiError> {
    let wrong = |p: &str| ApiError::bad_request(format!("{p:?} is not a port"));
    let list = q
        .all("port")
        .chain(q.all("ports"))
        .flat_map(|p| p.split(','));
    let ports: Vec<u16> = list
        .map(|p| p.parse().ok().filter(|n| *n != 0).ok_or_else(|| wrong(p)))
        .collect::<Result<_, _>>()?;
    match ports.len() {
        0 => Err(ApiError::bad_request(
            "query parameter \"port\" is required",
        )),
        1..=PORTS_MAX => Ok(ports),
        _ => Err(ApiError::bad_request(format!(
            "at most {PORTS_MAX} ports can be forwarded at a time"
        ))),
    }
}

/// Has the runtime prepare a stream; returns its URL.
async fn url(
    state: &State,
    kind: Kind,
    place: Place<'_>,
    q: &Query,
    w: Wanted,
) -> Result<String, ApiError> {
    let r = &state.runtime;
    let Wanted {
        stdin,
        stdout,
        stderr,
        tty,
    } = w;
    let url = match kind {
        Kind::Exec => {
            let cmd: Vec<String> = q.all("command").map(str::to_owned).collect();
            if cmd.is_empty() {
                return Err(ApiError::bad_request("you must specify a command"));
            }
            let container_id = place.container(r).await?;
            r.exec(cri::ExecRequest {
                container_id,
                cmd,
                tty,
                stdin,
                stdout,
                stderr,
            })
            .await
            .map(|a| a.url)
        }
        Kind::Attach => {
            let container_id = place.container(r).await?;
            r.attach(cri::AttachRequest {
                container_id,
                stdin,
                tty,
                stdout,
                stderr,
            })
            .await
            .map(|a| a.url)
        }
        Kind::PortForward => {
            let pod_sandbox_id = place.sandbox(r).await?;
            r.port_forward(cri::PortForwardRequest {
                pod_sandbox_id,
                port: Vec::new(),
            })
            .await
            .map(|a| a.url)
        }
    };
    url.map_err(|e| runtime_error(&e))
}

fn switching(upgrade: &'static str) -> Response<Body> {
    let mut r = Response::new(respond::full(""));
    *r.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    r.headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    r.headers_mut()
        .insert(UPGRADE, HeaderValue::from_static(upgrade));
    r
}

fn switching_to_websocket(key: &HeaderValue, protocol: &str) -> Response<Body> {
    let mut r = switching("websocket");
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .expect("base64 is a header's value");
    r.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let (false, Ok(name)) = (protocol.is_empty(), HeaderValue::from_str(protocol)) {
        r.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
    }
    r
}

async fn websocket(io: TokioIo<Upgraded>) -> remote::Client {
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .read_buffer_size(32 << 10)
        .write_buffer_size(0);
    WebSocketStream::from_raw_socket(io, Role::Server, Some(limits)).await
}

/// Answers a request for a stream: first the runtime has to take it, then the client goes over to it.
pub(super) async fn answer(
    state: &Arc<State>,
    kind: Kind,
    place: Place<'_>,
    query: &Query,
    mut req: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let upgrade = upgrade(req.headers())?;
    let wanted = if kind == Kind::PortForward {
        Wanted::default()
    } else {
        wanted(query)?
    };
    let full = || ApiError::too_many_requests("too many streams are open on this node", 1);
    let permit = state
        .streams
        .clone()
        .try_acquire_owned()
        .map_err(|_| full())?;
    // The way is judged before the runtime is troubled.
    let (way, key) = match &upgrade {
        Upgrade::Spdy => (None, None),
        Upgrade::WebSocket { key, offered } => (Some(way(kind, offered)?), Some(key)),
    };
    let ports = match (&way, kind) {
        (Some(Way::Channels(_)), Kind::PortForward) => ports(query)?,
        _ => Vec::new(),
    };
    let inner: Vec<HeaderValue> = match &way {
        None => req
            .headers()
            .get_all(PROTOCOL_HEADER)
            .iter()
            .cloned()
            .collect(),
        Some(Way::Tunnel { protocol, .. }) => vec![protocol.clone()],
        Some(Way::Channels(_)) if kind == Kind::PortForward => vec![PORT_FORWARD],
        Some(Way::Channels(_)) => vec![REMOTE_COMMAND],
    };
    let url = url(state, kind, place, query, wanted).await?;
    let Dialed { mut headers, io } = dial(&url, &inner, &state.tasks).await?;
    let name = match &way {
        None => "",
        Some(Way::Tunnel { name, .. }) => name,
        Some(Way::Channels(p)) => p.name,
    };
    let response = match key {
        None => {
            let mut r = switching(spdy::NAME);
            r.headers_mut().extend(
                headers
                    .remove(PROTOCOL_HEADER)
                    .map(|v| (PROTOCOL_HEADER, v)),
            );
            r
        }
        Some(key) => switching_to_websocket(key, name),
    };
    let client = hyper::upgrade::on(&mut req);
    let token = state.tasks.token().clone();
    state.tasks.spawn_transient("node API stream", async move {
        let work = async {
            let mut client = match client.await {
                Ok(c) => TokioIo::new(c),
                Err(e) => {
                    return tracing::debug!(error = %e, "a client left before its stream began");
                }
            };
            match way {
                None => {
                    let mut io = io;
                    if let Err(e) = tokio::io::copy_bidirectional(&mut client, &mut io).await {
                        tracing::debug!(error = %e, "a stream ended");
                    }
                }
                Some(Way::Tunnel { .. }) => forward::tunnel(websocket(client).await, io).await,
                Some(Way::Channels(p)) => {
                    let runtime = Framed::new(io, Codec::default());
                    let client = websocket(client).await;
                    if kind == Kind::PortForward {
                        forward::channels(client, p, runtime, &ports).await;
                    } else {
                        remote::run(client, p, runtime, wanted).await;
                    }
                }
            }
        };
        tokio::select! {
            () = token.cancelled() => {}
            () = work => {}
        }
        drop(permit);
    });
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(k, v)| {
                (
                    http::HeaderName::from_static(k),
                    HeaderValue::from_static(v),
                )
            })
            .collect()
    }

    #[test]
    fn a_client_says_what_it_goes_over_to() {
        assert_eq!(
            upgrade(&headers(&[("upgrade", "SPDY/3.1")])).expect("valid"),
            Upgrade::Spdy
        );
        let ws = [
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "k"),
        ];
        let offers = [
            &ws[..],
            &[(
                "sec-websocket-protocol",
                "v5.channel.k8s.io, v4.channel.k8s.io",
            )],
        ]
        .concat();
        let offered = vec![
            "v5.channel.k8s.io".to_owned(),
            "v4.channel.k8s.io".to_owned(),
        ];
        let want = Upgrade::WebSocket {
            key: HeaderValue::from_static("k"),
            offered,
        };
        assert_eq!(upgrade(&headers(&offers)).expect("valid"), want);
        for missing in 0..3 {
            let rest: Vec<_> = ws
                .iter()
                .enumerate()
                .filter(|(i, _)| *i != missing)
                .map(|(_, p)| *p)
                .collect();
            assert_eq!(upgrade(&headers(&rest)).map_err(|e| e.code()), Err(400));
        }
    }

    #[test]
    fn port_forward_is_tunnelled_or_by_channels() {
        let of = |kind, offered: &[&str]| match way(
            kind,
            &offered.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>(),
        ) {
            Ok(Way::Tunnel { protocol, .. }) => {
                format!("tunnel {}", protocol.to_str().expect("text"))
            }
            Ok(Way::Channels(p)) => p.name.to_owned(),
            Err(e) => e.code().to_string(),
        };
        assert_eq!(
            of(Kind::PortForward, &["SPDY/3.1+portforward.k8s.io"]),
            "tunnel portforward.k8s.io"
        );
        assert_eq!(
            of(Kind::PortForward, &["v4.channel.k8s.io"]),
            "v4.channel.k8s.io"
        );
        assert_eq!(of(Kind::Exec, &["SPDY/3.1+portforward.k8s.io"]), "400");
    }

    #[test]
    fn a_terminal_has_one_output() {
        let of = |q| wanted(&Query::parse(Some(q))).map_err(|e| e.code());
        let w = Wanted {
            stdin: true,
            stdout: true,
            stderr: false,
            tty: true,
        };
        assert_eq!(of("input=1&output=1&error=1&tty=1"), Ok(w));
        assert_eq!(of("tty=1"), Err(400));
    }

    #[test]
    fn ports_are_numbers_and_few() {
        let of = |q: &str| ports(&Query::parse(Some(q))).map_err(|e| e.code());
        assert_eq!(of("port=80&port=81,82"), Ok(vec![80, 81, 82]));
        for wrong in [
            "",
            "port=0",
            "port=x",
            "port=65536",
            &"port=1&".repeat(PORTS_MAX + 1),
        ] {
            assert_eq!(of(wrong), Err(400), "{wrong}");
        }
    }
}
