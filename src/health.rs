//! [`Health`]: whether the service can do its work, told truthfully.

use std::{collections::BTreeMap, error::Error as _, time::SystemTime};

use crate::{Fault, Mode, PoolReport};

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
    /// Redis and all dependencies work.
    Healthy,
    /// Redis does not take locks, but something can still be read: Redis itself ([`Mode::ReadOnlyServer`]), or the dependencies, where
    /// there are any and all of them work.
    Degraded,
    /// Nothing can be read; or Redis works, and a dependency does not.
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
    /// What is wrong with which dependency, by its name; only those that do not work.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "BTreeMap::is_empty"))]
    pub dependencies: BTreeMap<String, String>,
    /// What can be done with Redis. A report that does not say is read as [`Mode::Normal`].
    #[cfg_attr(feature = "serde", serde(default = "normal"))]
    pub mode: Mode,
    /// The pool.
    pub redis_pool_stats: PoolReport,
}

#[cfg(feature = "serde")]
const fn normal() -> Mode {
    Mode::Normal
}

const REDIS: &str = "redis_connection";

/// A fault, and what stands behind it where that says what is to be done.
fn said(fault: &Fault) -> String {
    let mut said = fault.to_string();
    if fault.refusal().is_some() || fault.is_misconfigured() {
        let mut source = fault.source();
        while let Some(error) = source {
            said = format!("{said}: {error}");
            source = error.source();
        }
    }
    said
}

impl Health {
    pub(crate) fn new(fault: Option<&Fault>, mode: Mode, pool: PoolReport) -> Self {
        let redis_error = fault.map(said);
        let redis = if redis_error.is_none() { ConnectionState::Ok } else { ConnectionState::Error };
        let mut health = Self {
            status: HealthStatus::Healthy,
            operational: redis_error.is_none(),
            connections: BTreeMap::from([(REDIS.to_owned(), redis)]),
            timestamp: pool.timestamp,
            details: HealthDetails {
                redis_error,
                dependencies: BTreeMap::new(),
                mode,
                redis_pool_stats: pool,
            },
        };
        health.judge();
        health
    }

    /// Adds what a dependency said of itself.
    #[must_use]
    pub(crate) fn with_dependency(mut self, name: &str, said: Result<(), String>) -> Self {
        let Err(error) = said else { return self.with_connection(name, ConnectionState::Ok) };
        self.details.dependencies.insert(name.to_owned(), error);
        self.with_connection(name, ConnectionState::Error)
    }

    /// Adds what was found out about another dependency, such as the ledger, and judges again. One that can be asked at any time is
    /// better given to [`connect`](crate::Connect::dependency).
    #[must_use]
    pub fn with_connection(mut self, name: &str, state: ConnectionState) -> Self {
        if state == ConnectionState::Ok {
            self.details.dependencies.remove(name);
        }
        self.connections.insert(format!("{name}_connection"), state);
        self.judge();
        self
    }

    fn judge(&mut self) {
        let is_ok = |state: &ConnectionState| *state == ConnectionState::Ok;
        let takes_locks = self.connections.get(REDIS).is_some_and(is_ok);
        let has_others = self.connections.keys().any(|name| name != REDIS);
        let others_work = self.connections.iter().all(|(name, state)| name == REDIS || is_ok(state));
        let can_read = self.details.mode == Mode::ReadOnlyServer || has_others && others_work;
        self.status = match takes_locks {
            true if others_work => HealthStatus::Healthy,
            false if can_read => HealthStatus::Degraded,
            _ => HealthStatus::Unhealthy,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FaultKind, PoolStatus};

    fn report(is_probed: bool, mode: Mode, dependencies: &[bool]) -> Health {
        let pool = PoolReport {
            max_connections: 20,
            active_connections: 8,
            available_connections: 12,
            utilization_percent: 40.0,
            status: PoolStatus::Healthy,
            alert: None,
            timestamp: SystemTime::UNIX_EPOCH,
        };
        let fault = (!is_probed).then(|| FaultKind::MaxClients.into());
        let health = Health::new(fault.as_ref(), mode, pool);
        dependencies.iter().enumerate().fold(health, |health, (number, works)| {
            let said = if *works { Ok(()) } else { Err("quota exceeded".to_owned()) };
            health.with_dependency(&format!("d{number}"), said)
        })
    }

    #[test]
    fn the_verdict_follows_from_what_takes_locks_and_what_can_be_read() {
        use HealthStatus::{Degraded, Healthy, Unhealthy};
        use Mode::{Normal, ReadOnlyServer, Unreachable};
        let table: [(bool, Mode, &[bool], HealthStatus); 15] = [
            (true, Normal, &[], Healthy),
            (true, Normal, &[true], Healthy),
            (true, Normal, &[true, true], Healthy),
            (true, Normal, &[false], Unhealthy),
            (true, Normal, &[true, false], Unhealthy),
            (false, ReadOnlyServer, &[], Degraded),
            (false, ReadOnlyServer, &[true], Degraded),
            (false, ReadOnlyServer, &[false], Degraded),
            (false, Unreachable, &[], Unhealthy),
            (false, Unreachable, &[true], Degraded),
            (false, Unreachable, &[true, true], Degraded),
            (false, Unreachable, &[true, false], Unhealthy),
            (false, Unreachable, &[false], Unhealthy),
            (false, Normal, &[], Unhealthy),
            (false, Normal, &[true], Degraded),
        ];
        for (is_probed, mode, dependencies, verdict) in table {
            let health = report(is_probed, mode, dependencies);
            assert_eq!(health.status, verdict, "{is_probed} {mode:?} {dependencies:?}");
            assert_eq!((health.operational, health.details.mode), (is_probed, mode));
        }
    }

    #[test]
    fn what_is_found_out_later_is_judged_again_and_leaves_no_old_text() {
        let health = report(true, Mode::Normal, &[false]);
        assert_eq!(health.details.dependencies["d0"], "quota exceeded");
        let mended = health.with_connection("d0", ConnectionState::Ok);
        assert_eq!(mended, report(true, Mode::Normal, &[true]));
        let broken = mended.with_connection("d0", ConnectionState::Error);
        assert_eq!(broken.status, HealthStatus::Unhealthy);
        assert!(broken.details.dependencies.is_empty(), "nobody said why");
    }

    #[cfg(feature = "serde")]
    #[test]
    fn json_has_the_words_of_the_incident_and_names_only_what_is_wrong() {
        let json = |health| serde_json::to_value::<Health>(health).unwrap();
        let pool = serde_json::json!({
            "max_connections": 20, "active_connections": 8, "available_connections": 12,
            "utilization_percent": 40.0, "status": "healthy", "alert": null, "timestamp": "1970-01-01T00:00:00Z",
        });
        let well = serde_json::json!({
            "status": "healthy", "operational": true, "redis_connection": "ok", "d0_connection": "ok",
            "timestamp": "1970-01-01T00:00:00Z", "details": { "mode": "normal", "redis_pool_stats": pool },
        });
        assert_eq!(json(report(true, Mode::Normal, &[true])), well);
        let ill = serde_json::json!({
            "status": "unhealthy", "operational": false, "redis_connection": "error", "d0_connection": "error",
            "timestamp": "1970-01-01T00:00:00Z",
            "details": {
                "redis_error": "max number of clients reached", "dependencies": { "d0": "quota exceeded" },
                "mode": "unreachable", "redis_pool_stats": pool,
            },
        });
        assert_eq!(json(report(false, Mode::Unreachable, &[false])), ill);
    }
}
