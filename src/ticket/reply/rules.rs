//! How a reply's phrases decide together: the first rule that applies wins.
//!
//! What makes a reply neutral in any case comes first, then the rules for a no, then the rules for
//! a yes. If none applies, there is no decision in the reply.

use super::lexicon::{self, Kind};
use super::{Classification, Hit, Hits, Intent, leads, neutral};

/// A reply of more words than this is not only a yes.
const MAX_YES: usize = 60;
/// Unknown words that are too many for a no in the middle of a reply.
const UNKNOWN_BESIDE_NO: usize = 6;
/// Words of a name that is a sentence of its own, before or after what is said.
const NAME: usize = 3;
/// Without one of these, words beside a yes are no sentence of their own: "approved, printer".
const VERBS: [&str; 96] = [
    "is",
    "are",
    "was",
    "were",
    "has",
    "have",
    "had",
    "been",
    "got",
    "gets",
    "needs",
    "need",
    "needed",
    "wants",
    "wanted",
    "called",
    "calls",
    "rang",
    "phoned",
    "works",
    "verified",
    "im",
    "ive",
    "were",
    "weve",
    "hes",
    "shes",
    "theyre",
    "theyve",
    "matches",
    "saved",
    "saves",
    "cant",
    "cannot",
    "isnt",
    "happened",
    "hasnt",
    "doing",
    "typing",
    "firing",
    "ist",
    "sind",
    "hat",
    "haben",
    "hatte",
    "war",
    "waren",
    "wartet",
    "warten",
    "steht",
    "stehen",
    "hangt",
    "sitzt",
    "nervt",
    "drangt",
    "eilt",
    "braucht",
    "brauchen",
    "kann",
    "bin",
    "habe",
    "hab",
    "est",
    "sont",
    "a",
    "ai",
    "ont",
    "avait",
    "etait",
    "attend",
    "attendent",
    "veut",
    "peut",
    "cest",
    "esta",
    "estan",
    "ha",
    "han",
    "he",
    "es",
    "era",
    "fue",
    "tiene",
    "tienen",
    "necesita",
    "necesitan",
    "lleva",
    "llevan",
    "quiere",
    "urge",
    "zit",
    "zitten",
    "heeft",
    "wacht",
    "belt",
    "ligt",
];
/// After a no, these say what the writer does instead.
const INSTEAD: [&str; 4] = ["i will", "ill", "i am going to", "im going to"];
/// A longer sentence is more than thanks, in phrases.
const MAX_THANKS: usize = 9;
/// A name may follow these at either end of a reply.
const COURTESY: [&str; 48] = [
    "groetjes",
    "grtz",
    "mvg",
    "liebe grusse",
    "abrazo",
    "un abrazo",
    "bises",
    "best",
    "thanks",
    "thx",
    "thank you",
    "cheers",
    "ta",
    "regards",
    "kind regards",
    "hi",
    "hello",
    "hey",
    "morning",
    "good morning",
    "good afternoon",
    "gday",
    "dear",
    "danke",
    "hallo",
    "hi there",
    "moin",
    "lg",
    "vg",
    "mfg",
    "gruss",
    "grusse",
    "viele grusse",
    "freundliche grusse",
    "merci",
    "bonjour",
    "salut",
    "cordialement",
    "cdt",
    "gracias",
    "hola",
    "saludos",
    "un saludo",
    "bedankt",
    "hoi",
    "groet",
    "groeten",
    "gr",
];
/// With nothing but thanks, these mean "seen" rather than "yes".
const SEEN: [&str; 6] = ["ok", "okay", "okey", "oki", "oke", "alright"];
const THANKS: [&str; 7] = [
    "thanks",
    "thank you",
    "thx",
    "danke",
    "merci",
    "gracias",
    "bedankt",
];

pub(super) type Rule = fn(&Hits) -> Option<Classification>;

