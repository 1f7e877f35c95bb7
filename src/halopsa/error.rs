//! One typed error for whatever HaloPSA answered, or did not.

use serde_json::Value;
use std::time::Duration;

/// Why a call to HaloPSA failed. The text is for people; it holds no secret and
/// no ticket text.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot reach HaloPSA at {host}: {detail}; check spec.instanceURL, DNS, and that the cluster may connect there"
    )]
    Unreachable { host: String, detail: String },
    #[error(
        "HaloPSA at {host} did not answer {call} within {seconds} s; it may be overloaded, the call is tried again later"
    )]
    Timeout {
        host: String,
        call: String,
        seconds: u64,
    },
    #[error(
        "the connection to HaloPSA at {host} broke during {call}: {detail}; the call is tried again later"
    )]
    Broken {
        host: String,
        call: String,
        detail: String,
    },
    #[error(
        "HaloPSA refused to sign in: {detail}; check the Client ID and Client Secret under Configuration > Integrations > HaloPSA API, and whether the secret was regenerated"
    )]
    InvalidClient { detail: String },
    #[error(
        "HaloPSA took this Client Secret before and refuses it now: {detail}; it was regenerated or the application disabled, put the new secret into the Secret of spec.credentialsSecretRef"
    )]
    Revoked { detail: String },
    #[error(
        "HaloPSA refused the scopes: {detail}; tick all:standard, all:teams and admin:webhooks in the application's permissions"
    )]
    InvalidScope { detail: String },
    #[error(
        "HaloPSA cannot sign anyone in at the moment (HTTP {status}): {detail}; this is tried again"
    )]
    SignIn { status: u16, detail: String },
    #[error(
        "HaloPSA does not allow {call} (HTTP {status}): {detail}; check the application's permissions and the API agent's role"
    )]
    Forbidden {
        call: String,
        status: u16,
        detail: String,
    },
    #[error("HaloPSA does not know {call} (HTTP 404)")]
    NotFound { call: String },
    #[error("HaloPSA's request limit is reached; requests wait until its window has room ({} s)", wait.as_secs())]
    RateLimited { wait: Duration },
    #[error("HaloPSA did not accept {call} (HTTP {status}): {detail}")]
    Rejected {
        call: String,
        status: u16,
        detail: String,
    },
    #[error("HaloPSA failed at {call} (HTTP {status}): {detail}; the call is tried again later")]
    Server {
        call: String,
        status: u16,
        detail: String,
    },
    #[error(
        "HaloPSA's answer to {call} is not understood: {detail}; is spec.instanceURL really a HaloPSA?"
    )]
    Answer { call: String, detail: String },
    #[error("{0}")]
    Setup(String),
}

impl Error {
    /// HaloPSA certainly did not carry the call out: it said no, or was never reached.
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

    /// Asking again may help, with nothing mended.
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

/// The one line in an error body that a person can use. HaloPSA sends JSON of
/// several shapes, .NET exceptions, plain text, HTML pages and nothing.
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

/// Whether an answer says in words what went wrong.
pub fn explains(value: &Value) -> bool {
    from_json(value).is_some()
}

/// What an answer that is not the wanted one says for itself.
pub fn explained(value: &Value) -> String {
    match value {
        Value::Null => "it is empty".into(),
        value => in_words(value),
    }
}

fn in_words(value: &Value) -> String {
    from_json(value).map_or_else(|| "an answer without an explanation".into(), |s| line(&s))
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
            (r#"{"a":1}"#, "an answer without an explanation"),
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
