//! Replies that name the request: `approve 2`, `deny #2`, `approve 2 K7QF`. Pure.
//!
//! Such a reply holds a verb, a number or a code, polite words, its author's name, and nothing
//! else. With any other word, sign or markup in it, it is read as one in the author's own words.

use super::Reply;
use crate::text::{self, words};

/// Letters of a code: no vowels, none that reads as a digit or as another letter.
const LETTERS: [u8; 16] = *b"CDFHJKLMNPQRTVWX";
/// Digits of a code: neither 0 nor 1.
const DIGITS: [u8; 8] = *b"23456789";
/// A longer text is not explicit, in bytes.
const MAX_HTML: usize = 4 * 1024;
const MAX_TEXT: usize = 300;
const MAX_WORDS: usize = 24;

const APPROVE: [&str; 27] = [
    "approve",
    "approved",
    "accept",
    "accepted",
    "yes",
    "ok",
    "okay",
    "ja",
    "oui",
    "si",
    "si!",
    "genehmigen",
    "genehmigt",
    "genehmige",
    "freigeben",
    "freigegeben",
    "approuver",
    "approuve",
    "approuvee",
    "japprouve",
    "aprobar",
    "aprobado",
    "aprobada",
    "apruebo",
    "goedkeuren",
    "goedgekeurd",
    "akkoord",
];
const DENY: [&str; 25] = [
    "deny",
    "denied",
    "reject",
    "rejected",
    "decline",
    "declined",
    "refuse",
    "refused",
    "no",
    "nein",
    "non",
    "nee",
    "ablehnen",
    "abgelehnt",
    "refuser",
    "refusee",
    "rechazar",
    "rechazado",
    "rechazo",
    "denegar",
    "denegado",
    "afwijzen",
    "afgewezen",
    "weigeren",
    "geweigerd",
];
/// Before a verb these ask somebody else for the decision: "please approve 2".
const ASKS: [&str; 8] = [
    "please",
    "bitte",
    "sil",
    "plait",
    "favor",
    "alstublieft",
    "aub",
    "graag",
];
/// Words that change nothing.
const POLITE: [&str; 40] = [
    "thanks",
    "thank",
    "you",
    "thx",
    "cheers",
    "regards",
    "kind",
    "best",
    "hi",
    "hello",
    "i",
    "request",
    "number",
    "nr",
    "danke",
    "vielen",
    "dank",
    "gruss",
    "grusse",
    "hallo",
    "ich",
    "anfrage",
    "nummer",
    "vous",
    "merci",
    "bonjour",
    "demande",
    "numero",
    "por",
    "gracias",
    "hola",
    "solicitud",
    "bedankt",
    "ik",
    "verzoek",
    "aanvraag",
    "the",
    "\u{1f44d}",
    "\u{2705}",
    "\u{2714}",
];

/// A decision that names its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explicit {
    pub approve: bool,
    pub number: Option<i32>,
    /// In capital letters.
    pub code: Option<String>,
}

impl Explicit {
    /// What it was recognised by. Not the code, which is for the ticket only.
    pub fn evidence(&self) -> &'static str {
        match (self.number, &self.code) {
            (Some(_), Some(_)) => "the request's number and code",
            (None, Some(_)) => "the request's code",
            _ => "the request's number",
        }
    }
}

/// A request's code, like `K7QF`, from random bits. It is never a word or a number.
pub fn code(random: u32) -> String {
    let mut rest = random as usize;
    let mut pick = |alphabet: &[u8]| {
        let symbol = alphabet[rest % alphabet.len()];
        rest /= alphabet.len();
        char::from(symbol)
    };
    let any = [LETTERS.as_slice(), DIGITS.as_slice()].concat();
    [&LETTERS[..], &DIGITS[..], &any[..], &any[..]]
        .into_iter()
        .map(&mut pick)
        .collect()
}

/// The decision that a reply names; none: it is in its author's own words.
pub(super) fn read(reply: &Reply) -> Option<Explicit> {
    let html = reply.html.trim();
    if html.is_empty() {
        return parse(&reply.text, &reply.name);
    }
    // Whoever quotes or strikes out needs markup for it.
    (html.len() <= MAX_HTML && is_plain(html))
        .then(|| text::from_html(html))
        .and_then(|text| parse(&text, &reply.name))
}

