//! From settings to a store.

use std::{sync::Arc, time::Duration};

use super::{Config, HistoryConfig, WaitConfig};
use crate::{
    ConfigError, ConnectError,
    meter::LockMeter,
    store::{AnyStore, Rules, Settings},
};

/// A poll of a waiting process may come most of a poll late before it is passed over, and may fail twice before its place in the
/// queue is lost.
const POLLS_IN_A_PLACE: u32 = 4;

impl WaitConfig {
    /// How long a place in a queue lasts.
    pub(crate) fn place(&self) -> Duration {
        self.poll * POLLS_IN_A_PLACE
    }
}

impl Config {
    /// Opens the store that the URL names.
    pub(crate) async fn open_store(&self, meter: Arc<LockMeter>) -> Result<AnyStore, ConnectError> {
        let Some(url) = self.url.with_password() else { return self.open_memory() };
        let settings = Settings {
            rules: self.rules(),
            url,
            ca: self.read_ca()?,
            prefix: &self.prefix,
            fence_kept: self.fence_kept,
            deadline: self.deadline,
            pool: &self.pool,
        };
        AnyStore::redis(settings, meter).await
    }

    fn rules(&self) -> Rules {
        let HistoryConfig { enabled, entries, kept } = self.history;
        let history = enabled.then_some((entries, kept));
        Rules {
            place: self.wait.place(),
            history,
            tries_again: self.retry.attempts > 1,
            restart_grace: self.restart_grace,
        }
    }

    #[cfg(feature = "memory")]
    fn open_memory(&self) -> Result<AnyStore, ConnectError> {
        Ok(AnyStore::memory(self.url.memory_name(), self.rules()))
    }

    #[cfg(not(feature = "memory"))]
    fn open_memory(&self) -> Result<AnyStore, ConnectError> {
        let variable = super::fields::URL.to_owned();
        let right = "memory:// needs the feature memory".to_owned();
        Err(ConfigError { variable, value: self.url.to_string(), right }.into())
    }

    fn read_ca(&self) -> Result<Option<Vec<u8>>, ConfigError> {
        let Some(path) = &self.tls_ca_file else { return Ok(None) };
        std::fs::read(path).map(Some).map_err(|error| ConfigError {
            variable: "SPOOL_LOCK_TLS_CA_FILE".to_owned(),
            value: path.display().to_string(),
            right: format!("it cannot be read: {error}; a PEM file can"),
        })
    }
}
