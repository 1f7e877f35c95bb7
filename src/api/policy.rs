//! ToolPolicy: what agents may do with which tool.

use super::LocalRef;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
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
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(
        name = "Connection",
        type_ = "string",
        json_path = ".spec.connectionRef.name"
    ),
    printcolumn(name = "Rules", type_ = "integer", json_path = ".status.ruleCount"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].message"#,
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.clients) || !has(self.clientSelector)").message("give clients or clientSelector, one of the two; neither means every client of the connection"))]
pub struct ToolPolicySpec {
    /// The connection whose clients this policy is for.
    pub connection_ref: LocalRef,
    /// ImportedClients by resource name. Neither this nor `clientSelector`: all clients of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 253)))]
    pub clients: Option<Vec<String>>,
    /// ImportedClients by label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_selector: Option<LabelSelector>,
    /// The first rule that names the tool, and whose `when` holds, decides.
    #[schemars(length(min = 1, max = 200))]
    pub rules: Vec<ToolRule>,
}

#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.approvers) || self.effect == 'ApprovalNeeded'").message("approvers belongs to effect ApprovalNeeded: nobody is asked for the others"))]
pub struct ToolRule {
    /// Tool names; `*` stands for any text, like `halopsa_get_*`.
    #[schemars(
        length(min = 1, max = 100),
        inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_.:*-]+$"))
    )]
    pub tools: Vec<String>,
    /// `Auto`: runs. `ApprovalNeeded`: waits for a technician. `Disabled`: hidden and refused.
    pub effect: Effect,
    /// A CEL expression that has to hold for the rule to count, like `args.status != 'Closed'`.
    /// Variables: `args` (the call's arguments), `ticket` (id, clientId, priority, status, type),
    /// `tool`, `client`. One that fails on a call makes the rule count unless its effect is `Auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,
    /// The requester has to have proved who they are before the call, also when the ticket looked harmless.
    #[serde(default)]
    pub require_verification: bool,
    /// Who may approve besides the ticket's assigned agent. For `ApprovalNeeded` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvers: Option<Approvers>,
}

/// HaloPSA agents that may approve besides the ticket's assigned one.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.agentIds) || has(self.team)").message("give agentIds or team: without either the assigned agent alone approves"))]
pub struct Approvers {
    /// HaloPSA's ids of the agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50), inner(range(min = 2)))]
    pub agent_ids: Option<Vec<i64>>,
    /// Name of a HaloPSA team: its members may approve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub team: Option<String>,
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
    /// How many tools each rule names, in the rules' order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleStatus>,
    /// The number of rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_count: Option<i64>,
}

/// What a rule comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleStatus {
    /// Tools whose name the rule matches.
    pub tools: i64,
    /// Of these, tools that no earlier rule without `when` has taken.
    pub decides: i64,
}
