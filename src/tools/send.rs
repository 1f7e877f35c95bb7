//! Sends writes to HaloPSA: one request each, found again by its marker.

use super::write::resolve::{Assignment, Canonical, Change, Child, Closing, Link, Reply, Time};
use crate::api::connection::Notes;
use crate::halopsa;
use crate::halopsa::technicians::UNASSIGNED;
use crate::halopsa::types::Ticket;
use crate::ids::{ActionId, TechnicianId};
use crate::outbox::{self, SEARCH_DEPTH};
use crate::text::{escape, without_markers};
use crate::ticket::marker::{REFERENCE, is_reference};
use serde_json::{Value, json};

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

/// Sends the write to HaloPSA, by the ids it holds. Returns the result, human-readable.
pub async fn send(write: &Canonical, target: &Target<'_>) -> Result<String, Error> {
    match write {
        Canonical::PrivateNote(note) => add_note(&note.text, target).await,
        Canonical::Reply(reply) => send_reply(reply, target).await,
        Canonical::Update(update) => change(update, target).await,
        Canonical::Assign(assignment) => assign(assignment, target).await,
        Canonical::LogTime(time) => log_time(time, target).await,
        Canonical::Child(child) => create_child(child, target).await,
        Canonical::Close(closing) => close(closing, target).await,
        Canonical::Link(link) => link_article(link, target).await,
    }
}

async fn add_note(text: &str, target: &Target<'_>) -> Result<String, Error> {
    let action = target.post_internal(target.internal(text)).await?;
    Ok(format!("added as action {action}"))
}

async fn send_reply(reply: &Reply, target: &Target<'_>) -> Result<String, Error> {
    // HaloPSA would send it to the ticket's own lists of addresses, which do not change with the
    // requester. It goes to whom the request names, and to nobody else.
    let fields = json!({
        "note_html": html(&reply.text, target.marker),
        "hiddenfromuser": false,
        "sendemail": true,
        "emailto": reply.recipient.email,
        "emailcc": "",
        "emailbcc": "",
    });
    let action = target
        .halo
        .post_action(target.ticket.id, &target.notes.reply_outcome, None, fields)
        .await?;
    Ok(format!("sent as action {action}"))
}

async fn change(change: &Change, target: &Target<'_>) -> Result<String, Error> {
    let mut fields = target.internal(&changed(&change.rows()));
    for (field, id) in [
        ("new_status", change.status_id),
        ("new_priority", change.priority_id),
        ("new_tickettype", change.kind_id),
    ] {
        if let Some(id) = id {
            fields[field] = id.into();
        }
    }
    if let Some(category) = &change.category {
        // By name, as HaloPSA's action takes it.
        fields["new_category1"] = category.as_str().into();
    }
    let action = target.post_internal(fields).await?;
    Ok(format!("changed by action {action}"))
}

async fn assign(assignment: &Assignment, target: &Target<'_>) -> Result<String, Error> {
    let mut fields = target.internal(&changed(&assignment.rows()));
    if let Some(agent) = assignment.agent_id {
        fields["new_agent"] = agent.into();
    }
    if let Some(team) = &assignment.team {
        // By name, as HaloPSA's action takes it.
        fields["new_team"] = team.as_str().into();
    }
    let action = target.post_internal(fields).await?;
    Ok(format!("assigned by action {action}"))
}

