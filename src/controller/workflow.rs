//! The Workflow's reconciler: says whether it is in use.

use super::context::Context;
use crate::api::condition::{self, ConditionUpdate};
use crate::api::reason::Reason;
use crate::api::tool_server::SEPARATOR;
use crate::api::workflow::WorkflowState;
use crate::api::{HaloPSAConnection, Workflow};
use crate::k8s::key::Key;
use crate::k8s::{self, names, reflect};
use crate::tools::read;
use crate::tools::write;
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

pub fn of_connection(
    workflows: Store<Workflow>,
) -> impl Fn(Arc<HaloPSAConnection>) -> Vec<ObjectRef<Workflow>> {
    move |connection| {
        let of = |w: &Workflow| {
            w.namespace() == connection.namespace()
                && w.spec.connection_ref.name == connection.name_any()
        };
        workflows
            .state_filter(of)
            .iter()
            .map(|w| ObjectRef::from_obj(&**w))
            .collect()
    }
}

pub async fn reconcile(workflow: Arc<Workflow>, ctx: Arc<Context>) -> Result<Action, Error> {
    ctx.stores.filled().await;
    let namespace = workflow.namespace().unwrap_or_default();
    let connection = &workflow.spec.connection_ref.name;
    let verdict = if reflect::get(&ctx.stores.connections, &namespace, connection).is_none() {
        ConditionUpdate::no(
            Reason::ConnectionNotFound,
            format!(
                "there is no HaloPSAConnection {connection} in namespace {namespace}; apply it, or correct spec.connectionRef"
            ),
        )
    } else if let Some(why) = bad_step(&workflow) {
        ConditionUpdate::no(Reason::InvalidStep, why)
    } else {
        match workflow.spec.state {
            WorkflowState::Active => {
                ConditionUpdate::yes(Reason::Active, "used for tickets its trigger describes")
            }
            WorkflowState::Draft => ConditionUpdate::yes(
                Reason::Draft,
                "not used yet; set spec.state to Active to use it",
            ),
            WorkflowState::Archived => ConditionUpdate::yes(Reason::Archived, "not used any more"),
        }
    };
    let before = workflow.status.clone().unwrap_or_default();
    let mut status = before.clone();
    status.observed_generation = workflow.metadata.generation;
    condition::set(
        &mut status.conditions,
        condition::ACCEPTED,
        &verdict,
        workflow.metadata.generation,
        Timestamp::now(),
    );
    let api: Api<Workflow> = Api::namespaced(ctx.kube.clone(), &namespace);
    if k8s::apply_status(
        &api,
        &*workflow,
        workflow.status.as_ref(),
        &status,
        names::CONTROLLER,
    )
    .await?
    {
        ctx.emit_if_changed(
            &workflow.object_ref(&()),
            condition::get(&before.conditions, condition::ACCEPTED),
            &verdict,
        )
        .await;
    }
    Ok(Action::await_change())
}

/// The first step that could never be called, and why.
fn bad_step(workflow: &Workflow) -> Option<String> {
    workflow.spec.steps.iter().flatten().enumerate().find_map(|(i, step)| {
        let number = i + 1;
        if write::find(&step.tool).is_some() {
            return write::parse(&step.tool, &step.arguments).err().map(|why| format!("step {number}, {}: {why}", step.tool));
        }
        let known = read::find(&step.tool).is_some() || step.tool.contains(SEPARATOR);
        (!known).then(|| format!("step {number}: there is no tool {}; a ToolServer's tool is SERVER{SEPARATOR}TOOL", step.tool))
    })
}

pub fn error_policy(workflow: Arc<Workflow>, error: &Error, ctx: Arc<Context>) -> Action {
    let (namespace, name) = (
        workflow.namespace().unwrap_or_default(),
        workflow.name_any(),
    );
    tracing::warn!(kind = "Workflow", %namespace, %name, %error, "reconciliation failed; will retry");
    Action::requeue(ctx.backoff.next("Workflow", &Key::new(namespace, name)))
}
