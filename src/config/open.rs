//! From settings to a store.

use std::sync::Arc;

use super::Config;
use crate::{
    ConfigError, ConnectError,
    meter::LockMeter,
    store::{AnyStore, Settings},
};

impl Config {
    /// Opens the store that the URL names.
    pub(crate) async fn open_store(&self, meter: Arc<LockMeter>) -> Result<AnyStore, ConnectError> {
        let Some(url) = self.url.redis() else { return self.open_memory() };
        let settings = Settings {
            url,
            ca: self.read_ca()?,
            prefix: &self.prefix,
            fence_kept: self.fence_kept,
            deadline: self.deadline,
            pool: &self.pool,
        };
        AnyStore::redis(settings, meter).await
    }

    #[cfg(feature = "memory")]
    fn open_memory(&self) -> Result<AnyStore, ConnectError> {
        Ok(AnyStore::memory(self.url.memory_name()))
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
