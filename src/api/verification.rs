//! VerificationProvider: the service that asks a requester to prove who they are.

use super::LocalRef;
use super::connection::{CaConfigMapRef, SecretKeyRef};
use super::duration::Duration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Asks the requester of a sensitive ticket to prove who they are.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "rallied.ai",
    version = "v1alpha1",
    kind = "VerificationProvider",
    plural = "verificationproviders",
    shortname = "hvp",
    category = "rallied",
    namespaced,
    status = "VerificationProviderStatus",
    derive = "PartialEq",
    doc = "Asks the requester of a sensitive ticket to prove who they are: Traceless, or any \
           service that implements the HTTP contract in docs/verification.md.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
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
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.http) != has(self.traceless)")
        .message("set exactly one of http and traceless")
)]
pub struct VerificationProviderSpec {
    /// A service that implements the HTTP contract in `docs/verification.md`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProvider>,
    /// Traceless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceless: Option<TracelessProvider>,
    /// How long the requester has to respond (5m).
    #[serde(default = "timeout")]
    pub timeout: Duration,
    /// How often the provider is polled for the outcome (3s).
    #[serde(default = "poll")]
    pub poll: Duration,
    /// How long a verification is valid, for this requester and ticket (8h).
    #[serde(default = "valid_for")]
    pub valid_for: Duration,
    /// What happens if the provider cannot be reached before the timeout: `Fail` refuses the
    /// ticket, `Ignore` lets the agent start.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
}

impl VerificationProviderSpec {
    /// Human-readable name of the verification method.
    pub fn method(&self) -> &'static str {
        match &self.traceless {
            Some(traceless) => traceless.push_method.as_str(),
            None => "the verification service",
        }
    }
}

fn timeout() -> Duration {
    std::time::Duration::from_secs(300).into()
}

fn poll() -> Duration {
    std::time::Duration::from_secs(3).into()
}

fn valid_for() -> Duration {
    std::time::Duration::from_secs(8 * 3600).into()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailurePolicy {
    #[default]
    Fail,
    Ignore,
}

#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpProvider {
    /// Base URL of the service, like `https://verify.msp.example/api`: https, no trailing slash.
    #[schemars(length(max = 350))]
    #[x_kube(
        validation = Rule::new(
            "self.startsWith('https://') && !self.endsWith('/') \
             && isURL(self) && url(self).getHost() != '' \
             && !self.contains('?') && !self.contains('#') && !self.contains('@')"
        )
        .message(
            "http.url must be a plain https URL without a trailing slash, like \
             https://verify.msp.example/api"
        )
    )]
    pub url: String,
    /// Key that both sides sign with: at least 32 characters.
    pub signing_secret_ref: SecretKeyRef,
    /// ConfigMap with the CA bundle, if the service's certificate is not signed by a public CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
}

#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TracelessProvider {
    /// Secret with the keys `signingSecret` and `organizationUUID`.
    pub secret_ref: LocalRef,
    /// How the requester is asked.
    #[serde(default)]
    pub push_method: PushMethod,
    /// Base URL of the Traceless API. Its wire format is not public; see the assumptions in
    /// `src/verify/traceless.rs`.
    #[schemars(length(max = 350))]
    #[x_kube(
        validation = Rule::new("self.startsWith('https://') && !self.endsWith('/')")
            .message("traceless.endpoint must start with https:// and have no trailing slash")
    )]
    pub endpoint: String,
    /// ConfigMap with the CA bundle, if the API's certificate is not signed by a public CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PushMethod {
    #[default]
    MicrosoftAuthenticator,
    DuoPush,
}

impl PushMethod {
    pub fn as_str(self) -> &'static str {
        match self {
            PushMethod::MicrosoftAuthenticator => "Microsoft Authenticator",
            PushMethod::DuoPush => "Duo Push",
        }
    }
}

/// Observed state of a provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerificationProviderStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
