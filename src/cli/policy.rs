//! `kubectl halopsa policy explain`: what is decided about a call, and why.

use super::cluster::Cluster;
use super::error::Error;
use crate::api::policy::{Approvers, Effect};
use crate::api::tool_server::SEPARATOR;
use crate::api::{HaloPSAConnection, ImportedClient, Mode, ToolPolicy, ToolServer};
use crate::halopsa::technicians::{self, UNASSIGNED};
use crate::policy::{self, Access, Call, Client, Decision, Named, facts::TicketFacts};
use crate::tools::{read, server, write};
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
    let access = access(cluster, &connection.name_any(), asks, tool).await?;
    arguments.remove(write::WHY);
    if write::find(tool).is_some()
        && !arguments.is_empty()
        && let Err(why) = write::parse(tool, &arguments)
    {
        return Ok(format!(
            "Refused before any policy applies: invalid arguments: {why}\n"
        ));
    }
    let facts = facts(cluster, &connection, &imported, ticket).await?;
    let policies = policies(cluster, &connection.name_any()).await?;
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
        arguments: &arguments,
        ticket: &facts,
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

/// What rules may ask about the ticket; nothing is known without one.
async fn facts(
    cluster: &Cluster,
    connection: &HaloPSAConnection,
    client: &ImportedClient,
    ticket: Option<i64>,
) -> Result<TicketFacts, Error> {
    let Some(id) = ticket else {
        return Ok(TicketFacts::default());
    };
    let found = cluster.halo(connection).await?.ticket(id).await?;
    if found.client_id != client.status.as_ref().and_then(|s| s.halo_client_id) {
        return Err(Error::Other(format!(
            "ticket {id} does not belong to {}",
            client.name_any()
        )));
    }
    Ok(TicketFacts::from(&found))
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
    let mut out = format!(
        "{client} (mode {mode}), {tool}: {:?}, decided by {}: {means}\n",
        decision.effect, decision.rule
    );
    for line in lines {
        let _ = writeln!(out, "  - {line}");
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

/// Whether the tool reads, writes or destroys, as its provider declares it.
async fn access(
    cluster: &Cluster,
    connection: &str,
    client: Client<'_>,
    tool: &str,
) -> Result<Access, Error> {
    if let Some(tool) = read::find(tool) {
        return Ok(tool.access);
    }
    if write::find(tool).is_some() {
        return Ok(Access::Write);
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
            "{tool} is blocked: its server has changed it; see kubectl describe toolserver {}",
            server.name_any()
        )));
    }
    server::access(&server.spec.tools, name).ok_or_else(missing)
}
