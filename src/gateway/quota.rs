//! How much one agent may ask of the gateway: an agent that runs wild, or was turned by what it
//! read, takes nothing from the others.

use super::identity::Identity;
use super::problem;
use crate::fair::{Fair, Place, Rates};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::time::Duration;

/// Requests in flight, in this process and of one agent.
const IN_FLIGHT: usize = 1024;
const IN_FLIGHT_SHARE: usize = 8;
/// Agents that wait for a ticket, in this process; each waits once.
const CLAIMS: usize = 4096;
/// How often an agent may claim: more than it could work on.
const CLAIMS_PER_SECOND: f64 = 1.0;
const CLAIMS_BURST: u32 = 120;
/// Requests to the tools, which read or write in HaloPSA.
const TOOLS_PER_SECOND: f64 = 4.0;
const TOOLS_BURST: u32 = 240;
/// All other requests: heartbeats, plans, the model.
const OTHERS_PER_SECOND: f64 = 10.0;
const OTHERS_BURST: u32 = 300;

/// An agent: its Pod.
type Agent = (String, String);

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Claim,
    Tools,
    Other,
}

impl Use {
    fn of(path: &str) -> Self {
        match path {
            "/v1/work/claim" => Use::Claim,
            path if path == "/mcp" || path.starts_with("/mcp/") => Use::Tools,
            _ => Use::Other,
        }
    }
}

/// Why a request is not taken, and when it may come again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    #[error(
        "you have {} requests in flight; wait for an answer before the next",
        IN_FLIGHT_SHARE
    )]
    InFlight,
    #[error("you wait for a ticket already; wait for the answer to that claim")]
    Claiming,
    #[error("you ask too often; ask again in {} s", seconds(.0))]
    Rate(Duration),
}

/// A duration in whole seconds, at least one.
fn seconds(wait: &Duration) -> u64 {
    wait.as_secs_f64().ceil().max(1.0) as u64
}

impl IntoResponse for Exceeded {
    fn into_response(self) -> Response {
        let retry_after = match self {
            Exceeded::Rate(wait) => seconds(&wait),
            Exceeded::InFlight | Exceeded::Claiming => 1,
        };
        let mut response = problem(StatusCode::TOO_MANY_REQUESTS, self.to_string());
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, retry_after.into());
        response
    }
}

/// What every agent has used.
pub struct Quotas {
    in_flight: Fair<Agent>,
    claims: Fair<Agent>,
    claim_rates: Rates<Agent>,
    tool_rates: Rates<Agent>,
    other_rates: Rates<Agent>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            in_flight: Fair::new(IN_FLIGHT, IN_FLIGHT_SHARE),
            claims: Fair::new(CLAIMS, 1),
            claim_rates: Rates::new(CLAIMS_PER_SECOND, CLAIMS_BURST),
            tool_rates: Rates::new(TOOLS_PER_SECOND, TOOLS_BURST),
            other_rates: Rates::new(OTHERS_PER_SECOND, OTHERS_BURST),
        }
    }
}

impl Quotas {
    /// A place for a request, until it is answered.
    pub fn enter(&self, identity: &Identity, path: &str) -> Result<Place, Exceeded> {
        let agent = || (identity.namespace.clone(), identity.pod.clone());
        let (places, full, rates) = match Use::of(path) {
            Use::Claim => (&self.claims, Exceeded::Claiming, &self.claim_rates),
            Use::Tools => (&self.in_flight, Exceeded::InFlight, &self.tool_rates),
            Use::Other => (&self.in_flight, Exceeded::InFlight, &self.other_rates),
        };
        let place = places.try_enter(agent()).ok_or(full)?;
        rates.take(agent()).map_err(Exceeded::Rate)?;
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(pod: &str) -> Identity {
        Identity {
            namespace: "msp".into(),
            client: "acme".into(),
            pod: pod.into(),
        }
    }

    #[test]
    fn one_agent_takes_nothing_from_another() {
        let (quotas, wild, calm) = (Quotas::default(), agent("wild"), agent("calm"));
        let held: Vec<Place> = (0..IN_FLIGHT_SHARE)
            .map(|_| quotas.enter(&wild, "/mcp").unwrap())
            .collect();
        assert_eq!(quotas.enter(&wild, "/mcp").unwrap_err(), Exceeded::InFlight);
        assert!(quotas.enter(&calm, "/mcp").is_ok());
        drop(held);
        let tried = (0..10_000).map(|_| quotas.enter(&wild, "/mcp"));
        let refused = tried.filter(|entered| matches!(entered, Err(Exceeded::Rate(_))));
        assert!(refused.count() > 9000);
        assert!(quotas.enter(&calm, "/mcp").is_ok());
        assert!(
            quotas.enter(&wild, "/v1/work/x/heartbeat").is_ok(),
            "keeps its ticket"
        );
    }

    #[test]
    fn an_agent_waits_for_a_ticket_once() {
        let (quotas, one) = (Quotas::default(), agent("one"));
        let waiting = quotas.enter(&one, "/v1/work/claim").unwrap();
        let again = quotas.enter(&one, "/v1/work/claim").unwrap_err();
        assert_eq!(again, Exceeded::Claiming);
        assert!(quotas.enter(&agent("two"), "/v1/work/claim").is_ok());
        drop(waiting);
        assert!(quotas.enter(&one, "/v1/work/claim").is_ok());
    }

    #[test]
    fn it_says_when_to_come_again() {
        let response = Exceeded::Rate(Duration::from_millis(1500)).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }
}
