//! Names of generated objects, and who writes which fields.

use super::key::Key;
use sha2::{Digest, Sha256};

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

/// The Service of the gateway. The operator's own Service is the receiver's.
pub fn gateway_service(service: &str) -> String {
    format!("{service}-gateway")
}

/// Secret with the certificate of a Service.
pub fn server_secret(service: &str) -> String {
    format!("{service}-tls")
}

/// Secret in the operator's namespace with what the receiver checks requests with. It is all that
/// the receiver may read of the tenants' Secrets.
pub fn receiver_secret(service: &str) -> String {
    format!("{service}-receiver")
}

/// Its key with the user name and password of a connection's webhook, as `USER:PASSWORD`.
pub fn login_key(connection: &Key) -> String {
    format!("webhook.{}", digest(connection))
}

/// Its key with a VerificationProvider's signing key.
pub fn signing_key(provider: &Key) -> String {
    format!("provider.{}", digest(provider))
}

/// Namespace and name together may be longer than a Secret's key.
fn digest(key: &Key) -> String {
    let digest = Sha256::digest(key.to_string());
    digest[..16].iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receivers_keys_differ_and_fit_a_secret() {
        let long = Key::new("n".repeat(63), "c".repeat(253));
        for key in [login_key(&long), signing_key(&long)] {
            assert!(key.len() <= 253, "{key}");
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            assert!(key.chars().all(allowed), "{key}");
        }
        let (a, b) = (Key::new("a", "b-c"), Key::new("a-b", "c"));
        assert_ne!(login_key(&a), login_key(&b));
        assert_ne!(login_key(&a), signing_key(&a));
    }
}
