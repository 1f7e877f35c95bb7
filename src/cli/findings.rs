//! The diagnosis of `kubectl halopsa doctor`, from what was read. Pure.

use super::terminal::safe;
use crate::api::{HaloPSAConnection, ImportedClient, VerificationProvider, condition};
use crate::halopsa::api::WebhookSpec;
use crate::halopsa::missing_scopes;
use crate::halopsa::registration::{self, Drift};
use crate::halopsa::types::{Agent, Notification, Webhook, WebhookEvent};
use crate::k8s::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

/// Clients that are not ready and are named.
const MAX_UNREADY: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Good,
    Warning,
    Bad,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub mark: Mark,
    pub text: String,
}

/// Everything the diagnosis is made from.
pub struct Observed {
    pub connection: HaloPSAConnection,
    pub halo: HaloAccess,
    /// The one the connection names.
    pub provider: Option<VerificationProvider>,
    /// Those of the connection.
    pub clients: Vec<ImportedClient>,
}

/// How far the way to HaloPSA goes. Errors are texts, since they are only shown.
pub enum HaloAccess {
    NoCredentials(String),
    NoSignIn(String),
    SignedIn(Box<HaloState>),
}

/// What HaloPSA returned.
pub struct HaloState {
    pub scopes: Vec<String>,
    /// Scopes beyond those needed.
    pub excess_scopes: Vec<String>,
    pub api_agent: Result<Agent, String>,
    pub expected: ExpectedWebhook,
    /// The webhook, if there is one.
    pub webhook: Result<Option<WebhookState>, String>,
}

/// The connection's webhook in HaloPSA.
pub struct WebhookState {
    pub webhook: Webhook,
    pub notifications: Result<Vec<Notification>, String>,
    pub deliveries: Result<Vec<WebhookEvent>, String>,
}

/// The webhook as the operator registers it.
pub struct ExpectedWebhook {
    pub name: String,
    pub url: String,
    pub username: String,
}

impl ExpectedWebhook {
    pub fn new(connection: &HaloPSAConnection, username: String) -> Self {
        let namespace = connection.namespace().unwrap_or_default();
        let name = connection.name_any();
        let path = names::webhook_path(&namespace, &name);
        Self {
            name: names::webhook(&namespace, &name),
            url: format!("{}{path}", connection.spec.webhook.url),
            username,
        }
    }

    /// Without the password, which HaloPSA does not show.
    pub fn spec(&self) -> WebhookSpec<'_> {
        WebhookSpec {
            name: &self.name,
            url: &self.url,
            username: &self.username,
            password: "",
        }
    }
}

fn good(text: impl Into<String>) -> Finding {
    Finding {
        mark: Mark::Good,
        text: text.into(),
    }
}

fn warning(text: impl Into<String>) -> Finding {
    Finding {
        mark: Mark::Warning,
        text: text.into(),
    }
}

fn bad(text: impl Into<String>) -> Finding {
    Finding {
        mark: Mark::Bad,
        text: text.into(),
    }
}

/// The whole diagnosis: HaloPSA first, then the cluster.
pub fn findings(observed: &Observed) -> Vec<Finding> {
    let connection = &observed.connection;
    let mut findings = halo(connection, &observed.halo);
    findings.push(operator(connection));
    findings.push(verification(connection, observed.provider.as_ref()));
    findings.extend(import(connection, &observed.clients));
    findings
}

/// The findings as text, one per line.
pub fn report(findings: &[Finding]) -> String {
    findings
        .iter()
        .map(|f| {
            let mark = match f.mark {
                Mark::Good => "ok  ",
                Mark::Warning => "warn",
                Mark::Bad => "BAD ",
            };
            format!("{mark}  {}\n", safe(&f.text))
        })
        .collect()
}

