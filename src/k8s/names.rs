//! Names of generated objects, and who writes which fields.

/// Field manager of the controller; [`RECEIVER`] and [`GATEWAY`] have their own.
pub const CONTROLLER: &str = "halopsa-controller";
pub const RECEIVER: &str = "halopsa-receiver";
pub const GATEWAY: &str = "halopsa-gateway";

/// Audience of the agents' tokens.
pub const GATEWAY_AUDIENCE: &str = "halopsa-gateway";
/// ConfigMap with the gateway's CA, in every namespace with agents.
pub const GATEWAY_CA: &str = "halopsa-gateway-ca";
pub const CA_KEY: &str = "ca.crt";

pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub const OPERATOR: &str = "halopsa-operator";

/// Label of a Secret whose values the operator may send to where an object says: `true`.
pub const USE: &str = "rallied.ai/use";

/// The finalizer that removes the webhook from HaloPSA.
pub const WEBHOOK_FINALIZER: &str = "rallied.ai/webhook";

const AGENT_PREFIX: &str = "halopsa-agent-";

/// Deployment, ServiceAccount and NetworkPolicy of a client's agent.
pub fn agent(client: &str) -> String {
    format!("{AGENT_PREFIX}{client}")
}

/// The ImportedClient whose agent runs as this ServiceAccount.
pub fn client_of_agent(service_account: &str) -> Option<&str> {
    service_account
        .strip_prefix(AGENT_PREFIX)
        .filter(|c| !c.is_empty())
}

/// Secret with the generated user name and password of a connection's webhook.
pub fn webhook_secret(connection: &str) -> String {
    format!("{connection}-webhook")
}

/// Name of a connection's webhook in HaloPSA.
pub fn webhook(namespace: &str, connection: &str) -> String {
    format!("Rallied ({namespace}/{connection})")
}

/// Where HaloPSA posts a connection's webhooks, below `spec.webhook.url`.
pub fn webhook_path(namespace: &str, connection: &str) -> String {
    format!("/webhooks/{namespace}/{connection}")
}

/// Secret with the gateway's certificate.
pub fn server_secret(service: &str) -> String {
    format!("{service}-tls")
}