/// In order, by name.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("nothing_written", nothing_written),
    ("irony", irony),
    ("harmless", harmless),
    ("asks_for_approval", asks_for_approval),
    ("wait", wait),
    ("hedge", hedge),
    ("question_mark", question_mark),
    ("others_decision", others_decision),
    ("yes_and_no", yes_and_no),
    ("quoted_no", quoted_no),
    ("conditional_no", conditional_no),
    ("partial_no", partial_no),
    ("later_no", later_no),
    ("more_than_a_no", more_than_a_no),
    ("plain_no", plain_no),
    ("question", question),
    ("conditional_yes", conditional_yes),
    ("partial_yes", partial_yes),
    ("later_yes", later_yes),
    ("others_yes", others_yes),
    ("wants_more", wants_more),
    ("report", report),
    ("negation", negation),
    ("no_elsewhere", no_elsewhere),
    ("quoted_yes", quoted_yes),
    ("number", number),
    ("too_long", too_long),
    ("not_understood", not_understood),
    ("left_out", left_out),
    ("perhaps_only_seen", perhaps_only_seen),
    ("plain_yes", plain_yes),
];

fn nothing_written(hits: &Hits) -> Option<Classification> {
    let reason = match (hits.question, hits.cut) {
        (true, _) => "a question",
        (false, true) => "nothing but a quote or a signature",
        (false, false) => "empty",
    };
    (hits.words == 0).then(|| neutral(reason.into()))
}

fn irony(hits: &Hits) -> Option<Classification> {
    Some(doubt("possibly ironic", hits.first(Kind::Irony)?))
}

/// "Don't know" is not a no.
fn harmless(hits: &Hits) -> Option<Classification> {
    if hits.no.is_some() {
        return None;
    }
    Some(doubt("no decision", hits.first(Kind::Harmless)?))
}

fn asks_for_approval(hits: &Hits) -> Option<Classification> {
    Some(doubt("asks for approval", hits.first(Kind::Asks)?))
}

fn wait(hits: &Hits) -> Option<Classification> {
    Some(doubt("wants to wait", hits.first(Kind::Wait)?))
}

fn hedge(hits: &Hits) -> Option<Classification> {
    Some(doubt("not sure", hits.first(Kind::Hedge)?))
}

fn question_mark(hits: &Hits) -> Option<Classification> {
    hits.question.then(|| neutral("a question ('?')".into()))
}

/// "Kim approved" is not the writer's decision.
fn others_decision(hits: &Hits) -> Option<Classification> {
    let others = hits.others.as_ref()?;
    Some(neutral(format!("somebody else's decision ('{others}')")))
}

fn yes_and_no(hits: &Hits) -> Option<Classification> {
    let (no, yes) = (hits.no()?, hits.yes.first()?);
    let yes = &hits.all[yes.hit].text;
    Some(neutral(format!("yes ('{yes}') and no ('{}')", no.text)))
}

fn quoted_no(hits: &Hits) -> Option<Classification> {
    let no = hits.no()?;
    no.quoted.then(|| doubt("quotes somebody", no))
}

/// "No, not if he agrees" is a no: only a no within a sentence can be conditional.
fn conditional_no(hits: &Hits) -> Option<Classification> {
    let (no, condition) = (hits.no()?, hits.first(Kind::Condition)?);
    (!no.first).then(|| doubt("conditional", condition))
}

fn partial_no(hits: &Hits) -> Option<Classification> {
    hits.no()?;
    Some(doubt("only a part", hits.first(Kind::Part)?))
}

/// "No, I will do it by hand" is a no.
fn later_no(hits: &Hits) -> Option<Classification> {
    let (no, later) = (hits.no()?, hits.first(Kind::Later)?);
    let instead = no.first && INSTEAD.contains(&later.text.as_str());
    (!instead).then(|| doubt("another time", later))
}

/// A no in the middle of a long reply or of a report.
fn more_than_a_no(hits: &Hits) -> Option<Classification> {
    let at = hits.no?;
    let unknown = hits.all.iter().filter(|hit| hit.kind.is_none()).count();
    let told = |hit: &Hit| matches!(hit.kind, Some(Kind::Topic | Kind::Person | Kind::Story));
    let tells = clauses(hits)
        .iter()
        .any(|c| c.hits.iter().any(told) && c.hits.iter().any(|h| h.at == hits.all[at].at));
    let more = unknown > UNKNOWN_BESIDE_NO || tells || hits.first(Kind::Report).is_some();
    (more && !leads(&hits.all, at)).then(|| doubt("more than a no", &hits.all[at]))
}

fn plain_no(hits: &Hits) -> Option<Classification> {
    Some(decided(Intent::Deny, hits.no()?))
}

fn question(hits: &Hits) -> Option<Classification> {
    Some(doubt("a question", hits.first(Kind::Question)?))
}

fn conditional_yes(hits: &Hits) -> Option<Classification> {
    yes_with(hits, Kind::Condition, "conditional")
}

