//! The Workflow's reconciler: says whether it is in use.

use super::context::Context;
use crate::api::condition::{self, ConditionUpdate};
use crate::api::reason::Reason;
use crate::api::tool_server::SEPARATOR;
use crate::api::workflow::WorkflowState;
use crate::api::{HaloPSAConnection, Workflow};
use crate::k8s::key::Key;
use crate::k8s::{self, names, reflect};
use crate::tools::{read, write};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource, ResourceExt};
use std::sync::Arc;

const KIND: &str = "Workflow";

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
    let accepted = accepted(&workflow, &ctx);
    report(&workflow, &accepted, &ctx).await?;
    ctx.backoff.reset(KIND, &Key::of(&*workflow));
    Ok(Action::await_change())
}

/// Whether the Workflow is used.
fn accepted(workflow: &Workflow, ctx: &Context) -> ConditionUpdate {
    let namespace = workflow.namespace().unwrap_or_default();
    let connection = &workflow.spec.connection_ref.name;
    if reflect::get(&ctx.stores.connections, &namespace, connection).is_none() {
        return ConditionUpdate::no(
            Reason::ConnectionNotFound,
            format!(
                "HaloPSAConnection {connection} does not exist in namespace {namespace}; create \
                 it, or correct spec.connectionRef"
            ),
        );
    }
    if let Some(why) = bad_step(workflow) {
        return ConditionUpdate::no(Reason::InvalidStep, why);
    }
    match workflow.spec.state {
        WorkflowState::Active => {
            ConditionUpdate::yes(Reason::Active, "used for tickets that match its trigger")
        }
        WorkflowState::Draft => ConditionUpdate::yes(
            Reason::Draft,
            "not used yet; set spec.state to Active to use it",
        ),
        WorkflowState::Archived => ConditionUpdate::yes(Reason::Archived, "no longer used"),
    }
}

/// The first step that could never be called, and why. Pure.
fn bad_step(workflow: &Workflow) -> Option<String> {
    let steps = workflow.spec.steps.iter().flatten();
    steps.zip(1..).find_map(|(step, number)| {
        let tool = &step.tool;
        if write::find(tool).is_some() {
            let why = write::parse(tool, &step.arguments).err()?;
            return Some(format!("step {number}, {tool}: {why}"));
        }
        let known = read::find(tool).is_some() || tool.contains(SEPARATOR);
        (!known).then(|| {
            format!(
                "step {number}: tool {tool} does not exist; a ToolServer's tool is called \
                 SERVER{SEPARATOR}TOOL"
            )
        })
    })
}

async fn report(
    workflow: &Workflow,
    accepted: &ConditionUpdate,
    ctx: &Context,
) -> Result<(), Error> {
    let before = workflow.status.as_ref();
    let mut status = before.cloned().unwrap_or_default();
    let generation = workflow.metadata.generation;
    status.observed_generation = generation;
    condition::set(
        &mut status.conditions,
        condition::ACCEPTED,
        accepted,
        generation,
        Timestamp::now(),
    );
    let namespace = workflow.namespace().unwrap_or_default();
    let api: Api<Workflow> = Api::namespaced(ctx.kube.clone(), &namespace);
    if k8s::apply_status(&api, workflow, before, &status, names::CONTROLLER).await? {
        let before = before.and_then(|s| condition::get(&s.conditions, condition::ACCEPTED));
        ctx.emit_if_changed(&workflow.object_ref(&()), before, accepted)
            .await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_step() {
        let workflow = |tool: &str| -> Workflow {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "rallied.ai/v1alpha1", "kind": "Workflow",
                "metadata": {"name": "w", "namespace": "msp"},
                "spec": {
                    "connectionRef": {"name": "halo"}, "trigger": "a printer is offline",
                    "instructions": "Restart it.", "steps": [{"tool": tool}],
                },
            }))
            .unwrap()
        };
        let said = [
            "halopsa_close_ticket",
            "restart_printer",
            "halopsa_get_ticket",
        ]
        .map(|tool| format!("{:?}", bad_step(&workflow(tool))));
        condition::snapshot("workflow_step", &said);
    }
}
