//! `kubectl halopsa policy explain`: what is decided about a call, and why.

use super::cluster::Cluster;
use super::error::Error;
use super::terminal::safe;
use crate::api::policy::{Approvers, Effect};
use crate::api::tool_server::SEPARATOR;
use crate::api::{HaloPSAConnection, ImportedClient, Mode, Ticket, ToolPolicy, ToolServer};
use crate::halopsa;
use crate::halopsa::technicians::{self, UNASSIGNED};
use crate::policy::facts::TicketFacts;
use crate::policy::sensitivity::of_ticket;
use crate::policy::{self, Access, Call, Client, Decision, Named};
use crate::ticket::route::ticket_name;
use crate::ticket::state;
use crate::tools::{read, server, write};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt};
use serde_json::{Map, Value};
use std::fmt::Write;

pub async fn explain(
    cluster: &Cluster,
    client: &str,
    tool: &str,
    arguments: &str,
    ticket: Option<i64>,
) -> Result<String, Error> {
    let mut arguments = object(arguments)?;
    let imported = imported_client(cluster, client).await?;
    let connection = cluster
        .connection(&imported.spec.connection_ref.name)
        .await?;
    let labels = imported.metadata.labels.clone().unwrap_or_default();
    let asks = Client {
        name: client,
        labels: &labels,
    };
    let (access, sensitive) = nature(cluster, &connection.name_any(), asks, tool).await?;
    arguments.remove(write::WHY);
    if write::find(tool).is_some()
        && !arguments.is_empty()
        && let Err(why) = write::parse(tool, &arguments)
    {
        return Ok(format!(
            "Refused before any policy applies: invalid arguments: {}\n",
            safe(&why)
        ));
    }
    let policies = policies(cluster, &connection.name_any()).await?;
    let facts = facts(cluster, &connection, &imported, ticket).await?;
    let strict: Vec<_> = policies
        .iter()
        .map(|(_, policy)| write::rules_for(tool, &policy.spec))
        .collect();
    let named: Vec<Named<'_>> = policies
        .iter()
        .zip(&strict)
        .map(|((name, _), spec)| Named {
            name,
            spec: spec.as_ref(),
        })
        .collect();
    let call = Call {
        tool,
        access,
        sensitive,
        arguments: &arguments,
        ticket: facts.as_ref(),
    };
    let mode = imported.spec.mode.unwrap_or(connection.spec.agent.mode);
    let (decision, lines) = policy::explain(mode, asks, &call, &named);
    Ok(shown(client, mode, tool, &decision, &lines))
}

fn object(arguments: &str) -> Result<Map<String, Value>, Error> {
    let arguments: Value = serde_json::from_str(arguments)
        .map_err(|e| Error::Other(format!("the arguments are not JSON: {e}")))?;
    match arguments {
        Value::Object(arguments) => Ok(arguments),
        _ => Err(Error::Other(
            "the arguments must be a JSON object, like '{\"status\":\"In Progress\"}'".into(),
        )),
    }
}

async fn imported_client(cluster: &Cluster, name: &str) -> Result<ImportedClient, Error> {
    Api::<ImportedClient>::namespaced(cluster.kube.clone(), &cluster.namespace)
        .get_opt(name)
        .await?
        .ok_or_else(|| {
            Error::Other(format!(
                "there is no ImportedClient {name} in namespace {}; see kubectl get hclient",
                cluster.namespace
            ))
        })
}

/// What rules may ask about the ticket; nothing can be told without one.
async fn facts(
    cluster: &Cluster,
    connection: &HaloPSAConnection,
    client: &ImportedClient,
    ticket: Option<i64>,
) -> Result<Option<TicketFacts>, Error> {
    let Some(id) = ticket else {
        return Ok(None);
    };
    let halo = cluster.halo(connection).await?;
    let found = halo.ticket(id).await?;
    let halo_client_id = client.status.as_ref().and_then(|s| s.halo_client_id);
    if found.client_id != halo_client_id {
        return Err(Error::Other(format!(
            "ticket {id} does not belong to {}",
            client.name_any()
        )));
    }
    let mut facts = TicketFacts::from(&found);
    if let Some(user) = found.user_id.filter(|id| *id > 0)
        && let Ok(user) = halo.user(user).await
    {
        facts.requester.email = policy::facts::email(&user, halo_client_id);
    }
    let reasons = of_ticket(&found, &[], &connection.spec.sensitivity);
    facts.sensitivity = Some(reasons.into_iter().map(|reason| reason.kind).collect());
    facts.requester.verified = verified(cluster, client, &found).await?;
    Ok(Some(facts))
}

