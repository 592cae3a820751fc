//! Who may use the node API: the API server and administrators, by their client certificates.

use http::StatusCode;
use kontiki_api::{ApiError, Reason};
use kontiki_pki::peer::Subject;
use rustls_pki_types::CertificateDer;

/// The group that may do everything. The API server's own certificate for kubelets is in it.
const MASTERS: &str = "system:masters";
/// The users that may do everything here beside those of the group; a certificate of kubeadm's names the API server so.
const API_SERVER: &str = "kube-apiserver-kubelet-client";

/// The other end of a connection. The TLS handshake has held its certificate, if it has one, against the cluster's CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer(Option<Subject>);

impl Peer {
    pub(super) fn of(certificates: Option<&[CertificateDer<'_>]>) -> Peer {
        let first = certificates.and_then(<[_]>::first);
        Peer(first.and_then(|c| Subject::of_certificate(c).ok()))
    }

    /// Whether it has shown a certificate.
    pub(super) fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// Refuses those who may not use the node API: nodes, above all, must not run commands on one another.
    pub(super) fn check(&self, method: &http::Method, path: &str) -> Result<(), ApiError> {
        let Some(subject) = &self.0 else {
            return Err(ApiError::new(
                Reason::Unauthorized,
                StatusCode::UNAUTHORIZED
                    .canonical_reason()
                    .unwrap_or_default(),
            ));
        };
        if subject.user == API_SERVER || subject.groups.iter().any(|g| g == MASTERS) {
            return Ok(());
        }
        let why = format!(
            "Forbidden (user={}, verb={}, path={path})",
            subject.user,
            method.as_str().to_lowercase()
        );
        Err(ApiError::new(Reason::Forbidden, why))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn only_the_api_server_and_administrators_are_let_in() {
        let check = |user: &str, group: &str| {
            let subject = Subject {
                user: user.into(),
                groups: vec![group.into()],
            };
            Peer(Some(subject))
                .check(&Method::POST, "/exec/n/p/c")
                .map_err(|e| e.code())
        };
        assert_eq!(check("admin", "system:masters"), Ok(()));
        assert_eq!(
            check("kube-apiserver-kubelet-client", "kubeadm:cluster-admins"),
            Ok(())
        );
        assert_eq!(check("system:node:n2", "system:nodes"), Err(403));
        assert_eq!(
            Peer::of(None)
                .check(&Method::GET, "/pods")
                .map_err(|e| e.code()),
            Err(401)
        );
    }
}
