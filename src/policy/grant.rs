//! What a call is permitted, and the order of permissions: which permits no more than which.

use crate::api::policy::{Approvers, Effect};
use std::cmp::Ordering;

/// What a call is permitted. Two are compared by what they permit, not by how they say it:
/// `a <= b` says that `a` permits nothing that `b` does not.
#[derive(Clone, Debug)]
pub struct Grant {
    pub effect: Effect,
    /// The requester must have proved who they are.
    pub require_verification: bool,
    /// Who may approve besides the assigned technician; nobody, if absent.
    pub approvers: Option<Approvers>,
}

impl Grant {
    pub fn new(effect: Effect) -> Self {
        Self {
            effect,
            require_verification: false,
            approvers: None,
        }
    }

    /// The most that permits no more than this one, and no more than the other.
    pub fn meet(&self, other: &Self) -> Self {
        let effect = match strictness(self.effect) >= strictness(other.effect) {
            true => self.effect,
            false => other.effect,
        };
        // What runs at once asks nobody, so it says nothing about who may approve.
        let asking: Vec<&Self> = [self, other]
            .into_iter()
            .filter(|g| g.effect == Effect::ApprovalNeeded)
            .collect();
        let approvers = match (effect, asking.as_slice()) {
            (Effect::ApprovalNeeded, [one]) => one.approvers.clone(),
            (Effect::ApprovalNeeded, [a, b]) => common(a.approvers.as_ref(), b.approvers.as_ref()),
            _ => None,
        };
        Self {
            effect,
            require_verification: self.require_verification || other.require_verification,
            approvers,
        }
    }

    fn at_most(&self, other: &Self) -> bool {
        if self.effect == Effect::Disabled {
            return true;
        }
        let as_strict = strictness(self.effect) >= strictness(other.effect);
        let as_verified = self.require_verification || !other.require_verification;
        let as_few = other.effect != Effect::ApprovalNeeded
            || within(self.approvers.as_ref(), other.approvers.as_ref());
        as_strict && as_verified && as_few
    }
}

impl PartialEq for Grant {
    fn eq(&self, other: &Self) -> bool {
        self.at_most(other) && other.at_most(self)
    }
}

impl PartialOrd for Grant {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.at_most(other), other.at_most(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Less),
            (false, true) => Some(Ordering::Greater),
            (false, false) => None,
        }
    }
}

pub fn strictness(effect: Effect) -> u8 {
    match effect {
        Effect::Auto => 0,
        Effect::ApprovalNeeded => 1,
        Effect::Disabled => 2,
    }
}

/// Who may approve by both. Who is in a team is not known here: a person of one and the team of
/// the other are not taken for each other.
fn common(a: Option<&Approvers>, b: Option<&Approvers>) -> Option<Approvers> {
    let (a, b) = (a?, b?);
    let mut ids = a.agent_ids.clone().unwrap_or_default();
    ids.retain(|id| b.agent_ids.iter().flatten().any(|other| other == id));
    let team = a.team.clone().filter(|_| is_same_team(a, b));
    let approvers = Approvers {
        agent_ids: (!ids.is_empty()).then_some(ids),
        team,
    };
    (approvers != Approvers::default()).then_some(approvers)
}

/// Whether all of these are among those.
fn within(these: Option<&Approvers>, those: Option<&Approvers>) -> bool {
    let nobody = Approvers::default();
    let (these, those) = (these.unwrap_or(&nobody), those.unwrap_or(&nobody));
    let mut ids = these.agent_ids.iter().flatten();
    ids.all(|id| those.agent_ids.iter().flatten().any(|other| other == id))
        && (these.team.is_none() || is_same_team(these, those))
}

fn is_same_team(a: &Approvers, b: &Approvers) -> bool {
    match (&a.team, &b.team) {
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TechnicianId;
    use proptest::prelude::*;

    fn grants() -> impl Strategy<Value = Grant> {
        let effect = prop_oneof![
            Just(Effect::Auto),
            Just(Effect::ApprovalNeeded),
            Just(Effect::Disabled)
        ];
        let ids = prop::option::of(prop::collection::vec(2i64..6, 1..4));
        let team = prop::option::of("[aAb]");
        (effect, any::<bool>(), ids, team).prop_map(|(effect, require_verification, ids, team)| {
            let approvers = Approvers {
                agent_ids: ids.map(|ids| ids.into_iter().map(TechnicianId).collect()),
                team,
            };
            Grant {
                effect,
                require_verification,
                approvers: (effect == Effect::ApprovalNeeded && approvers != Approvers::default())
                    .then_some(approvers),
            }
        })
    }

    proptest! {
        #[test]
        fn the_meet_is_the_most_that_both_permit(a in grants(), b in grants(), c in grants()) {
            let both = a.meet(&b);
            prop_assert!(both <= a && both <= b);
            prop_assert_eq!(&both, &b.meet(&a));
            prop_assert_eq!(a.meet(&a), a.clone());
            prop_assert_eq!(both.meet(&c), a.meet(&b.meet(&c)));
            if c <= a && c <= b {
                prop_assert!(c <= both);
            }
        }

        #[test]
        fn it_is_an_order(a in grants(), b in grants(), c in grants()) {
            prop_assert!(a <= a.clone());
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }
    }

    #[test]
    fn who_may_approve_never_grows() {
        let grant = |ids: &[i64], team: Option<&str>| Grant {
            approvers: Some(Approvers {
                agent_ids: (!ids.is_empty())
                    .then(|| ids.iter().map(|i| TechnicianId(*i)).collect()),
                team: team.map(str::to_string),
            }),
            ..Grant::new(Effect::ApprovalNeeded)
        };
        let (few, many) = (grant(&[3], None), grant(&[3, 4], Some("2nd line")));
        let both = few.meet(&many);
        assert_eq!(both.approvers, few.approvers);
        let team = grant(&[5], Some("2nd Line"));
        let team = many.meet(&team).approvers.unwrap();
        assert_eq!(
            (team.agent_ids, team.team.as_deref()),
            (None, Some("2nd line"))
        );
        let nobody = Grant::new(Effect::ApprovalNeeded);
        assert_eq!(many.meet(&nobody).approvers, None);
        assert_eq!(
            many.meet(&Grant::new(Effect::Auto)).approvers,
            many.approvers
        );
    }
}
