//! Tickets whose requester has to prove who they are: the challenge, its result, and what
//! technicians may do about it.

use super::approval::replies;
use super::{Error, Pass};
use crate::api::reason::Reason;
use crate::api::ticket::{ApprovalState, TicketStatus, Verification, VerificationState};
use crate::api::verification::FailurePolicy;
use crate::api::{ImportedClient, VerificationProvider};
use crate::audit;
use crate::blocking;
use crate::controller::provider;
use crate::failpoint;
use crate::halopsa::{self, types};
use crate::metrics::{VerificationLabels, VerificationOutcome};
use crate::policy::sensitivity::{newest, of_ticket, written};
use crate::ticket::ownership::Ownership;
use crate::ticket::state::{self, Event};
use crate::ticket::verification::{self, Ask, ProviderState, Why, Window, Wished};
use crate::verify::{self, Challenge, Provider};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::events::EventType;
use std::sync::Arc;
use std::time::Duration;

/// Technicians' replies are read for this long after a challenge.
const LISTEN: SignedDuration = SignedDuration::from_hours(24);
/// After this the replies are read less often.
const SLOWER_AFTER: SignedDuration = SignedDuration::from_mins(30);
const SLOWER: u32 = 30;
/// Actions of a ticket that are read, newest first.
const DEPTH: usize = 100;
/// The API's defaults, for a connection whose provider is missing.
const TIMEOUT: Duration = Duration::from_secs(300);
/// This long before the deadline the provider is polled once more.
const LAST_POLL: Duration = Duration::from_millis(1500);
const VALID_FOR: Duration = Duration::from_secs(8 * 3600);

/// The event for a ticket just received that is sensitive: its requester is asked first.
pub(super) async fn start(pass: &Pass) -> Result<Option<Event>, Error> {
    let spec = &pass.connection.spec;
    if spec.sensitivity.provider_ref.is_none() {
        return Ok(None);
    }
    let halo = pass.halo().await?;
    let Some(found) = halo.find_ticket(pass.ticket.spec.ticket_id).await? else {
        // The claim finds out, too, and ends it.
        return Ok(None);
    };
    let (user_id, rules) = (found.user_id, spec.sensitivity.clone());
    let found = Arc::new(found);
    let look = {
        let (found, rules) = (found.clone(), rules.clone());
        move || of_ticket(&found, &[], &rules)
    };
    let reasons = blocking::run(&pass.key.namespace, look).await?;
    if reasons.is_empty() {
        return Ok(None);
    }
    let (status, now) = (pass.status(), Timestamp::now());
    if state::is_verified(&status, user_id, now) {
        return Ok(None);
    }
    // What was read for the reasons need not be asked about again.
    let actions = halo.actions(pass.ticket.spec.ticket_id, DEPTH).await?;
    let newest_action = newest(&actions);
    let look = move || of_ticket(&found, &written(&actions), &rules);
    let reasons = blocking::run(&pass.key.namespace, look).await?;
    // The words are the requester's: they stay in HaloPSA where subjects do.
    let reasons: Vec<String> = reasons
        .iter()
        .map(|reason| match spec.privacy.hide_subjects {
            true => reason.without_words(),
            false => reason.to_string(),
        })
        .collect();
    let timeout = provider::of_connection(&pass.connection, &pass.ctx)
        .map_or(TIMEOUT, |p| p.spec.timeout.into());
    Ok(Some(verification::start(
        &status,
        &pass.connection,
        &pass.ticket,
        &Why {
            reasons: &reasons,
            newest_action,
        },
        timeout,
        None,
        now,
    )))
}

