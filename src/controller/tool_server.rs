//! The ToolServer's reconciler: asks the server for its tools and pins them.

use super::context::{Context, jitter};
use crate::api::ToolServer;
use crate::api::condition::{self, ConditionUpdate};
use crate::api::reason::Reason;
use crate::api::tool_server::{ACCEPT_ANNOTATION, PinnedTool, ToolServerStatus};
use crate::k8s::key::Key;
use crate::k8s::{self, names, reflect};
use crate::tools::pin::{self, Offered};
use crate::tools::server;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use std::sync::Arc;

const KIND: &str = "ToolServer";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", k8s::explain(.0))]
    Kube(#[from] kube::Error),
}

pub async fn reconcile(server: Arc<ToolServer>, ctx: Arc<Context>) -> Result<Action, Error> {
    ctx.stores.filled().await;
    if server.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let key = Key::of(&*server);
    let mut status = server.status.clone().unwrap_or_default();
    let connection = &server.spec.connection_ref.name;
    let ready = if reflect::get(&ctx.stores.connections, &key.namespace, connection).is_none() {
        ConditionUpdate::no(
            Reason::ConnectionNotFound,
            format!(
                "HaloPSAConnection {connection} does not exist in namespace {}; create it, or \
                 correct spec.connectionRef",
                key.namespace
            ),
        )
    } else {
        match observe(&server, &ctx).await {
            Ok(offered) => pin_tools(&server, &offered, &mut status),
            Err(error) => ConditionUpdate::no(
                Reason::Unreachable,
                format!("{error}; its tools are not offered until it responds"),
            ),
        }
    };
    report(&server, status, &ready, &ctx).await?;
    ctx.backoff.reset(KIND, &key);
    Ok(Action::requeue(jitter(ctx.options.resync)))
}

/// The tools the server offers now.
async fn observe(server: &ToolServer, ctx: &Context) -> Result<Vec<Offered>, server::Error> {
    let session = server::connect(&ctx.kube, server).await?;
    let tools = session.tools(server).await?;
    Ok(tools.iter().map(Offered::from).collect())
}

/// Pins what is new, stops what has changed. Pure.
fn pin_tools(
    server: &ToolServer,
    offered: &[Offered],
    status: &mut ToolServerStatus,
) -> ConditionUpdate {
    let accepted = server.annotations().get(ACCEPT_ANNOTATION);
    let pinned = pin::pin(&status.tools, offered, accepted.map(String::as_str));
    // A tool that spec.tools no longer names is forgotten.
    status.tools = pinned.tools;
    status
        .tools
        .retain(|p| server::access(&server.spec.tools, &p.name).is_some());
    status.offered_revision = pinned.revision;
    let is_usable =
        |p: &&PinnedTool| p.offered.is_none() && offered.iter().any(|o| o.name == p.name);
    let usable = status.tools.iter().filter(is_usable).count();
    status.tool_count = Some(usable as i64);
    let changed = status.tools.iter().filter(|p| p.offered.is_some());
    let changed: Vec<&str> = changed.map(|p| p.name.as_str()).collect();
    let Key { namespace, name } = Key::of(server);
    match (&status.offered_revision, offered.is_empty()) {
        (Some(revision), _) => ConditionUpdate::no(
            Reason::ToolsChanged,
            format!(
                "the server has changed {}, which stays blocked until you accept it: review its \
                 definition, then kubectl -n {namespace} annotate toolserver {name} --overwrite \
                 {ACCEPT_ANNOTATION}={revision}",
                changed.join(", ")
            ),
        ),
        (None, true) => ConditionUpdate::no(
            Reason::NoTools,
            "the server offers none of the tools in spec.tools; compare the names with the \
             server's",
        ),
        (None, false) => ConditionUpdate::yes(
            Reason::Connected,
            format!("{usable} tools may be called under the ToolPolicies"),
        ),
    }
}

async fn report(
    server: &ToolServer,
    mut status: ToolServerStatus,
    ready: &ConditionUpdate,
    ctx: &Context,
) -> Result<(), Error> {
    let generation = server.metadata.generation;
    status.observed_generation = generation;
    let now = Timestamp::now();
    condition::set(
        &mut status.conditions,
        condition::READY,
        ready,
        generation,
        now,
    );
    let namespace = server.namespace().unwrap_or_default();
    let api: Api<ToolServer> = Api::namespaced(ctx.kube.clone(), &namespace);
    let before = server.status.as_ref();
    if k8s::apply_status(&api, server, before, &status, names::CONTROLLER).await? {
        let before = before.and_then(|s| condition::get(&s.conditions, condition::READY));
        ctx.emit_if_changed(&server.object_ref(&()), before, ready)
            .await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_server() {
        let server: ToolServer = serde_json::from_value(serde_json::json!({
            "apiVersion": "rallied.ai/v1alpha1", "kind": "ToolServer",
            "metadata": {"name": "m365", "namespace": "msp"},
            "spec": {
                "connectionRef": {"name": "halo"}, "url": "https://tools.example/mcp",
                "tools": [{"name": "get_*", "access": "Read"}],
            },
        }))
        .unwrap();
        let offer = |hash: &str| {
            vec![Offered {
                name: "get_user".into(),
                hash: hash.into(),
            }]
        };
        let mut status = ToolServerStatus::default();
        let said = [
            pin_tools(&server, &[], &mut status),
            pin_tools(&server, &offer("1"), &mut status),
            pin_tools(&server, &offer("2"), &mut status),
        ]
        .map(|update| update.to_string());
        condition::snapshot("tool_server", &said);
    }
}
