//! The policy's reconciler: says whether a ToolPolicy is in effect.

use super::context::Context;
use crate::api::condition::{self, ConditionUpdate};
use crate::api::policy::RuleStatus;
use crate::api::reason::Reason;
use crate::api::tool_server::SEPARATOR;
use crate::api::{HaloPSAConnection, ImportedClient, ToolPolicy, ToolServer};
use crate::k8s::key::Key;
use crate::k8s::{self, names, reflect};
use crate::policy::{self, expression};
use crate::tools::{read, write};
use k8s_openapi::jiff::Timestamp;
use kube::core::Selector;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource, ResourceExt};
use std::sync::Arc;

const KIND: &str = "ToolPolicy";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", k8s::explain(.0))]
    Kube(#[from] kube::Error),
}

pub fn of_connection(
    policies: Store<ToolPolicy>,
) -> impl Fn(Arc<HaloPSAConnection>) -> Vec<ObjectRef<ToolPolicy>> {
    move |connection| about(&policies, connection.namespace(), &connection.name_any())
}

pub fn of_client(
    policies: Store<ToolPolicy>,
) -> impl Fn(Arc<ImportedClient>) -> Vec<ObjectRef<ToolPolicy>> {
    move |client| {
        about(
            &policies,
            client.namespace(),
            &client.spec.connection_ref.name,
        )
    }
}

pub fn of_server(
    policies: Store<ToolPolicy>,
) -> impl Fn(Arc<ToolServer>) -> Vec<ObjectRef<ToolPolicy>> {
    move |server| {
        about(
            &policies,
            server.namespace(),
            &server.spec.connection_ref.name,
        )
    }
}

fn about(
    policies: &Store<ToolPolicy>,
    namespace: Option<String>,
    connection: &str,
) -> Vec<ObjectRef<ToolPolicy>> {
    policies
        .state_filter(|p| p.namespace() == namespace && p.spec.connection_ref.name == connection)
        .iter()
        .map(|p| ObjectRef::from_obj(&**p))
        .collect()
}

pub async fn reconcile(policy: Arc<ToolPolicy>, ctx: Arc<Context>) -> Result<Action, Error> {
    ctx.stores.filled().await;
    let namespace = policy.namespace().unwrap_or_default();
    let tools = tool_names(&ctx, &namespace, &policy.spec.connection_ref.name);
    let rules = rule_status(&policy, &tools);
    let accepted = accepted(&policy, &rules, &namespace, &ctx);
    let before = policy.status.as_ref();
    let mut status = before.cloned().unwrap_or_default();
    let generation = policy.metadata.generation;
    status.observed_generation = generation;
    status.rule_count = Some(rules.len() as i64);
    status.rules = rules;
    condition::set(
        &mut status.conditions,
        condition::ACCEPTED,
        &accepted,
        generation,
        Timestamp::now(),
    );
    let api: Api<ToolPolicy> = Api::namespaced(ctx.kube.clone(), &namespace);
    if k8s::apply_status(&api, &*policy, before, &status, names::CONTROLLER).await? {
        let conditions = before.map(|s| s.conditions.as_slice()).unwrap_or_default();
        ctx.emit_transitions(&policy.object_ref(&()), conditions, &status.conditions)
            .await;
    }
    ctx.backoff.reset(KIND, &Key::of(&*policy));
    Ok(Action::await_change())
}

/// Whether the policy applies as written.
fn accepted(
    policy: &ToolPolicy,
    rules: &[RuleStatus],
    namespace: &str,
    ctx: &Context,
) -> ConditionUpdate {
    let connection = &policy.spec.connection_ref.name;
    if reflect::get(&ctx.stores.connections, namespace, connection).is_none() {
        return ConditionUpdate::no(
            Reason::ConnectionNotFound,
            format!(
                "HaloPSAConnection {connection} does not exist in namespace {namespace}; create \
                 it, or correct spec.connectionRef"
            ),
        );
    }
    if let Some(why) = broken(policy) {
        return ConditionUpdate::no(
            Reason::Invalid,
            format!(
                "{why}; until this is fixed, it grants nothing, and counts where it is stricter \
                 than the other rules"
            ),
        );
    }
    let clients = policy.spec.clients.iter().flatten();
    let missing: Vec<&str> = clients
        .filter(|c| reflect::get(&ctx.stores.clients, namespace, c).is_none())
        .take(10)
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        return ConditionUpdate::no(
            Reason::ClientNotFound,
            format!(
                "ImportedClient {} does not exist; the policy applies to the others",
                missing.join(", ")
            ),
        );
    }
    let idle = rules.iter().enumerate().filter(|(_, r)| r.decides == 0);
    let idle: Vec<String> = idle.map(|(i, _)| (i + 1).to_string()).collect();
    let message = match idle.as_slice() {
        [] => "in effect".to_string(),
        rules => format!(
            "in effect; rule {} currently matches no tool",
            rules.join(", ")
        ),
    };
    ConditionUpdate::yes(Reason::Accepted, message)
}

/// What cannot be evaluated, and why. Pure.
fn broken(policy: &ToolPolicy) -> Option<String> {
    if let Some(selector) = &policy.spec.client_selector
        && let Err(error) = Selector::try_from(selector.clone())
    {
        return Some(format!("spec.clientSelector is invalid: {error}"));
    }
    policy.spec.rules.iter().enumerate().find_map(|(i, rule)| {
        let why = expression::check(rule.when.as_deref()?).err()?;
        Some(format!("rule {}: its when is invalid: {why}", i + 1))
    })
}

/// Every tool of a connection's clients.
fn tool_names(ctx: &Context, namespace: &str, connection: &str) -> Vec<String> {
    let mut names: Vec<String> = read::TOOLS.iter().map(|t| t.name.to_string()).collect();
    names.extend(write::TOOLS.iter().map(|t| t.name.to_string()));
    let servers = ctx.stores.servers.state_filter(|s| {
        s.namespace().as_deref() == Some(namespace) && s.spec.connection_ref.name == connection
    });
    for server in servers {
        let pinned = server
            .status
            .as_ref()
            .map(|s| s.tools.clone())
            .unwrap_or_default();
        names.extend(
            pinned
                .iter()
                .map(|p| format!("{}{SEPARATOR}{}", server.name_any(), p.name)),
        );
    }
    names
}

/// How many tools each rule names, and how many are left to it by those before. Pure.
fn rule_status(policy: &ToolPolicy, tools: &[String]) -> Vec<RuleStatus> {
    let rules = &policy.spec.rules;
    rules
        .iter()
        .enumerate()
        .map(|(i, rule)| {
            let named: Vec<&String> = tools.iter().filter(|t| policy::names(rule, t)).collect();
            let taken = |tool: &str| {
                rules[..i]
                    .iter()
                    .any(|r| r.when.is_none() && policy::names(r, tool))
            };
            RuleStatus {
                tools: named.len() as i64,
                decides: named.iter().filter(|t| !taken(t)).count() as i64,
            }
        })
        .collect()
}
