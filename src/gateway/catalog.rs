//! The tools an agent may call: HaloPSA's, and those of ToolServers.

use super::{AgentScope, Gateway};
use crate::api::tool_server::{RESERVED, SEPARATOR};
use crate::api::{ToolPolicy, ToolServer};
use crate::k8s::cache::Remembered;
use crate::policy::facts::Wanted;
use crate::policy::{self, Access, Decision, Named};
use crate::tools::{pin, read, schema, server, write};
use kube::ResourceExt;
use rmcp::model::{Tool, ToolAnnotations};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For this long a server is not asked again for the list that agents see. Before
/// a call a tool's definition is always read from its server.
const LISTED_FOR: Duration = Duration::from_secs(60);

/// A tool by its name, and who carries it out.
pub enum ResolvedTool {
    Read(&'static read::Tool),
    Write(&'static write::WriteTool),
    Server {
        server: Arc<ToolServer>,
        tool: String,
        access: Access,
        pin: String,
        /// Its server or the MSP says that it changes identities, credentials and the like.
        sensitive: bool,
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

    /// SHA-256 of the tool's definition, for a ToolServer's tool; else empty.
    pub fn pin(&self) -> &str {
        match self {
            ResolvedTool::Server { pin, .. } => pin,
            ResolvedTool::Read(_) | ResolvedTool::Write(_) => "",
        }
    }

    /// Whether the requester has to be verified before a call, unless a policy says otherwise.
    pub fn sensitive(&self) -> bool {
        match self {
            ResolvedTool::Server { sensitive, .. } => *sensitive,
            ResolvedTool::Read(_) | ResolvedTool::Write(_) => false,
        }
    }

    /// A label for metrics: bounded.
    pub fn label(&self) -> &'static str {
        match self {
            ResolvedTool::Read(tool) => tool.name,
            ResolvedTool::Write(tool) => tool.name,
            ResolvedTool::Server { .. } => "tool_server",
        }
    }
}

/// The tools of servers, by the server's uid and generation.
#[derive(Default)]
pub struct Listings(Remembered<String, Listing>);

struct Listing {
    at: Instant,
    offered: Arc<server::Listing>,
}

impl Listing {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < LISTED_FOR
    }
}

impl Listings {
    fn get(&self, key: &str) -> Option<Arc<server::Listing>> {
        let map = self.0.lock();
        let listing = map.get(key).filter(|l| l.is_fresh())?;
        Some(listing.offered.clone())
    }

    fn put(&self, key: String, offered: Arc<server::Listing>) {
        let mut map = self.0.lock();
        map.retain(|_, listing| listing.is_fresh());
        let at = Instant::now();
        map.insert(key, Listing { at, offered });
    }
}

/// Finds a tool by its exact name. One that is not found does not exist for the agent.
pub fn find(gateway: &Gateway, scope: &AgentScope, name: &str) -> Option<ResolvedTool> {
    if let Some(tool) = read::find(name) {
        return Some(ResolvedTool::Read(tool));
    }
    if let Some(tool) = write::find(name) {
        return Some(ResolvedTool::Write(tool));
    }
    let (server, tool) = name.split_once(SEPARATOR)?;
    let server = servers(gateway, scope)
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
    let sensitive = pinned.sensitive.is_some() || server::is_sensitive(&server, tool);
    Some(ResolvedTool::Server {
        tool: tool.to_string(),
        access,
        pin,
        sensitive,
        server,
    })
}

/// Whether the arguments fit the schema of a ToolServer's tool as it was pinned; else why not. Ours
/// check their own.
pub async fn check_arguments(
    gateway: &Gateway,
    tool: &ResolvedTool,
    arguments: &Map<String, Value>,
) -> Result<(), String> {
    let ResolvedTool::Server {
        server, tool, pin, ..
    } = tool
    else {
        return Ok(());
    };
    let known = offered(gateway, server).await;
    let mut found = as_pinned(&known, tool, pin);
    // It may have been accepted a moment ago.
    if found.is_none() && !known.tools.is_empty() {
        let now = ask(gateway, server).await;
        found = as_pinned(&now, tool, pin);
    }
    let found = found.ok_or(
        "its server cannot be asked how to call it now, or has changed it; go on without it",
    )?;
    schema::check(&found.input_schema, arguments)
}

/// A tool as it was pinned, if it is still offered like that.
fn as_pinned(offered: &server::Listing, tool: &str, pin: &str) -> Option<Tool> {
    let name = &offered.server.name;
    let is_it = |t: &&Tool| t.name == tool && pin::hash(t, name) == pin;
    offered.tools.iter().find(is_it).cloned()
}

/// The ToolServers whose tools this client's agent may use.
fn servers(gateway: &Gateway, scope: &AgentScope) -> Vec<Arc<ToolServer>> {
    let namespace = scope.connection.namespace();
    let connection = scope.connection.name_any();
    let name = scope.client.name_any();
    let client = policy::Client {
        name: &name,
        labels: scope.client.labels(),
    };
    gateway.stores.servers.state_filter(|s| {
        s.namespace() == namespace
            && s.spec.connection_ref.name == connection
            && s.metadata.deletion_timestamp.is_none()
            && !s.name_any().starts_with(RESERVED)
            && policy::selects(
                s.spec.clients.as_ref(),
                s.spec.client_selector.as_ref(),
                client,
            )
    })
}

/// Decides about a call.
pub fn decide(gateway: &Gateway, scope: &AgentScope, call: &policy::Call<'_>) -> Decision {
    if unknown_rules(gateway, scope) {
        return policy::unreadable();
    }
    with_policies(gateway, scope, |client, policies| {
        let strict: Vec<_> = policies
            .iter()
            .map(|p| write::rules_for(call.tool, p.spec))
            .collect();
        let policies: Vec<Named<'_>> = policies
            .iter()
            .zip(&strict)
            .map(|(p, spec)| Named {
                name: p.name,
                spec: spec.as_ref(),
            })
            .collect();
        policy::decide(scope.mode, client, call, &policies)
    })
}

/// Whether a ToolPolicy of the namespace cannot be read: it may be one that forbids the call.
fn unknown_rules(gateway: &Gateway, scope: &AgentScope) -> bool {
    let namespace = scope.connection.namespace().unwrap_or_default();
    gateway.stores.unreadables.any::<ToolPolicy>(&namespace)
}

/// What the rules for this tool want to know about the ticket.
pub fn wanted(gateway: &Gateway, scope: &AgentScope, tool: &str) -> Wanted {
    with_policies(gateway, scope, |_, policies| {
        let mut wanted = Wanted::default();
        let rules = policies.iter().flat_map(|p| &p.spec.rules);
        for rule in rules.filter(|rule| policy::names(rule, tool)) {
            wanted.verification |= rule.require_verification == Some(true);
            if let Some(when) = &rule.when {
                wanted.add(when);
            }
        }
        wanted
    })
}

fn with_policies<T>(
    gateway: &Gateway,
    scope: &AgentScope,
    then: impl Fn(policy::Client<'_>, &[Named<'_>]) -> T,
) -> T {
    let namespace = scope.connection.namespace();
    let connection = scope.connection.name_any();
    let policies = gateway
        .stores
        .policies
        .state_filter(|p| p.namespace() == namespace && p.spec.connection_ref.name == connection);
    let names: Vec<String> = policies.iter().map(|p| p.name_any()).collect();
    let named: Vec<Named<'_>> = names
        .iter()
        .zip(&policies)
        .map(|(name, p)| Named {
            name,
            spec: &p.spec,
        })
        .collect();
    let name = scope.client.name_any();
    let client = policy::Client {
        name: &name,
        labels: scope.client.labels(),
    };
    then(client, &named)
}

