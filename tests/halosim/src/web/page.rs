//! What every page shares: layout, headers, the formatting of text and time.

use super::session::Who;
use crate::Shared;
use crate::store::text;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::HashSet;
use std::sync::LazyLock;

/// Only the simulator's own scripts and styles are run or loaded.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

/// The page around some content.
pub struct Page<'a> {
    pub shared: &'a Shared,
    pub who: Option<Who>,
    pub title: &'a str,
    /// This page's menu entry.
    pub at: &'a str,
}

impl Page<'_> {
    pub fn show(&self, content: &Markup) -> Response {
        self.show_as(StatusCode::OK, content)
    }

    /// Shows a form's page again, with what was wrong with the form, if anything.
    pub fn show_with(&self, wrong: Option<&str>, content: &Markup) -> Response {
        self.show_as(
            if wrong.is_some() {
                StatusCode::BAD_REQUEST
            } else {
                StatusCode::OK
            },
            content,
        )
    }

    pub fn show_as(&self, status: StatusCode, content: &Markup) -> Response {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (self.title) " · HaloPSA (simulated)" }
                    link rel="stylesheet" href="/web/style.css";
                    script src="/web/live.js" defer {}
                }
                body {
                    a.skip href="#content" { "Skip to content" }
                    header { (self.menu()) }
                    main #content { (content) }
                }
            }
        };
        respond(status, page)
    }

    fn menu(&self) -> Markup {
        let entries: &[(&str, &str)] = match self.who {
            Some(Who::Agent(_)) => &[
                ("/tickets", "Tickets"),
                ("/tickets/new", "New Ticket"),
                ("/config/applications", "Applications"),
                ("/config/agents", "Agents"),
                ("/config/webhooks", "Webhooks"),
            ],
            Some(Who::User(_)) => &[("/tickets", "My Tickets"), ("/tickets/new", "New Ticket")],
            None => &[],
        };
        html! {
            a.brand href="/" { "HaloPSA" small { "simulated" } }
            nav aria-label="Main" {
                @for (path, name) in entries { a href=(path) aria-current=[(self.at == *path).then_some("page")] { (name) } }
            }
            @if let Some(who) = self.who {
                form.who method="post" action="/signout" {
                    span { (name_of(self.shared, who)) " " em { (role(who)) } }
                    button.quiet { "Sign out" }
                }
            }
        }
    }
}

fn role(who: Who) -> &'static str {
    match who {
        Who::Agent(_) => "Agent",
        Who::User(_) => "User",
    }
}

fn name_of(shared: &Shared, who: Who) -> String {
    let (kind, id) = match who {
        Who::Agent(id) => ("agent", id),
        Who::User(id) => ("users", id),
    };
    shared
        .store()
        .get(kind, id)
        .map(|o| text(&o, "name").to_string())
        .unwrap_or_default()
}

/// HTML with its security headers.
pub fn respond(status: StatusCode, page: Markup) -> Response {
    let mut response = (status, page.into_string()).into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// After a form: redirects to the page that shows the result.
pub fn to(path: &str) -> Response {
    Redirect::to(path).into_response()
}

pub fn missing(shared: &Shared, who: Who, what: &str) -> Response {
    let page = Page {
        shared,
        who: Some(who),
        title: "Not found",
        at: "",
    };
    page.show_as(
        StatusCode::NOT_FOUND,
        &html! { h1 { "Not found" } p { (what) } p { a href="/tickets" { "To the tickets" } } },
    )
}

pub fn alert(message: Option<&str>) -> Markup {
    html! { @if let Some(message) = message { p.alert role="alert" { (message) } } }
}

/// Options of a select: value, text, and the chosen one.
pub fn options<'a>(all: impl IntoIterator<Item = (String, &'a str)>, chosen: &str) -> Markup {
    html! { @for (value, name) in all { option value=(value) selected[value == chosen] { (name) } } }
}

/// A note's HTML with only harmless tags. Images are removed, so that opening a
/// ticket cannot be tracked.
pub fn clean(html: &str) -> Markup {
    static CLEANER: LazyLock<ammonia::Builder<'static>> = LazyLock::new(|| {
        let mut cleaner = ammonia::Builder::default();
        cleaner
            .rm_tags(["img", "map", "area"])
            // URLs that a browser might read differently than a person does.
            .url_relative(ammonia::UrlRelative::Deny)
            .url_schemes(HashSet::from(["https", "http", "mailto", "tel"]))
            .link_rel(Some("noopener noreferrer nofollow"));
        cleaner
    });
    PreEscaped(CLEANER.clean(html).to_string())
}

/// HaloPSA's time to the minute; its clock is UTC.
pub fn time(stamp: &str) -> Markup {
    let shown: String = stamp
        .chars()
        .take(16)
        .map(|c| if c == 'T' { ' ' } else { c })
        .collect();
    html! { @if !shown.is_empty() && !shown.starts_with("1900") { time datetime={ (stamp) "Z" } title={ (stamp) " UTC" } { (shown) } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_cleaned() {
        for (dirty, harmless) in [
            ("<p>a <b>b</b></p>", "<p>a <b>b</b></p>"),
            ("<script>alert(1)</script>x", "x"),
            ("<p onclick=\"x()\">x</p>", "<p>x</p>"),
            ("<img src=x onerror=alert(1)>", ""),
            (
                "<a href=\"javascript:alert(1)\">x</a>",
                "<a rel=\"noopener noreferrer nofollow\">x</a>",
            ),
            (
                "<style>*{display:none}</style><form action=/signout><button>x</button></form>",
                "x",
            ),
            ("<svg><script>1</script></svg>", ""),
            ("</main><h1>x", "<h1>x</h1>"),
        ] {
            assert_eq!(clean(dirty).into_string(), harmless, "{dirty}");
        }
    }
}
