//! The look at the server when the first connection is open: can it keep locks, and what should an operator change?

use std::time::SystemTime;

use redis::{Cmd, InfoDict, Value};
use tokio::time::Instant;

use super::{
    RedisStore,
    reply::unexpected,
    wire::{Channel, server_time},
};
use crate::{
    ConnectError, FaultKind, ServerReport, Warning,
    store::{Store as _, pool::Way},
};

/// What a user needs to lock.
pub(crate) const RIGHTS: &str = "+eval +evalsha +time +get +set +del +exists +pttl +pexpire +type +scan \
                      +zadd +zrem +zrange +hset +hget +hdel";

/// What it needs beside that to say and to hear what happens.
pub(crate) const CHANNEL_RIGHTS: &str = "+publish +subscribe +psubscribe +unsubscribe +punsubscribe";

/// What it needs to remember past grants.
pub(crate) const HISTORY_RIGHTS: &str = "+lpush +ltrim +lrange";

/// What this look needs, and a connection to have its name in `CLIENT LIST`. It may lock without.
pub(crate) const WELCOME_RIGHTS: &str = "+info +client|setname";

const CHANNELS: &str = include_str!("scripts/channels.lua");

/// The scripts need flags, which are new in this version.
const OLDEST_MAJOR: u64 = 7;

impl RedisStore {
    /// Asks the server for its version, role, memory policy, persistence, limit and time, and whether it runs our scripts.
    ///
    /// # Errors
    /// [`ConnectError::TooOld`], or the [`Fault`] that kept the server from answering.
    pub(super) async fn check(&self, deadline: Instant) -> Result<ServerReport, ConnectError> {
        let mut report = ServerReport::default();
        let mut warn = |name: &str, message: String| {
            tracing::warn!(warning = name, "{message}");
            report.warnings.push(Warning { name: name.to_owned(), message });
        };

        let (time, sent) = self.first(redis::cmd("TIME"), deadline).await?;
        let micros =
            read_time(&time).ok_or_else(|| unexpected("a time", &time)).map_err(ConnectError::Fault)?;
        self.clock.observe(sent, Instant::now(), micros);
        let offset = seconds_between(server_time(micros), SystemTime::now());
        if offset.abs() > 60.0 {
            warn(
                "clock_offset",
                format!(
                    "the server's clock is {offset:+.0} s off ours; set one of them right, fences follow the server's"
                ),
            );
        }

        let info = match self.first(redis::cmd("INFO"), deadline).await {
            Ok((reply, _)) => redis::from_redis_value::<InfoDict>(reply).ok(),
            Err(ConnectError::Fault(fault)) if fault.kind() == FaultKind::Permission => {
                warn("info_denied", "this user may not run INFO: version, role, memory policy and limit are unknown; grant +info".to_owned());
                if self.restart_grace.is_some() {
                    warn("restart_grace", "this user may not run INFO, without which no lock can be taken while there is a restart_grace; grant +info".to_owned());
                }
                None
            }
            Err(error) => return Err(error),
        };
        let text = |name: &str| info.as_ref().and_then(|info| info.get::<String>(name)).unwrap_or_default();
        let number = |name: &str| info.as_ref().and_then(|info| info.get::<u64>(name));
        let version = text("redis_version");
        let major = version.split('.').next().and_then(|major| major.parse::<u64>().ok());
        if major.is_some_and(|major| major < OLDEST_MAJOR) {
            return Err(ConnectError::TooOld { found: version });
        }

        let policy = text("maxmemory_policy");
        if !policy.is_empty() && policy != "noeviction" {
            warn(
                "eviction_policy",
                format!(
                    "maxmemory-policy is {policy}, which may evict locks when memory is full; set noeviction"
                ),
            );
        }
        let role = text("role");
        if role == "slave" {
            warn(
                "replica",
                "the server is a replica: reads work, every write is refused; connect to its master"
                    .to_owned(),
            );
        }
        let aof_enabled = number("aof_enabled") == Some(1);
        if info.is_some() && !aof_enabled {
            warn("no_append_only_file", "appendonly is off: a restart of the server loses the latest locks, or all; fences go on by its clock".to_owned());
        }
        let maxclients = number("maxclients");
        let wanted = u64::from(self.pool.read().report.max_connections);
        if let Some(limit) = maxclients.filter(|&limit| limit < wanted) {
            warn(
                "client_limit",
                format!(
                    "maxclients is {limit}, below our max_connections of {wanted}; lower max_connections or raise the limit"
                ),
            );
        }
        if let Some(why) = self.refused_scripts(deadline).await? {
            let info = if self.restart_grace.is_some() { " +info" } else { "" };
            warn(
                "scripts_denied",
                format!(
                    "this user may not run our scripts, no lock can be taken ({why}); grant {RIGHTS}{info} on the keys of the prefix"
                ),
            );
        }
        if let Some(refused) = self.refused_on_channels(deadline).await {
            let prefix = &self.prefix;
            warn(
                "events_permission",
                format!(
                    "this user may not run {refused} on the channels of the prefix: who waits finds out by looking again and again, who watches hears nothing; grant {CHANNEL_RIGHTS} &{prefix}:events:* &{prefix}:grants:* (a wider pattern is not enough for PSUBSCRIBE)"
                ),
            );
        }

        let run_id = text("run_id");
        Ok(ServerReport {
            version,
            role,
            run_id,
            maxmemory_policy: policy,
            aof_enabled,
            maxclients,
            clock_offset_seconds: offset,
            ..report
        })
    }

    /// Why this user may not run our scripts; `None` where they run, or where only writes are refused now.
    async fn refused_scripts(&self, deadline: Instant) -> Result<Option<String>, ConnectError> {
        let Err(fault) = self.probe(deadline).await else { return Ok(None) };
        match fault.kind() {
            FaultKind::Permission => {
                Ok(Some(std::error::Error::source(&fault).map(ToString::to_string).unwrap_or_default()))
            }
            // The server is there and understands; that it takes no writes now is for the health check to tell.
            FaultKind::ReadOnly | FaultKind::OutOfMemory | FaultKind::Misconf | FaultKind::NoReplicas => {
                Ok(None)
            }
            _ => Err(ConnectError::Fault(fault)),
        }
    }

    /// The first command on the channels that this user may not run; `None` also where that cannot be known.
    async fn refused_on_channels(&self, deadline: Instant) -> Option<String> {
        // Once for each connect, so by its text.
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(CHANNELS).arg(0);
        cmd.arg(Channel { prefix: &self.prefix, tag: "" }).arg(&self.grants);
        cmd.arg(format!("{}:events:*", self.prefix));
        let (reply, _) = self.first(cmd, deadline).await.ok()?;
        let refused: String = redis::from_redis_value(reply).ok()?;
        (!refused.is_empty()).then(|| refused.to_uppercase())
    }

    async fn first(&self, cmd: Cmd, deadline: Instant) -> Result<(Value, Instant), ConnectError> {
        self.plain(cmd, Way::Ordinary, deadline).await.map_err(ConnectError::Fault)
    }
}

/// The reply of TIME: seconds and microseconds.
fn read_time(reply: &Value) -> Option<u64> {
    let Value::Array(parts) = reply else { return None };
    let [Value::BulkString(seconds), Value::BulkString(micros)] = &parts[..] else { return None };
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
    number(seconds)?.checked_mul(1_000_000)?.checked_add(number(micros)?)
}

fn seconds_between(later: SystemTime, earlier: SystemTime) -> f64 {
    match later.duration_since(earlier) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(behind) => -behind.duration().as_secs_f64(),
    }
}
