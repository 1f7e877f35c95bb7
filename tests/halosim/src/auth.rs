//! Applications, tokens, scopes, and the request limit.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Scopes HaloPSA knows; any other fails the whole request.
pub const KNOWN_SCOPES: [&str; 24] = [
    "all",
    "all:standard",
    "all:teams",
    "admin",
    "admin:webhooks",
    "read:tickets",
    "edit:tickets",
    "read:customers",
    "edit:customers",
    "read:teams",
    "edit:teams",
    "read:assets",
    "edit:assets",
    "read:kb",
    "edit:kb",
    "read:reporting",
    "edit:reporting",
    "read:calendar",
    "edit:calendar",
    "read:items",
    "edit:items",
    "read:projects",
    "edit:projects",
    "offline_access",
];

/// An API application under Configuration > Integrations > HaloPSA API.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Application {
    pub name: String,
    pub client_id: String,
    pub client_secret: String,
    pub scopes: Vec<String>,
    pub agent_id: i64,
    pub enabled: bool,
}

/// Who makes a request.
#[derive(Clone, Debug)]
pub struct Caller {
    pub application: String,
    pub agent_id: i64,
    pub scopes: Vec<String>,
}

impl Caller {
    pub fn has(&self, any_of: &[&str]) -> bool {
        self.scopes
            .iter()
            .any(|s| any_of.iter().any(|a| a.eq_ignore_ascii_case(s)))
    }
}

#[derive(Debug)]
struct Token {
    caller: Caller,
    ends: Instant,
}

#[derive(Debug)]
pub struct Auth {
    applications: Mutex<Vec<Application>>,
    tokens: Mutex<HashMap<String, Token>>,
    requests: Mutex<VecDeque<Instant>>,
    life: Mutex<Duration>,
    limit: Mutex<Limit>,
    counts: Counted,
}

#[derive(Debug, Default)]
struct Counted {
    tokens: AtomicU64,
    received: AtomicU64,
    refused: AtomicU64,
    peak: AtomicU64,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Tokens issued.
    pub tokens: u64,
    /// Requests to the API.
    pub requests: u64,
    /// Requests over the limit.
    pub refused: u64,
    /// The most requests in any window, not counting refused ones.
    pub peak: u64,
}

/// The tenant's request limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limit {
    pub requests: usize,
    pub window_seconds: u64,
    /// A 429 carries `Retry-After`.
    pub retry_after: bool,
    /// A 429 names the limit in its text.
    pub named: bool,
}

impl Default for Limit {
    fn default() -> Self {
        Self {
            requests: 300,
            window_seconds: 300,
            retry_after: false,
            named: true,
        }
    }
}

/// A token and what is returned with it.
pub struct Issued {
    pub token: String,
    pub scope: Option<String>,
    pub seconds: u64,
    pub agent_id: i64,
}

