//! HaloPSA's REST API. Knows nothing about Kubernetes.
//!
//! - [`client`]: requests with sign-in, rate limit, retries and time limits
//! - [`api`]: the calls the operator makes, by name
//! - [`reply`]: an answer's rows and objects, read one by one
//! - [`types`]: what HaloPSA sends, read leniently
//! - [`webhook`]: the body of a webhook, in all the shapes seen
//! - [`registration`]: the webhook in HaloPSA: how it drifts and is repaired
//! - [`technicians`]: technicians and their names
//! - [`limit`]: the rolling request window
//! - [`error`]: one typed error with a human-readable line

pub mod api;
pub mod client;
pub mod error;
pub mod lenient;
pub mod limit;
pub mod registration;
pub mod reply;
pub mod technicians;
pub mod types;
pub mod webhook;

pub use client::{Client, Config, Observer, Priority};
pub use error::Error;

/// The scopes the integration needs, as Rallied's documentation lists them.
pub const REQUIRED_SCOPES: [&str; 3] = ["all:standard", "all:teams", "admin:webhooks"];
/// Scopes that grant more than needed.
pub const EXCESSIVE_SCOPES: [&str; 2] = ["all", "admin"];
/// HaloPSA's catch-all client "Unknown".
pub const UNKNOWN_CLIENT: i64 = 1;

/// Which of the required scopes were not granted. `all` and `admin` include
/// their own.
pub fn missing_scopes(granted: &[String]) -> Vec<&'static str> {
    let has = |scope: &str| granted.iter().any(|g| g.eq_ignore_ascii_case(scope));
    REQUIRED_SCOPES
        .into_iter()
        .filter(|scope| {
            let parent = if scope.starts_with("admin") {
                "admin"
            } else {
                "all"
            };
            !has(scope) && !has(parent)
        })
        .collect()
}
