//! ToolPolicy: what agents may do with which tool.

use super::LocalRef;
use crate::ids::TechnicianId;
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
#[x_kube(
    validation = Rule::new("!has(self.clients) || !has(self.clientSelector)").message(
        "clients and clientSelector are mutually exclusive; omit both to select every client of \
         the connection"
    )
)]
pub struct ToolPolicySpec {
    /// HaloPSAConnection whose clients this policy applies to.
    pub connection_ref: LocalRef,
    /// ImportedClients by resource name. Omit both this and `clientSelector` to select every client
    /// of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 253)))]
    pub clients: Option<Vec<String>>,
    /// ImportedClients by label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_selector: Option<LabelSelector>,
    /// The first rule that matches the tool and whose `when` is true decides.
    #[schemars(length(min = 1, max = 200))]
    pub rules: Vec<ToolRule>,
}

#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.approvers) || self.effect == 'ApprovalNeeded'")
        .message("approvers requires effect ApprovalNeeded: other effects ask nobody")
)]
pub struct ToolRule {
    /// Tool names; `*` matches any text, as in `halopsa_get_*`. A pattern never enables a tool
    /// that is destructive: that takes a rule with its exact name.
    #[schemars(
        length(min = 1, max = 100),
        inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9_.:*-]+$"))
    )]
    pub tools: Vec<String>,
    /// `Auto`: the call runs. `ApprovalNeeded`: the call waits for a technician. `Disabled`: the
    /// tool is hidden and calls are refused.
    pub effect: Effect,
    /// CEL expression that must be true for the rule to apply, like `args.status == 'In Progress'`.
    /// Variables: `args` (the call's arguments; names are as HaloPSA spells them, with their ids
    /// beside them, like `statusId`), `ticket` (id, clientId, priority, status, type, category,
    /// requester, sensitivity), `tool`, `client`. A ToolServer's arguments are as the agent wrote
    /// them: compare `args.user.lowerAscii()` where case does not matter. If it fails on a call,
    /// the stricter counts: that the rule applies, or that it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,
    /// Whether the requester must have proved who they are before the call, even if the ticket is
    /// not sensitive. `true` holds whatever other policies say. `false` lifts the requirement of a
    /// sensitive tool, if the rule names the tool exactly. Absent: only sensitive tools require
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_verification: Option<bool>,
    /// Who may approve besides the ticket's assigned technician. Only for `ApprovalNeeded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvers: Option<Approvers>,
}

/// Technicians who may approve besides the one assigned to the ticket.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.agentIds) || has(self.team)").message(
        "set agentIds, team or both; omit approvers if only the assigned technician may approve"
    )
)]
pub struct Approvers {
    /// HaloPSA agent IDs of the technicians.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50), inner(range(min = 2)))]
    pub agent_ids: Option<Vec<TechnicianId>>,
    /// Name of a HaloPSA team whose members may approve.
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

/// Observed state of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolPolicyStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many tools each rule matches, in the order of the rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleStatus>,
    /// Number of rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_count: Option<i64>,
}

/// What a rule matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleStatus {
    /// Number of tools whose name the rule matches.
    pub tools: i64,
    /// How many of them no earlier rule without `when` decides.
    pub decides: i64,
}
