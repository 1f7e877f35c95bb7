//! HaloPSAConnection: one HaloPSA tenant.

use super::duration::Duration;
use super::{LocalRef, Mode, Resources};
use crate::ids::TechnicianId;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A HaloPSA tenant: where it is, how to sign in, and which clients to look after.
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
    doc = "A HaloPSA tenant: where it is, how to sign in, and which of its clients to look after.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
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
    validation = Rule::new("size(self.metadata.name) <= 63").message(
        "metadata.name must be at most 63 characters: it becomes a label value and part of the \
         webhook's URL"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct HaloPSAConnectionSpec {
    /// Base URL of HaloPSA, like `https://acme.halopsa.com`: https, no trailing slash.
    #[serde(rename = "instanceURL")]
    #[schemars(length(max = 300))]
    #[x_kube(
        validation = Rule::new("self.startsWith('https://')").message(
            "instanceURL must start with https://: credentials are never sent in clear text"
        ),
        validation = Rule::new("!self.endsWith('/')")
            .message("instanceURL must have no trailing slash: use https://acme.halopsa.com"),
        validation = Rule::new(
            "isURL(self) && url(self).getHost() != '' \
             && !self.contains('?') && !self.contains('#') && !self.contains('@')"
        )
        .message("instanceURL must be a plain URL like https://acme.halopsa.com")
    )]
    pub instance_url: String,

    /// Tenant name. Hosted HaloPSA needs it only if several tenants share one address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub tenant: Option<String>,

    /// Secret with the API application's Client ID and Client Secret.
    pub credentials_secret_ref: CredentialsSecretRef,

    /// ConfigMap with the CA bundle, if the certificate of a self-hosted HaloPSA is not signed by a
    /// public CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,

    /// Where HaloPSA sends its webhooks.
    pub webhook: WebhookSpec,

    /// Which HaloPSA clients to import. If omitted, none: create ImportedClients yourself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientSelector>,

    /// Defaults for the agents of this connection's clients.
    #[serde(default)]
    pub agent: AgentDefaults,

    /// Instructions for the agents of all clients: the MSP's policies and preferences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16384))]
    pub prompt: Option<String>,

    /// What is kept out of the cluster.
    #[serde(default)]
    pub privacy: Privacy,

    /// HaloPSA actions (outcomes) used for notes and replies.
    #[serde(default)]
    pub notes: Notes,

    /// How technicians are asked for approval.
    #[serde(default)]
    pub approvals: Approvals,

    /// Which tickets are sensitive, and who verifies their requesters.
    #[serde(default)]
    pub sensitivity: Sensitivity,

    /// How many requests HaloPSA allows per time window.
    #[serde(default)]
    pub rate_limit: RateLimit,

    /// How long finished Tickets are kept in the cluster.
    #[serde(default)]
    pub retention: Retention,

    /// Stop all work outside the cluster for this connection: no sign-in, no webhook repair, no
    /// new ticket work. Webhooks are still accepted and stored.
    #[serde(default)]
    pub suspend: bool,
}

#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsSecretRef {
    /// Name of the Secret, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key that holds the Client ID.
    #[serde(default = "client_id_key")]
    pub client_id_key: String,
    /// Key that holds the Client Secret.
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
    /// Key that holds the CA bundle, in PEM format.
    #[serde(default = "ca_key")]
    pub key: String,
}

fn ca_key() -> String {
    "ca.crt".into()
}

#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSpec {
    /// Base URL at which HaloPSA reaches the receiver, like `https://hooks.msp.example`.
    /// The path `/webhooks/NAMESPACE/NAME` is appended.
    // HaloPSA stores at most 500 characters of a webhook's URL.
    #[schemars(length(max = 350))]
    #[x_kube(
        validation = Rule::new("self.startsWith('https://')").message(
            "webhook.url must start with https://: webhooks carry ticket text and a password"
        ),
        validation = Rule::new("!self.endsWith('/')")
            .message("webhook.url must have no trailing slash: a path is appended to it"),
        validation = Rule::new(
            "isURL(self) && url(self).getHost() != '' \
             && !self.contains('?') && !self.contains('#') && !self.contains('@')"
        )
        .message("webhook.url must be a plain URL like https://hooks.msp.example")
    )]
    pub url: String,
}

