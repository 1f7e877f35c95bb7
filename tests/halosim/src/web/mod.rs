//! The web pages: agents work tickets and configure, users see their own tickets.
//!
//! Server-rendered, without a build step; a short script only fetches updates.
//! There are no passwords, since there is nothing to protect: sign in as anyone.
//!
//! - [`session`]: who is signed in, and whether a form comes from these pages
//! - [`page`]: the layout, the formatting of text and time
//! - [`request`]: what a handler gets: the person, the form
//! - [`signin`], [`tickets`], [`ticket`], [`config`], [`webhooks`]: the pages

pub mod config;
pub mod page;
pub mod request;
pub mod session;
pub mod signin;
pub mod ticket;
pub mod tickets;
pub mod webhooks;

use crate::Shared;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::sync::Arc;

/// Bytes of a form.
const MAX_FORM: usize = 1 << 20;

pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(signin::home))
        .route("/signin", get(signin::show).post(signin::sign_in))
        .route("/signout", post(signin::sign_out))
        .route("/ticket", get(ticket::by_query))
        .route("/tickets", get(tickets::list).post(tickets::create))
        .route("/tickets/new", get(tickets::new))
        .route("/tickets/{id}", get(ticket::show).post(ticket::change))
        .route("/tickets/{id}/actions", post(ticket::act))
        .route("/attachments/{id}", get(ticket::file))
        .route(
            "/config/applications",
            get(config::applications).post(config::new_application),
        )
        .route(
            "/config/applications/{client_id}",
            get(config::application).post(config::change_application),
        )
        .route(
            "/config/applications/{client_id}/secret",
            post(config::regenerate),
        )
        .route(
            "/config/agents",
            get(config::agents).post(config::change_agent),
        )
        .route(
            "/config/webhooks",
            get(webhooks::list).post(webhooks::create),
        )
        .route(
            "/config/webhooks/{id}",
            get(webhooks::show).post(webhooks::change),
        )
        .route("/config/webhooks/{id}/delete", post(webhooks::delete))
        .route(
            "/config/webhooks/{id}/deliveries",
            get(webhooks::deliveries),
        )
        .route(
            "/config/webhooks/{id}/deliveries/{delivery}",
            post(webhooks::resend),
        )
        .route(
            "/web/style.css",
            get(|| async { asset("text/css", include_str!("style.css")) }),
        )
        .route(
            "/web/live.js",
            get(|| async { asset("text/javascript", include_str!("live.js")) }),
        )
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .with_state(shared)
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    (
        [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "max-age=300"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ],
        text,
    )
        .into_response()
}
