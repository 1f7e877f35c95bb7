//! The ticket list with its filters, and a new ticket.

use super::page::{Page, alert, options, time, to};
use super::request::{Form, Person};
use super::session::Who;
use crate::Shared;
use crate::query::{self, Query};
use crate::store::{No, Object, Store, number, object, text};
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde_json::json;
use std::sync::Arc;

const PAGE_SIZE: usize = 50;
/// Clients offered while typing.
const OFFERED: usize = 500;

const VIEWS: [(&str, &str); 5] = [
    ("open", "All open"),
    ("mine", "Assigned to me"),
    ("unassigned", "Unassigned"),
    ("closed", "Closed"),
    ("all", "All"),
];

/// Id and name of each row of a small kind.
pub fn names(store: &Store, kind: &str) -> Vec<(String, String)> {
    store
        .rows(kind)
        .map(|row| (row.id().to_string(), row.text("name").into_owned()))
        .collect()
}

/// Agents that tickets can be assigned to.
pub fn agents(store: &Store) -> Vec<(String, String)> {
    store
        .rows("agent")
        .filter(|a| !a.flag("isdisabled"))
        .map(|a| (a.id().to_string(), a.text("name").into_owned()))
        .collect()
}

pub fn priorities(store: &Store) -> Vec<(String, String)> {
    let rows = store.rows("priority");
    rows.map(|row| {
        (
            row.number("priorityid").unwrap_or_default().to_string(),
            row.text("name").into_owned(),
        )
    })
    .collect()
}

pub fn pairs(all: &[(String, String)]) -> impl Iterator<Item = (String, &str)> {
    all.iter()
        .map(|(value, name)| (value.clone(), name.as_str()))
}

