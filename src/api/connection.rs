//! HaloPSAConnection: one HaloPSA tenant.

use super::{LocalRef, Mode, Resources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A HaloPSA tenant: where it is, how to sign in, which clients to look after.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rallied.ai",
    version = "v1alpha1",
    kind = "HaloPSAConnection",
    plural = "halopsaconnections",
    singular = "halopsaconnection",
    shortname = "halo",
    category = "rallied",
    namespaced,
    status = "HaloPSAConnectionStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A HaloPSA tenant: where it is, how to sign in, which of its clients to look after.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.instanceURL"),
    printcolumn(
        name = "Webhook",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="WebhookRegistered")].status"#
    ),
    printcolumn(name = "Clients", type_ = "integer", json_path = ".status.importedClients"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 63").message("the name has at most 63 characters: it becomes a label and a part of the webhook's address")
)]
#[serde(rename_all = "camelCase")]
pub struct HaloPSAConnectionSpec {
    /// HaloPSA's address, like `https://acme.halopsa.com`: https, no trailing slash.
    #[serde(rename = "instanceURL")]
    #[schemars(length(max = 300))]
    #[x_kube(validation = Rule::new("self.startsWith('https://')").message("instanceURL starts with https://: HaloPSA's credentials never travel in the clear"))]
    #[x_kube(validation = Rule::new("!self.endsWith('/')").message("instanceURL has no trailing slash: write https://acme.halopsa.com"))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getHost() != '' && !self.contains('?') && !self.contains('#') && !self.contains('@')").message("instanceURL is a plain URL like https://acme.halopsa.com"))]
    pub instance_url: String,

    /// Tenant name; hosted HaloPSA needs it only where several tenants share one address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub tenant: Option<String>,

    /// The Secret with the API application's Client ID and Client Secret.
    pub credentials_secret_ref: CredentialsSecretRef,

    /// A ConfigMap with the CA of a self-hosted HaloPSA whose certificate no public CA signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,

    pub webhook: WebhookSpec,

    /// Which of HaloPSA's clients to import. Absent: none; apply ImportedClients yourself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientSelector>,

    /// Defaults for the agents of this connection's clients.
    #[serde(default)]
    pub agent: AgentDefaults,

    /// Instructions to the agents of all clients: policies and preferences of the MSP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub prompt: Option<String>,

    #[serde(default)]
    pub privacy: Privacy,

    /// The action (outcome) used for internal notes.
    #[serde(default)]
    pub notes: Notes,

    /// How technicians are asked for approval.
    #[serde(default)]
    pub approvals: Approvals,

    /// Which tickets are sensitive, and who verifies their requesters.
    #[serde(default)]
    pub sensitivity: Sensitivity,

    /// How many requests HaloPSA allows, and in which time.
    #[serde(default)]
    pub rate_limit: RateLimit,

    /// How long finished Tickets are kept in the cluster.
    #[serde(default)]
    pub retention: Retention,

    /// Stops all work outside the cluster for this connection: no sign-in, no
    /// webhook repair, no new ticket work. Webhooks are still taken and kept.
    #[serde(default)]
    pub suspend: bool,
}

#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsSecretRef {
    /// Name of the Secret, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the Client ID.
    #[serde(default = "client_id_key")]
    pub client_id_key: String,
    /// Key of the Client Secret.
    #[serde(default = "client_secret_key")]
    pub client_secret_key: String,
}

fn client_id_key() -> String {
    "clientId".into()
}

fn client_secret_key() -> String {
    "clientSecret".into()
}

#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaConfigMapRef {
    /// Name of the ConfigMap, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the PEM file.
    #[serde(default = "ca_key")]
    pub key: String,
}

fn ca_key() -> String {
    "ca.crt".into()
}

#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSpec {
    /// The receiver's address as HaloPSA reaches it, like `https://hooks.msp.example`.
    /// The path `/webhooks/NAMESPACE/NAME` is added.
    // HaloPSA stores at most 500 characters of a webhook's URL.
    #[schemars(length(max = 350))]
    #[x_kube(validation = Rule::new("self.startsWith('https://')").message("webhook.url starts with https://: webhooks carry ticket text and a password"))]
    #[x_kube(validation = Rule::new("!self.endsWith('/')").message("webhook.url has no trailing slash: the path is added to it"))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getHost() != '' && !self.contains('?') && !self.contains('#') && !self.contains('@')").message("webhook.url is a plain URL like https://hooks.msp.example"))]
    pub url: String,
}