fn halo(connection: &HaloPSAConnection, access: &HaloAccess) -> Vec<Finding> {
    let secret = &connection.spec.credentials_secret_ref.name;
    let credentials = good(format!("credentials: read from Secret {secret}"));
    match access {
        HaloAccess::NoCredentials(why) => vec![bad(format!("credentials: {why}"))],
        HaloAccess::NoSignIn(why) => vec![credentials, bad(format!("sign-in: {why}"))],
        HaloAccess::SignedIn(state) => {
            let url = &connection.spec.instance_url;
            let mut findings = vec![credentials, good(format!("sign-in: succeeded at {url}"))];
            findings.extend(permissions(state));
            findings.push(match &state.api_agent {
                Ok(agent) => good(format!("API agent: {} (id {})", agent.name, agent.id)),
                Err(why) => bad(format!("API agent: {why}")),
            });
            findings.extend(webhook(state));
            findings
        }
    }
}

fn permissions(state: &HaloState) -> Vec<Finding> {
    let mut findings = vec![match missing_scopes(&state.scopes).as_slice() {
        [] => good(format!("permissions: {}", state.scopes.join(" "))),
        missing => bad(format!(
            "permissions: {} not granted; tick it under Configuration > Integrations > \
             HaloPSA API > your application",
            missing.join(" ")
        )),
    }];
    if !state.excess_scopes.is_empty() {
        findings.push(warning(format!(
            "permissions: {} grants more than needed; untick it",
            state.excess_scopes.join(" and ")
        )));
    }
    findings
}

fn webhook(state: &HaloState) -> Vec<Finding> {
    let found = match &state.webhook {
        Ok(found) => found.as_ref(),
        Err(why) => return vec![bad(format!("webhook: {why}"))],
    };
    let mut findings = vec![registered(&state.expected, found.map(|f| &f.webhook))];
    if let Some(found) = found {
        findings.push(match &found.notifications {
            Ok(rows) => subscribed(rows),
            Err(why) => bad(format!("webhook events: {why}")),
        });
        findings.push(match &found.deliveries {
            Ok(deliveries) => delivered(deliveries),
            Err(why) => warning(format!("deliveries: {why}")),
        });
    }
    findings
}

fn registered(expected: &ExpectedWebhook, found: Option<&Webhook>) -> Finding {
    let ExpectedWebhook { name, url, .. } = expected;
    match registration::drift(found, &expected.spec(), true) {
        None => good(format!("webhook: \"{name}\" posts to {url}")),
        Some(Drift::Missing) => bad(format!(
            "webhook: \"{name}\" is missing in HaloPSA; the operator creates it within a minute: \
             check that it is running"
        )),
        Some(Drift::Changed(what)) => bad(format!(
            "webhook: \"{name}\" differs in {}; the operator repairs it within a minute: check \
             that it is running",
            what.join(", ")
        )),
    }
}

fn subscribed(rows: &[Notification]) -> Finding {
    let (missing, _) = registration::subscriptions(rows);
    if missing.is_empty() {
        return good("webhook events: new and updated tickets");
    }
    let missing: Vec<&str> = missing.iter().map(|e| e.name).collect();
    bad(format!(
        "webhook events: not subscribed to {}",
        missing.join(", ")
    ))
}

/// What the last deliveries show.
fn delivered(deliveries: &[WebhookEvent]) -> Finding {
    let failed = |d: &&WebhookEvent| {
        d.error || !d.responsestatus.is_empty() && !d.responsestatus.starts_with('2')
    };
    let Some(last) = deliveries.iter().max_by_key(|d| d.timestamp) else {
        return warning("deliveries: none yet; create a ticket for an imported client to see one");
    };
    let count = deliveries.len();
    let failures = deliveries.iter().filter(failed).count();
    if !failed(&last) {
        return match failures {
            0 => good(format!("deliveries: the last {count} succeeded")),
            n => warning(format!(
                "deliveries: the last one succeeded, {n} of the last {count} failed; the sweep \
                 picked up their tickets"
            )),
        };
    }
    bad(match last.responsestatus.as_str() {
        "401" => "deliveries: the last one got status 401: the password in HaloPSA does not match \
                  the webhook's Secret; delete the Secret to renew both"
            .to_string(),
        "" => "deliveries: the last one got no response; check that HaloPSA reaches \
               spec.webhook.url and trusts its certificate"
            .to_string(),
        status => format!("deliveries: the last one got status {status}; see the receiver's log"),
    })
}

