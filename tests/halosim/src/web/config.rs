//! Configuration: Applications (HaloPSA API) and Agents.

use super::page::{Page, alert, missing, options, to};
use super::request::{Agent, Form};
use super::session::Who;
use super::tickets::pairs;
use crate::Shared;
use crate::auth::{Application, KNOWN_SCOPES};
use crate::store::{flag, number, object, text};
use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};
use serde_json::json;
use std::sync::Arc;

/// Most applications allowed.
const MAX_APPLICATIONS: usize = 100;

fn frame<'a>(shared: &'a Shared, agent: Agent, title: &'a str, at: &'a str) -> Page<'a> {
    Page {
        shared,
        who: Some(Who::Agent(agent.0)),
        title,
        at,
    }
}

/// Agents an application may act as.
fn login_as(shared: &Shared) -> Vec<(String, String)> {
    let store = shared.store();
    let rows = store
        .rows("agent")
        .filter(|a| a.id() != crate::store::UNASSIGNED);
    rows.map(|a| (a.id().to_string(), a.text("name").into_owned()))
        .collect()
}

fn permissions(ticked: &[String]) -> Markup {
    html! {
        fieldset.permissions { legend { "Permissions" }
            @for scope in KNOWN_SCOPES.iter().filter(|s| **s != "offline_access") {
                label { input type="checkbox" name="scope" value=(scope) checked[ticked.iter().any(|t| t == scope)]; " " code { (scope) } }
            }
        }
    }
}

fn new_secret() -> String {
    format!("{}-{}", uuid::Uuid::new_v4(), uuid::Uuid::new_v4())
}

pub async fn applications(State(shared): State<Arc<Shared>>, agent: Agent) -> Response {
    applications_page(&shared, agent, None)
}

fn applications_page(shared: &Shared, agent: Agent, message: Option<&str>) -> Response {
    let all = shared.auth.applications();
    let agents = login_as(shared);
    let name = |id: i64| {
        agents
            .iter()
            .find(|(value, _)| *value == id.to_string())
            .map(|(_, name)| name.as_str())
            .unwrap_or_default()
    };
    frame(shared, agent, "Applications", "/config/applications").show_with(message,
        &html! {
            h1 { "Applications" }
            p.hint { "Configuration > Integrations > HaloPSA API. The resource server is " code { "/api" } ", the authorisation server " code { "/auth" } "." }
            (alert(message))
            table {
                thead { tr { th { "Name" } th { "Client ID" } th { "Login as" } th { "Permissions" } th { "State" } } }
                tbody { @for a in &all { tr {
                    td { a href={ "/config/applications/" (a.client_id) } { (a.name) } }
                    td { code { (a.client_id) } }
                    td { (name(a.agent_id)) }
                    td { (a.scopes.join(", ")) }
                    td { @if a.enabled { "Enabled" } @else { "Disabled" } }
                } } }
            }
            details.act { summary { "New application" }
                form.stacked method="post" action="/config/applications" {
                    label { "Name" input name="name" required maxlength="100"; }
                    label { "Login as" select name="agent_id" { (options(pairs(&agents), "")) } }
                    (permissions(&[]))
                    button.primary { "Create" }
                }
            }
        },
    )
}

pub async fn new_application(
    State(shared): State<Arc<Shared>>,
    agent: Agent,
    form: Form,
) -> Response {
    let login = form
        .number("agent_id")
        .filter(|id| shared.store().get("agent", *id).is_some());
    let Some(agent_id) = login else {
        return applications_page(&shared, agent, Some("Choose the agent it logs in as."));
    };
    if form.get("name").is_empty() || form.get("name").len() > 100 {
        return applications_page(
            &shared,
            agent,
            Some("Give the application a name of up to 100 characters."),
        );
    }
    if shared.auth.applications().len() >= MAX_APPLICATIONS {
        return applications_page(
            &shared,
            agent,
            Some("There are too many applications; the simulator cannot delete any."),
        );
    }
    let secret = new_secret();
    let application = Application {
        name: form.get("name").into(),
        client_id: uuid::Uuid::new_v4().to_string(),
        client_secret: secret.clone(),
        scopes: scopes(&form),
        agent_id,
        enabled: true,
    };
    let client_id = application.client_id.clone();
    shared.add_application(application);
    application_page(&shared, agent, &client_id, Some(&secret), None)
}

fn scopes(form: &Form) -> Vec<String> {
    form.all("scope")
        .into_iter()
        .filter(|s| KNOWN_SCOPES.contains(s))
        .map(str::to_string)
        .collect()
}

pub async fn application(
    State(shared): State<Arc<Shared>>,
    agent: Agent,
    Path(client_id): Path<String>,
) -> Response {
    application_page(&shared, agent, &client_id, None, None)
}