/// The clients to import. A client is imported when any of the lists names it
/// and `exclude` does not.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.all) || !self.all || (!has(self.ids) && !has(self.names) && !has(self.patterns))").message("clients.all imports every client: drop ids, names and patterns, or set all to false"))]
pub struct ClientSelector {
    /// Every active client but HaloPSA's catch-all client "Unknown".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// HaloPSA's client ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10000), inner(range(min = 1)))]
    pub ids: Option<Vec<i64>>,
    /// Client names, exactly as in HaloPSA (case does not matter).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10000), inner(length(min = 1, max = 255)))]
    pub names: Option<Vec<String>>,
    /// Name patterns: `*` stands for any text (case does not matter).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 255)))]
    pub patterns: Option<Vec<String>>,
    /// Name patterns of clients never to import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 255)))]
    pub exclude: Option<Vec<String>>,
}

/// Defaults for agents; an ImportedClient may override each.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentDefaults {
    /// `Plan` (the default) or `Execute`.
    #[serde(default)]
    pub mode: Mode,
    #[serde(flatten)]
    pub settings: AgentSettings,
}

/// How an agent runs. Every field is optional; absent means the default in brackets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentSettings {
    /// Container image (the operator's own). Any image that speaks the work API will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    pub image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// How long an agent without a ticket keeps running, like `10m` (10m).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub idle_time: Option<Duration>,
    /// The most agents to run at once for one client (3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub max_replicas: Option<i32>,
    /// A language model for the agent. Absent: the built-in brain, which needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSpec>,
}

/// An OpenAI-compatible endpoint. The gateway calls it; the agent never sees the key.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelSpec {
    /// Address without `/chat/completions`, like `https://api.openai.com/v1`.
    #[serde(rename = "baseURL")]
    #[schemars(length(max = 500))]
    #[x_kube(validation = Rule::new("self.startsWith('https://') || (self.startsWith('http://') && isURL(self) && (url(self).getHostname().endsWith('.svc') || url(self).getHostname().endsWith('.svc.cluster.local')))").message("model.baseURL starts with https://; http:// is for a Service of this cluster, like http://litellm.models.svc:4000/v1"))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getHost() != '' && !self.endsWith('/') && !self.contains('?') && !self.contains('#') && !self.contains('@')").message("model.baseURL is a plain URL without a trailing slash, like https://api.openai.com/v1"))]
    pub base_url: String,
    /// The model's name at the endpoint.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// The Secret with the endpoint's API key. Absent: none is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,
    /// A ConfigMap with the CA of an endpoint whose certificate no public CA signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
    #[serde(default)]
    pub limits: ModelLimits,
}

/// A key of a Secret in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// What a model may use. A ticket whose limit is reached ends with a note that says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelLimits {
    /// Tokens, in and out, for one ticket (200000).
    #[serde(default = "tokens_per_ticket")]
    #[schemars(range(min = 1000, max = 100000000))]
    pub tokens_per_ticket: i64,
    /// Tokens, in and out, on one UTC day for one client (2000000).
    #[serde(default = "tokens_per_day")]
    #[schemars(range(min = 1000, max = 10000000000i64))]
    pub tokens_per_day: i64,
    /// Answers of the model in one turn of the agent (20).
    #[serde(default = "steps_per_turn")]
    #[schemars(range(min = 1, max = 200))]
    pub steps_per_turn: u32,
    /// The longest wait for one answer (2m).
    #[serde(default = "model_timeout")]
    #[schemars(extend("pattern" = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub timeout: Duration,
}

impl Default for ModelLimits {
    fn default() -> Self {
        Self {
            tokens_per_ticket: tokens_per_ticket(),
            tokens_per_day: tokens_per_day(),
            steps_per_turn: steps_per_turn(),
            timeout: model_timeout(),
        }
    }
}

fn tokens_per_ticket() -> i64 {
    200_000
}

fn tokens_per_day() -> i64 {
    2_000_000
}

fn steps_per_turn() -> u32 {
    20
}

fn model_timeout() -> Duration {
    std::time::Duration::from_secs(120).into()
}

/// Which tickets are sensitive, besides those the built-in rules see, and what then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sensitivity {
    /// The VerificationProvider that asks requesters who they are. Absent: agents work on
    /// sensitive tickets in Plan mode only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_ref: Option<LocalRef>,
    /// Further rules. They make tickets sensitive; none makes one harmless.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub rules: Vec<SensitivityRule>,
    /// Names of ticket types that are never sensitive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 100)))]
    pub exempt_ticket_types: Vec<String>,
}

#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.keywords) != has(self.when)").message("give keywords or when, one of the two"))]
pub struct SensitivityRule {
    /// Stands in the reason.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Words or phrases; a ticket that holds one of them is sensitive (case does not matter).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 2, max = 100)))]
    pub keywords: Option<Vec<String>>,
    /// A CEL expression over `ticket` (id, clientId, priority, status, type, category) and `args`
    /// (subject, details). One that cannot be evaluated makes the ticket sensitive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,
}