fn operator(connection: &HaloPSAConnection) -> Finding {
    let status = connection.status.clone().unwrap_or_default();
    let current = status.observed_generation == connection.metadata.generation;
    match condition::get(&status.conditions, condition::READY) {
        None => bad(
            "operator: has not processed this connection; check that it is running and watches \
             this namespace",
        ),
        Some(_) if !current => warning("operator: has not processed the last change yet"),
        Some(ready) if is_true(ready) => good("operator: Ready"),
        Some(ready) => bad(format!("operator: {}: {}", ready.reason, ready.message)),
    }
}

fn is_true(condition: &Condition) -> bool {
    condition.status == "True"
}

fn verification(
    connection: &HaloPSAConnection,
    provider: Option<&VerificationProvider>,
) -> Finding {
    let Some(reference) = &connection.spec.sensitivity.provider_ref else {
        return warning(
            "verification: no provider (spec.sensitivity.providerRef); agents work on sensitive \
             tickets in Plan mode only",
        );
    };
    let name = &reference.name;
    let Some(provider) = provider else {
        return bad(format!(
            "verification: there is no VerificationProvider {name}; create it, sensitive tickets \
             are refused until then"
        ));
    };
    let status = provider.status.as_ref();
    match status.and_then(|s| condition::get(&s.conditions, condition::READY)) {
        None => warning(format!(
            "verification: VerificationProvider {name} has not been checked yet"
        )),
        Some(ready) if is_true(ready) => good(format!("verification: {}", ready.message)),
        Some(ready) => bad(format!("verification: {}: {}", ready.reason, ready.message)),
    }
}

fn import(connection: &HaloPSAConnection, clients: &[ImportedClient]) -> Vec<Finding> {
    if clients.is_empty() {
        return vec![warning(format!(
            "import: no client is imported; list the clients with kubectl halopsa clients {}",
            connection.name_any()
        ))];
    }
    let unready: Vec<Finding> = clients.iter().filter_map(unready).collect();
    if unready.is_empty() {
        return vec![good(format!(
            "import: {} clients, all ready",
            clients.len()
        ))];
    }
    unready.into_iter().take(MAX_UNREADY).collect()
}

fn unready(client: &ImportedClient) -> Option<Finding> {
    let status = client.status.as_ref();
    let ready = status.and_then(|s| condition::get(&s.conditions, condition::READY));
    let why = match ready {
        Some(ready) if is_true(ready) => return None,
        Some(ready) => format!("{}: {}", ready.reason, ready.message),
        None => "not processed yet".to_string(),
    };
    Some(warning(format!(
        "import: {} is not ready: {why}",
        client.name_any()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    #[test]
    fn deliveries_tell() {
        let delivery = |second: i64, status: &str, error| WebhookEvent {
            id: second.to_string(),
            timestamp: Timestamp::from_second(second).ok(),
            responsestatus: status.into(),
            error,
        };
        assert_eq!(delivered(&[]).mark, Mark::Warning);
        assert_eq!(delivered(&[delivery(1, "200", false)]).mark, Mark::Good);
        assert_eq!(
            delivered(&[delivery(1, "503", true), delivery(2, "200", false)]).mark,
            Mark::Warning
        );
        let unauthorized = delivered(&[delivery(1, "200", false), delivery(2, "401", true)]);
        assert!(unauthorized.mark == Mark::Bad && unauthorized.text.contains("delete the Secret"));
        let unreached = delivered(&[delivery(1, "", true)]);
        assert!(unreached.text.contains("no response"));
    }
}
