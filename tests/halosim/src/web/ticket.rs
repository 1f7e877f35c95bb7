//! A ticket: its thread, what can be done on it, its files.

use super::page::{Page, alert, clean, missing, options, time, to};
use super::request::{Form, Person};
use super::session::Who;
use super::tickets::{agents, names, pairs, priorities, status};
use crate::Shared;
use crate::query::Query;
use crate::store::{No, Object, Store, flag, number, object, text};
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// HaloPSA's own links: `/ticket?id=4242`.
pub async fn by_query(RawQuery(query): RawQuery) -> Response {
    let id = Query::parse(query.as_deref())
        .number("id")
        .unwrap_or_default();
    to(&format!("/tickets/{id}"))
}

/// The ticket, if this person may see it. A user sees their own.
fn find(shared: &Shared, who: Who, id: i64) -> Option<Object> {
    let store = shared.store();
    let ticket = store.get("tickets", id)?.into_owned();
    match who {
        Who::Agent(_) => Some(ticket),
        Who::User(user) => store.is_of_user(&ticket, user).then_some(ticket),
    }
}

pub async fn show(
    State(shared): State<Arc<Shared>>,
    person: Person,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let seen = Query::parse(query.as_deref())
        .get("seen")
        .map(str::to_string);
    page(
        &shared,
        person,
        id.parse().unwrap_or_default(),
        seen.as_deref(),
        None,
        "",
    )
}

/// The actions this reader may see, oldest first.
fn thread(store: &Store, id: i64, agent: bool) -> Vec<Object> {
    store
        .actions(id)
        .into_iter()
        .filter(|a| agent || !flag(a, "hiddenfromuser"))
        .cloned()
        .collect()
}

/// A file of the thread.
struct File {
    id: i64,
    action: i64,
    name: String,
    size: i64,
}

fn files(store: &Store, ticket: i64) -> Vec<File> {
    store
        .rows("attachment")
        .filter(|f| f.number("ticket_id") == Some(ticket))
        .map(|f| File {
            id: f.id(),
            action: f.number("action_id").unwrap_or_default(),
            name: f.text("filename").into_owned(),
            size: f.number("filesize").unwrap_or_default(),
        })
        .collect()
}

/// What an agent can set on a ticket: ids and names.
struct Choices {
    statuses: Vec<(String, String)>,
    agents: Vec<(String, String)>,
    priorities: Vec<(String, String)>,
}

/// `draft` is what was typed into a form that was refused.
fn page(
    shared: &Shared,
    person: Person,
    id: i64,
    seen: Option<&str>,
    message: Option<&str>,
    draft: &str,
) -> Response {
    let who = person.0;
    let Some(ticket) = find(shared, who, id) else {
        return missing(shared, who, "There is no such ticket, or it is not yours.");
    };
    let agent = matches!(who, Who::Agent(_));
    let store = shared.store();
    let actions = thread(&store, id, agent);
    let files = files(&store, id);
    let choices = Choices {
        statuses: names(&store, "status"),
        agents: agents(&store),
        priorities: priorities(&store),
    };
    drop(store);
    let now = format!("{}.{}", actions.len(), text(&ticket, "last_update"));
    if seen == Some(now.as_str()) {
        return StatusCode::NO_CONTENT.into_response();
    }
    let assigned = name_of(
        &choices.agents,
        number(&ticket, "agent_id").unwrap_or_default(),
    );
    let title = format!("{id:07} {}", text(&ticket, "summary"));
    let shown = Page {
        shared,
        who: Some(who),
        title: &title,
        at: "",
    };
    let content = html! {
        h1 { span.id { (format!("{id:07}")) } " " (text(&ticket, "summary")) }
        (alert(message))
        div.ticket {
            div {
                @if agent { (agent_forms(&ticket, id, draft)) } @else { (user_form(id, draft)) }
                div data-live={ "/tickets/" (id) } data-seen=(now) {
                    p.facts {
                        (status(&ticket)) " " (text(&ticket, "client_name")) " · "
                        (text(&ticket, "user_name"))
                        @if let Some(name) = assigned { " · " (name) }
                    }
                    ol.thread {
                        @for action in actions.iter().rev() {
                            (entry(action, &files, &choices.agents))
                        }
                    }
                }
            }
            aside {
                @if agent { (change_form(&ticket, id, &choices)) }
                (properties(&ticket))
            }
        }
    };
    shown.show_with(message, &content)
}

fn name_of(agents: &[(String, String)], id: i64) -> Option<&str> {
    let id = id.to_string();
    agents
        .iter()
        .find(|(value, _)| *value == id)
        .map(|(_, name)| name.as_str())
}

