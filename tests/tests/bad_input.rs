//! What a stranger, a broken client or a wrong disk can do: they get a clear answer, and cost nobody else anything.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kontiki_pki::{Ca, Profile, tls};
use kontiki_tests::bench::http::Access;
use kontiki_tests::host::{self, Host};
use kontiki_tests::node::{Node, Role};
use kontiki_tests::{process, wait};

fn server() -> Result<(Host, Node)> {
    let host = Host::enter()?;
    let node = Node::start(&process::kontiki()?, Role::Server)?;
    Ok((host, node))
}

fn address() -> SocketAddr {
    (host::ADDRESS, 6443).into()
}

/// Sends one HTTP/1.1 request over TLS, with a certificate or without, and gives the answer, or why there is none.
fn request(node: &Node, identity: Option<&kontiki_pki::Identity>, text: &str) -> Result<String> {
    let ca = std::fs::read_to_string(node.path("config/pki/ca.crt"))?;
    let config = tls::client(&ca, identity, &["http/1.1"])?;
    let name = rustls_pki_types::ServerName::IpAddress(address().ip().into());
    let mut connection = rustls::ClientConnection::new(config.into(), name)?;
    let mut tcp = TcpStream::connect(address())?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut stream = rustls::Stream::new(&mut connection, &mut tcp);
    stream.write_all(text.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..n]);
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    ensure!(!text.is_empty(), "no answer");
    Ok(text)
}

const GET_PODS: &str = "GET /api/v1/pods HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[test]
fn nobody_without_a_credential_of_the_cluster_gets_in() -> Result<()> {
    let (_host, node) = server()?;
    let answer = request(&node, None, GET_PODS)?;
    ensure!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("system:anonymous"),
        "{answer}"
    );
    let token = "GET /api/v1/pods HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer nonsense\r\nConnection: close\r\n\r\n";
    let answer = request(&node, None, token)?;
    ensure!(
        answer.starts_with("HTTP/1.1 401") && answer.contains("Unauthorized"),
        "{answer}"
    );
    let foreign =
        Ca::create("foreign")?.issue(&Profile::client("kubernetes-admin", "system:masters"))?;
    let answer = request(&node, Some(&foreign), GET_PODS)?;
    ensure!(
        answer.starts_with("HTTP/1.1 401"),
        "a certificate of another CA: {answer}"
    );
    let ready = request(
        &node,
        None,
        "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )?;
    ensure!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    // A user whom nothing allows anything.
    let ca = Ca::from_pem(
        &std::fs::read_to_string(node.path("config/pki/ca.crt"))?,
        &std::fs::read_to_string(node.path("config/pki/ca.key"))?,
    )?;
    let nobody = ca.issue(&Profile::client("nobody", "nobodies"))?;
    let answer = request(&node, Some(&nobody), GET_PODS)?;
    ensure!(
        answer.starts_with("HTTP/1.1 403")
            && answer.contains(r#"User \"nobody\" cannot list resource"#),
        "{answer}"
    );
    Ok(())
}

#[test]
fn clients_that_never_finish_cost_nothing_that_lasts() -> Result<()> {
    let (_host, node) = server()?;
    let before = open_files(node.pid())?;
    let mut idle = Vec::new();
    for i in 0..200 {
        let mut tcp = TcpStream::connect(address())?;
        if i % 2 == 0 {
            // The beginning of a TLS record that never ends.
            tcp.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01])?;
        }
        idle.push(tcp);
    }
    // Behind a handshake, headers that never end.
    let ca = std::fs::read_to_string(node.path("config/pki/ca.crt"))?;
    let config = Arc::new(tls::client(&ca, None, &["http/1.1"])?);
    let mut slow = Vec::new();
    for _ in 0..20 {
        let name = rustls_pki_types::ServerName::IpAddress(address().ip().into());
        let connection = rustls::ClientConnection::new(config.clone(), name)?;
        let mut stream = rustls::StreamOwned::new(connection, TcpStream::connect(address())?);
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: ")?;
        stream.flush()?;
        slow.push(stream);
    }
    let answer = request(
        &node,
        None,
        "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )?;
    ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "others are served meanwhile: {answer}"
    );
    wait::until(
        "the server lets go of what is never finished",
        Duration::from_secs(60),
        || {
            let now = open_files(node.pid())?;
            ensure!(now <= before + 5, "{now} open files, {before} before");
            Ok(())
        },
    )?;
    drop((idle, slow));
    Ok(())
}

