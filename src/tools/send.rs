//! Writes, carried out: one request each, findable by its marker.

use super::write::{Update, Write};
use crate::api::connection::Notes;
use crate::halopsa::technicians::UNASSIGNED;
use crate::halopsa::{self, types::Ticket};
use crate::outbox;
use crate::text::{escape, one_line};
use serde_json::{Value, json};

/// Actions searched for a marker, newest first.
const SEARCH_DEPTH: usize = 100;

/// What a write is carried out on.
pub struct Target<'a> {
    pub halo: &'a halopsa::Client,
    /// The ticket as it is now.
    pub ticket: &'a Ticket,
    pub notes: &'a Notes,
    /// The HaloPSA agent we act as.
    pub api_agent: Option<i64>,
    pub instance_url: &'a str,
    pub marker: &'a str,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was sent.
    #[error("{0}")]
    Arguments(String),
    #[error(transparent)]
    Halo(#[from] halopsa::Error),
}

impl Error {
    /// Whether HaloPSA certainly does not have the write.
    pub fn definitely_not_applied(&self) -> bool {
        match self {
            Error::Arguments(_) => true,
            Error::Halo(error) => error.definitely_not_applied(),
        }
    }
}

/// Whether a write that may have been sent is in HaloPSA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Yes(String),
    /// Not yet, and with time for certain.
    No,
    /// Not seen, and that proves nothing.
    CannotTell,
}

/// Carries the write out; what came of it, in words.
pub async fn send(write: &Write, target: &Target<'_>) -> Result<String, Error> {
    let (halo, id) = (target.halo, target.ticket.id);
    let internal = |text: &str| json!({"note_html": html(text, target.marker), "hiddenfromuser": true, "sendemail": false});
    let private = |fields: Value| {
        halo.post_action(
            id,
            &target.notes.outcome,
            Some(target.notes.fallback_outcome_id),
            fields,
        )
    };
    match write {
        Write::PrivateNote { text } => {
            let action = private(internal(text)).await?;
            Ok(format!("added as action {action}"))
        }
        Write::Reply { text } => {
            let fields = json!({"note_html": html(text, target.marker), "hiddenfromuser": false, "sendemail": true});
            let action = halo
                .post_action(id, &target.notes.reply_outcome, None, fields)
                .await?;
            Ok(format!("sent as action {action}"))
        }
        Write::Update(update) => {
            let words: Vec<String> = update
                .fields()
                .iter()
                .map(|(name, value)| format!("{name}: {value}"))
                .collect();
            let mut fields = internal(&format!("Changed by Rallied. {}", words.join("; ")));
            resolve(update, target, &mut fields).await?;
            let action = private(fields).await?;
            Ok(format!("changed by action {action}"))
        }
        Write::LogTime { minutes, note } => {
            let mut fields = internal(note);
            // HaloPSA counts in hours.
            fields["timetaken"] = (*minutes as f64 / 60.0).into();
            let action = private(fields).await?;
            Ok(format!("{minutes} minutes logged by action {action}"))
        }
        Write::Child { summary, details } => {
            let mut child = json!({
                "summary": one_line(summary, 200), "details_html": html(details, target.marker), "parent_id": id, "client_id": target.ticket.client_id,
            });
            for (key, value) in [
                ("user_id", target.ticket.user_id),
                ("site_id", target.ticket.site_id),
                ("tickettype_id", target.ticket.tickettype_id),
            ] {
                if let Some(value) = value {
                    child[key] = value.into();
                }
            }
            let made = halo.post_ticket(child).await?;
            Ok(format!("created ticket {}", made.id))
        }
        Write::Close { closure_note } => {
            if target.ticket.agent_id.is_none_or(|a| a == UNASSIGNED) {
                return Err(Error::Arguments(
                    "HaloPSA closes no ticket that nobody is assigned to; have it assigned first"
                        .into(),
                ));
            }
            let status = halo
                .statuses()
                .await?
                .into_iter()
                .find(|s| s.name.eq_ignore_ascii_case("closed"))
                .map_or(9, |s| s.id);
            let ticket = json!({
                "id": id, "tickettype_id": target.ticket.tickettype_id, "client_id": target.ticket.client_id, "status_id": status,
                "closure_note": format!("{closure_note}\n\nReference: {}", target.marker),
            });
            let closed = halo.post_ticket(ticket).await?;
            // A missing permission makes HaloPSA ignore a field without a word.
            if closed.id == id && (closed.hasbeenclosed || closed.status_id == Some(status)) {
                Ok("closed".into())
            } else {
                Ok("HaloPSA took the change, but does not show the ticket as closed".into())
            }
        }
        Write::Link { article_id } => {
            let article = match halo.article(*article_id).await {
                Err(halopsa::Error::NotFound { .. }) => {
                    return Err(Error::Arguments(format!(
                        "there is no knowledge base article {article_id}"
                    )));
                }
                other => other?,
            };
            let text = format!(
                "Knowledge base article {article_id}: {}\n{}/kb?id={article_id}",
                one_line(&article.name, 200),
                target.instance_url
            );
            let action = private(internal(&text)).await?;
            Ok(format!("linked in action {action}"))
        }
    }
}