/// A reply to the user, and a private note.
fn agent_forms(ticket: &Object, id: i64, draft: &str) -> Markup {
    html! {
        details.act open[!draft.is_empty()] name="act" {
            summary accesskey="r" { "Reply to user" }
            form.stacked method="post" action={ "/tickets/" (id) "/actions" } {
                input type="hidden" name="outcome" value="Email User";
                label {
                    "To " (text(ticket, "user_name")) " <" (text(ticket, "user_email")) ">"
                    textarea name="note" rows="6" required { (draft) }
                }
                button.primary { "Send reply" }
            }
        }
        details.act.private name="act" {
            summary accesskey="n" { "Private note" }
            form.stacked method="post" action={ "/tickets/" (id) "/actions" } {
                input type="hidden" name="outcome" value="Private Note";
                label { "Only agents see it" textarea name="note" rows="6" required {} }
                button.primary { "Add private note" }
            }
        }
    }
}

fn user_form(id: i64, draft: &str) -> Markup {
    html! {
        details.act open[!draft.is_empty()] {
            summary accesskey="r" { "Reply" }
            form.stacked method="post" action={ "/tickets/" (id) "/actions" } {
                label { "Your message" textarea name="note" rows="6" required { (draft) } }
                button.primary { "Send" }
            }
        }
    }
}

fn change_form(ticket: &Object, id: i64, choices: &Choices) -> Markup {
    let select = |label: &str, name: &str, all: &[(String, String)]| {
        let chosen = number(ticket, name).unwrap_or_default().to_string();
        html! { label { (label) select name=(name) { (options(pairs(all), &chosen)) } } }
    };
    html! {
        form.stacked method="post" action={ "/tickets/" (id) } {
            (select("Status", "status_id", &choices.statuses))
            (select("Agent", "agent_id", &choices.agents))
            (select("Priority", "priority_id", &choices.priorities))
            button { "Save" }
        }
    }
}

fn properties(ticket: &Object) -> Markup {
    html! {
        dl {
            dt { "Client" } dd { (text(ticket, "client_name")) }
            dt { "Site" } dd { (text(ticket, "site_name")) }
            dt { "User" } dd { (text(ticket, "user_name")) }
            dt { "Type" } dd { (text(ticket, "tickettype_name")) }
            dt { "Priority" } dd { (text(ticket, "priority_name")) }
            dt { "Team" } dd { (text(ticket, "team")) }
            dt { "Opened" } dd { (time(text(ticket, "dateoccurred"))) }
            dt { "Closed" } dd { (time(text(ticket, "dateclosed"))) }
        }
    }
}

fn entry(action: &Object, files: &[File], agents: &[(String, String)]) -> Markup {
    let hidden = flag(action, "hiddenfromuser");
    let id = number(action, "id").unwrap_or_default();
    let files: Vec<_> = files.iter().filter(|f| f.action == id).collect();
    let note = text(action, "note_html");
    let assigned = number(action, "new_agent").and_then(|id| name_of(agents, id));
    let changed = number(action, "old_status")
        .zip(number(action, "new_status"))
        .is_some_and(|(old, new)| old != new);
    let by_program = !matches!(
        text(action, "actionby_application_id"),
        "" | crate::admin::WEB_APPLICATION
    );
    html! {
        li.private[hidden].by-user[number(action, "who_type") == Some(0)] #{ "action-" (id) } {
            div.byline {
                strong { (text(action, "who")) }
                @if by_program { span.tag title="Written by an application over the API" { (text(action, "actionby_application_id")) } }
                span.tag { (text(action, "outcome")) }
                @if hidden { span.tag.internal { "Internal" } }
                @if text(action, "emaildirection") == "O" { span.tag { "E-mail to " (text(action, "emailto")) } }
                (time(text(action, "datetime")))
            }
            @if changed { p.change { "Status: " (text(action, "new_status_name")) } }
            @if let Some(name) = assigned { p.change { "Assigned to " (name) } }
            div.note {
                @if note.is_empty() { p.plain { (text(action, "note")) } } @else { (clean(note)) }
            }
            @if !files.is_empty() {
                ul.files {
                    @for file in files {
                        li { a href={ "/attachments/" (file.id) } { (file.name) } " " (file.size) " bytes" }
                    }
                }
            }
        }
    }
}

