//! The kinds of `rallied.ai/v1alpha1`: types and validation rules, nothing else.
//!
//! One file per kind. Rules that the apiserver can check are CEL or schema here, so that
//! invalid objects are rejected at `kubectl apply` with a message that helps.

pub mod client;
pub mod condition;
pub mod connection;
pub mod duration;
pub mod policy;
pub mod reason;
pub mod ticket;
pub mod tool_server;
pub mod verification;
pub mod workflow;

pub use client::{AgentPhase, ImportedClient, ImportedClientSpec, ImportedClientStatus};
pub use connection::{HaloPSAConnection, HaloPSAConnectionSpec, HaloPSAConnectionStatus};
pub use policy::{ToolPolicy, ToolPolicySpec, ToolPolicyStatus};
pub use ticket::{Phase, Ticket, TicketSpec, TicketStatus};
pub use tool_server::{ToolServer, ToolServerSpec, ToolServerStatus};
pub use verification::{
    VerificationProvider, VerificationProviderSpec, VerificationProviderStatus,
};
pub use workflow::{Workflow, WorkflowSpec, WorkflowStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub const GROUP: &str = "rallied.ai";

/// Label on everything that belongs to one connection.
pub const CONNECTION_LABEL: &str = "rallied.ai/connection";
/// Label on everything that belongs to one imported client.
pub const CLIENT_LABEL: &str = "rallied.ai/client";
/// Label with HaloPSA's id of the client.
pub const HALO_CLIENT_ID_LABEL: &str = "rallied.ai/halo-client-id";

/// Every CRD of the operator, in the order of the documentation.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        HaloPSAConnection::crd(),
        ImportedClient::crd(),
        ToolPolicy::crd(),
        ToolServer::crd(),
        Workflow::crd(),
        VerificationProvider::crd(),
        Ticket::crd(),
    ]
}

/// How far an agent may go on a ticket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Diagnoses with read-only tools, writes one internal note with the plan, then stops.
    #[default]
    Plan,
    /// Carries out the plan, subject to the ToolPolicies.
    Execute,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mode::Plan => "Plan",
            Mode::Execute => "Execute",
        })
    }
}

/// A reference to an object in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalRef {
    /// Name of the object, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Compute resources of an agent container, as in a Pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub requests: std::collections::BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub limits: std::collections::BTreeMap<String, String>,
}