/// Whether HTML only breaks lines and changes how words look, without taking any of them back.
fn is_plain(html: &str) -> bool {
    const PLAIN: [&str; 12] = [
        "p", "br", "div", "span", "b", "strong", "i", "em", "u", "html", "head", "body",
    ];
    let lower = html.to_ascii_lowercase();
    if ["through", "display", "visibility", "hidden", "<!--"]
        .iter()
        .any(|word| lower.contains(word))
    {
        return false;
    }
    lower.split('<').skip(1).all(|tag| {
        let tag = tag.trim_start_matches('/');
        let name: &str = tag
            .split(|c: char| !c.is_ascii_alphanumeric())
            .next()
            .unwrap_or_default();
        PLAIN.contains(&name) && tag.contains('>')
    })
}

/// The decision in a reply's plain text. `author` is the writer's name, which they may sign with.
pub fn parse(text: &str, author: &str) -> Option<Explicit> {
    let text = text.trim();
    if text.len() > MAX_TEXT || !text.chars().all(is_plain_sign) || negates_a_number(text) {
        return None;
    }
    let found = words::split(text);
    if found.question || found.words.is_empty() || found.words.len() > MAX_WORDS {
        return None;
    }
    let names = words::split(text::cut(author, 200)).words;
    let (mut verb, mut number, mut code) = (None, None, None);
    let mut asks = false;
    for word in &found.words {
        let word = word.text.as_str();
        if let Some(approve) = verb_of(word) {
            // A yes and a no in one reply are neither.
            if asks || verb.replace(approve).is_some_and(|other| other != approve) {
                return None;
            }
        } else if let Some(named) = number_of(word) {
            if number.replace(named).is_some() {
                return None;
            }
        } else if is_code_like(word) {
            if code.replace(word.to_ascii_uppercase()).is_some() {
                return None;
            }
        } else if ASKS.contains(&word) {
            asks |= verb.is_none();
        } else if !POLITE.contains(&word) && !names.iter().any(|name| name.text == word) {
            return None;
        }
    }
    if number.is_none() && code.is_none() {
        return None;
    }
    Some(Explicit {
        approve: verb?,
        number,
        code,
    })
}

/// Letters, digits, and the signs between them. Quotation marks, arrows, strokes and the like
/// change what words mean.
fn is_plain_sign(c: char) -> bool {
    c.is_alphanumeric()
        || c.is_whitespace()
        || ".,!#:;'\u{2019}()-".contains(c)
        || matches!(c, '\u{1f44d}' | '\u{2705}' | '\u{2714}' | '\u{fe0f}')
        || ('\u{1f3fb}'..='\u{1f3ff}').contains(&c)
}

/// `!2` and `-2` are not 2.
fn negates_a_number(text: &str) -> bool {
    let mut before = ' ';
    let mut previous = ' ';
    for c in text.chars() {
        // In `2-K7QF` the stroke joins; after a space it is a sign.
        let is_sign = previous == '!' || (previous == '-' && !before.is_alphanumeric());
        if c.is_numeric() && is_sign {
            return true;
        }
        (before, previous) = (previous, c);
    }
    false
}

fn verb_of(word: &str) -> Option<bool> {
    if APPROVE.contains(&word) {
        Some(true)
    } else {
        DENY.contains(&word).then_some(false)
    }
}

fn number_of(word: &str) -> Option<i32> {
    let digits = word.len() <= 9 && word.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| word.parse().ok()).flatten()
}

