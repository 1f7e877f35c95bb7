//! Timestamped signatures: `X-Rallied-Timestamp` (seconds) and
//! `X-Rallied-Signature: v1=HEX`, an HMAC-SHA256 over timestamp, method, path and body.

use crate::text::hex;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

pub const TIMESTAMP: &str = "x-rallied-timestamp";
pub const SIGNATURE: &str = "x-rallied-signature";
/// A signature is accepted for this long before and after its time, in seconds.
pub const TOLERANCE: i64 = 300;
/// A shorter key can be guessed.
pub const MIN_KEY: usize = 32;

fn mac(
    key: &SecretString,
    timestamp: i64,
    method: &str,
    path: &str,
    body: &[u8],
) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()).ok()?;
    // No part can run into the next: timestamp, method and path contain no line break.
    mac.update(format!("{timestamp}\n{method}\n{path}\n").as_bytes());
    mac.update(body);
    Some(mac)
}

/// The value of the signature header.
pub fn sign(key: &SecretString, timestamp: i64, method: &str, path: &str, body: &[u8]) -> String {
    let bytes = mac(key, timestamp, method, path, body)
        .map(|m| m.finalize().into_bytes().to_vec())
        .unwrap_or_default();
    format!("v1={}", hex::encode(bytes))
}

/// Whether a signature is valid and recent.
pub fn is_valid(
    key: &SecretString,
    now: i64,
    timestamp: &str,
    signature: &str,
    method: &str,
    path: &str,
    body: &[u8],
) -> bool {
    let Ok(at) = timestamp.trim().parse::<i64>() else {
        return false;
    };
    let Some(hex) = signature.trim().strip_prefix("v1=") else {
        return false;
    };
    let fresh = now
        .checked_sub(at)
        .is_some_and(|age| age.abs() <= TOLERANCE);
    if !fresh || key.expose_secret().len() < MIN_KEY || hex.len() != 64 {
        return false;
    }
    let bytes: Option<Vec<u8>> = (0..64)
        .step_by(2)
        .map(|i| u8::from_str_radix(hex.get(i..i + 2)?, 16).ok())
        .collect();
    // Compared in constant time.
    bytes
        .zip(mac(key, at, method, path, body))
        .is_some_and(|(bytes, mac)| mac.verify_slice(&bytes).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_and_recent_message_is_valid() {
        let key: SecretString = "k".repeat(32).into();
        let signature = sign(&key, 1000, "POST", "/challenges", b"{}");
        let valid =
            |now, timestamp: &str, signature: &str, method: &str, path: &str, body: &[u8]| {
                is_valid(&key, now, timestamp, signature, method, path, body)
            };
        assert!(valid(
            1000,
            "1000",
            &signature,
            "POST",
            "/challenges",
            b"{}"
        ));
        assert!(valid(
            1300,
            "1000",
            &signature,
            "POST",
            "/challenges",
            b"{}"
        ));
        for (now, timestamp, signature, method, path, body) in [
            (
                1301,
                "1000",
                signature.as_str(),
                "POST",
                "/challenges",
                &b"{}"[..],
            ),
            (699, "1000", &signature, "POST", "/challenges", b"{}"),
            (1000, "1001", &signature, "POST", "/challenges", b"{}"),
            (1000, "1000", &signature, "GET", "/challenges", b"{}"),
            (1000, "1000", &signature, "POST", "/challenge", b"{}"),
            (1000, "1000", &signature, "POST", "/challenges", b"{ }"),
            (1000, "1000", "v1=00", "POST", "/challenges", b"{}"),
            (1000, "1000", "", "POST", "/challenges", b"{}"),
            (1000, "x", &signature, "POST", "/challenges", b"{}"),
            (
                i64::MIN,
                "9223372036854775807",
                &signature,
                "POST",
                "/challenges",
                b"{}",
            ),
        ] {
            assert!(
                !valid(now, timestamp, signature, method, path, body),
                "{now} {timestamp} {signature} {method} {path}"
            );
        }
        let short: SecretString = "short".into();
        assert!(
            !is_valid(
                &short,
                1000,
                "1000",
                &sign(&short, 1000, "GET", "/", b""),
                "GET",
                "/",
                b""
            ),
            "a key that can be guessed is never valid"
        );
    }
}