/// The clients to import. A client is imported if any of the lists matches it and `exclude` does
/// not.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!has(self.all) || !self.all \
         || (!has(self.ids) && !has(self.names) && !has(self.patterns))"
    )
    .message(
        "clients.all imports every client: remove ids, names and patterns, or set all to false"
    )
)]
pub struct ClientSelector {
    /// Import every active client except HaloPSA's catch-all client "Unknown".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// Client IDs in HaloPSA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10000), inner(range(min = 1)))]
    pub ids: Option<Vec<i64>>,
    /// Client names, exactly as in HaloPSA (case-insensitive).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10000), inner(length(min = 1, max = 255)))]
    pub names: Option<Vec<String>>,
    /// Name patterns; `*` matches any text (case-insensitive).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 255)))]
    pub patterns: Option<Vec<String>>,
    /// Name patterns of clients never to import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 255)))]
    pub exclude: Option<Vec<String>>,
}

/// Defaults for agents. An ImportedClient can override each of them.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentDefaults {
    /// `Plan` (the default) or `Execute`.
    #[serde(default)]
    pub mode: Mode,
    #[serde(flatten)]
    pub settings: AgentSettings,
}

/// How an agent runs. Every field is optional; defaults are in parentheses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentSettings {
    /// Container image (the operator's own). Any image that implements the work API will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    pub image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// How long an agent keeps running without a ticket, like `10m` (10m).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_time: Option<Duration>,
    /// Maximum number of agents that run at once per client (3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 20))]
    pub max_replicas: Option<i32>,
    /// Language model for the agent. If omitted, the built-in agent is used, which needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSpec>,
}

/// An OpenAI-compatible endpoint. The gateway calls it; the agent never sees the key.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelSpec {
    /// Base URL without `/chat/completions`, like `https://api.openai.com/v1`.
    #[serde(rename = "baseURL")]
    #[schemars(length(max = 500))]
    #[x_kube(
        validation = Rule::new(
            "self.startsWith('https://') || (self.startsWith('http://') && isURL(self) \
             && (url(self).getHostname().endsWith('.svc') \
             || url(self).getHostname().endsWith('.svc.cluster.local')))"
        )
        .message(
            "model.baseURL must start with https://; http:// is only for a Service in this \
             cluster, like http://litellm.models.svc:4000/v1"
        ),
        validation = Rule::new(
            "isURL(self) && url(self).getHost() != '' && !self.endsWith('/') \
             && !self.contains('?') && !self.contains('#') && !self.contains('@')"
        )
        .message(
            "model.baseURL must be a plain URL without a trailing slash, like \
             https://api.openai.com/v1"
        )
    )]
    pub base_url: String,
    /// Name of the model at the endpoint.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// Secret with the endpoint's API key. If omitted, none is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,
    /// ConfigMap with the CA bundle, if the endpoint's certificate is not signed by a public CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
    /// Parameter that tells the endpoint how long a response may be: `max_completion_tokens` (the
    /// default), or `max_tokens` for endpoints that do not know the former.
    #[serde(default)]
    pub max_tokens_parameter: MaxTokensParameter,
    #[serde(default)]
    pub limits: ModelLimits,
}

/// The parameter of OpenAI's API that limits a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MaxTokensParameter {
    #[default]
    #[serde(rename = "max_completion_tokens")]
    MaxCompletionTokens,
    #[serde(rename = "max_tokens")]
    MaxTokens,
}

impl MaxTokensParameter {
    pub fn as_str(self) -> &'static str {
        match self {
            MaxTokensParameter::MaxCompletionTokens => "max_completion_tokens",
            MaxTokensParameter::MaxTokens => "max_tokens",
        }
    }
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

