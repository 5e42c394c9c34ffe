//! [`Config`]: every setting, its default and its bounds; from code or from the environment.
//!
//! The table in `fields` is the only place that knows names, bounds and reasons. [`Config::from_env`] reads through it,
//! [`Config::check`] sends the values of a config built in code through it again, and `docs/config.md` is printed from it.

mod fields;
mod open;
mod rights;
mod url;

use std::{path::PathBuf, time::Duration};

pub use self::{
    rights::{Right, RightPurpose},
    url::StoreUrl,
};
use crate::{CircuitConfig, ConfigError, PoolConfig, Rate, RetryConfig, SnapshotEndpoint, Ttl};

/// Every setting of a [`SpoolLocks`](crate::SpoolLocks).
///
/// # Examples
/// ```
/// use spool_lock::Config;
/// let mut config = Config::new("redis://127.0.0.1:6379")?;
/// config.pool.max_connections = 10;
/// config.check()?;
///
/// config.pool.max_connections = 0;
/// let error = config.check().unwrap_err();
/// assert_eq!(error.to_string(), "SPOOL_LOCK_MAX_CONNECTIONS: \"0\" cannot be used; 1 to 1000 can");
/// # Ok::<(), spool_lock::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Where the locks are: `redis://`, `rediss://`, `redis+unix://`, `memory://` or `memory://NAME`. Default
    /// `redis://127.0.0.1:6379`.
    pub url: StoreUrl,
    /// What all keys begin with: 1 to 32 of `A-Z a-z 0-9 : _ . -`. Default `spool`.
    pub prefix: String,
    /// How long a call may take, everything included but an acquire's wait in line. Default 5 s; 1 ms to 1 h.
    pub deadline: Duration,
    /// How long a lock lasts where the call does not say. Default 1 h.
    pub ttl: Ttl,
    /// How long the last fence of a tag is remembered after its lock has ended. Default 24 h; 1 min to 30 days.
    pub fence_kept: Duration,
    /// For how long after the server's start nobody is granted a tag of which the server knows no fence, so that leases that it has
    /// lost can be put back first: who asks is told [`Warming`](crate::AcquireError::Warming). Default 0, not at all; up to 1 h.
    ///
    /// Every process that shares the prefix waits only if it says so itself. The server counts its time in whole seconds, that of
    /// loading its data included: up to 1 s more is waited for. The user of Redis needs `+info`.
    pub restart_grace: Duration,
    /// How many releases, and extends downwards, that could not be sent are kept for later. Default 10,000; 0 to 1,000,000. With 0 their
    /// callers are told the fault instead.
    pub deferred: u32,
    /// How old a last known state may be to be answered while Redis cannot be asked. Default 15 min; 1 s to 1 day.
    pub snapshot_max_age: Duration,
    /// Where the process serves its snapshot for the exporter. Default: nowhere.
    pub snapshot: Option<SnapshotEndpoint>,
    /// A PEM file with the certificate authorities to trust for `rediss://`. Default: those of the system.
    pub tls_ca_file: Option<PathBuf>,
    /// The connections.
    pub pool: PoolConfig,
    /// Waiting for a lock that somebody else holds.
    pub wait: WaitConfig,
    /// Locks that are tied to a value of the process.
    pub guard: GuardConfig,
    /// When calls are refused because Redis has failed too often.
    pub circuit: CircuitConfig,
    /// How calls are sent again after a fault.
    pub retry: RetryConfig,
    /// What is remembered of past grants.
    pub history: HistoryConfig,
    /// How often locks may be asked for.
    pub limits: LimitsConfig,
}

/// Waiting for a lock that somebody else holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitConfig {
    /// How long an acquire waits where the call does not say. Default 0, one look; up to 1 day.
    pub wait: Duration,
    /// How often the first of this process that waits for a tag looks although nobody called it, and up to 20 % later, so that
    /// processes do not look all at once. After twice as long without a look it is passed over, and after four times as long its place
    /// in the queue is lost. Default 1 s; 50 ms to 1 min.
    pub poll: Duration,
    /// How many calls may wait for one tag; one more is refused at once. Default 1,000; 0 to 100,000.
    pub line: u32,
}

/// Locks that are tied to a value of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuardConfig {
    /// How long a guard's lock lasts after its last renewal. Default 30 s.
    pub ttl: Ttl,
    /// How long a guard is held at most: it is not renewed beyond this. Default 1 h; not shorter than the guard's ttl, up to 30 days.
    pub max_hold: Duration,
}

