//! What the server is told at its start.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use kontiki_pki::Identity;

/// The configuration of an API server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens. Port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// The address under which clients in the cluster reach it: the endpoint of the Service `default/kubernetes`.
    pub advertise: IpAddr,
    /// The server's certificate and key.
    pub serving: Identity,
    /// The CA whose client certificates are accepted.
    pub client_ca_pem: String,
    /// The key that signs the tokens of service accounts (PKCS #8, ECDSA P-256).
    pub service_account_key_pem: String,
    /// The `iss` of these tokens.
    pub service_account_issuer: String,
    /// How the server shows itself to kubelets, and the CA of their certificates; without it logs and exec are refused.
    pub kubelet: Option<KubeletAccess>,
    /// The addresses of services.
    pub service_cidr: IpNet,
    /// The ports of services of type NodePort, first and last.
    pub node_ports: (u16, u16),
}

/// What the server needs to call kubelets.
#[derive(Clone, Debug)]
pub struct KubeletAccess {
    /// Its client certificate and key.
    pub identity: Identity,
    /// The CA that signed the kubelets' serving certificates.
    pub ca_pem: String,
}

impl Config {
    /// The address of the Service `default/kubernetes`: the first of the service range.
    pub fn kubernetes_service_ip(&self) -> IpAddr {
        self.service_cidr
            .hosts()
            .next()
            .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}
