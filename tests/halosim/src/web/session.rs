//! Who is signed in: a random cookie, kept in memory for a working day.

use axum::http::{HeaderMap, header};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const COOKIE: &str = "__Host-halosim";
const LIFE: Duration = Duration::from_secs(12 * 3600);
/// Sessions kept; the oldest goes first.
const MAX_SESSIONS: usize = 10_000;

/// Who is using the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// An agent, as HaloPSA calls its technicians.
    Agent(i64),
    /// A user, the requester of tickets.
    User(i64),
}

#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<String, (Who, Instant)>>);

impl Sessions {
    fn all(&self) -> MutexGuard<'_, HashMap<String, (Who, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs in; the value of `Set-Cookie`.
    pub fn begin(&self, who: Who) -> String {
        let token = format!(
            "{}{}",
            uuid::Uuid::new_v4().simple(),
            uuid::Uuid::new_v4().simple()
        );
        let mut all = self.all();
        all.retain(|_, (_, since)| since.elapsed() < LIFE);
        if all.len() >= MAX_SESSIONS
            && let Some(oldest) = all
                .iter()
                .min_by_key(|(_, (_, since))| *since)
                .map(|(token, _)| token.clone())
        {
            all.remove(&oldest);
        }
        all.insert(token.clone(), (who, Instant::now()));
        format!(
            "{COOKIE}={token}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={}",
            LIFE.as_secs()
        )
    }

    pub fn who(&self, headers: &HeaderMap) -> Option<Who> {
        let token = token(headers)?;
        self.all()
            .get(token)
            .filter(|(_, since)| since.elapsed() < LIFE)
            .map(|(who, _)| *who)
    }

    /// Signs out; the value of `Set-Cookie`.
    pub fn end(&self, headers: &HeaderMap) -> String {
        if let Some(token) = token(headers) {
            self.all().remove(token);
        }
        format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0")
    }
}

fn token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'));
    cookies
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
}

/// Whether a form comes from these pages. Browsers send `Origin` with every POST;
/// a form without it is rejected.
pub fn same_origin(headers: &HeaderMap, host: Option<&str>) -> bool {
    let origin = headers
        .get(header::ORIGIN)
        .and_then(|v| v.to_str().ok())
        .and_then(|o| o.strip_prefix("https://"));
    let host = headers
        .get(header::HOST)
        .and_then(|v| v.to_str().ok())
        .or(host);
    origin.is_some() && origin == host
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn a_session_lives_until_it_is_ended() {
        let sessions = Sessions::default();
        let cookie = sessions.begin(Who::Agent(3));
        let pair = cookie.split(';').next().unwrap();
        let with = headers(&[(header::COOKIE, &format!("theme=dark; {pair}"))]);
        assert_eq!(sessions.who(&with), Some(Who::Agent(3)));
        assert_eq!(
            sessions.who(&headers(&[(header::COOKIE, "__Host-halosim=guess")])),
            None
        );
        assert!(sessions.end(&with).contains("Max-Age=0"));
        assert_eq!(sessions.who(&with), None);
    }

    #[test]
    fn forms_of_other_sites_are_known_by_their_origin() {
        for (origin, host, ours) in [
            (Some("https://psa.example"), "psa.example", true),
            (Some("https://psa.example:8443"), "psa.example:8443", true),
            (Some("https://evil.example"), "psa.example", false),
            (Some("http://psa.example"), "psa.example", false),
            (Some("null"), "psa.example", false),
            (None, "psa.example", false),
        ] {
            let mut pairs = vec![(header::HOST, host)];
            pairs.extend(origin.map(|o| (header::ORIGIN, o)));
            assert_eq!(same_origin(&headers(&pairs), None), ours, "{origin:?}");
        }
    }
}
