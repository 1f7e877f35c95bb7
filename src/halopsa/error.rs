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

/// Error codes of a sign-in, as OAuth defines them.
const CODES: [&str; 9] = [
    "invalid_client",
    "invalid_scope",
    "invalid_grant",
    "invalid_request",
    "unauthorized_client",
    "unsupported_grant_type",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
];

/// What HaloPSA is known to say, by a part of it in lower case, and how we say it.
const KNOWN: [(&str, &str); 8] = [
    ("outcome", "an outcome must be given for this action"),
    ("rate limit", "its rate limit is reached"),
    ("has been denied", "authorization has been denied"),
    ("licence", "a licence is missing or not valid"),
    ("license", "a licence is missing or not valid"),
    ("maintenance", "it is down for maintenance"),
    ("permission", "a permission is missing"),
    ("timeout", "it timed out"),
];

/// What an error body says, in our words: HaloPSA repeats what it was sent, so its own words may
/// be ticket text. It sends JSON in several shapes, .NET exceptions, plain text, HTML pages, and
/// nothing.
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
        return "an HTML page".into();
    }
    in_our_words(text)
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
    let code = value.get("error").and_then(Value::as_str).map(str::trim);
    if let Some(code) = CODES.iter().find(|known| Some(**known) == code) {
        return (*code).into();
    }
    from_json(value).map_or_else(
        || "a response without an explanation".into(),
        |text| in_our_words(&text),
    )
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

fn in_our_words(text: &str) -> String {
    let lower = text.to_lowercase();
    match KNOWN.iter().find(|(part, _)| lower.contains(part)) {
        Some((_, words)) => (*words).into(),
        None => format!(
            "an explanation of {} characters, which may hold ticket text and is not shown",
            text.chars().count()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HIDDEN: &str = "which may hold ticket text and is not shown";

    #[test]
    fn every_shape_gives_one_line() {
        for (body, line) in [
            (r#"{"error":"invalid_client"}"#, "invalid_client"),
            (
                r#"{"error":"invalid_scope","error_description":"no such scope"}"#,
                "invalid_scope",
            ),
            (
                r#"{"ClassName":"System.Exception","Message":"An Outcome must be entered for this Action"}"#,
                "an outcome must be given for this action",
            ),
            (r#"{"resultCode":4,"errorMessage":"nope"}"#, HIDDEN),
            (
                r#"{"Message":"Authorization has been denied"}"#,
                "authorization has been denied",
            ),
            (r#"[{"Message":"in a list"}]"#, HIDDEN),
            (r#"{"a":1}"#, "a response without an explanation"),
            (
                "<html><head><title>502 Bad\nGateway</title></head></html>",
                "an HTML page",
            ),
            ("<html>", "an HTML page"),
            ("Rate Limit Reached", "its rate limit is reached"),
            ("", "no explanation given"),
        ] {
            assert!(detail(body.as_bytes()).ends_with(line), "{body}");
        }
        assert!(detail(&vec![b'x'; 100_000]).len() <= 200);
        detail(&[0xff, 0xfe, b'{']);
    }

    #[test]
    fn nothing_that_halopsa_repeats_is_shown() {
        let canary = "hunter2";
        for key in [
            "error",
            "error_description",
            "errorMessage",
            "Message",
            "message",
            "title",
            "detail",
            "Kennwort",
            "contraseña",
        ] {
            for body in [
                format!(r#"{{"{key}":"{canary}"}}"#),
                format!(r#"[{{"{key}":"{canary} outcome"}}]"#),
                format!(r#"{{"error":"{canary}","{key}":"{canary}"}}"#),
                format!(r#"{{"error":"invalid_client","{key}x":"{canary}"}}"#),
                format!("<title>{canary}</title>"),
                format!("{key} {canary}"),
                format!(r#""{canary}""#),
            ] {
                let value: Value = serde_json::from_str(&body).unwrap_or_default();
                for said in [detail(body.as_bytes()), explained(&value)] {
                    assert!(!said.contains(canary), "{body}: {said}");
                }
            }
        }
    }
}