/// Asks the provider about a ticket whose requester is being verified. Returns when to do so
/// again.
pub(super) async fn poll(pass: &mut Pass, client: &ImportedClient) -> Result<Duration, Error> {
    let Some(current) = pass.status().verification else {
        return Ok(Duration::from_secs(60));
    };
    let Some(provider) = provider::of_connection(&pass.connection, &pass.ctx) else {
        // It may still be applied; if it is not, the deadline decides.
        return Ok(Duration::from_secs(5));
    };
    let valid_until = from_now(provider.spec.valid_for.into());
    let asked = ask(pass, client, &provider, &current).await;
    match asked {
        Ok(asked) => {
            let answer = verification::outcome(asked.state, &current.challenge_id, valid_until);
            let events: Vec<Event> = asked.sent.into_iter().chain(answer).collect();
            if !events.is_empty() {
                finish(pass, &events, outcome_of(asked.state)).await?;
            }
        }
        Err(NoAnswer::Requester(why)) => {
            let event = Event::VerificationFailed {
                challenge_id: current.challenge_id,
                state: VerificationState::Failed,
                message: why.into(),
            };
            finish(pass, &[event], VerificationOutcome::Failed).await?;
        }
        Err(NoAnswer::Provider(error)) => down(pass, &provider, &error, valid_until).await?,
        Err(NoAnswer::Other(error)) => return Err(error),
    }
    Ok(next_poll(
        provider.spec.poll.into(),
        pass.status().deadline.map(|d| d.0),
        Timestamp::now(),
    ))
}

/// Until the next poll. The last one comes just before the deadline, so that a provider that is
/// down is noticed before the ticket is refused: `failurePolicy` decides then.
fn next_poll(poll: Duration, deadline: Option<Timestamp>, now: Timestamp) -> Duration {
    let poll = poll.clamp(Duration::from_secs(1), Duration::from_secs(60));
    let last = deadline.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
    match last.map(|left| left.saturating_sub(LAST_POLL)) {
        Some(until) if !until.is_zero() => poll.min(until),
        _ => poll,
    }
}

/// The provider's answer.
struct Asked {
    state: ProviderState,
    /// The challenge was sent just now.
    sent: Option<Event>,
}

/// Why there is no answer.
enum NoAnswer {
    /// The requester cannot be asked; this says why.
    Requester(&'static str),
    Provider(verify::Error),
    Other(Error),
}

impl From<verify::Error> for NoAnswer {
    fn from(error: verify::Error) -> Self {
        NoAnswer::Provider(error)
    }
}

impl From<halopsa::Error> for NoAnswer {
    fn from(error: halopsa::Error) -> Self {
        NoAnswer::Other(error.into())
    }
}

impl From<Error> for NoAnswer {
    fn from(error: Error) -> Self {
        NoAnswer::Other(error)
    }
}

/// Sends the challenge if it was not sent yet; else asks for its result.
async fn ask(
    pass: &Pass,
    client: &ImportedClient,
    provider: &VerificationProvider,
    current: &Verification,
) -> Result<Asked, NoAnswer> {
    let service = Provider::of(&pass.ctx.kube, provider).await?;
    if current.state == VerificationState::Sent {
        let state = service.state(&current.challenge_id).await?;
        return Ok(Asked { state, sent: None });
    }
    let halo = pass.halo().await?;
    let user = requester(pass, client, &halo).await?;
    let namespace = &pass.key.namespace;
    failpoint::hit(namespace, "challenge.intended").await;
    let state = service
        .start(&challenge(pass, provider, current, &user))
        .await?;
    failpoint::hit(namespace, "challenge.sent").await;
    let sent = Event::ChallengeSent {
        method: provider.spec.method().into(),
        user_id: user.id,
        address: verify::masked(&user.emailaddress),
    };
    Ok(Asked {
        state,
        sent: Some(sent),
    })
}

fn challenge(
    pass: &Pass,
    provider: &VerificationProvider,
    current: &Verification,
    user: &types::User,
) -> Challenge {
    let status = pass.ticket.status.as_ref();
    let deadline = status.and_then(|s| s.deadline.as_ref());
    Challenge {
        challenge_id: current.challenge_id.clone(),
        email: user.emailaddress.clone(),
        name: user.name.clone(),
        reason: "a sensitive service desk ticket".into(),
        expires_at: deadline.map(|d| d.0.to_string()).unwrap_or_default(),
        callback_url: format!(
            "{}/verifications/{}/{}",
            pass.connection.spec.webhook.url,
            pass.key.namespace,
            provider.name_any()
        ),
    }
}

/// The requester, from HaloPSA's records and never from ticket text.
async fn requester(
    pass: &Pass,
    client: &ImportedClient,
    halo: &halopsa::Client,
) -> Result<types::User, NoAnswer> {
    let Some(found) = halo.find_ticket(pass.ticket.spec.ticket_id).await? else {
        return Err(NoAnswer::Requester(Ownership::Deleted.sentence()));
    };
    let Some(id) = found.user_id.filter(|id| *id > 0) else {
        return Err(NoAnswer::Requester(
            "the ticket has no requester in HaloPSA; set its user, then reply \"verify again\"",
        ));
    };
    let user = match halo.user(id).await {
        Err(halopsa::Error::NotFound { .. }) => {
            return Err(NoAnswer::Requester(
                "HaloPSA does not have the ticket's requester",
            ));
        }
        user => user?,
    };
    let halo_client_id = client.status.as_ref().and_then(|s| s.halo_client_id);
    match why_not_asked(&user, halo_client_id) {
        Some(why) => Err(NoAnswer::Requester(why)),
        None => Ok(user),
    }
}

/// Why this user of HaloPSA's cannot be asked; none: they can.
fn why_not_asked(user: &types::User, halo_client_id: Option<i64>) -> Option<&'static str> {
    if user.client_id.is_none() || user.client_id != halo_client_id {
        Some("the ticket's requester is a user of another client")
    } else if user.inactive {
        Some("the ticket's requester is inactive in HaloPSA")
    } else if !verify::is_address(&user.emailaddress) {
        Some(concat!(
            "HaloPSA has no usable e-mail address for the requester; ",
            "enter one, then reply \"verify again\""
        ))
    } else {
        None
    }
}

