//! Is a ticket of HaloPSA's sensitive, by the built-in rules and the MSP's own?

use super::facts::TicketFacts;
use crate::api::connection::Sensitivity;
use crate::halopsa::types::Ticket;
use crate::policy::expression;
use crate::text;
use crate::ticket::sensitive::{self, Text};
use serde_json::json;

/// Why a ticket is sensitive; empty: it is not. `notes` are what end users wrote on it since.
pub fn of_ticket(ticket: &Ticket, notes: &[String], config: &Sensitivity) -> Vec<String> {
    if config
        .exempt_ticket_types
        .iter()
        .any(|t| t.eq_ignore_ascii_case(ticket.tickettype_name.trim()))
    {
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
    let mut reasons: Vec<String> = sensitive::classify(&of)
        .iter()
        .map(ToString::to_string)
        .collect();
    let everything = format!("{}\n{details}", ticket.summary).to_lowercase();
    let facts = TicketFacts::from(ticket);
    let arguments = json!({"subject": ticket.summary, "details": details});
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    for rule in &config.rules {
        let keyword = rule
            .keywords
            .iter()
            .flatten()
            .find(|k| everything.contains(&k.to_lowercase()));
        // What cannot be told is sensitive.
        let holds = rule.when.as_ref().is_some_and(|when| {
            expression::holds(when, "", "", &arguments, &facts).unwrap_or(true)
        });
        match keyword {
            Some(keyword) => reasons.push(format!("{}: '{keyword}'", rule.name)),
            None if holds => reasons.push(format!("{}: its rule holds", rule.name)),
            None => {}
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::connection::SensitivityRule;

    #[test]
    fn the_msps_rules_only_add() {
        let ticket = |summary: &str, kind: &str| Ticket {
            summary: summary.into(),
            tickettype_name: kind.into(),
            ..Ticket::default()
        };
        let rule = |keywords: Option<&str>, when: Option<&str>| SensitivityRule {
            name: "ours".into(),
            keywords: keywords.map(|k| vec![k.to_string()]),
            when: when.map(str::to_string),
        };
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
        for (summary, kind, reasons) in [
            ("Reset my password", "Incident", 1),
            ("Reset my password", "alert", 0),
            ("New xray viewer", "Incident", 1),
            ("The door", "Access", 1),
            ("The door", "Incident", 0),
            ("Printer offline", "Incident", 0),
        ] {
            assert_eq!(
                of_ticket(&ticket(summary, kind), &[], &config).len(),
                reasons,
                "{summary} {kind}"
            );
        }
        let broken = Sensitivity {
            rules: vec![rule(None, Some("nonsense("))],
            ..Sensitivity::default()
        };
        assert_eq!(of_ticket(&ticket("Printer", ""), &[], &broken).len(), 1);
        assert_eq!(
            of_ticket(
                &ticket("Printer", ""),
                &["please reset my mfa".into()],
                &Sensitivity::default()
            )
            .len(),
            1
        );
    }
}
