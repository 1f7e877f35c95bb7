//! `kubectl halopsa doctor CONNECTION`: what is wrong, and what to do.

use super::{Cluster, Error};
use crate::api::VerificationProvider;
use crate::api::{HaloPSAConnection, ImportedClient, condition};
use crate::halopsa::api::WebhookSpec;
use crate::halopsa::registration;
use crate::halopsa::types::WebhookEvent;
use crate::halopsa::{Client, missing_scopes};
use crate::k8s::names;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

/// Deliveries looked at.
const DELIVERIES: usize = 20;

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

/// The report, and whether all is well.
pub async fn run(cluster: &Cluster, name: &str) -> Result<(String, bool), Error> {
    let connection = cluster.connection(name).await?;
    let mut findings = Vec::new();
    match cluster.halo(&connection).await {
        Err(error) => findings.push(bad(format!("credentials: {error}"))),
        Ok(halo) => {
            findings.push(good(format!(
                "credentials: read from Secret {}",
                connection.spec.credentials_secret_ref.name
            )));
            outside(cluster, &connection, &halo, &mut findings).await?;
        }
    }
    inside(cluster, &connection, &mut findings).await?;
    let healthy = findings.iter().all(|f| f.mark != Mark::Bad);
    Ok((report(&findings), healthy))
}

pub fn report(findings: &[Finding]) -> String {
    findings
        .iter()
        .map(|f| {
            let mark = match f.mark {
                Mark::Good => "ok  ",
                Mark::Warning => "warn",
                Mark::Bad => "BAD ",
            };
            format!("{mark}  {}\n", f.text)
        })
        .collect()
}

/// What HaloPSA says.
async fn outside(
    cluster: &Cluster,
    connection: &HaloPSAConnection,
    halo: &Client,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let scopes = match halo.sign_in().await {
        Ok(scopes) => scopes,
        Err(error) => {
            findings.push(bad(format!("sign-in: {error}")));
            return Ok(());
        }
    };
    findings.push(good(format!(
        "sign-in: {} answers",
        connection.spec.instance_url
    )));
    findings.push(match missing_scopes(&scopes).as_slice() {
        [] => good(format!("permissions: {}", scopes.join(" "))),
        missing => bad(format!(
            "permissions: {} not granted; tick it under Configuration > Integrations > HaloPSA API > your application",
            missing.join(" ")
        )),
    });
    if let Some(excess) = halo.excess_scopes().await.ok().filter(|e| !e.is_empty()) {
        findings.push(warning(format!(
            "permissions: {} grants more than needed; untick it",
            excess.join(" and ")
        )));
    }
    match halo.me().await {
        Ok(agent) => findings.push(good(format!("API agent: {} (id {})", agent.name, agent.id))),
        Err(error) => findings.push(bad(format!("API agent: {error}"))),
    }
    let (namespace, name) = (
        connection.namespace().unwrap_or_default(),
        connection.name_any(),
    );
    let secrets: Api<Secret> = Api::namespaced(cluster.kube.clone(), &namespace);
    let username = secrets
        .get_opt(&names::webhook_secret(&name))
        .await?
        .and_then(|s| s.data?.remove("username"))
        .map(|b| String::from_utf8_lossy(&b.0).into_owned());
    let (webhook_name, url) = (
        names::webhook(&namespace, &name),
        format!(
            "{}{}",
            connection.spec.webhook.url,
            names::webhook_path(&namespace, &name)
        ),
    );
    let spec = WebhookSpec {
        name: &webhook_name,
        url: &url,
        username: username.as_deref().unwrap_or_default(),
        password: "",
    };
    let webhooks = match halo.webhooks().await {
        Ok(webhooks) => webhooks,
        Err(error) => {
            findings.push(bad(format!("webhook: {error}")));
            return Ok(());
        }
    };
    let known = connection
        .status
        .as_ref()
        .and_then(|s| s.webhook.as_ref())
        .map(|w| w.id.as_str());
    let found = registration::ours(&webhooks, known, &spec);
    findings.push(match registration::drift(found, &spec, true) {
        None => good(format!("webhook: \"{webhook_name}\" posts to {url}")),
        Some(registration::Drift::Missing) => {
            bad(format!("webhook: \"{webhook_name}\" is not in HaloPSA; the operator makes it within a minute, is it running?"))
        }
        Some(registration::Drift::Changed(what)) => {
            bad(format!("webhook: differs in {}; the operator sets it right within a minute, is it running?", what.join(", ")))
        }
    });
    if let Some(webhook) = found {
        match halo.notifications(&webhook.id).await {
            Ok(rows) => findings.push(match registration::subscriptions(&rows).0.as_slice() {
                [] => good("webhook events: new and updated tickets"),
                missing => bad(format!(
                    "webhook events: not subscribed to {}",
                    missing
                        .iter()
                        .map(|e| e.name)
                        .collect::<Vec<_>>()
                        .join(", ")
                )),
            }),
            Err(error) => findings.push(bad(format!("webhook events: {error}"))),
        }
        match halo.deliveries(&webhook.id, DELIVERIES).await {
            Ok(deliveries) => findings.push(delivered(&deliveries)),
            Err(error) => findings.push(warning(format!("deliveries: {error}"))),
        }
    }
    Ok(())
}