/// Limits on the use of a model. A ticket that reaches one ends with a note that says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelLimits {
    /// Input and output tokens per ticket (200000).
    #[serde(default = "tokens_per_ticket")]
    #[schemars(range(min = 1000, max = 100000000))]
    pub tokens_per_ticket: i64,
    /// Input and output tokens per client and UTC day (2000000).
    #[serde(default = "tokens_per_day")]
    #[schemars(range(min = 1000, max = 10000000000i64))]
    pub tokens_per_day: i64,
    /// Responses of the model per turn of the agent (20).
    #[serde(default = "steps_per_turn")]
    #[schemars(range(min = 1, max = 200))]
    pub steps_per_turn: u32,
    /// Longest wait for one response (2m).
    #[serde(default = "model_timeout")]
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

/// Which tickets are sensitive besides those the built-in rules detect, and who verifies
/// requesters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sensitivity {
    /// VerificationProvider that verifies requesters. If omitted, agents work on sensitive tickets
    /// in Plan mode only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_ref: Option<LocalRef>,
    /// Additional rules. They can make a ticket sensitive, but never exempt one.
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
#[x_kube(
    validation = Rule::new("has(self.keywords) != has(self.when)")
        .message("set exactly one of keywords and when")
)]
pub struct SensitivityRule {
    /// Name of the rule, shown in the reason.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Words or phrases. A ticket that contains one of them is sensitive (case-insensitive).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), inner(length(min = 2, max = 100)))]
    pub keywords: Option<Vec<String>>,
    /// CEL expression over `ticket` (id, clientId, priority, status, type, category) and `args`
    /// (subject, details). If it cannot be evaluated, the ticket is sensitive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,
}

/// How technicians are asked for approval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approvals {
    /// Name of the HaloPSA action (outcome) used for requests. Defaults to the one in `notes`.
    /// Requests are always internal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub outcome: Option<String>,
    /// How long a request waits for an answer before it expires (24h).
    #[serde(default = "valid_for")]
    pub valid_for: Duration,
    /// When an unanswered request is repeated, once (4h). `0s` means never.
    #[serde(default = "remind_after")]
    pub remind_after: Duration,
    /// Shortest interval between reads of a waiting ticket (10s). With many waiting it is longer.
    #[serde(default = "poll")]
    pub poll: Duration,
    /// HaloPSA applications that humans reply with; `*` matches any text. All others count as
    /// integrations and never approve.
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
    /// Keep ticket subjects out of the cluster.
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
    /// ID of the action to use if HaloPSA does not know the name; 7 in a stock HaloPSA.
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
    /// Requests allowed per window (300, which hosted tenants report in a 429).
    #[serde(default = "rate_requests")]
    #[schemars(range(min = 10, max = 1000000))]
    pub requests: u32,
    /// Length of the rolling window (5m).
    #[serde(default = "rate_window")]
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
    /// How long a finished Ticket is kept (168h).
    #[serde(default = "keep_finished")]
    pub finished: Duration,
    /// Maximum number of finished Tickets kept per connection; the newest are kept (1000).
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

/// Observed state of a HaloPSA tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HaloPSAConnectionStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// HaloPSA agent that the integration acts as. Its own events start no work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_agent: Option<ApiAgent>,
    /// Scopes that HaloPSA granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub granted_scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookStatus>,
    /// Number of ImportedClients of this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported_clients: Option<i64>,
    /// Number of clients that HaloPSA shows to the API agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_clients: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiAgent {
    pub id: TechnicianId,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookStatus {
    /// ID of the webhook in HaloPSA.
    pub id: String,
    pub name: String,
    /// URL that HaloPSA posts to.
    pub url: String,
    /// Secret with the generated user name and password.
    pub secret_ref: LocalRef,
    /// Checksum of the credentials last given to HaloPSA; shows whether the Secret has changed.
    #[serde(default)]
    pub credentials_checksum: String,
}