fn open_files(pid: u32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

#[test]
fn malformed_requests_get_upstreams_answers() -> Result<()> {
    let (_host, node) = server()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let collection = "/api/v1/namespaces/default/configmaps";
    let big = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"big"}},"data":{{"k":"{}"}}}}"#,
        "x".repeat(1_100_000)
    );
    let huge = "x".repeat(4 << 20);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let named = |name: &str| {
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#)
    };
    let cases: Vec<(&str, String, String, &str, &str)> = vec![
        ("POST", collection.into(), "{".into(), "400", "BadRequest"),
        ("POST", collection.into(), deep, "400", "BadRequest"),
        (
            "POST",
            collection.into(),
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":[]}"#.into(),
            "400",
            "BadRequest",
        ),
        (
            "POST",
            format!("{collection}?fieldValidation=Strict"),
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"nope":1}"#.into(),
            "400",
            "unknown field",
        ),
        (
            "POST",
            collection.into(),
            named("Bad_Name"),
            "422",
            "Invalid",
        ),
        ("POST", collection.into(), big, "422", "Too long"),
        (
            "POST",
            collection.into(),
            huge,
            "413",
            "RequestEntityTooLarge",
        ),
        (
            "GET",
            "/api/v1/namespaces/default/nothing/x".into(),
            String::new(),
            "404",
            "NotFound",
        ),
        (
            "POST",
            "/api/v1/namespaces/nowhere/configmaps".into(),
            named("a"),
            "404",
            "NotFound",
        ),
        (
            "PATCH",
            format!("{collection}/a"),
            "{}".into(),
            "415",
            "UnsupportedMediaType",
        ),
    ];
    runtime.block_on(async {
        let access = Access::from_kubeconfig(&node.kubeconfig())?;
        for (method, path, body, code, words) in cases {
            let mut connection = access.connect().await?;
            let shown = body.chars().take(60).collect::<String>();
            let e = match connection.call(method, &path, body.into()).await {
                Ok(a) => anyhow::bail!("{method} {path} {shown}: taken: {a:?}"),
                Err(e) => e.to_string(),
            };
            ensure!(
                e.contains(code) && e.contains(words),
                "{method} {path} {shown}: {}",
                e.chars().take(500).collect::<String>()
            );
        }
        let mut connection = access.connect().await?;
        connection
            .call("POST", collection, named("after").into())
            .await
            .context("the server goes on")?;
        Ok(())
    })
}

#[test]
fn a_data_directory_that_is_not_ours_is_refused_and_not_touched() -> Result<()> {
    let _host = Host::enter()?;
    let dir = tempfile::tempdir()?;
    let store = dir.path().join("data/store");
    std::fs::create_dir_all(&store)?;
    std::fs::write(store.join("somebody.db"), "precious")?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let out = Command::new(process::kontiki()?)
        .args(["server", "--controllers=", "--node-ip", "192.0.2.10"])
        .args([
            "--data-dir",
            &path("data"),
            "--config-dir",
            &path("config"),
            "--run-dir",
            &path("run"),
        ])
        .output()?;
    let message = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(
        !out.status.success() && message.contains("store"),
        "{message}"
    );
    let left: Vec<_> = std::fs::read_dir(&store)?
        .map(|e| e.map(|e| e.file_name()))
        .collect::<Result<_, _>>()?;
    ensure!(left == ["somebody.db"], "{left:?}");
    ensure!(std::fs::read_to_string(store.join("somebody.db"))? == "precious");
    Ok(())
}