/// What was changed, in words.
fn changed(rows: &[(&'static str, String, i64)]) -> String {
    let words: Vec<String> = rows
        .iter()
        .map(|(what, name, _)| format!("{what}: {name}"))
        .collect();
    format!("Changed by Rallied. {}", words.join("; "))
}

async fn log_time(time: &Time, target: &Target<'_>) -> Result<String, Error> {
    let mut fields = target.internal(&time.note);
    // HaloPSA counts in hours.
    fields["timetaken"] = (time.minutes as f64 / 60.0).into();
    let action = target.post_internal(fields).await?;
    Ok(format!(
        "{} minutes logged by action {action}",
        time.minutes
    ))
}

async fn create_child(new: &Child, target: &Target<'_>) -> Result<String, Error> {
    let parent = target.ticket;
    let mut child = json!({
        "summary": without_markers(&new.summary),
        "details_html": html(&new.details, target.marker),
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

async fn close(closing: &Closing, target: &Target<'_>) -> Result<String, Error> {
    let ticket = target.ticket;
    if ticket.agent_id.is_none_or(|a| a == UNASSIGNED) {
        return Err(Error::Arguments(
            "HaloPSA does not close an unassigned ticket; have it assigned first".into(),
        ));
    }
    let status = closing.status_id;
    let change = json!({
        "id": ticket.id,
        "tickettype_id": ticket.tickettype_id,
        "client_id": ticket.client_id,
        "status_id": status,
        "closure_note": closure_note(&closing.closure_note, target.marker),
    });
    let after = target.halo.post_ticket(change).await?;
    // Without the permission to change a field HaloPSA silently ignores it.
    if after.id == ticket.id && (after.hasbeenclosed || after.status_id == Some(status)) {
        Ok("closed".into())
    } else {
        Ok("HaloPSA accepted the change, but does not show the ticket as closed".into())
    }
}

async fn link_article(link: &Link, target: &Target<'_>) -> Result<String, Error> {
    let id = link.article_id;
    let text = format!(
        "Knowledge base article {id}: {}\n{}/kb?id={id}",
        link.article, target.instance_url
    );
    let action = target.post_internal(target.internal(&text)).await?;
    Ok(format!("linked in action {action}"))
}

/// HaloPSA shows a closure note as HTML and mails it. Escaped, but without tags of our own: it is
/// one field, and reads well where it is shown as it is.
fn closure_note(text: &str, marker: &str) -> String {
    let text = escape(&without_markers(text));
    format!("{text}\n\n{REFERENCE}{}", escape(marker))
}

fn html(text: &str, marker: &str) -> String {
    let paragraphs: String = without_markers(text)
        .lines()
        .map(str::trim_end)
        .filter(|l| !l.is_empty())
        .map(|l| format!("<p>{}</p>", escape(l)))
        .collect();
    format!(
        "{paragraphs}<p><small>{REFERENCE}{} </small></p>",
        escape(marker)
    )
}

/// Searches once for a write that may have been sent.
pub async fn find(write: &Canonical, target: &Target<'_>) -> Result<Found, halopsa::Error> {
    let (halo, id, marker) = (target.halo, target.ticket.id, target.marker);
    match write {
        Canonical::Child(_) => {
            let Some(client) = target.ticket.client_id else {
                return Ok(Found::CannotTell);
            };
            let tickets = halo.search_tickets(client, marker, 5).await?;
            let created = tickets.iter().find(|t| {
                t.id != id
                    && [&t.details, &t.details_html]
                        .iter()
                        .any(|text| is_reference(text, marker))
            });
            // How soon HaloPSA's search sees a new ticket is not known: no hit proves nothing.
            Ok(created.map_or(Found::CannotTell, |t| {
                Found::Yes(format!("created ticket {}", t.id))
            }))
        }
        Canonical::Close(_) => {
            let now = halo.ticket(id).await?;
            Ok(if is_reference(&now.closure_note, marker) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_agents_write_is_no_markup_and_the_marker_stays() {
        let marker = "rallied-0011223344556677-0-step001";
        let text = "Done <img src=x onerror=alert(1)>\nDear $USERNAME";
        for sent in [closure_note(text, marker), html(text, marker)] {
            assert!(sent.contains(marker), "{sent}");
            assert!(
                !sent.contains("<img") && !sent.contains("$USERNAME"),
                "{sent}"
            );
            assert!(
                sent.contains("&lt;img src=x") && sent.contains("$ USERNAME"),
                "{sent}"
            );
        }
    }
}