/// The tools an agent is shown: those it may be allowed to call.
pub async fn list(gateway: &Gateway, scope: &AgentScope) -> Vec<Tool> {
    let visible = |name: &str, access: Access| {
        with_policies(gateway, scope, |client, policies| {
            policy::visible(scope.mode, client, name, access, policies)
        })
    };
    let mut listed = read_tools(visible);
    listed.extend(write_tools(visible));
    for server in servers(gateway, scope) {
        let offered = offered(gateway, &server).await;
        listed.extend(server_tools(&server, &offered, visible));
    }
    listed
}

fn annotations(access: Access) -> ToolAnnotations {
    ToolAnnotations::new()
        .read_only(access == Access::Read)
        .destructive(access == Access::Destructive)
}

fn read_tools(visible: impl Fn(&str, Access) -> bool) -> Vec<Tool> {
    read::TOOLS
        .iter()
        .filter(|t| visible(t.name, t.access))
        .map(|t| {
            Tool::new(t.name, t.description, Arc::new(t.schema()))
                .with_title(t.title)
                .with_annotations(annotations(t.access).open_world(false))
        })
        .collect()
}

fn write_tools(visible: impl Fn(&str, Access) -> bool) -> Vec<Tool> {
    write::TOOLS
        .iter()
        .filter(|t| visible(t.name, Access::Write))
        .map(|t| {
            Tool::new(t.name, t.description, Arc::new(t.schema()))
                .with_title(t.title)
                .with_annotations(annotations(Access::Write).open_world(t.name == write::REPLY))
        })
        .collect()
}

/// A server's tools that are offered as they were pinned.
fn server_tools(
    server: &ToolServer,
    offered: &server::Listing,
    visible: impl Fn(&str, Access) -> bool,
) -> Vec<Tool> {
    let pinned = server
        .status
        .as_ref()
        .map(|s| s.tools.as_slice())
        .unwrap_or_default();
    let mut listed = Vec::new();
    for tool in &offered.tools {
        let name = format!("{}{SEPARATOR}{}", server.name_any(), tool.name);
        let Some(access) = server::access(&server.spec.tools, &tool.name) else {
            continue;
        };
        let hash = pin::hash(tool, &offered.server.name);
        let as_pinned = pinned
            .iter()
            .any(|p| p.name == tool.name && p.offered.is_none() && p.hash == hash);
        if as_pinned && visible(&name, access) {
            let mut shown = tool.clone();
            shown.name = name.into();
            // What the server says about itself does not count; what the MSP says does.
            shown.annotations = Some(annotations(access).open_world(true));
            listed.push(shown);
        }
    }
    listed
}

/// What a server offers; nothing if it cannot be reached.
async fn offered(gateway: &Gateway, server: &ToolServer) -> Arc<server::Listing> {
    match gateway.listings.get(&listing_key(server)) {
        Some(offered) => offered,
        None => ask(gateway, server).await,
    }
}

fn listing_key(server: &ToolServer) -> String {
    format!(
        "{}/{}",
        server.metadata.uid.as_deref().unwrap_or_default(),
        server.metadata.generation.unwrap_or_default()
    )
}

/// What a server offers at this moment.
async fn ask(gateway: &Gateway, server: &ToolServer) -> Arc<server::Listing> {
    let listed = async {
        let session = server::connect(&gateway.kube, server).await?;
        session.list(server).await
    }
    .await;
    let offered = match listed {
        Ok(listing) => Arc::new(listing),
        Err(error) => {
            tracing::warn!(
                server = %server.name_any(), %error,
                "cannot list a ToolServer's tools; they are not offered for now"
            );
            return Arc::default();
        }
    };
    gateway.listings.put(listing_key(server), offered.clone());
    offered
}
