//! Service-account tokens for pods: asked of the API, kept until they are due for renewal.

use std::collections::HashMap;
use std::time::Duration;

use kontiki_api::catalogue::known;
use kontiki_reconcile::{CallError, Client};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::pod::Pod;

/// A token is renewed when it is this old, however long it would still be valid.
const RENEW_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// The part of its life, in percent, after which it is renewed.
const RENEW_AFTER_PERCENT: u64 = 80;
/// The most tokens that are kept; those due for renewal go first.
const KEPT_MAX: usize = 4096;

type Key = (String, Option<String>, i64);

struct Kept {
    token: String,
    renew_at: Instant,
}

/// Asks for tokens and keeps them.
pub struct Tokens {
    client: Client,
    kept: Mutex<HashMap<Key, Kept>>,
}

impl Tokens {
    /// Tokens asked for through this client.
    pub fn new(client: Client) -> Tokens {
        Tokens {
            client,
            kept: Mutex::default(),
        }
    }

    /// A token for the pod's service account that is valid for the audience. One that is due for renewal still serves
    /// while the API cannot give another.
    ///
    /// # Errors
    /// The API gave no token, and there is none from before.
    pub async fn get(
        &self,
        pod: &Pod,
        audience: Option<&str>,
        seconds: i64,
    ) -> Result<String, CallError> {
        let key = (
            pod.metadata.uid.clone(),
            audience.map(str::to_owned),
            seconds,
        );
        let before = self
            .kept
            .lock()
            .get(&key)
            .map(|k| (k.token.clone(), k.renew_at));
        if let Some((token, renew_at)) = &before
            && *renew_at > Instant::now()
        {
            return Ok(token.clone());
        }
        match (self.request(pod, audience, seconds).await, before) {
            (Ok(token), _) => {
                let life = Duration::from_secs(u64::try_from(seconds).unwrap_or(3600));
                let age = (life * u32::try_from(RENEW_AFTER_PERCENT).unwrap_or(80) / 100)
                    .min(RENEW_AFTER_MAX);
                let mut kept = self.kept.lock();
                if kept.len() >= KEPT_MAX {
                    kept.retain(|_, k| k.renew_at > Instant::now());
                }
                kept.insert(
                    key,
                    Kept {
                        token: token.clone(),
                        renew_at: Instant::now() + age,
                    },
                );
                Ok(token)
            }
            (Err(e), Some((token, _))) => {
                tracing::warn!(
                    pod = pod.key(),
                    error = kontiki_base::chain(&e),
                    "a service-account token could not be renewed"
                );
                Ok(token)
            }
            (Err(e), None) => Err(e),
        }
    }

    async fn request(
        &self,
        pod: &Pod,
        audience: Option<&str>,
        seconds: i64,
    ) -> Result<String, CallError> {
        let m = &pod.metadata;
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audience.map(|a| vec![a]).unwrap_or_default(),
                "expirationSeconds": seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": m.name, "uid": m.uid},
            },
        });
        let account = pod
            .spec
            .service_account_name
            .as_deref()
            .filter(|s| !s.is_empty())
            .unwrap_or("default");
        let answer = self
            .client
            .create_subresource(
                known::serviceaccounts(),
                (&m.namespace, account),
                "token",
                &body,
            )
            .await?;
        let token = kontiki_api::object::text(&answer, &["status", "token"]);
        if token.is_empty() {
            return Err(CallError::Malformed(
                "the answer to a TokenRequest has no token".into(),
            ));
        }
        Ok(token.to_owned())
    }

    /// Forgets the tokens of a pod.
    pub fn forget(&self, uid: &str) {
        self.kept.lock().retain(|(u, _, _), _| u != uid);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use async_trait::async_trait;
    use bytes::Bytes;
    use kontiki_api::Resource;
    use kontiki_reconcile::{Api, ListPage, ListParams, Request, WatchParams, WatchStream};
    use parking_lot::Mutex;
    use serde_json::Value;

    use super::*;

    /// Gives a new token at each call, unless it is down.
    #[derive(Default)]
    struct TokenApi {
        given: AtomicU32,
        down: AtomicBool,
        body: Mutex<Value>,
    }

    fn down() -> CallError {
        CallError::Unavailable {
            reason: "it is down".into(),
            maybe_done: false,
        }
    }

    #[async_trait]
    impl Api for TokenApi {
        async fn call(&self, q: Request) -> Result<Bytes, CallError> {
            if self.down.load(Ordering::SeqCst) {
                return Err(down());
            }
            assert_eq!(
                (q.namespace.as_str(), q.name.as_str(), q.subresource),
                ("n", "default", "token")
            );
            *self.body.lock() = serde_json::from_slice(&q.body).expect("JSON");
            let n = self.given.fetch_add(1, Ordering::SeqCst);
            Ok(Bytes::from(
                json!({"status": {"token": format!("token-{n}")}}).to_string(),
            ))
        }

        async fn list(&self, _: &'static Resource, _: ListParams) -> Result<ListPage, CallError> {
            Err(down())
        }

        async fn watch(
            &self,
            _: &'static Resource,
            _: WatchParams,
        ) -> Result<WatchStream, CallError> {
            Err(down())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_kept_until_it_is_due_and_outlives_a_silent_api() {
        let api = Arc::new(TokenApi::default());
        let tokens = Tokens::new(Client::new(api.clone(), "kubelet"));
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}}),
        )
        .expect("a pod");
        let first = tokens.get(&pod, Some("x"), 3600).await.expect("given");
        assert_eq!(api.body.lock()["spec"]["audiences"], json!(["x"]));
        assert_eq!(
            tokens.get(&pod, Some("x"), 3600).await.expect("kept"),
            first
        );
        tokio::time::advance(Duration::from_secs(3000)).await;
        api.down.store(true, Ordering::SeqCst);
        assert_eq!(
            tokens
                .get(&pod, Some("x"), 3600)
                .await
                .expect("still serves"),
            first
        );
        api.down.store(false, Ordering::SeqCst);
        assert_ne!(
            tokens.get(&pod, Some("x"), 3600).await.expect("renewed"),
            first
        );
    }
}