/// What the last deliveries tell.
fn delivered(deliveries: &[WebhookEvent]) -> Finding {
    let failed = |d: &&WebhookEvent| {
        d.error || !d.responsestatus.is_empty() && !d.responsestatus.starts_with('2')
    };
    let Some(last) = deliveries.iter().max_by_key(|d| d.timestamp) else {
        return warning("deliveries: none yet; create a ticket for an imported client to see one");
    };
    let failures = deliveries.iter().filter(failed).count();
    if !failed(&last) {
        return match failures {
            0 => good(format!(
                "deliveries: the last {} succeeded",
                deliveries.len()
            )),
            n => warning(format!(
                "deliveries: the last one succeeded, {n} of the last {} failed; the sweep has found their tickets",
                deliveries.len()
            )),
        };
    }
    bad(match last.responsestatus.as_str() {
        "401" => "deliveries: the last was answered 401; the password in HaloPSA is not that of the webhook's Secret: delete the Secret to have both renewed".to_string(),
        "" => "deliveries: the last found nobody; check that HaloPSA reaches spec.webhook.url and trusts its certificate".to_string(),
        status => format!("deliveries: the last was answered {status}; see the receiver's log"),
    })
}

/// What the cluster says.
async fn inside(
    cluster: &Cluster,
    connection: &HaloPSAConnection,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let status = connection.status.clone().unwrap_or_default();
    let current = status.observed_generation == connection.metadata.generation;
    findings.push(match condition::get(&status.conditions, condition::READY) {
        None => bad("operator: it has not looked at this connection; is it running, and does it watch this namespace?"),
        Some(_) if !current => warning("operator: it has not seen the last change yet"),
        Some(ready) if ready.status == "True" => good("operator: Ready"),
        Some(ready) => bad(format!("operator: {}: {}", ready.reason, ready.message)),
    });
    findings.push(match &connection.spec.sensitivity.provider_ref {
        None => warning("verification: no provider; agents work on sensitive tickets in Plan mode only (spec.sensitivity.providerRef)"),
        Some(reference) => {
            let api: Api<VerificationProvider> = Api::namespaced(cluster.kube.clone(), &cluster.namespace);
            let provider = api.get_opt(&reference.name).await?;
            let ready = provider.as_ref().and_then(|p| condition::get(&p.status.as_ref()?.conditions, condition::READY));
            match (provider.is_some(), ready) {
                (false, _) => bad(format!(
                    "verification: there is no VerificationProvider {}; apply it, sensitive tickets are refused until then",
                    reference.name
                )),
                (true, None) => warning(format!("verification: VerificationProvider {} was not checked yet", reference.name)),
                (true, Some(ready)) if ready.status == "True" => good(format!("verification: {}", ready.message)),
                (true, Some(ready)) => bad(format!("verification: {}: {}", ready.reason, ready.message)),
            }
        }
    });
    let api: Api<ImportedClient> = Api::namespaced(cluster.kube.clone(), &cluster.namespace);
    let clients = api.list(&ListParams::default()).await?.items;
    let mine: Vec<&ImportedClient> = clients
        .iter()
        .filter(|c| c.spec.connection_ref.name == connection.name_any())
        .collect();
    if mine.is_empty() {
        findings.push(warning(format!(
            "import: no client is imported; kubectl halopsa clients {} shows what there is",
            connection.name_any()
        )));
    }
    let ready = |c: &ImportedClient| {
        c.status
            .as_ref()
            .is_some_and(|s| condition::is_true(&s.conditions, condition::READY))
    };
    let unready: Vec<&&ImportedClient> = mine.iter().filter(|c| !ready(c)).collect();
    if !mine.is_empty() && unready.is_empty() {
        findings.push(good(format!("import: {} clients, all ready", mine.len())));
    }
    for client in unready.iter().take(10) {
        let why = client
            .status
            .as_ref()
            .and_then(|s| condition::get(&s.conditions, condition::READY))
            .map(|c| format!("{}: {}", c.reason, c.message));
        findings.push(warning(format!(
            "import: {} is not ready: {}",
            client.name_any(),
            why.unwrap_or_else(|| "not looked at yet".into())
        )));
    }
    Ok(())
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
        assert!(delivered(&[delivery(1, "", true)]).text.contains("nobody"));
    }
}
