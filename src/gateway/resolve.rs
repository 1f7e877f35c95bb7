//! What a call means in HaloPSA: its names become rows once, before anything is decided, and the
//! same rows are looked at again before it runs.

use super::{AgentScope, Gateway};
use crate::halopsa::{self, types};
use crate::tools::read;
use crate::tools::rows::KNOWN_FOR;
use crate::tools::write::directory::{Directory, Needs};
use crate::tools::write::resolve::{About, Canonical, resolve};
use crate::tools::write::{self, Write};
use serde_json::{Map, Value};
use std::time::Duration;

/// When a call runs, lists are not older than this.
const RECENT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the arguments do not fit: {0}")]
    Arguments(String),
    #[error(transparent)]
    Halo(#[from] halopsa::Error),
}

/// Resolves calls about one ticket.
pub struct Resolver<'a> {
    pub gateway: &'a Gateway,
    pub scope: &'a AgentScope,
    pub halo: &'a halopsa::Client,
    /// As it is now.
    pub ticket: &'a types::Ticket,
}

impl Resolver<'_> {
    /// The canonical arguments of a call.
    pub async fn canonical(
        &self,
        tool: &str,
        arguments: &Map<String, Value>,
        write: &Write,
    ) -> Result<Map<String, Value>, Error> {
        let directory = self.directory(tool, arguments, KNOWN_FOR).await?;
        resolve(write, &self.about(&directory))
            .map(|canonical| canonical.arguments())
            .map_err(Error::Arguments)
    }

    /// Whether HaloPSA still means the same by a call; else why not.
    pub async fn still_holds(
        &self,
        tool: &str,
        canonical: &Canonical,
    ) -> Result<Result<(), String>, halopsa::Error> {
        let arguments = canonical.arguments();
        let directory = self.directory(tool, &arguments, RECENT).await?;
        Ok(canonical.still_holds(&self.about(&directory)))
    }

    async fn directory(
        &self,
        tool: &str,
        arguments: &Map<String, Value>,
        max_age: Duration,
    ) -> Result<Directory, halopsa::Error> {
        let needs = Needs::of(tool, arguments, self.ticket);
        let connection = &self.scope.connection;
        let tenant = format!(
            "{} {}",
            self.scope.connection_uid(),
            connection.spec.instance_url
        );
        let rows = &self.gateway.rows;
        let mut directory = rows.directory(self.halo, &tenant, needs, max_age).await?;
        // Another client's article does not exist.
        let client = self.scope.halo_client_id;
        directory.article = directory
            .article
            .filter(|a| read::may_read_article(a, client));
        Ok(directory)
    }

    fn about<'d>(&'d self, directory: &'d Directory) -> About<'d> {
        About {
            ticket: self.ticket,
            directory,
            api_agent: self.scope.api_agent(),
        }
    }
}

/// Parses a call's arguments, and takes out why the agent wants it. A technician is never asked to
/// approve nonsense.
pub fn parse(
    tool: &str,
    arguments: &mut Map<String, Value>,
) -> Result<(Option<String>, Write), Error> {
    let why = write::take_why(arguments).map_err(Error::Arguments)?;
    let write = write::parse(tool, arguments).map_err(Error::Arguments)?;
    Ok((why, write))
}
