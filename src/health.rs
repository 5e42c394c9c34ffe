//! [`Health`]: whether the service can do its work, told truthfully.

use std::{collections::BTreeMap, time::SystemTime};

use crate::PoolReport;

/// The health of a service that locks: of Redis, and of whatever else it is built on.
///
/// # Examples
/// ```
/// # async fn f(locks: spool_lock::SpoolLocks) {
/// use spool_lock::{ConnectionState, HealthStatus};
/// let health = locks.health().await.with_connection("sheets", ConnectionState::Ok);
/// assert_eq!(health.status, HealthStatus::Healthy);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// Whether locks can be taken and released.
    pub operational: bool,
    /// What the service stands on: `redis_connection` and one `NAME_connection` for each dependency.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub connections: BTreeMap<String, ConnectionState>,
    /// When this was true.
    #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
    pub timestamp: SystemTime,
    /// What stands behind the verdict.
    pub details: HealthDetails,
}

/// The verdict of a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum HealthStatus {
    /// Everything works.
    Healthy,
    /// Redis does not work, something else that can be read from does.
    Degraded,
    /// Nothing that could be read from works, or something beside Redis does not.
    Unhealthy,
}

/// Whether something that the service stands on answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum ConnectionState {
    /// It answers.
    Ok,
    /// It does not.
    Error,
}

/// What stands behind the verdict.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct HealthDetails {
    /// What is wrong with Redis; absent when nothing is.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub redis_error: Option<String>,
    /// The pool.
    pub redis_pool_stats: PoolReport,
}

const REDIS: &str = "redis_connection";

impl Health {
    pub(crate) fn new(redis_error: Option<String>, pool: PoolReport) -> Self {
        let redis = if redis_error.is_none() { ConnectionState::Ok } else { ConnectionState::Error };
        let mut health = Self {
            status: HealthStatus::Healthy,
            operational: redis_error.is_none(),
            connections: BTreeMap::from([(REDIS.to_owned(), redis)]),
            timestamp: pool.timestamp,
            details: HealthDetails { redis_error, redis_pool_stats: pool },
        };
        health.judge();
        health
    }

    /// Adds what was found out about another dependency, such as the ledger, and judges again.
    #[must_use]
    pub fn with_connection(mut self, name: &str, state: ConnectionState) -> Self {
        self.connections.insert(format!("{name}_connection"), state);
        self.judge();
        self
    }

    fn judge(&mut self) {
        let redis = self.connections.get(REDIS) == Some(&ConnectionState::Ok);
        let mut others =
            self.connections.iter().filter(|(name, _)| *name != REDIS).map(|(_, state)| *state).peekable();
        let has_others = others.peek().is_some();
        let others = others.all(|state| state == ConnectionState::Ok);
        self.status = match (redis, others) {
            (true, true) => HealthStatus::Healthy,
            (false, true) if has_others => HealthStatus::Degraded,
            _ => HealthStatus::Unhealthy,
        };
    }
}
