//! ToolServer: an MCP server whose tools agents may use through the gateway.

use super::LocalRef;
use super::connection::CaConfigMapRef;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Set this annotation to `status.offeredRevision` to accept changed tools.
pub const ACCEPT_ANNOTATION: &str = "rallied.ai/accept-tools";
/// Separates a ToolServer's name from the name of its tool.
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
    doc = "An MCP server (Microsoft 365, RMM, documentation, ...) whose tools agents may use \
           through the gateway, subject to the ToolPolicies.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url"),
    printcolumn(name = "Tools", type_ = "integer", json_path = ".status.toolCount"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new(
        "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') \
         && size(self.metadata.name) <= 24"
    )
    .message(
        "metadata.name must be at most 24 lowercase letters, digits and hyphens: it is the prefix \
         of the server's tool names"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.clients) || !has(self.clientSelector)").message(
        "clients and clientSelector are mutually exclusive; omit both to select every client of \
         the connection"
    )
)]
pub struct ToolServerSpec {
    /// HaloPSAConnection whose clients' agents may use the server.
    pub connection_ref: LocalRef,
    /// URL of the server's MCP endpoint, like `https://m365.tools.example/mcp`.
    #[schemars(length(max = 500))]
    #[x_kube(
        validation = Rule::new(
            "self.startsWith('https://') || (self.startsWith('http://') && isURL(self) \
             && (url(self).getHostname().endsWith('.svc') \
             || url(self).getHostname().endsWith('.svc.cluster.local')))"
        )
        .message(
            "url must start with https://; http:// is only for a Service in this cluster, like \
             http://m365.tools.svc:8080/mcp"
        ),
        validation = Rule::new(
            "isURL(self) && url(self).getHost() != '' \
             && !self.contains('#') && !self.contains('@')"
        )
        .message("url must be a plain URL like https://m365.tools.example/mcp")
    )]
    pub url: String,
    /// Secret whose keys are sent as headers of the same name, like `Authorization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_secret_ref: Option<LocalRef>,
    /// ConfigMap with the CA bundle, if the server's certificate is not signed by a public CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
    /// ImportedClients by resource name. Omit both this and `clientSelector` to select every client
    /// of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 253)))]
    pub clients: Option<Vec<String>>,
    /// ImportedClients by label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_selector: Option<LabelSelector>,
    /// Tools that may be used, by the server's names. Tools that are not listed are not offered.
    #[schemars(length(min = 1, max = 200))]
    pub tools: Vec<ServerTool>,
}

/// One or more tools of a server, and what they do.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerTool {
    /// Name of the tool at the server; `*` matches any text.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_./*-]+$"))]
    pub name: String,
    /// What the tool does to the world, in your judgement: the server's own hints do not count.
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

/// Observed state of a server and its tools.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolServerStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The tools as pinned. A changed tool is blocked until the change is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub tools: Vec<PinnedTool>,
    /// Number of tools that can be called now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_count: Option<i64>,
    /// Identifies the changed tools that the server offers now. To accept them, set the annotation
    /// `rallied.ai/accept-tools` to this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_revision: Option<String>,
}

/// A tool as it was when it was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PinnedTool {
    /// Name of the tool at the server.
    pub name: String,
    /// SHA-256 of name, description, schema and annotations.
    pub hash: String,
    /// Hash of what the server offers now, if it differs. The tool is then blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<String>,
}