/// Stores that the challenge was sent, or its result, and says so.
async fn finish(
    pass: &mut Pass,
    events: &[Event],
    outcome: VerificationOutcome,
) -> Result<(), Error> {
    pass.transition(events).await?;
    count(pass, outcome);
    let type_ = match outcome {
        VerificationOutcome::Sent => return Ok(()),
        VerificationOutcome::Verified => EventType::Normal,
        _ => EventType::Warning,
    };
    audit::event("Verification", pass.subject(), outcome.as_str());
    let note = format!("the requester's verification: {}", outcome.as_str());
    pass.event(type_, Reason::Verification, "Verify", &note)
        .await;
    Ok(())
}

/// As metrics, audit stream and Events name it.
fn outcome_of(state: ProviderState) -> VerificationOutcome {
    match state {
        ProviderState::Pending => VerificationOutcome::Sent,
        ProviderState::Verified => VerificationOutcome::Verified,
        ProviderState::Denied => VerificationOutcome::Denied,
        ProviderState::Expired => VerificationOutcome::Expired,
        ProviderState::Failed => VerificationOutcome::Failed,
    }
}

pub(super) fn count(pass: &Pass, outcome: VerificationOutcome) {
    pass.ctx
        .metrics
        .verifications
        .get_or_create(&VerificationLabels { outcome })
        .inc();
}

/// The provider cannot be asked: the ticket waits until its deadline, which decides.
async fn down(
    pass: &mut Pass,
    provider: &VerificationProvider,
    error: &verify::Error,
    valid_until: Timestamp,
) -> Result<(), Error> {
    tracing::warn!(
        namespace = pass.key.namespace,
        ticket = pass.key.name,
        %error,
        "the verification provider could not be asked; will retry until the deadline"
    );
    let status = pass.status();
    let soon = Timestamp::now() + SignedDuration::from_secs(2);
    let last = status.deadline.is_some_and(|deadline| deadline.0 <= soon);
    if last && provider.spec.failure_policy == FailurePolicy::Ignore {
        let asked = status.verification.as_ref().and_then(|v| v.user_id);
        let user_id = match asked {
            Some(user) => Some(user),
            None => requester_id(pass).await?,
        };
        let skipped = Event::VerificationSkipped {
            user_id,
            valid_until,
        };
        pass.transition(&[skipped]).await?;
        count(pass, VerificationOutcome::Skipped);
    }
    Ok(())
}

