//! `kubectl halopsa policy explain`: what is decided about a call, and why.

use super::{Cluster, Error};
use crate::api::policy::Effect;
use crate::api::tool_server::SEPARATOR;
use crate::api::{ImportedClient, ToolPolicy, ToolServer};
use crate::halopsa::technicians::{self, UNASSIGNED};
use crate::policy::{self, Access, Call, Client, Named, facts::TicketFacts};
use crate::tools::{read, server, write};
use kube::{Api, ResourceExt};
use std::fmt::Write;

pub async fn explain(
    cluster: &Cluster,
    client: &str,
    tool: &str,
    arguments: &str,
    ticket: Option<i64>,
) -> Result<String, Error> {
    let serde_json::Value::Object(mut arguments) = serde_json::from_str(arguments)
        .map_err(|e| Error::Other(format!("the arguments are not JSON: {e}")))?
    else {
        return Err(Error::Other(
            "the arguments are a JSON object, like '{\"status\":\"In Progress\"}'".into(),
        ));
    };
    let imported = Api::<ImportedClient>::namespaced(cluster.kube.clone(), &cluster.namespace)
        .get_opt(client)
        .await?;
    let imported = imported.ok_or_else(|| {
        Error::Other(format!(
            "there is no ImportedClient {client} in namespace {}; see kubectl get hclient",
            cluster.namespace
        ))
    })?;
    let connection = cluster
        .connection(&imported.spec.connection_ref.name)
        .await?;
    let mode = imported.spec.mode.unwrap_or(connection.spec.agent.mode);
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
            "Refused before any policy is asked: the arguments do not fit: {why}\n"
        ));
    }
    let facts = match ticket {
        None => TicketFacts::default(),
        Some(id) => {
            let found = cluster.halo(&connection).await?.ticket(id).await?;
            if found.client_id != imported.status.as_ref().and_then(|s| s.halo_client_id) {
                return Err(Error::Other(format!(
                    "ticket {id} is not one of {client}'s"
                )));
            }
            TicketFacts::from(&found)
        }
    };
    let policies = Api::<ToolPolicy>::namespaced(cluster.kube.clone(), &cluster.namespace)
        .list(&Default::default())
        .await?;
    let policies: Vec<ToolPolicy> = policies
        .items
        .into_iter()
        .filter(|p| p.spec.connection_ref.name == connection.name_any())
        .collect();
    let names: Vec<String> = policies.iter().map(|p| p.name_any()).collect();
    let named: Vec<Named<'_>> = names
        .iter()
        .zip(&policies)
        .map(|(name, p)| Named {
            name,
            spec: &p.spec,
        })
        .collect();
    let call = Call {
        tool,
        access,
        arguments: &arguments,
        ticket: &facts,
    };
    let (decision, lines) = policy::explain(mode, asks, &call, &named);
    let means = match decision.effect {
        Effect::Auto => "it runs at once".to_string(),
        Effect::Disabled => {
            "it is refused; if no call of the tool can be allowed, the agent does not even see it"
                .to_string()
        }
        Effect::ApprovalNeeded => {
            let mut who = "it waits for the ticket's assigned agent to approve it".to_string();
            if let Some(approvers) = &decision.approvers {
                let mut also: Vec<String> = approvers
                    .agent_ids
                    .iter()
                    .flatten()
                    .filter(|id| **id > UNASSIGNED)
                    .map(|id| technicians::agent_name(*id, &[]))
                    .collect();
                also.extend(
                    approvers
                        .team
                        .iter()
                        .map(|t| format!("a member of team {t}")),
                );
                let _ = write!(who, ", or for {}", also.join(" or "));
            }
            who
        }
    };
    let mut out = format!(
        "{client} (mode {mode}), {tool}: {:?}, decided by {}: {means}\n",
        decision.effect, decision.rule
    );
    for line in lines {
        let _ = writeln!(out, "  - {line}");
    }
    Ok(out)
}

/// What the tool does to the world, by who offers it.
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
            "there is no tool {tool} for this client: an agent that calls it is refused"
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
            "{tool} is stopped: its server has changed it; see kubectl describe toolserver {}",
            server.name_any()
        )));
    }
    server::access(&server.spec.tools, name).ok_or_else(missing)
}
