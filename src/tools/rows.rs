//! Reads the rows of HaloPSA that calls name, and remembers the lists for a moment.

use super::write::directory::{Directory, Needs};
use crate::halopsa::types::{Agent, Category, Named, PriorityRow};
use crate::halopsa::{self, Client};
use crate::k8s::cache::Remembered;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A list that was read earlier is read again after this time.
pub const KNOWN_FOR: Duration = Duration::from_secs(60);

/// The lists of each connection. A connection that is gone is forgotten with its lists' time.
#[derive(Default)]
pub struct Rows {
    statuses: List<Named>,
    priorities: List<PriorityRow>,
    types: List<Named>,
    categories: List<Category>,
    teams: List<Named>,
    technicians: List<Agent>,
}

impl Rows {
    /// The rows that a call needs, none of them older than `max_age`. `of` names the tenant: a
    /// connection that points to another one has other rows.
    pub async fn directory(
        &self,
        halo: &Client,
        of: &str,
        needs: Needs,
        max_age: Duration,
    ) -> Result<Directory, halopsa::Error> {
        let max_age = max_age.min(KNOWN_FOR);
        let article = match needs.article {
            Some(id) => found(halo.article(id).await)?,
            None => None,
        };
        let requester = match needs.requester {
            Some(id) => found(halo.user(id).await)?,
            None => None,
        };
        Ok(Directory {
            statuses: self
                .statuses
                .get(needs.statuses, of, max_age, halo.statuses())
                .await?,
            priorities: self
                .priorities
                .get(needs.priorities, of, max_age, halo.priorities())
                .await?,
            types: self
                .types
                .get(needs.types, of, max_age, halo.ticket_types())
                .await?,
            categories: self
                .categories
                .get(needs.categories, of, max_age, halo.categories())
                .await?,
            teams: self
                .teams
                .get(needs.teams, of, max_age, halo.teams())
                .await?,
            technicians: self
                .technicians
                .get(needs.technicians, of, max_age, halo.agents())
                .await?,
            article,
            requester,
        })
    }
}

fn found<T>(read: Result<T, halopsa::Error>) -> Result<Option<T>, halopsa::Error> {
    match read {
        Err(halopsa::Error::NotFound { .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// One list of each tenant, with the time it was read.
struct List<T>(Remembered<String, (Instant, Arc<Vec<T>>)>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Remembered::default())
    }
}

impl<T> List<T> {
    async fn get(
        &self,
        wanted: bool,
        of: &str,
        max_age: Duration,
        read: impl Future<Output = Result<Vec<T>, halopsa::Error>>,
    ) -> Result<Arc<Vec<T>>, halopsa::Error> {
        if !wanted {
            return Ok(Arc::default());
        }
        if let Some((at, rows)) = self.0.get(of)
            && at.elapsed() < max_age
        {
            return Ok(rows);
        }
        let rows = Arc::new(read.await?);
        let mut known = self.0.lock();
        known.retain(|_, (at, _)| at.elapsed() < KNOWN_FOR);
        known.insert(of.to_string(), (Instant::now(), rows.clone()));
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_is_read_when_it_is_too_old_or_of_another_tenant() {
        let list = List::<i64>::default();
        let read = |wanted, of, age, n| list.get(wanted, of, age, async move { Ok(vec![n]) });
        let minute = Duration::from_secs(60);
        for (wanted, of, age, n, rows) in [
            (false, "a", minute, 1, vec![]),
            (true, "a", minute, 2, vec![2]),
            (true, "a", minute, 3, vec![2]),
            (true, "b", minute, 4, vec![4]),
            (true, "a", Duration::ZERO, 5, vec![5]),
            (true, "a", minute, 6, vec![5]),
        ] {
            assert_eq!(*read(wanted, of, age, n).await.unwrap(), rows, "{n}");
        }
    }
}
