//! Serves the API over a store in memory until it is interrupted, and writes a kubeconfig of an administrator:
//! `serve ADDRESS KUBECONFIG`. For trying the API without a cluster.

use std::net::SocketAddr;
use std::sync::Arc;

use kontiki_apiserver::{ApiServer, Config};
use kontiki_base::{Metrics, Tasks};
use kontiki_pki::{Pki, Profile};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(kubeconfig)) = (args.next(), args.next()) else {
        return Err("usage: serve ADDRESS KUBECONFIG".into());
    };
    kontiki_base::logging::init(
        &std::env::var("LOG").unwrap_or("info".into()),
        kontiki_base::logging::Format::Text,
    )?;
    let address: SocketAddr = address.parse()?;
    let dir = tempfile::tempdir()?;
    let pki = Pki::load_or_create(dir.path())?;
    let dns = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "localhost",
    ]
    .map(String::from);
    let serving = pki
        .ca()
        .issue(&Profile::server("kube-apiserver", &dns, &[address.ip()]))?;
    let config = Config {
        listen: vec![address],
        advertise: address.ip(),
        serving,
        client_ca_pem: pki.ca().cert_pem().to_owned(),
        service_account_key_pem: pki.service_account_key_pem().to_owned(),
        service_account_issuer: "https://kubernetes.default.svc.cluster.local".into(),
        kubelet: None,
        service_cidr: "10.96.0.0/16".parse()?,
        node_ports: (30000, 32767),
    };
    let tasks = Tasks::default();
    let store = Arc::new(kontiki_raft::memory());
    let running = ApiServer::start(config, store, &Metrics::default(), &tasks).await?;
    running.wait_ready().await;
    let admin = pki
        .ca()
        .issue(&Profile::client("kubernetes-admin", "system:masters"))?;
    let server = format!("https://{}", running.local_addresses[0]);
    std::fs::write(
        kubeconfig,
        kontiki_pki::kubeconfig::render(
            "kontiki",
            &server,
            pki.ca().cert_pem(),
            "kubernetes-admin",
            &admin,
        ),
    )?;
    tokio::signal::ctrl_c().await?;
    tasks.stop().await;
    Ok(())
}
