//! Which tools there are for an agent: HaloPSA's, and those of ToolServers.

use super::identity::Identity;
use super::{AgentScope, Gateway};
use crate::api::ToolServer;
use crate::api::tool_server::SEPARATOR;
use crate::policy::{self, Access, Decision, Named, facts::TicketFacts};
use crate::tools::{pin, read, server, write};
use kube::ResourceExt;
use rmcp::model::{Tool, ToolAnnotations};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For this long a server is not asked again for the list agents see. Before a
/// call its definition is always looked at anew.
const LISTED_FOR: Duration = Duration::from_secs(60);

/// A tool by its name, and who does it.
pub enum ResolvedTool {
    Read(&'static read::Tool),
    Write(&'static write::WriteTool),
    Server {
        server: Arc<ToolServer>,
        tool: String,
        access: Access,
        pin: String,
    },
}

impl ResolvedTool {
    pub fn access(&self) -> Access {
        match self {
            ResolvedTool::Read(tool) => tool.access,
            ResolvedTool::Write(_) => Access::Write,
            ResolvedTool::Server { access, .. } => *access,
        }
    }

    /// A label for metrics: bounded.
    pub fn label(&self) -> &'static str {
        match self {
            ResolvedTool::Read(tool) => tool.name,
            ResolvedTool::Write(tool) => tool.name,
            ResolvedTool::Server { .. } => "tool server",
        }
    }
}

/// Lists of servers' tools, for a moment.
#[derive(Default)]
pub struct Listings(Mutex<HashMap<String, (Instant, Arc<Vec<Tool>>)>>);

impl Listings {
    fn get(&self, key: &str) -> Option<Arc<Vec<Tool>>> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(key)
            .filter(|(at, _)| at.elapsed() < LISTED_FOR)
            .map(|(_, tools)| tools.clone())
    }

    fn put(&self, key: String, tools: Arc<Vec<Tool>>) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.retain(|_, (at, _)| at.elapsed() < LISTED_FOR);
        map.insert(key, (Instant::now(), tools));
    }
}

/// Finds a tool by the exact name an agent calls it by. What is not here does not exist for it.
pub fn find(
    gateway: &Gateway,
    identity: &Identity,
    bound: &AgentScope,
    name: &str,
) -> Option<ResolvedTool> {
    if let Some(tool) = read::find(name) {
        return Some(ResolvedTool::Read(tool));
    }
    if let Some(tool) = write::find(name) {
        return Some(ResolvedTool::Write(tool));
    }
    let (server, tool) = name.split_once(SEPARATOR)?;
    let server = servers(gateway, identity, bound)
        .into_iter()
        .find(|s| s.name_any() == server)?;
    let access = server::access(&server.spec.tools, tool)?;
    let pinned = server
        .status
        .as_ref()?
        .tools
        .iter()
        .find(|p| p.name == tool)?;
    let pin = pinned.offered.is_none().then(|| pinned.hash.clone())?;
    Some(ResolvedTool::Server {
        tool: tool.to_string(),
        access,
        pin,
        server,
    })
}

/// The ToolServers whose tools this client's agent may use.
pub fn servers(gateway: &Gateway, identity: &Identity, bound: &AgentScope) -> Vec<Arc<ToolServer>> {
    let connection = bound.connection.name_any();
    let labels = bound.client.metadata.labels.clone().unwrap_or_default();
    let client = policy::Client {
        name: &identity.client,
        labels: &labels,
    };
    gateway.servers.state_filter(|s| {
        s.namespace().as_deref() == Some(&identity.namespace)
            && s.spec.connection_ref.name == connection
            && s.metadata.deletion_timestamp.is_none()
            && policy::selects(
                s.spec.clients.as_ref(),
                s.spec.client_selector.as_ref(),
                client,
            )
    })
}

/// Decides about a call.
pub fn decide(
    gateway: &Gateway,
    identity: &Identity,
    bound: &AgentScope,
    tool: &str,
    access: Access,
    arguments: &Map<String, Value>,
    ticket: &TicketFacts,
) -> Decision {
    with_policies(gateway, identity, bound, |client, policies| {
        policy::decide(
            bound.mode,
            client,
            &policy::Call {
                tool,
                access,
                arguments,
                ticket,
            },
            policies,
        )
    })
}

