//! Is a HaloPSA ticket sensitive, by the built-in rules and the MSP's own?

use super::facts::TicketFacts;
use crate::api::connection::{Sensitivity, SensitivityRule};
use crate::halopsa::types::Ticket;
use crate::policy::expression;
use crate::text;
use crate::ticket::sensitive::{self, Evidence, Reason, Text};
use serde_json::{Map, Value, json};

/// Why a ticket is sensitive; empty: it is not. `notes` are what end users have written on it
/// since.
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
    let details = format!("{}\n{}", text::from_html(details), notes.join("\n"));
    let of = Text {
        subject: &ticket.summary,
        details: &details,
        category: &ticket.category_1,
        ticket_type: &ticket.tickettype_name,
    };
    let mut reasons = sensitive::classify(&of);
    let everything = format!("{}\n{details}", ticket.summary).to_lowercase();
    let facts = TicketFacts::from(ticket);
    let arguments = json!({"subject": ticket.summary, "details": details});
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    reasons.extend(config.rules.iter().filter_map(|rule| {
        Some(Reason {
            kind: rule.name.clone(),
            evidence: evidence(rule, &everything, &arguments, &facts)?,
        })
    }));
    reasons
}

/// What makes the ticket sensitive by one of the MSP's rules. `text` is in lower case.
fn evidence(
    rule: &SensitivityRule,
    text: &str,
    arguments: &Map<String, Value>,
    facts: &TicketFacts,
) -> Option<Evidence> {
    let mut keywords = rule.keywords.iter().flatten();
    if let Some(keyword) = keywords.find(|k| text.contains(&k.to_lowercase())) {
        return Some(Evidence::Words(keyword.clone()));
    }
    // A rule that cannot be evaluated makes the ticket sensitive.
    let holds = expression::holds(rule.when.as_ref()?, "", "", arguments, facts).unwrap_or(true);
    holds.then_some(Evidence::Rule)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
