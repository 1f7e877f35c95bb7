//! The policy's reconciler: says whether a ToolPolicy is in force.

use super::context::Context;
use crate::api::condition::{self, Verdict};
use crate::api::{HaloPSAConnection, ImportedClient, ToolPolicy};
use crate::k8s::{self, names, reflect};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource, ResourceExt};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", k8s::explain(.0))]
    Kube(#[from] kube::Error),
}

pub fn of_connection(policies: Store<ToolPolicy>) -> impl Fn(Arc<HaloPSAConnection>) -> Vec<ObjectRef<ToolPolicy>> {
    move |connection| about(&policies, connection.namespace(), &connection.name_any())
}

pub fn of_client(policies: Store<ToolPolicy>) -> impl Fn(Arc<ImportedClient>) -> Vec<ObjectRef<ToolPolicy>> {
    move |client| about(&policies, client.namespace(), &client.spec.connection_ref.name)
}

fn about(policies: &Store<ToolPolicy>, namespace: Option<String>, connection: &str) -> Vec<ObjectRef<ToolPolicy>> {
    policies
        .state_filter(|p| p.namespace() == namespace && p.spec.connection_ref.name == connection)
        .iter()
        .map(|p| ObjectRef::from_obj(&**p))
        .collect()
}

pub async fn reconcile(policy: Arc<ToolPolicy>, ctx: Arc<Context>) -> Result<Action, Error> {
    let namespace = policy.namespace().unwrap_or_default();
    let connection = &policy.spec.connection_ref.name;
    let unknown: Vec<&String> = policy.spec.clients.iter().flatten().filter(|c| reflect::get(&ctx.stores.clients, &namespace, c).is_none()).collect();
    let verdict = if reflect::get(&ctx.stores.connections, &namespace, connection).is_none() {
        Verdict::no(
            "ConnectionNotFound",
            format!("there is no HaloPSAConnection {connection} in namespace {namespace}; apply it, or correct spec.connectionRef"),
        )
    } else if unknown.is_empty() {
        Verdict::yes("Accepted", "in force from the next call on")
    } else {
        let names: Vec<&str> = unknown.iter().take(10).map(|s| s.as_str()).collect();
        Verdict::no("ClientNotFound", format!("there is no ImportedClient {}; the policy is in force for the others", names.join(", ")))
    };
    let before = policy.status.clone().unwrap_or_default();
    let mut status = before.clone();
    status.observed_generation = policy.metadata.generation;
    condition::set(&mut status.conditions, condition::ACCEPTED, &verdict, policy.metadata.generation, Timestamp::now());
    let api: Api<ToolPolicy> = Api::namespaced(ctx.kube.clone(), &namespace);
    if k8s::apply_status(&api, &*policy, policy.status.as_ref(), &status, names::CONTROLLER).await? {
        ctx.turned(&policy.object_ref(&()), &before.conditions, &status.conditions).await;
    }
    Ok(Action::await_change())
}

pub fn error_policy(policy: Arc<ToolPolicy>, error: &Error, ctx: Arc<Context>) -> Action {
    let (namespace, name) = (policy.namespace().unwrap_or_default(), policy.name_any());
    tracing::warn!(kind = "ToolPolicy", %namespace, %name, %error, "reconciling failed, it is tried again");
    Action::requeue(ctx.backoff.next((namespace, name, "policy")))
}
