//! The ToolServer's reconciler: asks the server for its tools and pins them.

use super::context::{Context, jitter};
use crate::api::ToolServer;
use crate::api::condition::{self, ConditionUpdate};
use crate::api::reason::Reason;
use crate::api::tool_server::ACCEPT_ANNOTATION;
use crate::k8s::key::Key;
use crate::k8s::{self, names, reflect};
use crate::tools::{pin, server};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", k8s::explain(.0))]
    Kube(#[from] kube::Error),
}

pub async fn reconcile(server: Arc<ToolServer>, ctx: Arc<Context>) -> Result<Action, Error> {
    ctx.stores.filled().await;
    let (namespace, name) = (server.namespace().unwrap_or_default(), server.name_any());
    if server.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let before = server.status.clone().unwrap_or_default();
    let mut status = before.clone();
    let connection = &server.spec.connection_ref.name;
    let verdict = if reflect::get(&ctx.stores.connections, &namespace, connection).is_none() {
        ConditionUpdate::no(
            Reason::ConnectionNotFound,
            format!(
                "there is no HaloPSAConnection {connection} in namespace {namespace}; apply it, or correct spec.connectionRef"
            ),
        )
    } else {
        let listed = async {
            server::connect(&ctx.kube, &server)
                .await?
                .tools(&server)
                .await
        }
        .await;
        match listed {
            Err(error) => ConditionUpdate::no(
                Reason::Unreachable,
                format!("{error}; its tools are not offered until it answers"),
            ),
            Ok(tools) => {
                let offered: Vec<pin::Offered> = tools.iter().map(pin::Offered::from).collect();
                let accepted = server
                    .annotations()
                    .get(ACCEPT_ANNOTATION)
                    .map(String::as_str);
                let pinned = pin::pin(&status.tools, &offered, accepted);
                // One that its resource does not list any more is forgotten with it.
                status.tools = pinned
                    .tools
                    .into_iter()
                    .filter(|p| server::access(&server.spec.tools, &p.name).is_some())
                    .collect();
                status.offered_revision = pinned.revision;
                let usable = status
                    .tools
                    .iter()
                    .filter(|p| p.offered.is_none() && offered.iter().any(|o| o.name == p.name))
                    .count();
                status.tool_count = Some(usable as i64);
                let changed: Vec<&str> = status
                    .tools
                    .iter()
                    .filter(|p| p.offered.is_some())
                    .map(|p| p.name.as_str())
                    .collect();
                match (&status.offered_revision, offered.is_empty()) {
                    (Some(revision), _) => ConditionUpdate::no(
                        Reason::ToolsChanged,
                        format!(
                            "the server has changed {}, stopped until you accept it: look at what it says now, then kubectl -n {namespace} annotate toolserver {name} --overwrite {ACCEPT_ANNOTATION}={revision}",
                            changed.join(", ")
                        ),
                    ),
                    (None, true) => ConditionUpdate::no(
                        Reason::NoTools,
                        "the server offers none of the tools in spec.tools; compare the names with the server's",
                    ),
                    (None, false) => ConditionUpdate::yes(
                        Reason::Connected,
                        format!("{usable} tools may be called under the ToolPolicies"),
                    ),
                }
            }
        }
    };
    status.observed_generation = server.metadata.generation;
    condition::set(
        &mut status.conditions,
        condition::READY,
        &verdict,
        server.metadata.generation,
        Timestamp::now(),
    );
    let api: Api<ToolServer> = Api::namespaced(ctx.kube.clone(), &namespace);
    if k8s::apply_status(
        &api,
        &*server,
        server.status.as_ref(),
        &status,
        names::CONTROLLER,
    )
    .await?
    {
        ctx.emit_if_changed(
            &server.object_ref(&()),
            condition::get(&before.conditions, condition::READY),
            &verdict,
        )
        .await;
    }
    ctx.backoff.reset("ToolServer", &Key::new(namespace, name));
    Ok(Action::requeue(jitter(ctx.options.resync)))
}

pub fn error_policy(server: Arc<ToolServer>, error: &Error, ctx: Arc<Context>) -> Action {
    let (namespace, name) = (server.namespace().unwrap_or_default(), server.name_any());
    tracing::warn!(kind = "ToolServer", %namespace, %name, %error, "reconciling failed, it is tried again");
    Action::requeue(ctx.backoff.next("ToolServer", &Key::new(namespace, name)))
}