/// How technicians are asked for approval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approvals {
    /// Name of the HaloPSA action (outcome) of a request; default: that of `notes`. It is internal in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub outcome: Option<String>,
    /// A request that nobody answers ends after this time (24h).
    #[serde(default = "valid_for")]
    #[schemars(extend("pattern" = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub valid_for: Duration,
    /// A request that nobody answers is repeated once after this time (4h); `0s`: never.
    #[serde(default = "remind_after")]
    #[schemars(extend("pattern" = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub remind_after: Duration,
    /// How often a ticket that waits is read for replies, at most (10s). With many waiting it is less often.
    #[serde(default = "poll")]
    #[schemars(extend("pattern" = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub poll: Duration,
    /// HaloPSA applications a human replies with; `*` stands for any text. Others are integrations and never approve.
    #[serde(default = "applications")]
    #[schemars(length(max = 20), inner(length(max = 100)))]
    pub applications: Vec<String>,
}

impl Default for Approvals {
    fn default() -> Self {
        Self {
            outcome: None,
            valid_for: valid_for(),
            remind_after: remind_after(),
            poll: poll(),
            applications: applications(),
        }
    }
}

fn valid_for() -> Duration {
    std::time::Duration::from_secs(24 * 3600).into()
}

fn remind_after() -> Duration {
    std::time::Duration::from_secs(4 * 3600).into()
}

fn poll() -> Duration {
    std::time::Duration::from_secs(10).into()
}

fn applications() -> Vec<String> {
    vec!["nethelpdesk-*".into()]
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Privacy {
    /// Keeps ticket subjects out of the cluster.
    #[serde(default)]
    pub hide_subjects: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notes {
    /// Name of the HaloPSA action (outcome) for internal notes.
    #[serde(default = "private_note")]
    #[schemars(length(min = 1, max = 100))]
    pub outcome: String,
    /// Id of the action tried when HaloPSA does not know the name; 7 in a stock HaloPSA.
    #[serde(default = "private_note_id")]
    pub fallback_outcome_id: i64,
    /// Name of the HaloPSA action (outcome) that replies to the requester by e-mail.
    #[serde(default = "email_user")]
    #[schemars(length(min = 1, max = 100))]
    pub reply_outcome: String,
}

impl Default for Notes {
    fn default() -> Self {
        Self {
            outcome: private_note(),
            fallback_outcome_id: private_note_id(),
            reply_outcome: email_user(),
        }
    }
}

fn private_note() -> String {
    "Private Note".into()
}

fn email_user() -> String {
    "Email User".into()
}

fn private_note_id() -> i64 {
    7
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Requests allowed in a window (300, what a hosted tenant says in its 429).
    #[serde(default = "rate_requests")]
    #[schemars(range(min = 10, max = 1000000))]
    pub requests: u32,
    /// Length of the rolling window (5m).
    #[serde(default = "rate_window")]
    #[schemars(extend("pattern" = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub window: Duration,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            requests: rate_requests(),
            window: rate_window(),
        }
    }
}

fn rate_requests() -> u32 {
    300
}

fn rate_window() -> Duration {
    std::time::Duration::from_secs(300).into()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// A finished Ticket is deleted after this time (168h).
    #[serde(default = "keep_finished")]
    #[schemars(extend("pattern" = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub finished: Duration,
    /// Of a connection's finished Tickets at most this many are kept, the newest (1000).
    #[serde(default = "keep_count")]
    #[schemars(range(min = 0, max = 100000))]
    pub max_finished: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            finished: keep_finished(),
            max_finished: keep_count(),
        }
    }
}

fn keep_finished() -> Duration {
    std::time::Duration::from_secs(7 * 24 * 3600).into()
}

fn keep_count() -> u32 {
    1000
}

/// What was observed of a HaloPSA tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HaloPSAConnectionStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The HaloPSA agent the application acts as; its own events are not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_agent: Option<ApiAgent>,
    /// The scopes HaloPSA granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub granted_scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookStatus>,
    /// ImportedClients of this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported_clients: Option<i64>,
    /// Clients HaloPSA shows to the API agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_clients: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiAgent {
    pub id: i64,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookStatus {
    /// HaloPSA's id of the webhook.
    pub id: String,
    pub name: String,
    /// Where HaloPSA posts.
    pub url: String,
    /// The Secret with the generated user name and password.
    pub secret_ref: LocalRef,
    /// Tells whether HaloPSA was given the Secret's present password.
    #[serde(default)]
    pub credentials_checksum: String,
}