pub enum Refusal {
    InvalidClient,
    InvalidScope,
    UnsupportedGrant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Auth {
    pub fn new(life: Duration, limit: usize) -> Self {
        Self {
            applications: Mutex::new(crate::seed::applications()),
            tokens: Mutex::default(),
            requests: Mutex::default(),
            life: Mutex::new(life),
            limit: Mutex::new(Limit {
                requests: limit,
                ..Limit::default()
            }),
            counts: Counted::default(),
        }
    }

    /// A token and the granted scopes. Permissions are read now and baked in.
    pub fn issue(
        &self,
        grant: &str,
        client_id: &str,
        secret: &str,
        scope: Option<&str>,
    ) -> Result<Issued, Refusal> {
        if grant != "client_credentials" {
            return Err(Refusal::UnsupportedGrant);
        }
        let application = lock(&self.applications)
            .iter()
            .find(|a| a.client_id == client_id && a.client_secret == secret && a.enabled)
            .cloned()
            .ok_or(Refusal::InvalidClient)?;
        let asked: Vec<&str> = scope.unwrap_or_default().split_whitespace().collect();
        if asked
            .iter()
            .any(|s| !KNOWN_SCOPES.iter().any(|k| k.eq_ignore_ascii_case(s)))
        {
            return Err(Refusal::InvalidScope);
        }
        // `all` and `admin` include the scopes below them.
        let allowed = |s: &str| {
            application.scopes.iter().any(|a| {
                a.eq_ignore_ascii_case(s)
                    || (a == "all" && !s.starts_with("admin"))
                    || (a == "admin" && s.starts_with("admin"))
            })
        };
        let granted: Vec<String> = asked
            .iter()
            .filter(|s| allowed(s))
            .map(|s| (*s).to_string())
            .collect();
        let token = format!(
            "{}{}",
            uuid::Uuid::new_v4().simple(),
            uuid::Uuid::new_v4().simple()
        );
        let life = *lock(&self.life);
        let caller = Caller {
            application: application.name.clone(),
            agent_id: application.agent_id,
            scopes: granted.clone(),
        };
        let mut tokens = lock(&self.tokens);
        tokens.retain(|_, t| t.ends > Instant::now());
        tokens.insert(
            token.clone(),
            Token {
                caller,
                ends: Instant::now() + life,
            },
        );
        self.counts.tokens.fetch_add(1, Ordering::Relaxed);
        Ok(Issued {
            token,
            scope: scope.map(|_| granted.join(" ")),
            seconds: life.as_secs(),
            agent_id: application.agent_id,
        })
    }

    pub fn caller(&self, authorization: Option<&str>) -> Option<Caller> {
        let token = authorization?.strip_prefix("Bearer ")?;
        lock(&self.tokens)
            .get(token)
            .filter(|t| t.ends > Instant::now())
            .map(|t| t.caller.clone())
    }

    /// Counts a request; if the window is full, returns the time until there is room.
    pub fn admit(&self) -> Result<(), Duration> {
        let (now, limit) = (Instant::now(), self.limit());
        let window = Duration::from_secs(limit.window_seconds);
        let mut requests = lock(&self.requests);
        while requests
            .front()
            .is_some_and(|at| now.duration_since(*at) >= window)
        {
            requests.pop_front();
        }
        if requests.len() >= limit.requests {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            let oldest = requests
                .front()
                .map_or(window, |at| window.saturating_sub(now.duration_since(*at)));
            return Err(oldest);
        }
        requests.push_back(now);
        self.counts
            .peak
            .fetch_max(requests.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    pub fn limit(&self) -> Limit {
        *lock(&self.limit)
    }

    pub fn set_limit(&self, limit: Limit) {
        *lock(&self.limit) = limit;
    }

    /// Counts a request to the API, whatever its outcome.
    pub fn arrived(&self) {
        self.counts.received.fetch_add(1, Ordering::Relaxed);
    }

    pub fn counts(&self) -> Counts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            tokens: get(&self.counts.tokens),
            requests: get(&self.counts.received),
            refused: get(&self.counts.refused),
            peak: get(&self.counts.peak),
        }
    }

    pub fn set_life(&self, life: Duration) {
        *lock(&self.life) = life;
    }

    pub fn set_applications(&self, applications: Vec<Application>) {
        *lock(&self.applications) = applications;
    }

    pub fn applications(&self) -> Vec<Application> {
        lock(&self.applications).clone()
    }

    pub fn add(&self, application: Application) {
        lock(&self.applications).push(application);
    }

    /// Changes the application with this Client ID, as its page under Configuration would.
    pub fn change(&self, client_id: &str, change: impl FnOnce(&mut Application)) -> bool {
        lock(&self.applications)
            .iter_mut()
            .find(|a| a.client_id == client_id)
            .map(change)
            .is_some()
    }

    /// Revokes every token, as a permission change or a restart of HaloPSA does.
    pub fn forget_tokens(&self) {
        lock(&self.tokens).clear();
    }
}
