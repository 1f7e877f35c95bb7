//! The decision about a call, from the policies of its client's connection.

use super::grant::{Grant, strictness};
use super::{
    Access, Call, Client, Condition, Decision, Level, Named, applies, condition, names,
    names_exactly, rule_name,
};
use crate::api::Mode;
use crate::api::policy::{Effect, ToolRule};

const BY_PATTERN: &str = "a pattern does not enable a destructive tool, only a rule that names it \
    exactly";
const UNTOLD: &str = "a rule could not be evaluated, so the strictest of what it may mean counts";
const SENSITIVE: &str = "it is a sensitive tool, so the requester has to be verified; only a rule \
    that names it exactly and says requireVerification: false lifts that";
const REQUIRED: &str = "a rule requires that the requester is verified";

/// Decides about one call. `policies` are those of the client's connection.
pub fn decide(mode: Mode, client: Client<'_>, call: &Call<'_>, policies: &[Named<'_>]) -> Decision {
    if mode == Mode::Plan && call.access != Access::Read {
        let grant = Grant::new(Effect::Disabled);
        return Settled::new(grant, "Plan mode: read-only tools".into()).decision();
    }
    let (own, connection) = levels(client, call, policies);
    let built_in = built_in(call);
    let locked = connection.as_ref().is_some_and(|said| said.required);
    if let Some(said) = &connection
        && said.grant.effect == Effect::Disabled
    {
        let mut settled = Settled::new(Grant::new(Effect::Disabled), said.rule.clone());
        settled.notes.extend(said.untold.then_some(UNTOLD));
        return settled.decision();
    }
    let below = over(connection, false, call, built_in);
    over(own, locked, call, below).decision()
}

/// What the client's policies say, and those of the whole connection.
fn levels(
    client: Client<'_>,
    call: &Call<'_>,
    policies: &[Named<'_>],
) -> (Option<Said>, Option<Said>) {
    let mut sorted: Vec<&Named<'_>> = policies.iter().collect();
    // A stable order, whatever order the cluster lists them in.
    sorted.sort_by_key(|p| p.name);
    let (mut own, mut connection) = (None, None);
    for policy in sorted {
        let level = applies(policy.spec, client);
        let said = said_by(policy, client, call);
        match level {
            Level::Client => own = Said::merge(own, said),
            Level::Broken => own = Said::merge(own, said.map(Said::open)),
            Level::Connection => connection = Said::merge(connection, said),
            Level::None => {}
        }
    }
    (own, connection)
}

/// What policies say about a call: the strictest of all they may say, where that cannot be told.
#[derive(Clone, Debug)]
struct Said {
    grant: Grant,
    /// The first of the strictest rules, so that the same one is named every time.
    rule: String,
    /// They may also say nothing.
    open: bool,
    /// Whatever they say, a rule that names the tool exactly says it.
    exact: bool,
    /// A rule requires verification.
    required: bool,
    /// Whatever they say, a rule that names the tool exactly lifts the requirement.
    lifted: bool,
    /// Something could not be evaluated.
    untold: bool,
}

impl Said {
    fn by_rule(rule: &ToolRule, name: String, tool: &str) -> Self {
        let exact = names_exactly(rule, tool);
        let required = rule.require_verification == Some(true);
        Self {
            grant: Grant {
                effect: rule.effect,
                require_verification: required,
                approvers: rule.approvers.clone(),
            },
            rule: name,
            open: false,
            exact,
            required,
            lifted: exact && rule.require_verification == Some(false),
            untold: false,
        }
    }

    /// It may also say nothing, so it lifts nothing.
    fn open(self) -> Self {
        Self {
            open: true,
            exact: false,
            lifted: false,
            untold: true,
            ..self
        }
    }

    /// The stricter of both: `self` names the rule, unless the other is stricter.
    fn and(self, other: Self) -> Self {
        let stricter = strictness(other.grant.effect) > strictness(self.grant.effect);
        Self {
            grant: self.grant.meet(&other.grant),
            rule: if stricter { other.rule } else { self.rule },
            required: self.required || other.required,
            untold: self.untold || other.untold,
            ..self
        }
    }

    /// This or the other, in one policy: only one of them decides.
    fn or_else(self, other: Self) -> Self {
        let (open, exact, lifted) = (
            self.open && other.open,
            self.exact && other.exact,
            self.lifted && other.lifted,
        );
        Self {
            open,
            exact,
            lifted,
            ..self.and(other)
        }
    }

    /// Policies of one level: each of them counts.
    fn merge(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let (one, other) = match (one, other) {
            (Some(one), Some(other)) => (one, other),
            (one, other) => return one.or(other),
        };
        let (open, exact, lifted) = (
            one.open && other.open,
            one.exact || other.exact,
            one.lifted || other.lifted,
        );
        Some(Self {
            open,
            exact,
            lifted,
            ..one.and(other)
        })
    }
}

/// What one policy says: its first rule that matches. A rule whose condition cannot be evaluated
/// may match or not, so those that follow count too.
fn said_by(policy: &Named<'_>, client: Client<'_>, call: &Call<'_>) -> Option<Said> {
    let mut said: Option<Said> = None;
    let rules = policy.spec.rules.iter().enumerate();
    for (index, rule) in rules.filter(|(_, rule)| names(rule, call.tool)) {
        let condition = condition(rule, client, call);
        if matches!(condition, Condition::DoesNotHold) {
            continue;
        }
        let mut by_rule = Said::by_rule(rule, rule_name(policy, index), call.tool);
        by_rule.untold = !matches!(condition, Condition::Holds);
        let both = match said {
            Some(said) => said.or_else(by_rule),
            None => by_rule,
        };
        if matches!(condition, Condition::Holds) {
            return Some(both);
        }
        said = Some(both);
    }
    said.map(Said::open)
}

/// A level's result.
struct Settled {
    grant: Grant,
    rule: String,
    notes: Vec<&'static str>,
}

impl Settled {
    fn new(grant: Grant, rule: String) -> Self {
        Self {
            grant,
            rule,
            notes: Vec::new(),
        }
    }

    fn decision(self) -> Decision {
        let mut notes = self.notes;
        let asks = self.grant.effect != Effect::Disabled;
        let about_verification = |note: &&str| matches!(*note, SENSITIVE | REQUIRED);
        notes.retain(|note| !about_verification(note) || (asks && self.grant.require_verification));
        let mut seen = Vec::new();
        notes.retain(|note| {
            let fresh = !seen.contains(note);
            seen.push(*note);
            fresh
        });
        Decision {
            effect: self.grant.effect,
            rule: self.rule,
            approvers: self.grant.approvers,
            require_verification: self.grant.require_verification,
            reason: notes.join("; "),
        }
    }
}

fn built_in(call: &Call<'_>) -> Settled {
    let effect = match call.access {
        Access::Read => Effect::Auto,
        Access::Write => Effect::ApprovalNeeded,
        Access::Destructive => Effect::Disabled,
    };
    let grant = Grant {
        require_verification: call.sensitive,
        ..Grant::new(effect)
    };
    let mut settled = Settled::new(grant, "built-in".into());
    settled.notes.extend(call.sensitive.then_some(SENSITIVE));
    settled
}

/// What a level says, over what would be without it. `locked`: verification is required anyway.
fn over(said: Option<Said>, locked: bool, call: &Call<'_>, below: Settled) -> Settled {
    let Some(said) = said else {
        return below;
    };
    let mut own = Settled::new(said.grant, said.rule);
    own.notes.extend(said.untold.then_some(UNTOLD));
    if call.access == Access::Destructive && !said.exact && own.grant.effect != Effect::Disabled {
        own.grant = Grant {
            effect: Effect::Disabled,
            approvers: None,
            ..own.grant
        };
        own.notes.push(BY_PATTERN);
    }
    let sensitive = call.sensitive && !said.lifted;
    own.grant.require_verification |= locked || said.required || sensitive;
    own.notes.extend(sensitive.then_some(SENSITIVE));
    own.notes
        .extend((locked || said.required).then_some(REQUIRED));
    if !said.open {
        return own;
    }
    let stricter = strictness(below.grant.effect) > strictness(own.grant.effect);
    let mut notes = own.notes;
    notes.extend(below.notes);
    Settled {
        grant: own.grant.meet(&below.grant),
        rule: if stricter { below.rule } else { own.rule },
        notes,
    }
}

/// Whether agents see a tool: whether any call of it might be allowed.
pub fn visible(
    mode: Mode,
    client: Client<'_>,
    tool: &str,
    access: Access,
    policies: &[Named<'_>],
) -> bool {
    if mode == Mode::Plan && access != Access::Read {
        return false;
    }
    let mut own_decides = false;
    let (mut own_enables, mut connection_enables) = (false, false);
    for policy in policies {
        let level = applies(policy.spec, client);
        let may = match level {
            Level::None => continue,
            _ => MaySay::of(policy, tool),
        };
        if may.only_disabled {
            return false;
        }
        match level {
            Level::Client => {
                own_decides |= may.decides;
                own_enables |= may.enables;
            }
            Level::Connection => connection_enables |= may.enables,
            Level::Broken | Level::None => {}
        }
    }
    access != Access::Destructive || own_enables || (connection_enables && !own_decides)
}

/// What a policy may say about some call of a tool: rules with `when` may match or not.
#[derive(Default)]
struct MaySay {
    /// `Disabled`, about every call.
    only_disabled: bool,
    /// Something, about every call.
    decides: bool,
    /// Something else than `Disabled`, by a rule that names the tool exactly.
    enables: bool,
}

impl MaySay {
    fn of(policy: &Named<'_>, tool: &str) -> Self {
        let mut may = Self::default();
        let mut allows = false;
        for rule in policy.spec.rules.iter().filter(|rule| names(rule, tool)) {
            if rule.effect != Effect::Disabled {
                allows = true;
                may.enables |= names_exactly(rule, tool);
            }
            if rule.when.is_none() {
                may.decides = true;
                break;
            }
        }
        may.only_disabled = may.decides && !allows;
        may
    }
}
