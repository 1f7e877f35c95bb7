//! ToolServer: an MCP server whose tools agents may use through the gateway.

use super::LocalRef;
use super::connection::CaConfigMapRef;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Set this annotation to `status.offeredRevision` to accept tools that were changed.
pub const ACCEPT_ANNOTATION: &str = "rallied.ai/accept-tools";
/// Stands between a ToolServer's name and its tool's.
pub const SEPARATOR: &str = "__";

/// An MCP server (streamable HTTP) whose tools agents may use through the gateway.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rallied.ai",
    version = "v1alpha1",
    kind = "ToolServer",
    plural = "toolservers",
    shortname = "tsrv",
    category = "rallied",
    namespaced,
    status = "ToolServerStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "An MCP server (Microsoft 365, RMM, documentation, ...) whose tools agents may use through the gateway, under the ToolPolicies.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url"),
    printcolumn(name = "Tools", type_ = "integer", json_path = ".status.toolCount"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 24").message("the name is at most 24 lowercase letters, digits and hyphens: the names of its tools begin with it")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.clients) || !has(self.clientSelector)").message("give clients or clientSelector, one of the two; neither means every client of the connection"))]
pub struct ToolServerSpec {
    /// The connection whose clients' agents may use it.
    pub connection_ref: LocalRef,
    /// Address of the server's MCP endpoint, like `https://m365.tools.example/mcp`.
    #[schemars(length(max = 500))]
    #[x_kube(validation = Rule::new("self.startsWith('https://') || (self.startsWith('http://') && isURL(self) && (url(self).getHostname().endsWith('.svc') || url(self).getHostname().endsWith('.svc.cluster.local')))").message("url starts with https://; http:// is for a Service of this cluster, like http://m365.tools.svc:8080/mcp"))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getHost() != '' && !self.contains('#') && !self.contains('@')").message("url is a plain URL like https://m365.tools.example/mcp"))]
    pub url: String,
    /// A Secret whose every key is sent as a header of that name, like `Authorization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_secret_ref: Option<LocalRef>,
    /// A ConfigMap with the CA of a server whose certificate no public CA signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
    /// ImportedClients by resource name. Neither this nor `clientSelector`: all clients of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 253)))]
    pub clients: Option<Vec<String>>,
    /// ImportedClients by label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_selector: Option<LabelSelector>,
    /// The server's tools that may be used, by its own names. What is not listed is not offered.
    #[schemars(length(min = 1, max = 200))]
    pub tools: Vec<ServerTool>,
}

/// Tools of a server, and what they do.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerTool {
    /// The tool's name at the server; `*` stands for any text.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_./*-]+$"))]
    pub name: String,
    /// What it does to the world, in your judgement: what the server says of itself does not count.
    /// `Read` is `Auto` and allowed in Plan mode; `Write` (the default) is `ApprovalNeeded`;
    /// `Destructive` is `Disabled`, unless a ToolPolicy says otherwise.
    #[serde(default)]
    pub access: Access,
}

/// What a tool does to the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Access {
    Read,
    #[default]
    Write,
    /// Cannot be undone.
    Destructive,
}

/// What was observed of a server and its tools.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolServerStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The tools as they were pinned: a changed one is stopped until its change is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub tools: Vec<PinnedTool>,
    /// Tools that may be called now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_count: Option<i64>,
    /// Stands for the changed tools the server offers now; set the annotation to it to accept them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_revision: Option<String>,
}

/// A tool as it was when it was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PinnedTool {
    /// Its name at the server.
    pub name: String,
    /// SHA-256 of name, description, schema and annotations.
    pub hash: String,
    /// The hash of what the server offers now, where it differs: the tool is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<String>,
}
