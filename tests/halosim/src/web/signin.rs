//! Sign in as any agent or user.

use super::page::{Page, alert, to};
use super::request::Form;
use super::session::Who;
use crate::Shared;
use crate::query::{self, Query};
use crate::store::rows::Row;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use maud::html;
use std::sync::Arc;

/// Users shown at once; a search narrows them.
const SHOWN: usize = 30;

pub async fn home(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    to(if shared.sessions.who(&headers).is_some() {
        "/tickets"
    } else {
        "/signin"
    })
}

pub async fn show(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    page(&shared, query.as_deref(), None)
}

fn page(shared: &Shared, query: Option<&str>, message: Option<&str>) -> Response {
    let query = Query::parse(query);
    let search = query.get("search").unwrap_or_default().to_string();
    let people = |kind: &str| -> Vec<(i64, String, String)> {
        let store = shared.store();
        let rows = query::select(kind, store.rows(kind), &query).unwrap_or_default();
        let about = |row: &Row| match kind {
            "agent" => row.text("team").into_owned(),
            _ => format!("{}, {}", row.text("client_name"), row.text("emailaddress")),
        };
        let rows = rows
            .into_iter()
            .filter(|row| row.id() != crate::store::UNASSIGNED || kind != "agent");
        rows.take(SHOWN)
            .map(|row| (row.id(), row.text("name").into_owned(), about(&row)))
            .collect()
    };
    let (agents, users) = (people("agent"), people("users"));
    let group = |title: &str, role: &str, people: &[(i64, String, String)]| {
        html! {
            section.people {
                h2 { (title) }
                @if people.is_empty() { p { "Nobody." } }
                @for (id, name, about) in people {
                    form method="post" action="/signin" {
                        input type="hidden" name="role" value=(role);
                        button name="id" value=(id) { strong { (name) } span { (about) } }
                    }
                }
                @if people.len() == SHOWN { p.hint { "The first " (SHOWN) ". Search for others." } }
            }
        }
    };
    let page = Page {
        shared,
        who: None,
        title: "Sign in",
        at: "",
    };
    page.show_with(
        message,
        &html! {
            h1 { "Sign in" }
            p { "This is a simulator: be whoever you like, without a password." }
            (alert(message))
            form.filters role="search" method="get" action="/signin" {
                label { "Name or e-mail " input type="search" name="search" value=(search) autofocus; }
                button { "Search" }
            }
            div.columns {
                (group("Agents", "agent", &agents))
                (group("Users (requesters)", "user", &users))
            }
        },
    )
}

pub async fn sign_in(State(shared): State<Arc<Shared>>, form: Form) -> Response {
    let id = form.number("id").unwrap_or_default();
    let who = match form.get("role") {
        "agent" => shared
            .store()
            .get("agent", id)
            .is_some_and(|a| !crate::store::flag(&a, "isdisabled"))
            .then_some(Who::Agent(id)),
        "user" => shared
            .store()
            .get("users", id)
            .is_some_and(|u| !crate::store::flag(&u, "inactive"))
            .then_some(Who::User(id)),
        _ => None,
    };
    let Some(who) = who else {
        return page(&shared, None, Some("Nobody with this id may sign in."));
    };
    with_cookie(to("/tickets"), &shared.sessions.begin(who))
}

pub async fn sign_out(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    _form: Form,
) -> Response {
    with_cookie(to("/signin"), &shared.sessions.end(&headers))
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(cookie) = cookie.parse() {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}
