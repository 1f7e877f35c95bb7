//! Sends writes to HaloPSA: one request each, found again by its marker.

use super::write::{Update, Write};
use crate::api::connection::Notes;
use crate::halopsa;
use crate::halopsa::technicians::UNASSIGNED;
use crate::halopsa::types::{Named, Ticket};
use crate::ids::{ActionId, TechnicianId};
use crate::outbox::{self, SEARCH_DEPTH};
use crate::text::{escape, one_line};
use serde_json::{Value, json};

/// HaloPSA's id of the status Closed, where no status has that name.
const CLOSED: i64 = 9;

/// Where a write goes.
pub struct Target<'a> {
    pub halo: &'a halopsa::Client,
    /// The ticket as it is now.
    pub ticket: &'a Ticket,
    pub notes: &'a Notes,
    /// The API agent.
    pub api_agent: Option<TechnicianId>,
    pub instance_url: &'a str,
    pub marker: &'a str,
}

impl Target<'_> {
    /// The fields of an internal note with the marker.
    fn internal(&self, text: &str) -> Value {
        json!({
            "note_html": html(text, self.marker),
            "hiddenfromuser": true,
            "sendemail": false,
        })
    }

    async fn post_internal(&self, fields: Value) -> Result<ActionId, halopsa::Error> {
        let fallback = Some(self.notes.fallback_outcome_id);
        self.halo
            .post_action(self.ticket.id, &self.notes.outcome, fallback, fields)
            .await
    }
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
    /// Not there; certain once HaloPSA must have shown it.
    No,
    /// Not found, which proves nothing.
    CannotTell,
}

/// Sends the write to HaloPSA. Returns the result, human-readable.
pub async fn send(write: &Write, target: &Target<'_>) -> Result<String, Error> {
    match write {
        Write::PrivateNote { text } => add_note(text, target).await,
        Write::Reply { text } => reply(text, target).await,
        Write::Update(update) => change(update, target).await,
        Write::LogTime { minutes, note } => log_time(*minutes, note, target).await,
        Write::Child { summary, details } => create_child(summary, details, target).await,
        Write::Close { closure_note } => close(closure_note, target).await,
        Write::Link { article_id } => link_article(*article_id, target).await,
    }
}

async fn add_note(text: &str, target: &Target<'_>) -> Result<String, Error> {
    let action = target.post_internal(target.internal(text)).await?;
    Ok(format!("added as action {action}"))
}

async fn reply(text: &str, target: &Target<'_>) -> Result<String, Error> {
    let fields = json!({
        "note_html": html(text, target.marker),
        "hiddenfromuser": false,
        "sendemail": true,
    });
    let action = target
        .halo
        .post_action(target.ticket.id, &target.notes.reply_outcome, None, fields)
        .await?;
    Ok(format!("sent as action {action}"))
}

async fn change(update: &Update, target: &Target<'_>) -> Result<String, Error> {
    let words: Vec<String> = update
        .fields()
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    let mut fields = target.internal(&format!("Changed by Rallied. {}", words.join("; ")));
    resolve(update, target, &mut fields).await?;
    let action = target.post_internal(fields).await?;
    Ok(format!("changed by action {action}"))
}

async fn log_time(minutes: i64, note: &str, target: &Target<'_>) -> Result<String, Error> {
    let mut fields = target.internal(note);
    // HaloPSA counts in hours.
    fields["timetaken"] = (minutes as f64 / 60.0).into();
    let action = target.post_internal(fields).await?;
    Ok(format!("{minutes} minutes logged by action {action}"))
}

async fn create_child(summary: &str, details: &str, target: &Target<'_>) -> Result<String, Error> {
    let parent = target.ticket;
    let mut child = json!({
        "summary": one_line(summary, 200),
        "details_html": html(details, target.marker),
        "parent_id": parent.id,
        "client_id": parent.client_id,
    });
    for (key, value) in [
        ("user_id", parent.user_id),
        ("site_id", parent.site_id),
        ("tickettype_id", parent.tickettype_id),
    ] {
        if let Some(value) = value {
            child[key] = value.into();
        }
    }
    let created = target.halo.post_ticket(child).await?;
    Ok(format!("created ticket {}", created.id))
}

