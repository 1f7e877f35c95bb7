//! Who may approve besides the assigned technician.

use crate::api::policy::Approvers;
use crate::api::ticket::Step;
use crate::halopsa::technicians::UNASSIGNED;
use crate::halopsa::types;
use crate::ids::TechnicianId;

/// The technicians who may approve every one of the steps, besides the assigned one.
pub fn further_approvers<'a>(
    steps: impl IntoIterator<Item = &'a Step>,
    technicians: &[types::Agent],
) -> Vec<TechnicianId> {
    let mut all: Option<Vec<TechnicianId>> = None;
    for step in steps {
        let of_step = step
            .approvers
            .as_ref()
            .map(|a| members(a, technicians))
            .unwrap_or_default();
        all = Some(match all {
            None => of_step,
            Some(all) => all.into_iter().filter(|id| of_step.contains(id)).collect(),
        });
    }
    all.unwrap_or_default()
}

fn members(approvers: &Approvers, technicians: &[types::Agent]) -> Vec<TechnicianId> {
    let mut ids = approvers.agent_ids.clone().unwrap_or_default();
    if let Some(team) = &approvers.team {
        let is_in = |a: &&types::Agent| {
            a.team.eq_ignore_ascii_case(team)
                || a.teams
                    .iter()
                    .flatten()
                    .any(|t| t.name.eq_ignore_ascii_case(team))
        };
        ids.extend(
            technicians
                .iter()
                .filter(|a| !a.isdisabled)
                .filter(is_in)
                .map(|a| a.id),
        );
    }
    ids.retain(|id| *id > UNASSIGNED);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ticket::StepState;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    #[test]
    fn an_approver_is_one_for_every_step() {
        let technicians: Vec<types::Agent> = [(3, "1st Line"), (4, "2nd Line"), (5, "2nd Line")]
            .map(|(id, team)| types::Agent {
                id: TechnicianId(id),
                name: format!("Technician {id}"),
                team: team.into(),
                ..Default::default()
            })
            .into();
        let step = |approvers: Option<Approvers>| Step {
            number: 1,
            run: 0,
            tool: "t".into(),
            arguments: "{}".into(),
            hash: String::new(),
            pin: String::new(),
            why: None,
            rule: String::new(),
            state: StepState::Waiting,
            marker: String::new(),
            recorded_at: Time(Timestamp::UNIX_EPOCH),
            result: None,
            approvers,
            high_risk: false,
        };
        let team = step(Some(Approvers {
            team: Some("2nd line".into()),
            agent_ids: None,
        }));
        let named = step(Some(Approvers {
            team: None,
            agent_ids: Some([5, 9].map(TechnicianId).into()),
        }));
        let approvers = |steps: &[&Step]| further_approvers(steps.iter().copied(), &technicians);
        assert_eq!(approvers(&[&team]), [4, 5].map(TechnicianId));
        assert_eq!(approvers(&[&team, &named]), [5].map(TechnicianId));
        assert!(approvers(&[&team, &step(None)]).is_empty());
    }
}
