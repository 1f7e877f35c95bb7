//! Names that come in a URL.

use serde::Deserialize;
use std::ops::Deref;

/// A name or namespace of Kubernetes (RFC 1123), checked before it is used: an apiserver's URL is
/// put together from names, and a `/` or `?` in one would ask for something else.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ObjectName(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a name of Kubernetes")]
pub struct Invalid;

impl TryFrom<String> for ObjectName {
    type Error = Invalid;

    fn try_from(name: String) -> Result<Self, Invalid> {
        let alphanumeric = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = name.as_bytes();
        let ends =
            bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
        let inside = bytes
            .iter()
            .all(|c| alphanumeric(c) || matches!(c, b'-' | b'.'));
        if ends && inside && bytes.len() <= 253 {
            Ok(Self(name))
        } else {
            Err(Invalid)
        }
    }
}

impl Deref for ObjectName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, good) in [
            ("acme-4242", true),
            ("unrouted.halo.7", true),
            ("a", true),
            ("", false),
            ("msp/tickets?x=", false),
            ("?x", false),
            ("..", false),
            ("-a", false),
            ("a-", false),
            ("Acme", false),
            ("a b", false),
            ("ä", false),
            ("a%2Fb", false),
        ] {
            assert_eq!(
                ObjectName::try_from(name.to_string()).is_ok(),
                good,
                "{name}"
            );
        }
        assert!(ObjectName::try_from("a".repeat(254)).is_err());
    }
}