fn partial_yes(hits: &Hits) -> Option<Classification> {
    yes_with(hits, Kind::Part, "only a part")
}

fn later_yes(hits: &Hits) -> Option<Classification> {
    let why = "another time, or done by somebody else";
    yes_with(hits, Kind::Later, why)
}

fn others_yes(hits: &Hits) -> Option<Classification> {
    yes_with(hits, Kind::Others, "somebody else's words or decision")
}

fn wants_more(hits: &Hits) -> Option<Classification> {
    yes_with(hits, Kind::More, "wants something else as well")
}

fn report(hits: &Hits) -> Option<Classification> {
    yes_with(hits, Kind::Report, "a status report")
}

/// A negation too far from the yes to turn it into a no.
fn negation(hits: &Hits) -> Option<Classification> {
    yes_with(hits, Kind::Negates, "a negation")
}

/// A "no" in the middle of a sentence.
fn no_elsewhere(hits: &Hits) -> Option<Classification> {
    yes_with(hits, Kind::NoAtStart, "a negation")
}

fn quoted_yes(hits: &Hits) -> Option<Classification> {
    let (hit, _) = hits.yes()?;
    let quoted = hits.yes.iter().all(|yes| hits.all[yes.hit].quoted);
    quoted.then(|| doubt("quotes somebody", hit))
}

/// A number may be a part, a time, or another ticket.
fn number(hits: &Hits) -> Option<Classification> {
    hits.yes()?;
    let is_number = |hit: &&Hit| hit.kind.is_none() && hit.text.chars().any(|c| c.is_ascii_digit());
    let number = hits.all.iter().find(is_number)?;
    Some(doubt("a number in it", number))
}

fn too_long(hits: &Hits) -> Option<Classification> {
    hits.yes()?;
    (hits.words > MAX_YES).then(|| neutral("much more than a yes".into()))
}

/// Unknown words are not a yes: what is not understood may take it back.
fn not_understood(hits: &Hits) -> Option<Classification> {
    hits.yes()?;
    let clauses = clauses(hits);
    let last = clauses.len().saturating_sub(1);
    let strong = hits.yes.iter().any(|yes| yes.strong);
    clauses.iter().enumerate().find_map(|(i, clause)| {
        let name = match i {
            _ if i > 0 && i + 2 > last => Name::Signs,
            0 => Name::Greeted,
            _ => Name::None,
        };
        let hit = beyond(clause, strong, name)?;
        Some(doubt("more than a yes", hit))
    })
}

/// What was left out may take the yes back.
fn left_out(hits: &Hits) -> Option<Classification> {
    let (hit, _) = hits.yes()?;
    hits.cut
        .then(|| doubt("beside a quote, an image, or text that does not count", hit))
}

/// "Ok thanks" may mean only that it was seen.
fn perhaps_only_seen(hits: &Hits) -> Option<Classification> {
    let (hit, _) = hits.yes()?;
    let is_one_of = |hit: &Hit, list: &[&str]| list.contains(&hit.text.as_str());
    let seen = hits
        .yes
        .iter()
        .all(|yes| is_one_of(&hits.all[yes.hit], &SEEN));
    let thanks = hits.all.iter().any(|hit| is_one_of(hit, &THANKS));
    (thanks && seen).then(|| doubt("may only mean seen", hit))
}

fn plain_yes(hits: &Hits) -> Option<Classification> {
    let (hit, _) = hits.yes()?;
    Some(decided(Intent::Approve, hit))
}

/// A yes, with something beside it that makes it less than a yes.
fn yes_with(hits: &Hits, kind: Kind, why: &str) -> Option<Classification> {
    hits.yes()?;
    let thanks: Vec<Clause<'_>> = clauses(hits)
        .into_iter()
        .filter(|clause| !clause.yes && is_thanks(clause.hits))
        .collect();
    let within = |hit: &&Hit| thanks.iter().any(|c| c.hits.iter().any(|h| h.at == hit.at));
    let mut all = hits.all.iter().filter(|hit| hit.kind == Some(kind));
    let hit = all.find(|hit| !within(hit))?;
    Some(doubt(why, hit))
}

fn decided(intent: Intent, hit: &Hit) -> Classification {
    Classification {
        intent,
        reason: format!("'{}'", hit.text),
    }
}

fn doubt(why: &str, hit: &Hit) -> Classification {
    neutral(format!("{why} ('{}')", hit.text))
}

