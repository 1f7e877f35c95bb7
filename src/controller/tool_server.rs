//! The ToolServer's reconciler: asks the server for its tools and pins them.

use super::context::{Context, jitter};
use crate::api::ToolServer;
use crate::api::condition::{self, ConditionUpdate};
use crate::api::reason::Reason;
use crate::api::tool_server::{
    ACCEPT_ANNOTATION, PinnedTool, RESERVED, ServerIdentity, ToolServerStatus,
};
use crate::k8s::key::Key;
use crate::k8s::{self, names, reflect};
use crate::text::one_line;
use crate::tools::pin::{self, Offered};
use crate::tools::server;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use std::sync::Arc;

const KIND: &str = "ToolServer";
/// How many changed tools a condition lists.
const MAX_SHOWN: usize = 4;

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
    let ready = if server.name_any().starts_with(RESERVED) {
        ConditionUpdate::no(
            Reason::InvalidConfiguration,
            "metadata.name must not begin with halopsa, since rules for halopsa_* mean HaloPSA's \
             own tools; create it under another name",
        )
    } else if reflect::get(&ctx.stores.connections, &key.namespace, connection).is_none() {
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
            Ok(observed) => pin_tools(&server, observed, &mut status),
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

/// The tools a server offers, and which server it is.
struct Observed {
    tools: Vec<Offered>,
    server: ServerIdentity,
}

async fn observe(server: &ToolServer, ctx: &Context) -> Result<Observed, server::Error> {
    let session = server::connect(&ctx.kube, server).await?;
    let listing = session.list(server).await?;
    let name = &listing.server.name;
    Ok(Observed {
        tools: listing.tools.iter().map(|t| Offered::of(t, name)).collect(),
        server: listing.server,
    })
}

/// Pins the first tools, stops what is changed or new later. Pure.
fn pin_tools(
    server: &ToolServer,
    observed: Observed,
    status: &mut ToolServerStatus,
) -> ConditionUpdate {
    let offered = &observed.tools;
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
    let changed = changes(&status.tools, offered);
    let Key { namespace, name } = Key::of(server);
    let identity = status.server.insert(observed.server);
    match (&status.offered_revision, offered.is_empty()) {
        (Some(revision), _) => ConditionUpdate::no(
            Reason::ToolsChanged,
            format!(
                "changed or new, and blocked until you accept it: {changed}. Review the \
                 definitions, then kubectl -n {namespace} annotate toolserver {name} --overwrite \
                 {ACCEPT_ANNOTATION}={revision}"
            ),
        ),
        (None, true) => ConditionUpdate::no(
            Reason::NoTools,
            "the server offers none of the tools in spec.tools; compare the names with the \
             server's",
        ),
        (None, false) => ConditionUpdate::yes(
            Reason::Connected,
            format!(
                "{usable} tools of {} may be called under the ToolPolicies{}",
                named(identity),
                for_whom(server)
            ),
        ),
    }
}

/// What waits to be accepted, for a person: pure.
fn changes(pinned: &[PinnedTool], offered: &[Offered]) -> String {
    let blocked = pinned.iter().filter(|p| p.offered.is_some());
    let all: Vec<String> = blocked
        .filter_map(|p| Some(offered.iter().find(|o| o.name == p.name)?.difference(p)))
        .map(|difference| one_line(&difference, 140))
        .collect();
    let shown = all.iter().take(MAX_SHOWN).cloned();
    let mut shown = shown.collect::<Vec<_>>().join(", ");
    if all.len() > MAX_SHOWN {
        shown.push_str(&format!(" and {} more", all.len() - MAX_SHOWN));
    }
    shown
}

/// A server's name and version, as it says.
fn named(server: &ServerIdentity) -> String {
    match server.name.is_empty() {
        true => "the server".into(),
        false => format!("{} {}", server.name, server.version),
    }
}

/// A server without a selection is easily one by mistake.
fn for_whom(server: &ToolServer) -> &'static str {
    match (&server.spec.clients, &server.spec.client_selector) {
        (None, None) => {
            ", by the agents of every client of the connection: neither spec.clients nor \
             spec.clientSelector is set"
        }
        _ => "",
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
        let offer = |names: &[&str], hash: &str| Observed {
            tools: names
                .iter()
                .map(|name| Offered {
                    name: name.to_string(),
                    hash: hash.into(),
                    sensitive: name
                        .contains("password")
                        .then(|| "changes credentials".into()),
                    parts: [("description".to_string(), hash.to_string())].into(),
                    about: "Says what it does.".into(),
                })
                .collect(),
            server: ServerIdentity {
                name: "m365-mcp".into(),
                version: "1.2.0".into(),
            },
        };
        let mut status = ToolServerStatus::default();
        let said = [
            pin_tools(&server, offer(&[], "1"), &mut status),
            pin_tools(&server, offer(&["get_user"], "1"), &mut status),
            pin_tools(&server, offer(&["get_user"], "2"), &mut status),
            pin_tools(
                &server,
                offer(&["get_user", "get_password"], "1"),
                &mut status,
            ),
        ]
        .map(|update| update.to_string());
        condition::snapshot("tool_server", &said);
    }
}
