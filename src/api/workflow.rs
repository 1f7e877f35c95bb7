//! Workflow: what to do with a kind of ticket.

use super::LocalRef;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to do with a kind of ticket.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rallied.ai",
    version = "v1alpha1",
    kind = "Workflow",
    plural = "workflows",
    shortname = "hwf",
    category = "rallied",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    status = "WorkflowStatus",
    doc = "What to do with a kind of ticket: a trigger (when it applies) and instructions (the \
           steps), for some or all clients of a connection.",
    printcolumn(name = "State", type_ = "string", json_path = ".spec.state"),
    printcolumn(
        name = "Connection",
        type_ = "string",
        json_path = ".spec.connectionRef.name"
    ),
    printcolumn(name = "Trigger", type_ = "string", json_path = ".spec.trigger"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#,
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowSpec {
    /// HaloPSAConnection whose clients this workflow applies to.
    pub connection_ref: LocalRef,
    /// ImportedClients by resource name. Omit to select every client of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 253)))]
    pub clients: Option<Vec<String>>,
    /// When it applies, in one sentence, like `A label printer is offline or prints nothing`.
    #[schemars(length(min = 3, max = 300))]
    pub trigger: String,
    /// What to do, written for whoever does it: a human or a language model.
    #[schemars(length(min = 1, max = 8192))]
    pub instructions: String,
    /// The instructions as tool calls for the built-in agent. `{{ticketId}}`, `{{requester}}`,
    /// `{{subject}}` and `{{client}}` in their texts are replaced with the ticket's values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10))]
    pub steps: Option<Vec<WorkflowStep>>,
    /// Only `Active` workflows are used.
    #[serde(default)]
    pub state: WorkflowState,
}

/// An object of any shape. With `additionalProperties` the apiserver would drop what is inside.
fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 50,
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// A call that the built-in agent makes, subject to the ToolPolicies like any other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowStep {
    #[schemars(length(min = 1, max = 128))]
    pub tool: String,
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schemars(schema_with = "any_object")]
    pub arguments: serde_json::Map<String, serde_json::Value>,
    /// Why, shown to the technician who approves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 300))]
    pub why: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WorkflowState {
    #[default]
    Draft,
    Active,
    Archived,
}

/// Observed state of a workflow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
