//! ToolPolicy: what agents may do with which tool.

use super::LocalRef;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What agents may do with which tool.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rallied.ai",
    version = "v1alpha1",
    kind = "ToolPolicy",
    plural = "toolpolicies",
    shortname = "tp",
    category = "rallied",
    namespaced,
    status = "ToolPolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Which tools the agents of a connection, or of some of its clients, may use, and how.",
    printcolumn(name = "Accepted", type_ = "string", json_path = r#".status.conditions[?(@.type=="Accepted")].status"#),
    printcolumn(name = "Connection", type_ = "string", json_path = ".spec.connectionRef.name"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Accepted")].message"#, priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ToolPolicySpec {
    /// The connection whose clients this policy is for.
    pub connection_ref: LocalRef,
    /// ImportedClients by resource name. Absent: all clients of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 253)))]
    pub clients: Option<Vec<String>>,
    /// The first rule that names the tool decides.
    #[schemars(length(min = 1, max = 200))]
    pub rules: Vec<ToolRule>,
}

#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolRule {
    /// Tool names; `*` stands for any text, like `halopsa_get_*`.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_.:*-]+$")))]
    pub tools: Vec<String>,
    /// `Auto`: runs. `ApprovalNeeded`: waits for a technician. `Disabled`: hidden and refused.
    pub effect: Effect,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Effect {
    Auto,
    ApprovalNeeded,
    #[default]
    Disabled,
}

/// What was found out about a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolPolicyStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
