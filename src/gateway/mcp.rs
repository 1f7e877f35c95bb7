//! The tools over MCP: listed and called under policy, every call audited.

use super::identity::Identity;
use super::{Bound, Gateway, SUSPENDED, tools, work};
use crate::api::policy::Effect;
use crate::metrics::{METRICS, ToolLabels};
use crate::policy::{self, Decision, Named, Nature};
use crate::ticket::text::one_line;
use kube::ResourceExt;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use std::sync::Arc;
use std::time::Instant;

/// The MCP server of one request.
#[derive(Clone)]
pub struct Tools {
    gateway: Arc<Gateway>,
}

impl Tools {
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }

    fn identity(context: &RequestContext<RoleServer>) -> Result<Identity, ErrorData> {
        context
            .extensions
            .get::<axum::http::request::Parts>()
            .and_then(|parts| parts.extensions.get::<Identity>())
            .cloned()
            .ok_or_else(|| ErrorData::internal_error("the request has no identity", None))
    }

    fn decide(&self, identity: &Identity, bound: &Bound, tool: &str, nature: Nature) -> Decision {
        let connection = bound.connection.name_any();
        let policies =
            self.gateway.policies.state_filter(|p| p.namespace().as_deref() == Some(&identity.namespace) && p.spec.connection_ref.name == connection);
        let names: Vec<String> = policies.iter().map(|p| p.name_any()).collect();
        let named: Vec<Named<'_>> = names.iter().zip(&policies).map(|(name, p)| Named { name, spec: &p.spec }).collect();
        let labels = bound.client.metadata.labels.clone().unwrap_or_default();
        let client = policy::Client { name: &identity.client, labels: &labels };
        let call = policy::Call { tool, nature, arguments: &Default::default(), ticket: &Default::default() };
        policy::decide(bound.mode, client, &call, &named)
    }

    /// Runs a call, or says why not; what came of it, for the audit.
    async fn run(&self, identity: &Identity, request: CallToolRequestParams) -> (CallToolResult, &'static str, String) {
        let refuse = |text: String| CallToolResult::error(vec![ContentBlock::text(text)]);
        let Some(tool) = tools::find(&request.name) else {
            return (refuse("there is no tool of this name".into()), "unknown", "no such tool".into());
        };
        let bound = match self.gateway.bound(identity) {
            Ok(bound) => bound,
            Err(why) => return (refuse(why.into()), "failed", why.into()),
        };
        if bound.connection.spec.suspend {
            return (refuse(SUSPENDED.into()), "suspended", "spec.suspend".into());
        }
        let decision = self.decide(identity, &bound, tool.name, tool.nature);
        match decision.effect {
            Effect::Auto => {}
            Effect::Disabled => return (refuse("there is no tool of this name".into()), "disabled", decision.rule),
            Effect::ApprovalNeeded => {
                return (refuse("this call needs a technician's approval; put it into the plan".into()), "approval needed", decision.rule);
            }
        }
        let halo = match self.gateway.tenants.client(&bound.connection).await {
            Ok(halo) => halo,
            Err(error) => return (refuse(error.to_string()), "failed", decision.rule),
        };
        match tools::call(tool, request.arguments.unwrap_or_default(), &bound, &halo).await {
            Ok(value) => (CallToolResult::structured(value), "ok", decision.rule),
            Err(error) => {
                let outcome = match error {
                    tools::Error::NotYours(_) => "refused",
                    tools::Error::Arguments(_) => "bad arguments",
                    _ => "failed",
                };
                (refuse(error.to_string()), outcome, decision.rule)
            }
        }
    }
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let mut info = ServerConfig::new(ServerCapabilities::builder().enable_tools().build());
        info.server_info = Implementation::new("halopsa-operator", env!("CARGO_PKG_VERSION"));
        info
    }

    async fn list_tools(&self, _: Option<PaginatedRequestParams>, context: RequestContext<RoleServer>) -> Result<ListToolsResult, ErrorData> {
        let identity = Self::identity(&context)?;
        let bound = self.gateway.bound(&identity).map_err(|why| ErrorData::internal_error(why, None))?;
        let visible = tools::TOOLS.iter().filter(|t| self.decide(&identity, &bound, t.name, t.nature).effect != Effect::Disabled);
        let listed = visible.map(|t| {
            let annotations =
                ToolAnnotations::new().read_only(t.nature == Nature::Read).destructive(t.nature == Nature::Destructive).open_world(false);
            Tool::new(t.name, t.description, Arc::new(t.schema())).with_title(t.title).with_annotations(annotations)
        });
        Ok(ListToolsResult::with_all_items(listed.collect()))
    }

    async fn call_tool(&self, request: CallToolRequestParams, context: RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
        let identity = Self::identity(&context)?;
        let started = Instant::now();
        // Names come from outside: bounded where shown, and not a label unless known.
        let name = one_line(&request.name, 64);
        let known = tools::find(&request.name).map_or("unknown", |t| t.name);
        let ticket = work::held_by(&self.gateway, &identity);
        // Numbers are ids; words may be ticket text, which stays in HaloPSA.
        let arguments: Vec<String> = request
            .arguments
            .iter()
            .flatten()
            .take(10)
            .map(|(key, value)| format!("{}={}", one_line(key, 32), value.as_i64().map_or("…".into(), |n| n.to_string())))
            .collect();
        let arguments = arguments.join(" ");
        let (result, outcome, rule) = self.run(&identity, request).await;
        METRICS.tool_calls.get_or_create(&ToolLabels { tool: known, outcome }).inc();
        tracing::info!(
            target: "audit", event = "ToolCalled", namespace = %identity.namespace, client = %identity.client, pod = %identity.pod,
            ticket = ticket.as_deref().unwrap_or_default(), tool = %name, %arguments, outcome, %rule, ms = started.elapsed().as_millis() as u64,
        );
        if let Some(ticket) = ticket {
            self.gateway.journal.add(&identity.namespace, &ticket, &identity.pod, format!("{name} {arguments}: {outcome} ({rule})"));
        }
        Ok(result.into())
    }
}
