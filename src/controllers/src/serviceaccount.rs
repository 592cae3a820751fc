//! Service accounts: every namespace has one named `default`.

use std::sync::Arc;

use async_trait::async_trait;
use kontiki_api::catalogue::known;
use kontiki_reconcile::{
    Cache, CallError, Client, Outcome, Queue, Reconcile, Selection, View, run,
};
use serde::Deserialize;
use serde_json::json;

use crate::context::Context;
use crate::replicaset::is_namespace_gone;
use crate::views::Namespace;

const WORKERS: usize = 1;
/// The account that pods have which name none.
pub const ACCOUNT: &str = "default";

/// A service account; only those named `default` are followed.
#[derive(Debug, Default, Deserialize)]
struct DefaultAccount {
    metadata: kontiki_api::ObjectMeta,
}

impl View for DefaultAccount {
    fn metadata(&self) -> &kontiki_api::ObjectMeta {
        &self.metadata
    }
}

struct ServiceAccounts {
    namespaces: Cache<Namespace>,
    accounts: Cache<DefaultAccount>,
    client: Client,
}

/// Starts the loop.
pub fn start(context: &Context) {
    let namespaces = context.cache::<Namespace>(known::namespaces());
    let only = Selection {
        field_selector: format!("metadata.name={ACCOUNT}"),
        ..Selection::default()
    };
    let accounts = context.selected::<DefaultAccount>(known::serviceaccounts(), only);
    let queue: Queue<String> = Queue::default();
    let q = queue.clone();
    namespaces.on_event(move |e| q.add(e.object().metadata.name.clone()));
    let q = queue.clone();
    accounts.on_event(move |e| q.add(e.object().metadata.namespace.clone()));
    let what = ServiceAccounts {
        namespaces,
        accounts,
        client: context.client("service-account-controller"),
    };
    run(&context.tasks, &queue, WORKERS, Arc::new(what));
}

/// Whether an account has to be made for a namespace.
pub fn plan(namespace: Option<&Namespace>, has_account: bool) -> bool {
    !has_account
        && namespace.is_some_and(|n| n.status.phase == "Active" && !n.metadata.is_deleting())
}

#[async_trait]
impl Reconcile<String> for ServiceAccounts {
    fn name(&self) -> &'static str {
        "serviceaccount"
    }

    async fn reconcile(&self, key: &String) -> Result<Outcome, CallError> {
        tokio::join!(self.namespaces.synced(), self.accounts.synced());
        let there = self.accounts.get(key, ACCOUNT).is_some();
        if !plan(self.namespaces.get("", key).as_deref(), there) {
            return Ok(Outcome::Done);
        }
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": key, "name": ACCOUNT}});
        match self
            .client
            .create(known::serviceaccounts(), key, &account)
            .await
        {
            Ok(answer) => {
                self.accounts.written(&answer);
                Ok(Outcome::Done)
            }
            Err(e) if e.is_already_exists() || is_namespace_gone(&e) => Ok(Outcome::Done),
            Err(e) => Err(e),
        }
    }
}
