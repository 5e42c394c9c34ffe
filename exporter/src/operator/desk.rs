//! [`Desk`]: where an order is carried out: a connection for it, by the settings of the services.

use std::time::{Duration, SystemTime};

use spool_lock::{Config, SpoolLocks};

use super::answer::Refusal;

/// How long an operator waits for a connection; a service may wait longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// One to ask over, and one to hear that a lock that is waited for is free.
const CONNECTIONS: u32 = 2;

/// The locks of the services' prefix, for one order.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) config: Config,
    pub(super) locks: SpoolLocks,
}

impl Desk {
    pub(super) async fn open() -> Result<Self, Refusal> {
        Self::open_by(settings()?).await
    }

    /// By settings that an order has changed.
    pub(super) async fn open_by(mut config: Config) -> Result<Self, Refusal> {
        config.pool.max_connections = CONNECTIONS;
        let opened = SpoolLocks::connect(config.clone()).await;
        let locks = opened.map_err(|error| Refusal::of_connect(error, &config.url))?;
        Ok(Self { config, locks })
    }

    /// The server's time: what it says of leases is by its clock.
    pub(super) fn now(&self) -> SystemTime {
        let ahead = self.locks.stats().server.clock_offset_seconds;
        let offset = Duration::try_from_secs_f64(ahead.abs()).unwrap_or_default();
        let now = SystemTime::now();
        if ahead < 0.0 { now - offset } else { now + offset }
    }
}

/// The settings of the services, without what belongs to a service alone.
pub(super) fn settings() -> Result<Config, Refusal> {
    let mut config = Config::from_env().map_err(|wrong| Refusal::Usage(wrong.to_string()))?;
    if config.url.with_password().is_none() {
        let (url, right) = (&config.url, "redis://, rediss:// and redis+unix:// can be looked at from here");
        return Err(Refusal::Usage(format!("SPOOL_LOCK_URL: {url} is the memory of one process; {right}")));
    }
    config.snapshot = None;
    config.pool.connect_timeout = config.pool.connect_timeout.min(CONNECT_TIMEOUT);
    Ok(config)
}
