//! Where a webhook's ticket goes: pure rules over what the receiver knows.

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
    for c in client_name.chars().flat_map(fold) {
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

/// Lowercase ASCII for the letters of Western European names; others are left out.
fn fold(c: char) -> Vec<char> {
    let folded = match c.to_lowercase().next().unwrap_or(c) {
        'à'..='å' => "a",
        'æ' => "ae",
        'ç' => "c",
        'è'..='ë' => "e",
        'ì'..='ï' => "i",
        'ñ' => "n",
        'ò'..='ö' | 'ø' => "o",
        'œ' => "oe",
        'ß' => "ss",
        'ù'..='ü' => "u",
        'ý' | 'ÿ' => "y",
        '\'' | '’' | '.' => "",
        other => return vec![other],
    };
    folded.chars().collect()
}

/// `*` stands for any text; case does not matter.
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.trim().to_lowercase(), name.trim().to_lowercase());
    let mut parts = pattern.split('*');
    let Some(first) = parts.next() else {
        return false;
    };
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
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

    #[test]
    fn patterns() {
        for (pattern, name, yes) in [
            ("*", "anything", true),
            ("acme*", "ACME Ltd", true),
            ("acme*", "The Acme", false),
            ("*ltd", "Acme Ltd", true),
            ("a*e*", "Acme Ltd", true),
            ("acme", "acme", true),
            ("acme", "acme ltd", false),
            ("a*a", "a", false),
            ("", "", true),
            ("**", "x", true),
        ] {
            assert_eq!(matches_pattern(pattern, name), yes, "{pattern} {name}");
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
