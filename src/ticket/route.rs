//! Names: of the Ticket for a webhook's ticket, and of the ImportedClient it belongs to.

use crate::text::words::fold;

/// Name of the Ticket resource for a client's ticket. A repeated webhook gives
/// the same name, so it cannot create a second Ticket.
pub fn ticket_name(slug: &str, ticket_id: i64) -> String {
    format!("{slug}-{ticket_id}")
}

/// Name of a Ticket whose client the webhook did not name. No slug contains a
/// dot, so the name cannot collide with [`ticket_name`].
pub fn unrouted_name(connection: &str, ticket_id: i64) -> String {
    format!("unrouted.{connection}.{ticket_id}")
}

/// Name of an ImportedClient, made from HaloPSA's client name: lowercase letters,
/// digits and hyphens. If none are left, the client's id is the name; if the name
/// is `taken`, the id is added to it.
pub fn slug(client_name: &str, client_id: i64, taken: impl Fn(&str) -> bool) -> String {
    let mut slug = String::new();
    let letters = client_name
        .chars()
        .filter(|c| !matches!(c, '\'' | '’' | '.'));
    for c in letters.flat_map(fold) {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() >= 34 {
            break;
        }
    }
    let slug = slug.trim_end_matches('-').to_string();
    if slug.is_empty() {
        return format!("client-{client_id}");
    }
    if taken(&slug) {
        format!("{slug}-{client_id}")
    } else {
        slug
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slugs() {
        for (client_name, expected) in [
            ("Acme Ltd.", "acme-ltd"),
            ("  Müller & Söhne GmbH ", "muller-sohne-gmbh"),
            ("O'Brien's", "obriens"),
            ("北京", "client-7"),
            ("---", "client-7"),
            ("Taken", "taken-7"),
            (
                "A very long company name that never seems to end at all",
                "a-very-long-company-name-that-neve",
            ),
        ] {
            let slug = slug(client_name, 7, |s| s == "taken");
            assert_eq!(slug, expected, "{client_name}");
        }
    }

    proptest! {
        #[test]
        fn a_slug_is_always_a_name(name in "\\PC{0,80}", id in 1i64..i32::MAX as i64) {
            let slug = slug(&name, id, |_| true);
            prop_assert!(slug.len() <= 45);
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            prop_assert!(slug.chars().all(allowed));
            prop_assert!(!slug.starts_with('-') && !slug.ends_with('-'));
        }
    }
}
