//! Applications, tokens, scopes, and the request limit.

use std::collections::{HashMap, VecDeque};
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
#[derive(Clone, Debug)]
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
        self.scopes.iter().any(|s| any_of.iter().any(|a| a.eq_ignore_ascii_case(s)))
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
    limit: Mutex<usize>,
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
            limit: Mutex::new(limit),
        }
    }

    /// A token and the granted scopes. Permissions are looked at now and baked in.
    pub fn issue(&self, grant: &str, client_id: &str, secret: &str, scope: Option<&str>) -> Result<(String, Option<String>, u64), Refusal> {
        if grant != "client_credentials" {
            return Err(Refusal::UnsupportedGrant);
        }
        let application = lock(&self.applications)
            .iter()
            .find(|a| a.client_id == client_id && a.client_secret == secret && a.enabled)
            .cloned()
            .ok_or(Refusal::InvalidClient)?;
        let asked: Vec<&str> = scope.unwrap_or_default().split_whitespace().collect();
        if asked.iter().any(|s| !KNOWN_SCOPES.iter().any(|k| k.eq_ignore_ascii_case(s))) {
            return Err(Refusal::InvalidScope);
        }
        // An application that has `all` or `admin` has what is below them too.
        let allowed = |s: &str| {
            application
                .scopes
                .iter()
                .any(|a| a.eq_ignore_ascii_case(s) || (a == "all" && !s.starts_with("admin")) || (a == "admin" && s.starts_with("admin")))
        };
        let granted: Vec<String> = asked.iter().filter(|s| allowed(s)).map(|s| (*s).to_string()).collect();
        let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        let life = *lock(&self.life);
        let caller = Caller { application: application.name, agent_id: application.agent_id, scopes: granted.clone() };
        let mut tokens = lock(&self.tokens);
        tokens.retain(|_, t| t.ends > Instant::now());
        tokens.insert(token.clone(), Token { caller, ends: Instant::now() + life });
        Ok((token, scope.map(|_| granted.join(" ")), life.as_secs()))
    }

    pub fn caller(&self, authorization: Option<&str>) -> Option<Caller> {
        let token = authorization?.strip_prefix("Bearer ")?;
        lock(&self.tokens).get(token).filter(|t| t.ends > Instant::now()).map(|t| t.caller.clone())
    }

    /// Counts a request; false when the window is full.
    pub fn admit(&self) -> bool {
        let now = Instant::now();
        let mut requests = lock(&self.requests);
        while requests.front().is_some_and(|at| now.duration_since(*at) >= Duration::from_secs(300)) {
            requests.pop_front();
        }
        if requests.len() >= *lock(&self.limit) {
            return false;
        }
        requests.push_back(now);
        true
    }

    pub fn limit(&self) -> usize {
        *lock(&self.limit)
    }

    pub fn set_limit(&self, limit: usize) {
        *lock(&self.limit) = limit;
    }

    pub fn applications(&self) -> Vec<Application> {
        lock(&self.applications).clone()
    }

    /// Changes the application with this Client ID, as its page under Configuration would.
    pub fn change(&self, client_id: &str, change: impl FnOnce(&mut Application)) -> bool {
        lock(&self.applications).iter_mut().find(|a| a.client_id == client_id).map(change).is_some()
    }

    /// Ends every token: what a permission change or a restart of HaloPSA does.
    pub fn forget_tokens(&self) {
        lock(&self.tokens).clear();
    }
}