/// Whether the requester has proved who they are, by the Ticket in the cluster; none: there is no
/// such Ticket.
async fn verified(
    cluster: &Cluster,
    client: &ImportedClient,
    ticket: &halopsa::types::Ticket,
) -> Result<Option<bool>, Error> {
    let name = ticket_name(&client.name_any(), ticket.id);
    let found = Api::<Ticket>::namespaced(cluster.kube.clone(), &cluster.namespace)
        .get_opt(&name)
        .await?;
    let status = found.and_then(|t| t.status);
    Ok(status.map(|s| state::is_verified(&s, ticket.user_id, Timestamp::now())))
}

/// The connection's policies, with their names.
async fn policies(cluster: &Cluster, connection: &str) -> Result<Vec<(String, ToolPolicy)>, Error> {
    let all = Api::<ToolPolicy>::namespaced(cluster.kube.clone(), &cluster.namespace)
        .list(&Default::default())
        .await?;
    Ok(all
        .items
        .into_iter()
        .filter(|p| p.spec.connection_ref.name == connection)
        .map(|p| (p.name_any(), p))
        .collect())
}

/// The decision as text: what happens to the call, then what each policy says.
pub fn shown(
    client: &str,
    mode: Mode,
    tool: &str,
    decision: &Decision,
    lines: &[String],
) -> String {
    let means = match decision.effect {
        Effect::Auto => "it runs at once".to_string(),
        Effect::Disabled => {
            "it is refused; if no call of the tool can be allowed, the agent does not even see it"
                .to_string()
        }
        Effect::ApprovalNeeded => format!(
            "it waits for approval by the ticket's assigned technician{}",
            others(decision.approvers.as_ref())
        ),
    };
    let mut out = safe(&format!(
        "{client} (mode {mode}), {tool}: {:?}, decided by {}: {means}",
        decision.effect, decision.rule
    ));
    out.push('\n');
    if decision.require_verification && decision.effect != Effect::Disabled {
        out.push_str("before that, the requester has to prove who they are\n");
    }
    if !decision.reason.is_empty() {
        let _ = writeln!(out, "because {}", safe(&decision.reason));
    }
    for line in lines {
        let _ = writeln!(out, "  - {}", safe(line));
    }
    out
}

/// Who may approve besides the assigned technician.
fn others(approvers: Option<&Approvers>) -> String {
    let Some(approvers) = approvers else {
        return String::new();
    };
    let ids = approvers.agent_ids.iter().flatten();
    let mut others: Vec<String> = ids
        .filter(|id| **id > UNASSIGNED)
        .map(|id| technicians::agent_name(*id, &[]))
        .collect();
    let team = approvers.team.iter();
    others.extend(team.map(|t| format!("a member of team {t}")));
    format!(", or by {}", others.join(" or "))
}

/// Whether the tool reads, writes or destroys, and whether it is sensitive, as its ToolServer
/// declares it.
async fn nature(
    cluster: &Cluster,
    connection: &str,
    client: Client<'_>,
    tool: &str,
) -> Result<(Access, bool), Error> {
    if let Some(tool) = read::find(tool) {
        return Ok((tool.access, false));
    }
    if write::find(tool).is_some() {
        return Ok((Access::Write, false));
    }
    let missing = || {
        Error::Other(format!(
            "there is no tool {tool} for this client: calls to it are refused"
        ))
    };
    let (server, name) = tool.split_once(SEPARATOR).ok_or_else(missing)?;
    let server = Api::<ToolServer>::namespaced(cluster.kube.clone(), &cluster.namespace)
        .get_opt(server)
        .await?
        .ok_or_else(missing)?;
    let for_client = policy::selects(
        server.spec.clients.as_ref(),
        server.spec.client_selector.as_ref(),
        client,
    );
    if server.spec.connection_ref.name != connection || !for_client {
        return Err(missing());
    }
    let pinned = server
        .status
        .as_ref()
        .and_then(|s| s.tools.iter().find(|t| t.name == name))
        .ok_or_else(missing)?;
    if pinned.offered.is_some() {
        return Err(Error::Other(format!(
            "{tool} is blocked: its server has added or changed it; see kubectl describe toolserver {}",
            server.name_any()
        )));
    }
    let access = server::access(&server.spec.tools, name).ok_or_else(missing)?;
    let sensitive = pinned.sensitive.is_some() || server::is_sensitive(&server, name);
    Ok((access, sensitive))
}
