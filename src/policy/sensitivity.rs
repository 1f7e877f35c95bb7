//! Is a HaloPSA ticket sensitive, by the built-in rules and the MSP's own?

use super::facts::TicketFacts;
use crate::api::connection::{Sensitivity, SensitivityRule};
use crate::api::ticket::Verification;
use crate::halopsa::technicians::UNASSIGNED;
use crate::halopsa::types::{Action, Ticket};
use crate::ids::ActionId;
use crate::policy::expression;
use crate::text;
use crate::ticket::sensitive::{self, Evidence, Reason, Text};
use serde_json::{Map, Value, json};

/// A rule's `when` is given the details in pieces of this length, in bytes, that overlap.
const PIECE: usize = text::MAX_TEXT;
const OVERLAP: usize = 1024;
/// Somebody else than the verified requester wrote on the ticket.
const ANOTHER_USER: &str = "another-user";

/// Whether no technician wrote it. HaloPSA stores mail of unknown senders under the agent
/// "Unassigned".
fn is_by_end_user(action: &Action) -> bool {
    action.who_agentid.is_none_or(|id| id <= UNASSIGNED)
}

/// What end users wrote on the ticket, whole.
pub fn written(actions: &[Action]) -> Vec<String> {
    let by_users = actions.iter().filter(|a| is_by_end_user(a));
    by_users.map(|a| a.note.clone()).collect()
}

/// The newest of these actions.
pub fn newest(actions: &[Action]) -> Option<ActionId> {
    actions.iter().map(|a| a.id).max()
}

/// The kinds of recorded reasons.
pub fn kinds(reasons: &[String]) -> impl Iterator<Item = &str> {
    reasons
        .iter()
        .map(|reason| reason.split(':').next().unwrap_or_default().trim())
}

/// Why a requester who is verified has to be asked again: for what end users have written since.
/// Empty: they need not. `all`: no action since is missing.
pub fn since_verified(
    ticket: &Ticket,
    actions: &[Action],
    all: bool,
    verification: &Verification,
    config: &Sensitivity,
) -> Vec<Reason> {
    let newest = verification.newest_action;
    let later: Vec<Action> = actions
        .iter()
        .filter(|a| is_by_end_user(a) && newest.is_none_or(|newest| a.id > newest))
        .cloned()
        .collect();
    if later.is_empty() && all {
        return Vec::new();
    }
    let known: Vec<&str> = kinds(&verification.reasons).collect();
    let mut reasons = of_ticket(ticket, &written(&later), config);
    reasons.retain(|reason| !known.contains(&reason.kind.as_str()));
    let is_another = |a: &Action| a.actionby_user_id.filter(|id| *id > 0) != verification.user_id;
    if !all || later.iter().any(is_another) {
        reasons.push(Reason {
            kind: ANOTHER_USER.into(),
            evidence: Evidence::Words("wrote on the ticket since".into()),
        });
    }
    reasons
}

/// Why a ticket is sensitive; empty: it is not. `notes` are what end users have written on it
/// since. All of it is read: what an agent is not shown at first it may ask for.
pub fn of_ticket(ticket: &Ticket, notes: &[String], config: &Sensitivity) -> Vec<Reason> {
    let exempt = |kind: &String| kind.eq_ignore_ascii_case(ticket.tickettype_name.trim());
    if config.exempt_ticket_types.iter().any(exempt) {
        return Vec::new();
    }
    let details = if ticket.details.trim().is_empty() {
        &ticket.details_html
    } else {
        &ticket.details
    };
    let (mut details, mut is_all) = text::all_from_html(details);
    for note in notes {
        let (note, is_all_of_it) = text::all_plain(note);
        is_all &= is_all_of_it && details.len() + note.len() < text::MAX_HTML;
        if is_all {
            details.push('\n');
            details.push_str(&note);
        }
    }
    let of = Text {
        subject: &ticket.summary,
        details: &details,
        category: &ticket.category_1,
        ticket_type: &ticket.tickettype_name,
        is_cut: !is_all,
    };
    let mut reasons = sensitive::classify(&of);
    let read = Read {
        keywords: sensitive::folded(&format!("{}\n{details}", ticket.summary)),
        arguments: pieces(&details)
            .into_iter()
            .map(|piece| json!({"subject": ticket.summary, "details": piece}))
            .filter_map(|arguments| arguments.as_object().cloned())
            .collect(),
        facts: TicketFacts::from(ticket),
    };
    reasons.extend(config.rules.iter().filter_map(|rule| {
        Some(Reason {
            kind: rule.name.clone(),
            evidence: read.evidence(rule)?,
        })
    }));
    reasons
}

