//! ToolServer: an MCP server whose tools agents may use through the gateway.

use super::LocalRef;
use super::connection::{CaConfigMapRef, SecretKeyRef};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Set this annotation to `status.offeredRevision` to accept changed tools.
pub const ACCEPT_ANNOTATION: &str = "rallied.ai/accept-tools";
/// Separates a ToolServer's name from the name of its tool.
pub const SEPARATOR: &str = "__";
/// No ToolServer's name begins like this: rules for `halopsa_*` mean HaloPSA's own tools.
pub const RESERVED: &str = "halopsa";

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
    ),
    validation = Rule::new("!self.metadata.name.startsWith('halopsa')").message(
        "metadata.name must not begin with halopsa: rules for halopsa_* mean HaloPSA's own tools"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.clients) || !has(self.clientSelector)").message(
        "clients and clientSelector are mutually exclusive; omit both to select every client of \
         the connection"
    ),
    validation = Rule::new(
        "!has(self.contextKeySecretRef) || !has(self.headersSecretRef) \
         || self.contextKeySecretRef.name != self.headersSecretRef.name"
    )
    .message(
        "contextKeySecretRef and headersSecretRef must name different Secrets: every key of the \
         latter is sent to the server"
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
    /// Further headers for calls of one client's agents: its own key at the server, for example.
    /// They replace headers of the same name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 100),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["client"])
    )]
    pub client_headers: Vec<ClientHeaders>,
    /// Key (at least 32 characters) that signs the header `X-Rallied-Context` of each call, which
    /// says for which client, ticket and requester it is. If omitted, the context is sent
    /// unsigned, in `_meta` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_key_secret_ref: Option<SecretKeyRef>,
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
    /// Tools that are sensitive although nothing the server says about them shows it, by the
    /// server's names; `*` matches any text. Nothing here makes a tool less sensitive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 200),
        inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_./*-]+$"))
    )]
    pub sensitive_tools: Vec<String>,
}

/// Headers for one client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientHeaders {
    /// The ImportedClient, by resource name.
    #[schemars(length(min = 1, max = 253))]
    pub client: String,
    /// Secret whose keys are sent as headers of the same name.
    pub secret_ref: LocalRef,
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
    /// The server as it names itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerIdentity>,
    /// The tools as pinned. A changed or new tool is blocked until it is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub tools: Vec<PinnedTool>,
    /// Number of tools that can be called now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_count: Option<i64>,
    /// Identifies the changed and new tools that the server offers now. To accept them, set the
    /// annotation `rallied.ai/accept-tools` to this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_revision: Option<String>,
}

/// A tool as it was when it was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PinnedTool {
    /// Name of the tool at the server.
    pub name: String,
    /// SHA-256 of the server's name and of the tool's name, title, description, schemas and
    /// annotations. Empty: the tool is new and was not accepted yet.
    pub hash: String,
    /// Hash of what the server offers now, if it differs. The tool is then blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<String>,
    /// Why the requester has to be verified before a call, like
    /// `changes credentials (reset, password)`. If omitted, nothing shows that they have to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitive: Option<String>,
    /// A short hash of each part of the definition, to tell what has changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, String>,
}

/// How a server names itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerIdentity {
    /// A server that changes it is another one: its tools have to be accepted again.
    pub name: String,
    pub version: String,
}