/// Writes an action: an agent's reply or private note, or a user's update.
pub async fn act(
    State(shared): State<Arc<Shared>>,
    person: Person,
    Path(id): Path<i64>,
    form: Form,
) -> Response {
    if find(&shared, person.0, id).is_none() {
        return missing(
            &shared,
            person.0,
            "There is no such ticket, or it is not yours.",
        );
    }
    let note = form.get("note");
    if note.is_empty() {
        return page(
            &shared,
            person,
            id,
            None,
            Some("Enter some text first."),
            "",
        );
    }
    // HaloPSA's editor writes paragraphs.
    let note_html = html! { @for part in note.replace('\r', "").split("\n\n") { p { @for (n, line) in part.lines().enumerate() { @if n > 0 { br; } (line) } } } };
    let input = match (person.0, form.get("outcome")) {
        (Who::Agent(_), outcome @ ("Email User" | "Private Note")) => json!({
            "ticket_id": id, "outcome": outcome, "note_html": note_html.into_string(),
            "hiddenfromuser": outcome == "Private Note", "sendemail": outcome == "Email User"}),
        (Who::User(_), _) => {
            json!({"ticket_id": id, "outcome": "User Update", "note_html": note_html.into_string(), "hiddenfromuser": false})
        }
        _ => {
            return page(
                &shared,
                person,
                id,
                None,
                Some("An Outcome must be entered for this Action"),
                note,
            );
        }
    };
    let outcome = shared
        .store()
        .write_action(&object(input), &person.author(), Instant::now());
    match outcome {
        Ok((_, changes)) => {
            shared.publish(changes);
            to(&format!("/tickets/{id}"))
        }
        Err(No::BadRequest(message)) => page(&shared, person, id, None, Some(message), note),
        Err(No::NotFound) => missing(&shared, person.0, "Record not found"),
    }
}

/// Status, agent and priority: an action that says what it changed, as HaloPSA's buttons write it.
pub async fn change(
    State(shared): State<Arc<Shared>>,
    person: Person,
    Path(id): Path<i64>,
    form: Form,
) -> Response {
    let ticket = match (person.0, find(&shared, person.0, id)) {
        (Who::Agent(_), Some(ticket)) => ticket,
        _ => {
            return missing(
                &shared,
                person.0,
                "There is no such ticket, or it is not yours to change.",
            );
        }
    };
    let mut input = object(json!({"ticket_id": id, "hiddenfromuser": true}));
    let fields = [
        ("priority_id", "new_priority", "Change Priority"),
        ("status_id", "new_status", "Change Status"),
        ("agent_id", "new_agent", "Re-Assign"),
    ];
    for (field, new, outcome) in fields {
        let Some(value) = form
            .number(field)
            .filter(|v| number(&ticket, field) != Some(*v))
        else {
            continue;
        };
        let known = {
            let store = shared.store();
            match field {
                "status_id" => store.get("status", value).is_some(),
                "agent_id" => store.get("agent", value).is_some(),
                _ => store
                    .rows("priority")
                    .any(|p| p.number("priorityid") == Some(value)),
            }
        };
        if !known {
            return page(&shared, person, id, None, Some("Record not found"), "");
        }
        input.insert(new.into(), value.into());
        // Several changes make one action, named after the most important.
        input.insert("outcome".into(), outcome.into());
    }
    if !input.contains_key("outcome") {
        return to(&format!("/tickets/{id}"));
    }
    let outcome = shared
        .store()
        .write_action(&input, &person.author(), Instant::now());
    match outcome {
        Ok((_, changes)) => {
            shared.publish(changes);
            to(&format!("/tickets/{id}"))
        }
        Err(No::BadRequest(message)) => page(&shared, person, id, None, Some(message), ""),
        Err(No::NotFound) => missing(&shared, person.0, "Record not found"),
    }
}

/// A file, as a download; never shown in the browser.
pub async fn file(
    State(shared): State<Arc<Shared>>,
    person: Person,
    Path(id): Path<i64>,
) -> Response {
    let found = shared.store().attachment(id);
    let seen = found.filter(|(object, _)| {
        let ticket = number(object, "ticket_id").unwrap_or_default();
        let action = number(object, "action_id").unwrap_or_default();
        let internal = shared
            .store()
            .actions(ticket)
            .iter()
            .any(|a| number(a, "id") == Some(action) && flag(a, "hiddenfromuser"));
        find(&shared, person.0, ticket).is_some()
            && (matches!(person.0, Who::Agent(_)) || !internal)
    });
    let Some((object, bytes)) = seen else {
        return missing(&shared, person.0, "There is no such file.");
    };
    let name: String = text(&object, "filename")
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || ".-_ ".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_string()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}\""),
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_string()),
    ];
    (headers, bytes).into_response()
}