/// Whose ticket it is now.
async fn requester_id(pass: &Pass) -> Result<Option<i64>, Error> {
    let halo = pass.halo().await?;
    let found = halo.find_ticket(pass.ticket.spec.ticket_id).await?;
    Ok(found.and_then(|ticket| ticket.user_id))
}

/// Reads what technicians say about a refused ticket, or one that waits: "verify again", or the
/// assigned technician's "override verification". Returns when to do so again; none: never.
pub(super) async fn listen(pass: &mut Pass) -> Result<Option<Duration>, Error> {
    let status = pass.status();
    let Some(current) = &status.verification else {
        return Ok(None);
    };
    let age = Timestamp::now().duration_since(current.started_at.0);
    if current.state.passes() || age > LISTEN {
        return Ok(None);
    }
    let connection = pass.connection.clone();
    let approvals = &connection.spec.approvals;
    let poll = Duration::from(approvals.poll).max(Duration::from_secs(1));
    let every = poll * if age > SLOWER_AFTER { SLOWER } else { 1 };
    if let Some(wait) = pass.ctx.polls.wait(&pass.ticket, every) {
        return Ok(Some(wait));
    }
    let halo = pass.halo().await?;
    let ticket_id = pass.ticket.spec.ticket_id;
    let replies = replies(&halo, ticket_id, DEPTH).await?;
    let mut window = Window::of(&status, current, pass.ourselves(), &approvals.applications);
    let mut requester = None;
    if verification::asks_override(&replies, &window) {
        let ticket = halo.ticket(ticket_id).await?;
        (window.assigned, requester) = (ticket.agent_id, ticket.user_id);
    }
    let heard = verification::judge(&replies, &window);
    for ignored in &heard.ignored {
        let note = format!(
            "an override of the verification does not count (action {}): {}",
            ignored.action, ignored.why
        );
        pass.event(EventType::Normal, Reason::ReplyIgnored, "Verify", &note)
            .await;
    }
    if let Some(wished) = &heard.wish {
        carry_out(pass, &status, wished, requester).await?;
    } else if let Some(up_to) = heard.up_to
        // The answer to a standing request is read when the ticket waits for it again.
        && !status.approval_is(ApprovalState::Requested)
    {
        // Read once: what does not count is not reported again.
        let seen = Event::RepliesSeen {
            up_to,
            assigned_agent: None,
        };
        pass.transition(&[seen]).await?;
    }
    Ok(Some(every))
}

/// Does what a technician asked for.
async fn carry_out(
    pass: &mut Pass,
    status: &TicketStatus,
    wished: &Wished,
    requester: Option<i64>,
) -> Result<(), Error> {
    let provider = provider::of_connection(&pass.connection, &pass.ctx);
    let (event, outcome) = match wished.ask {
        Ask::Again => {
            let timeout = provider.map_or(TIMEOUT, |p| p.spec.timeout.into());
            let event = verification::again(
                status,
                &pass.connection,
                &pass.ticket,
                wished,
                timeout,
                Timestamp::now(),
            );
            (event, VerificationOutcome::Started)
        }
        Ask::Override => {
            let event = Event::VerificationOverridden {
                by: wished.by,
                action: wished.action,
                user_id: requester,
                valid_until: from_now(provider.map_or(VALID_FOR, |p| p.spec.valid_for.into())),
            };
            (event, VerificationOutcome::Overridden)
        }
    };
    let detail = format!(
        "{:?} by technician {}, action {}",
        wished.ask, wished.by, wished.action
    );
    audit::event("Verification", pass.subject(), &detail);
    pass.transition(&[event]).await?;
    count(pass, outcome);
    Ok(())
}

fn from_now(time: Duration) -> Timestamp {
    Timestamp::now() + SignedDuration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_poll_comes_just_before_the_deadline() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (poll, deadline) = (Duration::from_secs(60), Some(at(300)));
        for (now, wait) in [(0, 60_000), (290, 8_500), (298, 500), (299, 60_000)] {
            let wait = Duration::from_millis(wait);
            assert_eq!(next_poll(poll, deadline, at(now)), wait, "{now}");
        }
        assert_eq!(
            next_poll(Duration::ZERO, None, at(0)),
            Duration::from_secs(1)
        );
    }
}