/// Whether a rule that may speak about this tool asks for more than its name.
pub fn has_conditions(
    gateway: &Gateway,
    identity: &Identity,
    bound: &AgentScope,
    tool: &str,
) -> bool {
    with_policies(gateway, identity, bound, |_, policies| {
        policies
            .iter()
            .flat_map(|p| &p.spec.rules)
            .any(|r| r.when.is_some() && policy::names(r, tool))
    })
}

fn with_policies<T>(
    gateway: &Gateway,
    identity: &Identity,
    bound: &AgentScope,
    then: impl Fn(policy::Client<'_>, &[Named<'_>]) -> T,
) -> T {
    let connection = bound.connection.name_any();
    let policies = gateway.policies.state_filter(|p| {
        p.namespace().as_deref() == Some(&identity.namespace)
            && p.spec.connection_ref.name == connection
    });
    let names: Vec<String> = policies.iter().map(|p| p.name_any()).collect();
    let named: Vec<Named<'_>> = names
        .iter()
        .zip(&policies)
        .map(|(name, p)| Named {
            name,
            spec: &p.spec,
        })
        .collect();
    let labels = bound.client.metadata.labels.clone().unwrap_or_default();
    then(
        policy::Client {
            name: &identity.client,
            labels: &labels,
        },
        &named,
    )
}

/// The tools an agent is shown: those of which any call might be allowed.
pub async fn list(gateway: &Gateway, identity: &Identity, bound: &AgentScope) -> Vec<Tool> {
    let visible = |name: &str, access: Access| {
        with_policies(gateway, identity, bound, |client, p| {
            policy::visible(bound.mode, client, name, access, p)
        })
    };
    let annotations = |access: Access| {
        ToolAnnotations::new()
            .read_only(access == Access::Read)
            .destructive(access == Access::Destructive)
    };
    let mut listed: Vec<Tool> = Vec::new();
    for tool in read::TOOLS.iter().filter(|t| visible(t.name, t.access)) {
        let shown =
            Tool::new(tool.name, tool.description, Arc::new(tool.schema())).with_title(tool.title);
        listed.push(shown.with_annotations(annotations(tool.access).open_world(false)));
    }
    for tool in write::TOOLS
        .iter()
        .filter(|t| visible(t.name, Access::Write))
    {
        let shown =
            Tool::new(tool.name, tool.description, Arc::new(tool.schema())).with_title(tool.title);
        listed
            .push(shown.with_annotations(
                annotations(Access::Write).open_world(tool.name == write::REPLY),
            ));
    }
    for server in servers(gateway, identity, bound) {
        let pinned = server
            .status
            .as_ref()
            .map(|s| s.tools.clone())
            .unwrap_or_default();
        for tool in offered(gateway, &server).await.iter() {
            let name = format!("{}{SEPARATOR}{}", server.name_any(), tool.name);
            let Some(access) = server::access(&server.spec.tools, &tool.name) else {
                continue;
            };
            let as_pinned = pinned
                .iter()
                .any(|p| p.name == tool.name && p.offered.is_none() && p.hash == pin::hash(tool));
            if as_pinned && visible(&name, access) {
                let mut shown = tool.clone();
                shown.name = name.into();
                // What the server says of itself does not count; what the MSP says does.
                shown.annotations = Some(annotations(access).open_world(true));
                listed.push(shown);
            }
        }
    }
    listed
}

/// What a server offers; nothing when it cannot be asked.
async fn offered(gateway: &Gateway, server: &ToolServer) -> Arc<Vec<Tool>> {
    let key = format!(
        "{}/{}",
        server.metadata.uid.as_deref().unwrap_or_default(),
        server.metadata.generation.unwrap_or_default()
    );
    if let Some(tools) = gateway.listings.get(&key) {
        return tools;
    }
    let tools = async {
        server::connect(&gateway.kube, server)
            .await?
            .tools(server)
            .await
    }
    .await;
    let tools = match tools {
        Ok(tools) => Arc::new(tools),
        Err(error) => {
            tracing::warn!(server = %server.name_any(), %error, "a ToolServer cannot be asked for its tools; they are not offered for now");
            return Arc::default();
        }
    };
    gateway.listings.put(key, tools.clone());
    tools
}
