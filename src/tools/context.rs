//! For whom a tool of another server is called: what the agent cannot choose. Pure.
//!
//! `docs/tool-servers.md` says how a server checks it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::Sha256;

/// The key of `_meta`.
pub const META: &str = "rallied.ai/context";
/// The header with the signed context.
pub const HEADER: &str = "x-rallied-context";
/// A shorter key can be guessed.
pub const MIN_KEY: usize = 32;
/// A context is valid for this long, in seconds.
const VALID_FOR: i64 = 300;

/// For whom a call is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallContext {
    pub namespace: String,
    /// The ImportedClient.
    pub client: String,
    pub halo_client_id: i64,
    pub ticket_id: i64,
    /// The ticket's end user; none: it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requester: Option<Requester>,
    /// The requester has proved who they are.
    pub verified: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Requester {
    /// HaloPSA's id of the user.
    pub id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// A context for one call.
pub struct Issued<'a> {
    /// The ToolServer, so that no other server takes it.
    pub server: &'a str,
    pub tool: &'a str,
    /// Seconds since 1970.
    pub now: i64,
    /// Different for each call.
    pub id: String,
}

impl CallContext {
    /// The claims, as in a JSON Web Token.
    pub fn claims(&self, issued: &Issued<'_>) -> Value {
        let mut claims = serde_json::to_value(self).unwrap_or_default();
        if let (Some(claims), Value::Object(more)) = (
            claims.as_object_mut(),
            json!({
                "iss": "halopsa-operator",
                "aud": issued.server,
                "tool": issued.tool,
                "iat": issued.now,
                "exp": issued.now.saturating_add(VALID_FOR),
                "jti": issued.id,
            }),
        ) {
            claims.extend(more);
        }
        claims
    }
}

/// The claims as a compact JWS with HS256 (RFC 7515); none: the key can be guessed.
pub fn signed(claims: &Value, key: &SecretString) -> Option<String> {
    let key = key.expose_secret().as_bytes();
    if key.len() < MIN_KEY {
        return None;
    }
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let text = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(text.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    Some(format!("{text}.{signature}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> CallContext {
        CallContext {
            namespace: "msp".into(),
            client: "acme".into(),
            halo_client_id: 12,
            ticket_id: 4242,
            requester: Some(Requester {
                id: 7,
                email: Some("kim@acme.example".into()),
            }),
            verified: true,
        }
    }

    fn issued() -> Issued<'static> {
        Issued {
            server: "m365",
            tool: "reset_password",
            now: 1000,
            id: "1".into(),
        }
    }

    #[test]
    fn it_says_for_whom_and_until_when() {
        let expected = json!({
            "iss": "halopsa-operator", "aud": "m365", "namespace": "msp", "client": "acme",
            "haloClientId": 12, "ticketId": 4242, "verified": true, "tool": "reset_password",
            "requester": {"id": 7, "email": "kim@acme.example"},
            "iat": 1000, "exp": 1300, "jti": "1",
        });
        assert_eq!(context().claims(&issued()), expected);
    }

    #[test]
    fn the_signature_covers_header_and_claims() {
        let key = SecretString::from("k".repeat(32));
        let claims = context().claims(&issued());
        let token = signed(&claims, &key).unwrap();
        let (text, signature) = token.rsplit_once('.').unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice("k".repeat(32).as_bytes()).unwrap();
        mac.update(text.as_bytes());
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(mac.verify_slice(&signature).is_ok());
        let payload = text.split('.').nth(1).unwrap();
        let payload = URL_SAFE_NO_PAD.decode(payload).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&payload).unwrap(), claims);
        assert_eq!(signed(&claims, &"short".to_string().into()), None);
    }
}
