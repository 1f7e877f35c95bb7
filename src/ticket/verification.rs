//! A requester's verification: how it starts, and what technicians say about it. Pure.

use super::reply::own;
use super::state::Event;
use crate::api::HaloPSAConnection;
use crate::api::ticket::{Ticket, TicketStatus};
use crate::text::{hex, words};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// The event that pauses a ticket until its requester has proved who they are.
/// The challenge's id follows from what it is for, so that it is the same
/// whoever makes it, however often.
pub fn start(
    status: &TicketStatus,
    connection: &HaloPSAConnection,
    ticket: &Ticket,
    reasons: &[String],
    timeout: Duration,
    lease: Option<String>,
) -> Event {
    let number = status.verification.as_ref().map_or(0, |v| v.number) + 1;
    let uid = connection.metadata.uid.as_deref().unwrap_or_default();
    let own = ticket.metadata.uid.as_deref().unwrap_or_default();
    let hash = Sha256::digest(format!(
        "{uid}/{own}/{}/{}/{number}",
        ticket.spec.ticket_id, status.run
    ));
    let id = hex::encode(&hash[..16]);
    // The words are the requester's: they stay in HaloPSA where subjects do.
    let reasons = match connection.spec.privacy.hide_subjects {
        true => reasons
            .iter()
            .map(|r| r.split(':').next().unwrap_or_default().to_string())
            .collect(),
        false => reasons.to_vec(),
    };
    Event::VerificationStarted {
        challenge_id: format!("rv-{id}"),
        reasons,
        deadline: Timestamp::now()
            + SignedDuration::try_from(timeout).unwrap_or(SignedDuration::from_secs(300)),
        lease,
    }
}

/// What a technician wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Again,
    Override,
}

const AGAIN: [&str; 12] = [
    "verify again",
    "verify once more",
    "retry verification",
    "resend verification",
    "resend the challenge",
    "send the challenge again",
    "erneut verifizieren",
    "nochmal verifizieren",
    "verifier a nouveau",
    "verificar de nuevo",
    "verificar otra vez",
    "opnieuw verifieren",
];
const OVERRIDE: [&str; 6] = [
    "override verification",
    "override the verification",
    "verifizierung ubergehen",
    "outrepasser la verification",
    "omitir la verificacion",
    "verificatie overslaan",
];
/// With one of these nothing is asked for.
const NOT: [&str; 12] = [
    "dont",
    "do not",
    "not",
    "never",
    "nicht",
    "ne",
    "pas",
    "no",
    "niet",
    "should we",
    "can we",
    "if",
];

/// What a reply asks for; quotes and signatures do not count, nor does a question.
pub fn wish(html: &str, text: &str) -> Option<Ask> {
    let text = if html.trim().is_empty() {
        crate::text::plain(text)
    } else {
        own::own_html(html).0
    };
    let (own, _) = own::own_text(&text);
    let split = words::split(&own);
    let line = format!(
        " {} ",
        split
            .words
            .iter()
            .map(|w| w.text.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    );
    let has = |phrase: &&str| line.contains(&format!(" {phrase} "));
    if split.question || split.words.len() > 30 || NOT.iter().any(&has) {
        return None;
    }
    if OVERRIDE.iter().any(&has) {
        return Some(Ask::Override);
    }
    AGAIN.iter().any(has).then_some(Ask::Again)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_wishes() {
        for (text, wanted) in [
            ("Verify again, please", Some(Ask::Again)),
            ("verify again", Some(Ask::Again)),
            (
                "Override verification: I know her voice.",
                Some(Ask::Override),
            ),
            ("Please override the verification", Some(Ask::Override)),
            ("Erneut verifizieren bitte", Some(Ask::Again)),
            ("Do not override verification", None),
            ("Should we override verification?", None),
            ("approved", None),
            ("> override verification", None),
            ("", None),
        ] {
            assert_eq!(wish("", text), wanted, "{text}");
        }
        assert_eq!(
            wish(
                "<p>Hi</p><blockquote>override verification</blockquote>",
                ""
            ),
            None
        );
    }
}