/// A code, or a mistyped one.
fn is_code_like(word: &str) -> bool {
    word.len() == 4
        && word.bytes().all(|b| b.is_ascii_alphanumeric())
        && word.bytes().any(|b| b.is_ascii_digit())
        && word.bytes().any(|b| b.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 0: without a number.
    fn named(approve: bool, number: i32, code: &str) -> Option<Explicit> {
        Some(Explicit {
            approve,
            number: (number > 0).then_some(number),
            code: (!code.is_empty()).then(|| code.to_string()),
        })
    }

    #[test]
    fn explicit_decisions() {
        for (text, expected) in [
            ("approve 2", named(true, 2, "")),
            ("Approve #2.", named(true, 2, "")),
            ("approve 2 K7QF", named(true, 2, "K7QF")),
            ("Approve 2 k7qf, please. Thanks!", named(true, 2, "K7QF")),
            ("approve K7QF", named(true, 0, "K7QF")),
            ("approve 2 K7OF", named(true, 2, "K7OF")),
            ("2 approved", named(true, 2, "")),
            ("#2: approved", named(true, 2, "")),
            ("ok 2", named(true, 2, "")),
            ("Yes, approve request 12", named(true, 12, "")),
            ("Ja 2", named(true, 2, "")),
            ("sí 2", named(true, 2, "")),
            ("oui 2 merci", named(true, 2, "")),
            ("genehmigt 2", named(true, 2, "")),
            ("Ich genehmige 2", named(true, 2, "")),
            ("J'approuve 2, s'il vous plaît", named(true, 2, "")),
            ("aprobado 2, gracias", named(true, 2, "")),
            ("goedgekeurd 2", named(true, 2, "")),
            ("approve 2\n\nDana Novak", named(true, 2, "")),
            ("deny 2", named(false, 2, "")),
            ("abgelehnt 2", named(false, 2, "")),
            ("no 2", named(false, 2, "")),
            ("deny 2 K7QF", named(false, 2, "K7QF")),
        ] {
            assert_eq!(parse(text, "Dana Novak"), expected, "{text}");
        }
    }

    #[test]
    fn anything_else_is_in_own_words() {
        for text in [
            "",
            "approve",
            "yes",
            "2",
            "K7QF",
            "approve 2?",
            "approve step 2",
            "approve 2 and 3",
            "approve 2, 3",
            "approve 2.5",
            "approve all but 2",
            "approve !2",
            "approve -2",
            "approve no 2",
            "approve 2 later",
            "please approve 2",
            "bitte 2 genehmigen",
            "approve 2 K7QF R4MN",
            "don't approve 2",
            "do not approve 2",
            "approve 2, deny 1",
            "yes no 2",
            "\"approve 2\"",
            "> approve 2",
            "~~approve 2~~",
            "approve 2 -> not now",
            "approve 2 minutes",
            "approve two",
            "approved 2 Kim",
            "approve 2 \u{1f926}",
            "approve \u{202e}2",
            "approve 2\u{200b}",
        ] {
            assert_eq!(parse(text, "Dana Novak"), None, "{text}");
        }
    }

    fn html(html: &str) -> Option<Explicit> {
        read(&Reply {
            html: html.into(),
            ..Reply::default()
        })
    }

    #[test]
    fn markup_that_takes_words_back_is_not_explicit() {
        for plain in [
            "<p>approve 2</p>",
            "<div><b>approve</b>&nbsp;2<br></div>",
            "<span style=\"color:red\">approve 2</span>",
        ] {
            assert_eq!(html(plain), named(true, 2, ""), "{plain}");
        }
        for other in [
            "<s>approve 2</s>",
            "<del>approve 2</del>",
            "<p style=\"text-decoration: line-through\">approve 2</p>",
            "<blockquote>approve 2</blockquote>",
            "<p>approve 2</p><img src=\"x\">",
            "<p>approve 2</p><p>not step 1 though</p>",
            "<p>approve 2</p><p style=\"display:none\">x</p>",
            "<p>approve 2</p><",
        ] {
            assert_eq!(html(other), None, "{other}");
        }
        let long = format!("<p>approve 2</p>{}", "<br>".repeat(2000));
        assert_eq!(html(&long), None);
    }

    #[test]
    fn codes() {
        assert_eq!(code(0), "C2CC");
        for random in [0, 1, 77, u32::MAX, 123_456_789] {
            let code = code(random);
            assert!(is_code_like(&code), "{code}");
            let reply = format!("approve 3 {}", code.to_lowercase());
            assert_eq!(parse(&reply, ""), named(true, 3, &code));
        }
    }

    proptest! {
        #[test]
        fn a_code_is_of_its_alphabet(random in any::<u32>()) {
            let code = code(random);
            prop_assert_eq!(code.len(), 4);
            prop_assert!(code.bytes().all(|b| LETTERS.contains(&b) || DIGITS.contains(&b)));
            prop_assert!(is_code_like(&code));
        }

        /// One unknown word is enough.
        #[test]
        fn with_any_other_word_it_is_not_explicit(word in "[a-z]{2,12}", number in 1i32..99) {
            let word = word.as_str();
            prop_assume!(verb_of(word).is_none());
            prop_assume!(!POLITE.contains(&word) && !ASKS.contains(&word));
            let text = format!("approve {number} {word}");
            prop_assert_eq!(parse(&text, "Dana Novak"), None);
        }

        #[test]
        fn any_text_is_taken(text in "\\PC{0,400}", author in "\\PC{0,40}") {
            let _ = parse(&text, &author);
            let reply = Reply { html: text, name: author, ..Reply::default() };
            let _ = read(&reply);
        }
    }
}