/// `secret` is shown once, when it is new.
fn application_page(
    shared: &Shared,
    agent: Agent,
    client_id: &str,
    secret: Option<&str>,
    done: Option<&str>,
) -> Response {
    let Some(a) = shared
        .auth
        .applications()
        .into_iter()
        .find(|a| a.client_id == client_id)
    else {
        return missing(
            shared,
            Who::Agent(agent.0),
            "There is no application with this Client ID.",
        );
    };
    let agents = login_as(shared);
    frame(shared, agent, &a.name, "/config/applications").show(&html! {
        h1 { (a.name) }
        @if let Some(done) = done { p.done role="status" { (done) } }
        @if let Some(secret) = secret {
            div.done role="status" { p { "The Client Secret. It is shown this once:" } p { code #secret { (secret) } } }
        }
        dl { dt { "Client ID" } dd { code { (a.client_id) } } dt { "Authentication" } dd { "Client ID and Secret (Services)" } }
        form.stacked method="post" action={ "/config/applications/" (a.client_id) } {
            label { input type="checkbox" name="enabled" value="true" checked[a.enabled]; " Enabled" }
            label { "Login as" select name="agent_id" { (options(pairs(&agents), &a.agent_id.to_string())) } }
            (permissions(&a.scopes))
            button.primary { "Save" }
        }
        form.stacked method="post" action={ "/config/applications/" (a.client_id) "/secret" } {
            p { "A new secret ends the old one, and every token given for it." }
            button.danger { "Regenerate secret" }
        }
    })
}

pub async fn change_application(
    State(shared): State<Arc<Shared>>,
    agent: Agent,
    Path(client_id): Path<String>,
    form: Form,
) -> Response {
    let login = form
        .number("agent_id")
        .filter(|id| shared.store().get("agent", *id).is_some());
    shared.change_application(&client_id, |a| {
        a.enabled = form.get("enabled") == "true";
        a.scopes = scopes(&form);
        a.agent_id = login.unwrap_or(a.agent_id);
    });
    // Permissions are baked into tokens.
    shared.auth.forget_tokens();
    application_page(&shared, agent, &client_id, None, Some("Saved."))
}

pub async fn regenerate(
    State(shared): State<Arc<Shared>>,
    agent: Agent,
    Path(client_id): Path<String>,
    _form: Form,
) -> Response {
    let secret = new_secret();
    let changed = shared.change_application(&client_id, |a| a.client_secret = secret.clone());
    shared.auth.forget_tokens();
    application_page(&shared, agent, &client_id, changed.then_some(&secret), None)
}

pub async fn agents(State(shared): State<Arc<Shared>>, agent: Agent) -> Response {
    agents_page(&shared, agent, None)
}

fn agents_page(shared: &Shared, agent: Agent, message: Option<&str>) -> Response {
    let (all, teams) = {
        let store = shared.store();
        let all: Vec<_> = store
            .rows("agent")
            .filter(|a| a.id() != crate::store::UNASSIGNED)
            .map(|a| a.whole())
            .collect();
        let teams: Vec<String> = store
            .rows("team")
            .map(|t| t.text("name").into_owned())
            .collect();
        (all, teams)
    };
    frame(shared, agent, "Agents", "/config/agents").show_with(
        message,
        &html! {
            h1 { "Agents" }
            (alert(message))
            table {
                thead { tr { th { "ID" } th { "Name" } th { "E-mail" } th { "Team" } th { "Kind" } th { "State" } } }
                tbody { @for a in &all { tr {
                    td { (number(a, "id").unwrap_or_default()) }
                    td { (text(a, "name")) }
                    td { (text(a, "email")) }
                    td { (text(a, "team")) }
                    td { @if flag(a, "isapiagent") { "API only" } @else { "Technician" } }
                    td {
                        form.inline method="post" action="/config/agents" {
                            input type="hidden" name="id" value=(number(a, "id").unwrap_or_default());
                            @if flag(a, "isdisabled") { "Disabled " button name="disable" value="false" { "Enable" } }
                            @else { "Active " button name="disable" value="true" { "Disable" } }
                        }
                    }
                } } }
            }
            details.act { summary { "New agent" }
                form.stacked method="post" action="/config/agents" {
                    label { "Name" input name="name" required maxlength="100"; }
                    label { "E-mail" input type="email" name="email"; }
                    label { "Team" select name="team" { (options(teams.iter().map(|t| (t.clone(), t.as_str())), "")) } }
                    label { input type="checkbox" name="api" value="true"; " API only" }
                    button.primary { "Create" }
                }
            }
        },
    )
}

/// Adds, disables or enables an agent.
pub async fn change_agent(State(shared): State<Arc<Shared>>, agent: Agent, form: Form) -> Response {
    if let Some(id) = form.number("id") {
        if let Some(row) = shared.store().get_mut("agent", id) {
            row.insert("isdisabled".into(), (form.get("disable") == "true").into());
        }
        shared.commit();
        return to("/config/agents");
    }
    let name = form.get("name");
    if name.is_empty() || name.len() > 100 {
        return agents_page(
            &shared,
            agent,
            Some("Give the agent a name of up to 100 characters."),
        );
    }
    let (first, last) = name.split_once(' ').unwrap_or((name, ""));
    let initials: String = name
        .split_whitespace()
        .filter_map(|part| part.chars().next())
        .collect();
    let input = json!({"name": name, "firstname": first, "surname": last, "initials": initials, "email": form.get("email"), "team": form.get("team"),
        "isdisabled": false, "isapiagent": form.get("api") == "true"});
    shared.store().put("agent", object(input));
    shared.commit();
    to("/config/agents")
}
