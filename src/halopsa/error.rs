//! One typed error for every way a call to HaloPSA can fail.

use serde_json::Value;
use std::time::Duration;

/// Why a call to HaloPSA failed. The text is human-readable and contains no secret and
/// no ticket text.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot reach HaloPSA at {host}: {detail}; check the instance URL, DNS, and that outgoing \
         connections to it are allowed"
    )]
    Unreachable { host: String, detail: String },
    #[error(
        "HaloPSA at {host} did not respond to {call} within {seconds} s; it may be overloaded; \
         will retry"
    )]
    Timeout {
        host: String,
        call: String,
        seconds: u64,
    },
    #[error("the connection to HaloPSA at {host} broke during {call}: {detail}; will retry")]
    Broken {
        host: String,
        call: String,
        detail: String,
    },
    #[error(
        "HaloPSA rejected the sign-in: {detail}; check the Client ID and Client Secret under \
         Configuration > Integrations > HaloPSA API, and whether the secret was regenerated"
    )]
    InvalidClient { detail: String },
    #[error(
        "HaloPSA accepted this Client Secret before and rejects it now: {detail}; it was \
         regenerated or the application was disabled: store the new secret or enable the \
         application"
    )]
    Revoked { detail: String },
    #[error(
        "HaloPSA rejected the scopes: {detail}; tick all:standard, all:teams and admin:webhooks in \
         the application's permissions"
    )]
    InvalidScope { detail: String },
    #[error("HaloPSA's sign-in is unavailable (HTTP {status}): {detail}; will retry")]
    SignIn { status: u16, detail: String },
    #[error(
        "HaloPSA does not allow {call} (HTTP {status}): {detail}; check the application's \
         permissions and the API agent's role"
    )]
    Forbidden {
        call: String,
        status: u16,
        detail: String,
    },
    #[error("HaloPSA found nothing for {call} (HTTP 404)")]
    NotFound { call: String },
    #[error(
        "HaloPSA's request limit is reached; requests wait until its window has room ({} s)",
        wait.as_secs()
    )]
    RateLimited { wait: Duration },
    #[error("HaloPSA rejected {call} (HTTP {status}): {detail}")]
    Rejected {
        call: String,
        status: u16,
        detail: String,
    },
    #[error("HaloPSA failed on {call} (HTTP {status}): {detail}; will retry")]
    Server {
        call: String,
        status: u16,
        detail: String,
    },
    #[error(
        "unexpected response from HaloPSA to {call}: {detail}; check that the instance URL points \
         to a HaloPSA instance"
    )]
    Answer { call: String, detail: String },
    #[error("{0}")]
    Setup(String),
}

impl Error {
    /// HaloPSA definitely did not apply the call: it rejected it, or was never reached.
    pub fn definitely_not_applied(&self) -> bool {
        matches!(
            self,
            Error::Unreachable { .. }
                | Error::InvalidClient { .. }
                | Error::Revoked { .. }
                | Error::InvalidScope { .. }
                | Error::SignIn { .. }
                | Error::Forbidden { .. }
                | Error::NotFound { .. }
                | Error::RateLimited { .. }
                | Error::Rejected { .. }
                | Error::Setup(_)
        )
    }

    /// A retry may succeed with nothing changed.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Error::Unreachable { .. }
                | Error::Timeout { .. }
                | Error::Broken { .. }
                | Error::SignIn { .. }
                | Error::RateLimited { .. }
                | Error::Server { .. }
        )
    }

    /// A bounded label for spans and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Unreachable { .. } | Error::Broken { .. } => "unreachable",
            Error::Timeout { .. } => "timeout",
            Error::InvalidClient { .. } | Error::Revoked { .. } => "invalid_client",
            Error::InvalidScope { .. } => "invalid_scope",
            Error::SignIn { .. } | Error::Server { .. } => "unavailable",
            Error::Forbidden { .. } => "forbidden",
            Error::NotFound { .. } => "not_found",
            Error::RateLimited { .. } => "rate_limited",
            Error::Rejected { .. } => "rejected",
            Error::Answer { .. } => "unexpected_response",
            Error::Setup(_) => "invalid_configuration",
        }
    }
}

/// The one line of an error body that helps a human. HaloPSA sends JSON in
/// several shapes, .NET exceptions, plain text, HTML pages, and nothing.
pub fn detail(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(8192)]).into_owned();
    let text = text.trim();
    if text.is_empty() {
        return "no explanation given".into();
    }
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        return in_words(&value);
    }
    if text.starts_with('<') {
        let title = text
            .split_once("<title>")
            .and_then(|(_, rest)| rest.split_once("</title>"))
            .map(|(title, _)| title.trim());
        return match title {
            Some(title) if !title.is_empty() => format!("an HTML page \"{}\"", line(title)),
            _ => "an HTML page".into(),
        };
    }
    line(text)
}

/// Whether a response says in words what went wrong.
pub fn explains(value: &Value) -> bool {
    from_json(value).is_some()
}

/// The explanation in a response other than the expected one.
pub fn explained(value: &Value) -> String {
    match value {
        Value::Null => "it is empty".into(),
        value => in_words(value),
    }
}

fn in_words(value: &Value) -> String {
    from_json(value).map_or_else(|| "a response without an explanation".into(), |s| line(&s))
}

fn from_json(value: &Value) -> Option<String> {
    let text = |key: &str| {
        value
            .get(key)
            .and_then(Value::as_str)
            .map(str::trim)
            .filter(|s| !s.is_empty())
    };
    if let Some(error) = text("error") {
        return Some(match text("error_description") {
            Some(description) => format!("{error}: {description}"),
            None => error.to_string(),
        });
    }
    [
        "errorMessage",
        "Message",
        "message",
        "error_description",
        "title",
        "detail",
    ]
    .into_iter()
    .find_map(text)
    .map(str::to_string)
    .or_else(|| value.as_str().map(str::to_string))
    .or_else(|| value.get(0).and_then(from_json))
}

fn line(text: &str) -> String {
    let one: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = one.chars().filter(|c| !c.is_control()).take(200).collect();
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_gives_one_line() {
        for (body, line) in [
            (r#"{"error":"invalid_client"}"#, "invalid_client"),
            (
                r#"{"error":"invalid_scope","error_description":"no such scope"}"#,
                "invalid_scope: no such scope",
            ),
            (
                r#"{"ClassName":"System.Exception","Message":"An Outcome must be entered for this Action"}"#,
                "An Outcome must be entered for this Action",
            ),
            (r#"{"resultCode":4,"errorMessage":"nope"}"#, "nope"),
            (
                r#"{"Message":"Authorization has been denied"}"#,
                "Authorization has been denied",
            ),
            (r#"[{"Message":"in a list"}]"#, "in a list"),
            (r#"{"a":1}"#, "a response without an explanation"),
            (
                "<html><head><title>502 Bad\nGateway</title></head></html>",
                "an HTML page \"502 Bad Gateway\"",
            ),
            ("<html>", "an HTML page"),
            ("Rate Limit Reached", "Rate Limit Reached"),
            ("", "no explanation given"),
        ] {
            assert_eq!(detail(body.as_bytes()), line);
        }
        assert!(detail(&vec![b'x'; 100_000]).len() <= 200);
        detail(&[0xff, 0xfe, b'{']);
    }
}