/// Names to HaloPSA's ids. An unknown name is said with what there is.
async fn resolve(update: &Update, target: &Target<'_>, fields: &mut Value) -> Result<(), Error> {
    let halo = target.halo;
    if let Some(name) = &update.status {
        let rows = halo.statuses().await?;
        let id = pick("status", name, rows.iter().map(|r| (r.id, r.name.as_str())))?;
        fields["new_status"] = id.into();
    }
    if let Some(name) = &update.priority {
        let rows = halo.priorities().await?;
        // One row for each SLA: an id of another SLA does nothing useful.
        let of_sla = rows.iter().filter(|r| {
            !r.ishidden && (target.ticket.sla_id.is_none() || r.slaid == target.ticket.sla_id)
        });
        fields["new_priority"] = pick(
            "priority",
            name,
            of_sla.map(|r| (r.priorityid, r.name.as_str())),
        )?
        .into();
    }
    if let Some(name) = &update.kind {
        let rows = halo.ticket_types().await?;
        fields["new_tickettype"] = pick(
            "ticket type",
            name,
            rows.iter().map(|r| (r.id, r.name.as_str())),
        )?
        .into();
    }
    if let Some(name) = &update.team {
        let rows = halo.teams().await?;
        pick("team", name, rows.iter().map(|r| (r.id, r.name.as_str())))?;
        // By name, as HaloPSA's action takes it.
        fields["new_team"] = rows
            .iter()
            .find(|r| r.name.eq_ignore_ascii_case(name.trim()))
            .map_or(name.trim(), |r| &r.name)
            .into();
    }
    if let Some(name) = &update.agent {
        let rows = halo.agents().await?;
        let people = rows
            .iter()
            .filter(|a| !a.isdisabled && a.id != UNASSIGNED && Some(a.id) != target.api_agent);
        fields["new_agent"] = pick("agent", name, people.map(|r| (r.id, r.name.as_str())))?.into();
    }
    if let Some(category) = &update.category {
        fields["new_category1"] = category.trim().into();
    }
    Ok(())
}

fn pick<'a>(
    what: &str,
    name: &str,
    rows: impl Iterator<Item = (i64, &'a str)>,
) -> Result<i64, Error> {
    let rows: Vec<(i64, &str)> = rows.collect();
    let found = rows
        .iter()
        .find(|(_, row)| row.trim().eq_ignore_ascii_case(name.trim()));
    found.map(|(id, _)| *id).ok_or_else(|| {
        let there: Vec<&str> = rows.iter().take(20).map(|(_, row)| *row).collect();
        Error::Arguments(format!(
            "there is no {what} {}; there are: {}",
            one_line(name, 60),
            there.join(", ")
        ))
    })
}

fn html(text: &str, marker: &str) -> String {
    let paragraphs: String = text
        .lines()
        .map(str::trim_end)
        .filter(|l| !l.is_empty())
        .map(|l| format!("<p>{}</p>", escape(l)))
        .collect();
    format!(
        "{paragraphs}<p><small>Reference: {} </small></p>",
        escape(marker)
    )
}

/// Polls for a write that may have been sent.
pub async fn find(write: &Write, target: &Target<'_>) -> Result<Found, halopsa::Error> {
    let (halo, id, marker) = (target.halo, target.ticket.id, target.marker);
    match write {
        Write::Child { .. } => {
            let Some(client) = target.ticket.client_id else {
                return Ok(Found::CannotTell);
            };
            let tickets = halo.search_tickets(client, marker, 5).await?;
            let made = tickets.iter().find(|t| {
                t.id != id && (t.details.contains(marker) || t.details_html.contains(marker))
            });
            // Whether HaloPSA searches a ticket's details at once is not known: that none is found proves nothing.
            Ok(made.map_or(Found::CannotTell, |t| {
                Found::Yes(format!("created ticket {}", t.id))
            }))
        }
        Write::Close { .. } => {
            let now = halo.ticket(id).await?;
            Ok(if now.closure_note.contains(marker) {
                Found::Yes("closed".into())
            } else {
                Found::No
            })
        }
        _ => {
            let actions = halo.actions(id, SEARCH_DEPTH).await?;
            Ok(
                outbox::find(&actions, marker, target.api_agent).map_or(Found::No, |a| {
                    Found::Yes(format!("done by action {}", a.id))
                }),
            )
        }
    }
}