fn client_list(store: &Store) -> Markup {
    html! { datalist #clients { @for row in store.rows("client").take(OFFERED) { option value=(row.text("name")) {} } } }
}

/// The filters, as a query to the API.
fn api_query(store: &Store, who: Who, view: &str, query: &Query) -> Query {
    let mut parts: Vec<(&str, String)> = vec![("order", "id".into()), ("orderdesc", "true".into())];
    match (who, view) {
        (Who::User(id), _) => parts.push(("user_id", id.to_string())),
        (Who::Agent(_), "closed") => parts.push(("closed_only", "true".into())),
        (Who::Agent(_), "all") => {}
        (Who::Agent(id), "mine") => parts.extend([
            ("open_only", "true".to_string()),
            ("agent_id", id.to_string()),
        ]),
        (Who::Agent(_), "unassigned") => parts.extend([
            ("open_only", "true".to_string()),
            ("agent_id", crate::store::UNASSIGNED.to_string()),
        ]),
        (Who::Agent(_), _) => parts.push(("open_only", "true".into())),
    }
    for name in ["search", "status_id", "priority_id"] {
        parts.extend(query.get(name).map(|value| (name, value.to_string())));
    }
    if let Some(client) = query.get("client") {
        parts.push((
            "client_id",
            store.named("client", client).unwrap_or(-1).to_string(),
        ));
    }
    Query::of(
        parts
            .into_iter()
            .map(|(name, value)| (name.to_string(), value)),
    )
}

/// Another page of the list, with the same filters.
fn page_link(query: &Query, page: usize) -> String {
    let mut url = reqwest::Url::parse("https://list/tickets")
        .unwrap_or_else(|_| unreachable!("a constant URL"));
    let fields = ["view", "search", "client", "status_id", "priority_id"];
    url.query_pairs_mut()
        .extend_pairs(fields.into_iter().filter_map(|f| Some((f, query.get(f)?))))
        .append_pair("page", &page.to_string());
    format!("/tickets?{}", url.query().unwrap_or_default())
}

pub async fn list(
    State(shared): State<Arc<Shared>>,
    person: Person,
    RawQuery(raw): RawQuery,
) -> Response {
    let query = Query::parse(raw.as_deref());
    let who = person.0;
    let view = query
        .get("view")
        .filter(|v| VIEWS.iter().any(|(name, _)| name == v))
        .unwrap_or("open");
    let number = query.number("page").unwrap_or(1).max(1) as usize;
    let store = shared.store();
    let asked = api_query(&store, who, view, &query);
    let rows = query::select("tickets", store.rows("tickets"), &asked).unwrap_or_default();
    let total = rows.len();
    let page: Vec<Object> = rows
        .into_iter()
        .skip((number - 1).saturating_mul(PAGE_SIZE))
        .take(PAGE_SIZE)
        .map(|row| row.whole())
        .collect();
    let seen = format!(
        "{total}.{}",
        page.iter()
            .map(|t| text(t, "last_update"))
            .max()
            .unwrap_or_default()
    );
    if query.get("seen") == Some(seen.as_str()) {
        return axum::response::IntoResponse::into_response(StatusCode::NO_CONTENT);
    }
    let (statuses, priorities, clients) = (
        names(&store, "status"),
        priorities(&store),
        client_list(&store),
    );
    let agent_names = agents(&store);
    drop(store);
    let link = |page| page_link(&query, page);
    let chosen = |name| query.get(name).unwrap_or_default();
    let shown = Page {
        shared: &shared,
        who: Some(who),
        title: "Tickets",
        at: "/tickets",
    };
    shown.show(&html! {
        h1 { @if matches!(who, Who::Agent(_)) { "Tickets" } @else { "My Tickets" } }
        form.filters role="search" method="get" action="/tickets" {
            @if matches!(who, Who::Agent(_)) {
                label { "View " select name="view" { (options(VIEWS.map(|(value, name)| (value.to_string(), name)), view)) } }
                label { "Client " input name="client" list="clients" value=(chosen("client")); } (clients)
            }
            label { "Status " select name="status_id" { option value="" { "Any" } (options(pairs(&statuses), chosen("status_id"))) } }
            label { "Priority " select name="priority_id" { option value="" { "Any" } (options(pairs(&priorities), chosen("priority_id"))) } }
            label { "Search " input type="search" name="search" value=(chosen("search")); }
            button { "Filter" }
        }
        div data-live=(link(number)) data-seen=(seen) {
            p.hint { (total) @if total == 1 { " ticket" } @else { " tickets" } }
            @if page.is_empty() { p.empty { "No tickets match these filters." } } @else {
                table {
                    thead { tr { th { "ID" } th { "Summary" } th { "Client" } th { "User" } th { "Status" } th { "Priority" } th { "Agent" } th { "Last update" } } }
                    tbody {
                        @for ticket in &page { (row(ticket, &agent_names)) }
                    }
                }
            }
            nav.pages aria-label="Pages" {
                @if number > 1 { a href=(link(number - 1)) rel="prev" { "Previous" } }
                span { "Page " (number) " of " (total.div_ceil(PAGE_SIZE).max(1)) }
                @if number * PAGE_SIZE < total { a href=(link(number + 1)) rel="next" { "Next" } }
            }
        }
    })
}

fn row(ticket: &Object, agents: &[(String, String)]) -> Markup {
    let id = number(ticket, "id").unwrap_or_default();
    let agent = number(ticket, "agent_id").unwrap_or_default().to_string();
    let agent = agents
        .iter()
        .find(|(value, _)| *value == agent)
        .map(|(_, name)| name.as_str())
        .unwrap_or_default();
    html! {
        tr {
            td.id { a href={ "/tickets/" (id) } { (format!("{id:07}")) } }
            td.summary { a href={ "/tickets/" (id) } { (text(ticket, "summary")) } }
            td { (text(ticket, "client_name")) }
            td { (text(ticket, "user_name")) }
            td { (status(ticket)) }
            td { (text(ticket, "priority_name")) }
            td { (agent) }
            td { (time(text(ticket, "last_update"))) }
        }
    }
}

pub fn status(ticket: &Object) -> Markup {
    html! { span.status data-status=(number(ticket, "status_id").unwrap_or_default()) { (text(ticket, "status_name")) } }
}

pub async fn new(State(shared): State<Arc<Shared>>, person: Person) -> Response {
    new_page(&shared, person, None, None)
}

fn new_page(
    shared: &Shared,
    person: Person,
    form: Option<&Form>,
    message: Option<&str>,
) -> Response {
    let (types, priorities, clients) = {
        let store = shared.store();
        (
            names(&store, "tickettype"),
            priorities(&store),
            client_list(&store),
        )
    };
    let given = |name: &str| form.map(|f| f.get(name)).unwrap_or_default();
    let page = Page {
        shared,
        who: Some(person.0),
        title: "New Ticket",
        at: "/tickets/new",
    };
    let content = html! {
        h1 { "New Ticket" }
        (alert(message))
        form.stacked method="post" action="/tickets" {
            @if matches!(person.0, Who::Agent(_)) {
                label { "Client" input name="client" list="clients" value=(given("client")); } (clients)
                label { "User, by name or e-mail" input name="user" value=(given("user")); }
                label { "Type" select name="tickettype_id" { (options(pairs(&types), given("tickettype_id"))) } }
                label { "Priority" select name="priority_id" {
                    (options(pairs(&priorities), if given("priority_id").is_empty() { "3" } else { given("priority_id") }))
                } }
            }
            label { "Summary" input name="summary" maxlength="255" required value=(given("summary")); }
            label { "Details" textarea name="details" rows="8" { (given("details")) } }
            button.primary { "Create ticket" }
        }
    };
    page.show_with(message, &content)
}

pub async fn create(State(shared): State<Arc<Shared>>, person: Person, form: Form) -> Response {
    let mut input = object(json!({"summary": form.get("summary"), "details": form.get("details")}));
    match person.0 {
        Who::User(id) => {
            input.insert("user_id".into(), id.into());
        }
        Who::Agent(_) => {
            for name in ["tickettype_id", "priority_id"] {
                if let Some(value) = form.number(name) {
                    input.insert(name.into(), value.into());
                }
            }
            if !form.get("client").is_empty() {
                let client = shared.store().named("client", form.get("client"));
                let Some(client) = client else {
                    return new_page(
                        &shared,
                        person,
                        Some(&form),
                        Some("There is no client with this name."),
                    );
                };
                input.insert("client_id".into(), client.into());
            }
            if !form.get("user").is_empty() {
                let name = form.get("user").to_string();
                let client = number(&input, "client_id");
                let found = {
                    let store = shared.store();
                    let at_client = |u: &crate::store::rows::Row| {
                        client.is_none() || u.number("client_id") == client
                    };
                    let named = |u: &crate::store::rows::Row| {
                        u.text("name").eq_ignore_ascii_case(&name)
                            || u.text("emailaddress").eq_ignore_ascii_case(&name)
                    };
                    store
                        .rows("users")
                        .find(|u| at_client(u) && named(u))
                        .map(|u| u.id())
                };
                let Some(found) = found else {
                    return new_page(
                        &shared,
                        person,
                        Some(&form),
                        Some("There is no such user at this client."),
                    );
                };
                input.insert("user_id".into(), found.into());
            }
        }
    }
    let outcome = shared.store().write_ticket(&input, &person.author());
    match outcome {
        Ok((ticket, changes)) => {
            shared.publish(changes);
            to(&format!(
                "/tickets/{}",
                number(&ticket, "id").unwrap_or_default()
            ))
        }
        Err(No::BadRequest(message)) => new_page(&shared, person, Some(&form), Some(message)),
        Err(No::NotFound) => new_page(&shared, person, Some(&form), Some("Record not found")),
    }
}
