//! The certificates of a master and of the node in the same process, with kubeadm's names.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use kontiki_pki::{Identity, Pki, Profile, files, kubeconfig};

use crate::config::Config;

/// What a master holds.
pub(crate) struct Identities {
    /// The CA and the service-account key.
    pub(crate) pki: Pki,
    /// The API server's own certificate.
    pub(crate) apiserver: Identity,
    /// What the API server shows to kubelets.
    pub(crate) kubelet_client: Identity,
    /// The certificate of the kubelet's server on this node.
    pub(crate) kubelet_server: Identity,
}

/// Loads or makes everything under `<config>/pki`, and writes the admin kubeconfig.
///
/// # Errors
/// A file is there and not usable; nothing is replaced then.
pub(crate) fn load(config: &Config) -> Result<Identities> {
    let pki = Pki::load_or_create(&config.config_dir.join("pki"))?;
    let (dns_names, addresses) = serving_names(config);
    let apiserver = pki.identity(
        "apiserver",
        &Profile::server("kube-apiserver", &dns_names, &addresses),
    )?;
    let kubelet_client = pki.identity(
        "apiserver-kubelet-client",
        &Profile::client("kube-apiserver-kubelet-client", "system:masters"),
    )?;
    let kubelet_server = pki.identity("kubelet", &kubelet_profile(config))?;
    let admin = pki.identity(
        "admin",
        &Profile::client("kubernetes-admin", "system:masters"),
    )?;
    let ip = if config.bind_address.is_unspecified() {
        config.advertise_address
    } else {
        config.bind_address
    };
    let server = format!("https://{ip}:{}", config.secure_port);
    let text = kubeconfig::render(
        "kontiki",
        &server,
        pki.ca().cert_pem(),
        "kubernetes-admin",
        &admin,
    );
    let path = config.config_dir.join("admin.kubeconfig");
    files::write(&path, &text, true).context("cannot write the admin kubeconfig")?;
    Ok(Identities {
        pki,
        apiserver,
        kubelet_client,
        kubelet_server,
    })
}

fn serving_names(config: &Config) -> (Vec<String>, Vec<IpAddr>) {
    let domain = &config.cluster_domain;
    let mut dns_names = vec![
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        format!("kubernetes.default.svc.{domain}"),
        "localhost".to_owned(),
        config.node_name.clone(),
    ];
    let mut addresses = vec![
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        config.api_service_ip(),
        config.advertise_address,
        config.node_ip,
    ];
    if !config.bind_address.is_unspecified() {
        addresses.push(config.bind_address);
    }
    for san in &config.tls_san {
        match san.parse() {
            Ok(ip) => addresses.push(ip),
            Err(_) => dns_names.push(san.clone()),
        }
    }
    addresses.sort();
    addresses.dedup();
    (dns_names, addresses)
}

fn kubelet_profile(config: &Config) -> Profile {
    let user = format!("system:node:{}", config.node_name);
    let mut profile = Profile::server(
        &user,
        std::slice::from_ref(&config.node_name),
        &[config.node_ip],
    );
    profile.organization = Some("system:nodes".into());
    profile
}