/// A ticket as the MSP's rules read it.
struct Read {
    /// The text, folded.
    keywords: String,
    /// `args` for each piece of the details.
    arguments: Vec<Map<String, Value>>,
    facts: TicketFacts,
}

impl Read {
    /// What makes the ticket sensitive by one of the MSP's rules.
    fn evidence(&self, rule: &SensitivityRule) -> Option<Evidence> {
        let is_there = |keyword: &&String| {
            let folded = sensitive::folded(keyword);
            !folded.trim().is_empty() && self.keywords.contains(&folded)
        };
        if let Some(keyword) = rule.keywords.iter().flatten().find(is_there) {
            return Some(Evidence::Words(keyword.clone()));
        }
        let when = rule.when.as_ref()?;
        // A rule that cannot be evaluated makes the ticket sensitive.
        let holds = |arguments: &Map<String, Value>| {
            expression::holds(when, "", "", arguments, Some(&self.facts)).unwrap_or(true)
        };
        self.arguments.iter().any(holds).then_some(Evidence::Rule)
    }
}

/// A text in pieces that an expression can be evaluated on; at least one.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        let piece = text::cut(rest, PIECE);
        pieces.push(piece);
        if piece.len() == rest.len() {
            return pieces;
        }
        rest = &rest[text::cut(rest, PIECE - OVERLAP).len()..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ticket::VerificationState;
    use crate::ids::TechnicianId;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn ticket(summary: &str, kind: &str) -> Ticket {
        Ticket {
            summary: summary.into(),
            tickettype_name: kind.into(),
            ..Ticket::default()
        }
    }

    fn rule(keyword: Option<&str>, when: Option<&str>) -> SensitivityRule {
        SensitivityRule {
            name: "ours".into(),
            keywords: keyword.map(|k| vec![k.to_string()]),
            when: when.map(str::to_string),
        }
    }

    #[test]
    fn the_msps_rules_only_add() {
        let config = Sensitivity {
            rules: vec![
                rule(Some("Xray"), None),
                rule(
                    None,
                    Some("ticket.type == 'Access' && args.subject.contains('door')"),
                ),
                rule(None, Some("false")),
            ],
            exempt_ticket_types: vec!["Alert".into()],
            ..Sensitivity::default()
        };
        for (summary, kind, because) in [
            (
                "Reset my password",
                "Incident",
                Some("password-reset: 'reset my password'"),
            ),
            ("Reset my password", "alert", None),
            ("New xray viewer", "Incident", Some("ours: 'Xray'")),
            ("The door", "Access", Some("ours: its rule holds")),
            ("The door", "Incident", None),
            ("Printer offline", "Incident", None),
        ] {
            let reasons = of_ticket(&ticket(summary, kind), &[], &config);
            let reasons: Vec<String> = reasons.iter().map(Reason::to_string).collect();
            let because: Vec<&str> = because.into_iter().collect();
            assert_eq!(reasons, because, "{summary} {kind}");
        }
    }

    #[test]
    fn nothing_is_hidden_behind_much_text() {
        let mut long = ticket("Printer", "");
        long.details = format!("<p>{}</p><p>xr\u{ad}ay</p>", "paper jam. ".repeat(8_000));
        let config = Sensitivity {
            rules: vec![
                rule(Some("Xray"), None),
                rule(None, Some("args.details.endsWith('ay')")),
            ],
            ..Sensitivity::default()
        };
        let reasons = |ticket: &Ticket, notes: &[String], config: &Sensitivity| -> Vec<String> {
            let reasons = of_ticket(ticket, notes, config);
            reasons.iter().map(Reason::to_string).collect()
        };
        let ours = ["ours: 'Xray'", "ours: its rule holds"];
        assert_eq!(reasons(&long, &[], &config), ours);
        let plain = Sensitivity::default();
        assert_eq!(reasons(&long, &[], &plain), Vec::<String>::new());
        let too_long = ["too-long: more text than is read"];
        let note = "paper jam. ".repeat(50_000);
        assert_eq!(reasons(&long, &[note], &plain), too_long);
        long.details = format!("{}reset my password", "paper jam. ".repeat(8_000));
        let reset = ["password-reset: 'reset my password'"];
        assert_eq!(reasons(&long, &[], &plain), reset);
    }

    #[test]
    fn a_text_is_cut_into_pieces() {
        for length in [0, 1, PIECE, PIECE + 1, 5 * PIECE] {
            let text = "é".repeat(length / 2);
            let pieces = pieces(&text);
            assert!(pieces.iter().all(|p| p.len() <= PIECE));
            assert!(text.ends_with(pieces.last().unwrap()));
        }
    }

    #[test]
    fn a_rule_that_cannot_be_evaluated_makes_the_ticket_sensitive() {
        let broken = Sensitivity {
            rules: vec![rule(None, Some("nonsense("))],
            ..Sensitivity::default()
        };
        assert_eq!(of_ticket(&ticket("Printer", ""), &[], &broken).len(), 1);
    }

    #[test]
    fn what_the_requester_wrote_later_counts() {
        let later = ["please reset my mfa".to_string()];
        let reasons = of_ticket(&ticket("Printer", ""), &later, &Sensitivity::default());
        assert_eq!(reasons.len(), 1);
    }

    fn verified(newest: Option<i64>) -> Verification {
        Verification {
            number: 1,
            challenge_id: "c".into(),
            state: VerificationState::Verified,
            reasons: vec!["mfa-reset: 'reset my mfa'".into()],
            method: None,
            user_id: Some(7),
            newest_action: newest.map(ActionId),
            address: None,
            started_at: Time(Timestamp::UNIX_EPOCH),
            valid_until: None,
            decided_by: None,
        }
    }

    fn by(id: i64, user: Option<i64>, note: &str) -> Action {
        Action {
            id: ActionId(id),
            note: note.into(),
            actionby_user_id: user,
            ..Action::default()
        }
    }

    const MFA: &str = "reset my mfa";
    const PASSWORD: &str = "please reset my password";

    fn asks_again(newest: Option<i64>, actions: &[Action], all: bool) -> Vec<String> {
        let (ticket, config) = (ticket("Printer", ""), Sensitivity::default());
        let reasons = since_verified(&ticket, actions, all, &verified(newest), &config);
        reasons.into_iter().map(|reason| reason.kind).collect()
    }

    #[test]
    fn what_is_written_after_a_verification_may_ask_again() {
        for (what, newest, action, kinds) in [
            ("read before", Some(5), by(5, Some(8), PASSWORD), vec![]),
            ("the same again", Some(5), by(6, Some(7), MFA), vec![]),
            ("thanks", Some(5), by(6, Some(7), "thanks"), vec![]),
            (
                "something new",
                Some(5),
                by(6, Some(7), PASSWORD),
                vec!["password-reset"],
            ),
            (
                "another user",
                Some(5),
                by(6, Some(8), "thanks"),
                vec!["another-user"],
            ),
            (
                "nobody knows who",
                Some(5),
                by(6, Some(0), MFA),
                vec!["another-user"],
            ),
            (
                "nothing was read before",
                None,
                by(1, None, "hello"),
                vec!["another-user"],
            ),
        ] {
            assert_eq!(asks_again(newest, &[action], true), kinds, "{what}");
        }
        let technician = Action {
            who_agentid: Some(TechnicianId(3)),
            ..by(9, None, PASSWORD)
        };
        assert!(asks_again(Some(5), &[technician], true).is_empty());
        // More was written than is read.
        assert_eq!(asks_again(Some(5), &[], false), ["another-user"]);
    }
}
