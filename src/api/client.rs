//! ImportedClient: a company the MSP looks after, with an agent of its own.

use super::connection::AgentSettings;
use super::{LocalRef, Mode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A HaloPSA client whose tickets are handled by an agent of its own.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rallied.ai",
    version = "v1alpha1",
    kind = "ImportedClient",
    plural = "importedclients",
    shortname = "hclient",
    category = "rallied",
    namespaced,
    status = "ImportedClientStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A HaloPSA client (a company the MSP looks after) whose tickets are handled by an \
           agent of its own.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Connection", type_ = "string", json_path = ".spec.connectionRef.name"),
    printcolumn(name = "Halo ID", type_ = "integer", json_path = ".status.haloClientId"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".status.mode"),
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.agent"),
    printcolumn(name = "Tickets", type_ = "integer", json_path = ".status.openTickets"),
    printcolumn(
        name = "Name",
        type_ = "string",
        json_path = ".status.haloClientName",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    selectable = ".spec.connectionRef.name",
    validation = Rule::new(
        "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') \
         && size(self.metadata.name) <= 45"
    )
    .message(
        "metadata.name must be at most 45 lowercase letters, digits and hyphens: the agent's \
         Deployment is named after it"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.haloClientId) != has(self.haloClientName)")
        .message("set exactly one of haloClientId and haloClientName"),
    validation = Rule::new("self.connectionRef.name == oldSelf.connectionRef.name")
        .message("connectionRef is immutable: delete the ImportedClient and create it again"),
    validation = Rule::new(
        "has(self.slug) == has(oldSelf.slug) && (!has(self.slug) || self.slug == oldSelf.slug)"
    )
    .message("slug is immutable: Tickets are named after it")
)]
pub struct ImportedClientSpec {
    /// HaloPSAConnection in the same namespace. Immutable.
    pub connection_ref: LocalRef,
    /// ID of the client in HaloPSA. Set exactly one of `haloClientId` and `haloClientName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2147483647))]
    pub halo_client_id: Option<i64>,
    /// Name of the client, exactly as in HaloPSA (case-insensitive).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub halo_client_name: Option<String>,
    /// Short name that Tickets are named after: lowercase letters, digits and hyphens. Defaults to
    /// the resource's name. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 45),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub slug: Option<String>,
    /// `Plan` or `Execute`. Defaults to the connection's mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Instructions for this client, added to the connection's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub prompt: Option<String>,
    /// Overrides for the connection's agent settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentSettings>,
    /// Accept no new tickets. Tickets in progress are finished.
    #[serde(default)]
    pub suspend: bool,
}

impl ImportedClient {
    /// The short name that this client's Tickets are named after.
    pub fn slug(&self) -> String {
        self.spec.slug.clone().unwrap_or_else(|| self.name_any())
    }
}

/// State of a client's agent, shown in the AGENT column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AgentPhase {
    /// Waiting for the connection, or for the client to be found in HaloPSA.
    #[default]
    Pending,
    /// A Pod is starting.
    Provisioning,
    /// No ticket to work on, so no Pod is needed.
    Idle,
    /// A Pod is running.
    Active,
    /// Something has to be fixed; the Ready condition says what.
    Error,
}

/// Observed state of a client and its agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImportedClientStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Resolved ID of the client in HaloPSA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halo_client_id: Option<i64>,
    /// Current name of the client in HaloPSA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halo_client_name: Option<String>,
    /// Mode in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentPhase>,
    /// Number of unfinished Tickets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_tickets: Option<i64>,
    /// Desired number of agent Pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Use of the language model on the latest day. Written by the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_usage: Option<ModelUsage>,
}

/// What a client's agents have used of the language model in one day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelUsage {
    /// The UTC day, like `2026-01-31`.
    pub day: String,
    /// Input and output tokens, also of Tickets that are deleted.
    pub tokens: i64,
}
