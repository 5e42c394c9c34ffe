//! `doctor`: can the server keep locks, and what is to be changed?
//!
//! What is wrong is said by the library, which looks at the server whenever it connects; those rules are not written twice. Beside it
//! one [`Look`] over a connection of its own brings what an operator wants to see and the library has no use for: who uses the
//! connections, what is saved, which rights the user lacks. Where the library cannot connect, or the user may not look, the rest is
//! said all the same.

mod clients;
mod finding;
mod look;
mod page;
mod rights;

use std::time::Duration;

use spool_lock::{ConnectError, SpoolLocks};

use self::{finding::findings, look::Look, page::Page};
use super::{Answer, Form, Refusal, desk::settings};

/// How long the library may take to look; a healthy server needs some milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// The flags of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    #[command(flatten)]
    pub(super) form: Form,
}

impl Doctor {
    pub(super) async fn answer(&self) -> Result<Answer, Refusal> {
        // All connections of the settings are asked for, because the limit of the server is held against them; one is opened.
        let mut config = settings()?;
        config.deadline = config.deadline.min(PATIENCE);
        // First, and ended before the library connects: neither counts the other's connection.
        let look = Look::at(&config).await;
        let report = match SpoolLocks::connect(config.clone()).await {
            Ok(locks) => Ok(locks.stats().server),
            Err(ConnectError::Config(wrong)) => return Err(Refusal::Usage(wrong.to_string())),
            Err(error) => Err(error),
        };
        let findings = findings(&config, &look, &report);
        let page = Page { config: &config, look: &look, server: report.ok(), findings: &findings };
        Ok(Answer { text: page.text(), json: page.json(), is_well: findings.is_empty() })
    }
}