/// What is remembered of past grants, for [`SpoolLocks::history`](crate::SpoolLocks::history).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryConfig {
    /// Whether it is remembered at all. Default no.
    pub enabled: bool,
    /// Grants remembered for each tag. Default 32; 1 to 1000.
    pub entries: u32,
    /// How long they are remembered. Default 7 days; 1 min to 90 days.
    pub kept: Duration,
}

/// How often locks may be asked for; one acquire more is [`Limited`](crate::AcquireError::Limited) at once. Needs the feature
/// `rate-limit`: without it a limit that is set is refused.
///
/// Counted are the acquires of this [`SpoolLocks`](crate::SpoolLocks) and its clones; other processes count for themselves. An
/// identity, a guard, and each tag of a call that names several count once, whatever they are answered and however long they wait.
/// What a limit refuses counts for neither, nor does a call that names its [`token`](crate::Acquire::token), as it repeats another.
/// Extends and releases are never limited.
///
/// Those that have asked within the last period are remembered, 100,000 holders and as many tags, some 170 bytes each; beyond that
/// whoever has not asked for longest is forgotten, and given more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Acquires by one holder. Default: no limit. One whose count is below the number of tags that an
    /// [`acquire_all`](crate::SpoolLocks::acquire_all) names refuses that call always.
    pub per_holder: Option<Rate>,
    /// Acquires of one tag, by whomever. Default: no limit.
    pub per_tag: Option<Rate>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: StoreUrl::default(),
            prefix: "spool".to_owned(),
            deadline: Duration::from_secs(5),
            ttl: Ttl::HOUR,
            fence_kept: fields::DAY,
            restart_grace: Duration::ZERO,
            deferred: 10_000,
            snapshot_max_age: Duration::from_secs(15 * 60),
            snapshot: None,
            tls_ca_file: None,
            pool: PoolConfig::default(),
            wait: WaitConfig { wait: Duration::ZERO, poll: Duration::from_secs(1), line: 1000 },
            guard: GuardConfig { ttl: Ttl::HALF_MINUTE, max_hold: Duration::from_secs(3600) },
            circuit: CircuitConfig::default(),
            retry: RetryConfig::default(),
            history: HistoryConfig { enabled: false, entries: 32, kept: 7 * fields::DAY },
            limits: LimitsConfig::default(),
        }
    }
}

impl Config {
    /// The defaults, for the store at `url`; an empty `url` counts as not given.
    ///
    /// # Errors
    /// [`ConfigError`] — the URL cannot be used; what it says hides the password.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        Self::from_vars([("SPOOL_LOCK_URL".to_owned(), url.to_owned())])
    }

    /// Reads the variables `SPOOL_LOCK_*` of the environment, and `REDIS_URL` where there is no `SPOOL_LOCK_URL`.
    ///
    /// A variable that is empty counts as not set. `docs/config.md` lists them all.
    ///
    /// # Errors
    /// [`ConfigError`] — names the variable, its value (secrets masked) and what would be right. A `SPOOL_LOCK_*` that no
    /// setting has is refused too: it would otherwise be a setting that silently does nothing.
    pub fn from_env() -> Result<Self, ConfigError> {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self::from_vars(std::env::vars_os().map(|(variable, value)| (text(variable), text(value))))
    }

    /// As [`Config::from_env`], from a list of variables.
    ///
    /// # Errors
    /// [`ConfigError`] — as for [`Config::from_env`].
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut fallback = None;
        let mut has_url = false;
        for (variable, value) in vars.into_iter().filter(|(_, value)| !value.is_empty()) {
            if variable == fields::URL_FALLBACK {
                fallback = Some(value);
            } else if variable.starts_with(fields::PREFIX) {
                has_url |= variable == fields::URL;
                fields::set(&mut config, &variable, &value)?;
            }
        }
        if let (Some(value), false) = (fallback, has_url) {
            config.url = value.parse().map_err(|right| ConfigError {
                variable: fields::URL_FALLBACK.to_owned(),
                value: url::masked(&value),
                right,
            })?;
        }
        config.check()?;
        Ok(config)
    }

    /// Checks every value against its bounds; [`SpoolLocks::connect`](crate::SpoolLocks::connect) does so too.
    ///
    /// # Errors
    /// [`ConfigError`] — the first value that cannot be used, under the name of its variable.
    pub fn check(&self) -> Result<(), ConfigError> {
        fields::check(self)
    }
}