async fn close(closure_note: &str, target: &Target<'_>) -> Result<String, Error> {
    let ticket = target.ticket;
    if ticket.agent_id.is_none_or(|a| a == UNASSIGNED) {
        return Err(Error::Arguments(
            "HaloPSA does not close an unassigned ticket; have it assigned first".into(),
        ));
    }
    let statuses = target.halo.statuses().await?;
    let status = statuses
        .iter()
        .find(|s| s.name.eq_ignore_ascii_case("closed"))
        .map_or(CLOSED, |s| s.id);
    let change = json!({
        "id": ticket.id,
        "tickettype_id": ticket.tickettype_id,
        "client_id": ticket.client_id,
        "status_id": status,
        "closure_note": format!("{closure_note}\n\nReference: {}", target.marker),
    });
    let after = target.halo.post_ticket(change).await?;
    // Without the permission to change a field HaloPSA silently ignores it.
    if after.id == ticket.id && (after.hasbeenclosed || after.status_id == Some(status)) {
        Ok("closed".into())
    } else {
        Ok("HaloPSA accepted the change, but does not show the ticket as closed".into())
    }
}

async fn link_article(article_id: i64, target: &Target<'_>) -> Result<String, Error> {
    let article = match target.halo.article(article_id).await {
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
    let action = target.post_internal(target.internal(&text)).await?;
    Ok(format!("linked in action {action}"))
}

/// Sets the fields of an update: names to HaloPSA's ids. The error for an unknown name lists the
/// known ones.
async fn resolve(update: &Update, target: &Target<'_>, fields: &mut Value) -> Result<(), Error> {
    let halo = target.halo;
    if let Some(name) = &update.status {
        let rows = halo.statuses().await?;
        fields["new_status"] = pick("status", name, by_name(&rows))?.into();
    }
    if let Some(name) = &update.priority {
        let rows = halo.priorities().await?;
        // One row per SLA: an id of another SLA does nothing useful.
        let sla = target.ticket.sla_id;
        let of_sla = rows
            .iter()
            .filter(|r| !r.ishidden && (sla.is_none() || r.slaid == sla))
            .map(|r| (r.priorityid, r.name.as_str()));
        fields["new_priority"] = pick("priority", name, of_sla)?.into();
    }
    if let Some(name) = &update.kind {
        let rows = halo.ticket_types().await?;
        fields["new_tickettype"] = pick("ticket type", name, by_name(&rows))?.into();
    }
    if let Some(name) = &update.team {
        let rows = halo.teams().await?;
        pick("team", name, by_name(&rows))?;
        // By name, as HaloPSA's action takes it.
        fields["new_team"] = rows
            .iter()
            .find(|r| r.name.eq_ignore_ascii_case(name.trim()))
            .map_or(name.trim(), |r| &r.name)
            .into();
    }
    if let Some(name) = &update.agent {
        let rows = halo.agents().await?;
        let technicians = rows
            .iter()
            .filter(|a| !a.isdisabled && a.id != UNASSIGNED && Some(a.id) != target.api_agent)
            .map(|a| (a.id.0, a.name.as_str()));
        fields["new_agent"] = pick("technician", name, technicians)?.into();
    }
    if let Some(category) = &update.category {
        fields["new_category1"] = category.trim().into();
    }
    Ok(())
}

fn by_name(rows: &[Named]) -> impl Iterator<Item = (i64, &str)> {
    rows.iter().map(|r| (r.id, r.name.as_str()))
}

/// The id of the row with this name.
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
            "there is no {what} {}; choose one of: {}",
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

/// Searches once for a write that may have been sent.
pub async fn find(write: &Write, target: &Target<'_>) -> Result<Found, halopsa::Error> {
    let (halo, id, marker) = (target.halo, target.ticket.id, target.marker);
    match write {
        Write::Child { .. } => {
            let Some(client) = target.ticket.client_id else {
                return Ok(Found::CannotTell);
            };
            let tickets = halo.search_tickets(client, marker, 5).await?;
            let created = tickets.iter().find(|t| {
                t.id != id && (t.details.contains(marker) || t.details_html.contains(marker))
            });
            // How soon HaloPSA's search sees a new ticket is not known: no hit proves nothing.
            Ok(created.map_or(Found::CannotTell, |t| {
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