/// A part of a reply between full stops, commas and the like.
struct Clause<'a> {
    hits: &'a [Hit],
    /// Something in it says yes.
    yes: bool,
}

fn clauses(hits: &Hits) -> Vec<Clause<'_>> {
    let mut clauses = Vec::new();
    let mut from = 0;
    for i in 1..=hits.all.len() {
        if i == hits.all.len() || hits.all[i].first {
            clauses.push(Clause {
                hits: &hits.all[from..i],
                yes: hits.yes.iter().any(|yes| (from..i).contains(&yes.hit)),
            });
            from = i;
        }
    }
    clauses
}

/// What in a clause is more than a yes, courtesy, a name, or the reason for a yes.
fn beyond<'a>(clause: &Clause<'a>, strong: bool, name: Name) -> Option<&'a Hit> {
    let hits = without_name(clause, name);
    // "Sure is" answers a question.
    let answers = |hit: &Hit| !strong && clause.yes && VERBS.contains(&hit.text.as_str());
    let plain = |hit: &&Hit| match hit.kind {
        Some(Kind::Polite) if answers(hit) => false,
        Some(Kind::Yes | Kind::Order | Kind::YesAtStart) => clause.yes,
        Some(Kind::Polite) => true,
        Some(Kind::Fact | Kind::Link) => strong,
        _ => false,
    };
    let first = hits.iter().find(|hit| !plain(hit))?;
    let tells = |hit: &&Hit| {
        matches!(
            hit.kind,
            Some(Kind::Polite | Kind::Link | Kind::Fact | Kind::Topic | Kind::Person | Kind::Story)
        )
    };
    if !clause.yes && is_thanks(hits) {
        return None;
    }
    let verb = |hit: &Hit| hit.text.split(' ').any(|word| VERBS.contains(&word));
    // A reason for a yes is a sentence without a yes. Beside a mere "yes" it is an answer.
    if !clause.yes && strong && hits.iter().any(verb) {
        return hits.iter().find(|hit| !tells(hit));
    }
    Some(first)
}

/// "Thanks for setting it out so clearly": about what was done, whatever the words. Not if they
/// refuse or put off.
fn is_thanks(hits: &[Hit]) -> bool {
    const FOR: [&str; 7] = ["for", "fur", "furs", "pour", "du", "por", "voor"];
    const STEMS: [&str; 6] = ["thank", "thx", "dank", "merci", "gracias", "bedankt"];
    let [thanks, rest @ ..] = hits else {
        return false;
    };
    let thanked =
        thanks.kind == Some(Kind::Polite) && STEMS.iter().any(|stem| thanks.text.contains(stem));
    let joined = FOR.iter().any(|word| {
        thanks.text.ends_with(&format!(" {word}"))
            || rest
                .first()
                .is_some_and(|hit| hit.text.split(' ').next() == Some(word))
    });
    let harmless = |hit: &Hit| {
        matches!(
            hit.kind,
            None | Some(
                Kind::Polite
                    | Kind::Link
                    | Kind::Fact
                    | Kind::Topic
                    | Kind::Person
                    | Kind::Story
                    | Kind::Part
                    | Kind::Report
            )
        )
    };
    hits.len() <= MAX_THANKS && thanked && joined && rest.iter().all(harmless)
}

/// Whose name a clause may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    None,
    /// Of whom the reply greets: "Hi Sam".
    Greeted,
    /// The writer's: "Thanks, Dana".
    Signs,
}

/// A clause without the name it consists of ("Dana Novak") or that its thanks end with.
fn without_name<'a>(clause: &Clause<'a>, name: Name) -> &'a [Hit] {
    let hits = clause.hits;
    if name == Name::None {
        return hits;
    }
    let signs = name == Name::Signs && !clause.yes && hits.len() <= NAME;
    let is_first_name = |hit: &Hit| hit.kind.is_none() && lexicon::is_first_name(&hit.text);
    let unknown = |hit: &Hit| hit.kind.is_none();
    if signs && is_first_name(&hits[0]) && hits.iter().all(unknown) {
        return &[];
    }
    match hits {
        [rest @ .., courtesy, last]
            if is_first_name(last)
                && COURTESY.contains(&courtesy.text.as_str())
                && !rest.iter().any(unknown) =>
        {
            &hits[..hits.len() - 1]
        }
        _ => hits,
    }
}
