//! Where a webhook's ticket goes: pure rules over what the receiver knows.

use crate::text::words::fold;

/// Name of the Ticket resource of a client's ticket. A repeated webhook gives
/// the same name, so it can make no second Ticket.
pub fn ticket_name(slug: &str, ticket_id: i64) -> String {
    format!("{slug}-{ticket_id}")
}

/// Name of a Ticket whose client the webhook did not tell. The dots keep it
/// apart from every name a slug can make.
pub fn unrouted_name(connection: &str, ticket_id: i64) -> String {
    format!("unrouted.{connection}.{ticket_id}")
}

/// A name for an ImportedClient made from HaloPSA's client name: lowercase
/// letters, digits and hyphens; the id where nothing is left or `taken` says so.
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
        for (name, slug_) in [
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
            assert_eq!(slug(name, 7, |s| s == "taken"), slug_, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_slug_is_always_a_name(name in "\\PC{0,80}", id in 1i64..i32::MAX as i64) {
            let slug = slug(&name, id, |_| true);
            prop_assert!(slug.len() <= 45);
            prop_assert!(slug.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            prop_assert!(!slug.starts_with('-') && !slug.ends_with('-'));
        }
    }
}
