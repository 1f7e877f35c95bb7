//! What a handler gets: who asks, and the form they sent.

use super::page::{self, Page};
use super::session::{self, Who};
use crate::Shared;
use crate::admin::WEB_APPLICATION;
use crate::query;
use crate::store::Author;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use maud::html;
use std::sync::Arc;

/// Whoever is signed in; others are sent to sign in.
#[derive(Clone, Copy)]
pub struct Person(pub Who);

impl Person {
    pub fn author(self) -> Author {
        match self.0 {
            Who::Agent(id) => Author::Agent {
                id,
                application: WEB_APPLICATION.into(),
            },
            Who::User(id) => Author::User { id },
        }
    }
}

impl FromRequestParts<Arc<Shared>> for Person {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Response> {
        shared
            .sessions
            .who(&parts.headers)
            .map(Person)
            .ok_or_else(|| page::to("/signin"))
    }
}

/// An agent; users are told that the page is not for them.
#[derive(Clone, Copy)]
pub struct Agent(pub i64);

impl FromRequestParts<Arc<Shared>> for Agent {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Response> {
        match Person::from_request_parts(parts, shared).await?.0 {
            Who::Agent(id) => Ok(Agent(id)),
            who @ Who::User(_) => {
                let page = Page {
                    shared,
                    who: Some(who),
                    title: "Not allowed",
                    at: "",
                };
                Err(page.show_as(
                    StatusCode::FORBIDDEN,
                    &html! { h1 { "Not allowed" } p { "Only agents see this page." } },
                ))
            }
        }
    }
}

/// The fields of a form.
pub struct Form(Vec<(String, String)>);

impl Form {
    pub fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.trim())
            .unwrap_or_default()
    }

    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(name).parse().ok()
    }

    /// Ticked boxes with this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

impl FromRequest<Arc<Shared>> for Form {
    type Rejection = Response;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Response> {
        // Over HTTP/2 the host is in the URI.
        let host = request.uri().authority().map(|a| a.to_string());
        if !session::same_origin(request.headers(), host.as_deref()) {
            return Err((
                StatusCode::FORBIDDEN,
                "This form was sent by another site; open the page here and send it again.\n",
            )
                .into_response());
        }
        let body = Bytes::from_request(request, shared)
            .await
            .map_err(IntoResponse::into_response)?;
        Ok(Self(query::pairs(&String::from_utf8_lossy(&body))))
    }
}
