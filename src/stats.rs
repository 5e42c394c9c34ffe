//! [`Stats`] and [`Snapshot`]: what a process knows of itself, as plain values.
//!
//! Counters are raw and cumulative since the start of the process, durations are seconds, times are RFC 3339. One value has
//! three renderings: [`Stats`] for a program, its JSON for people, [`Snapshot`] for the exporter.

use std::{collections::BTreeMap, time::SystemTime};

use crate::Mode;

/// The state of the connection pool in the form that operators know from the incident.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PoolReport {
    /// Configured maximum.
    pub max_connections: u32,
    /// Connections with work; the subscription has some as long as it is open.
    pub active_connections: u32,
    /// What may still become active: `limit` − `active_connections`.
    pub available_connections: u32,
    /// Active ÷ limit in percent, and 100 while anyone waits for a connection.
    pub utilization_percent: f64,
    /// Whether work can be done.
    pub status: PoolStatus,
    /// Set while `utilization_percent` is above 80.
    pub alert: Option<PoolAlert>,
    /// When this was true.
    #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
    pub timestamp: SystemTime,
}

/// Whether a pool can do work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum PoolStatus {
    /// At least one connection is open.
    Healthy,
    /// No connection is open.
    Unhealthy,
}

/// What an operator should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "SCREAMING_SNAKE_CASE"))]
#[non_exhaustive]
pub enum PoolAlert {
    /// More than 80 % of the connections have work.
    HighUtilization,
}

/// Why the pool settles for fewer connections than it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum LimitReason {
    /// The server closed a new connection at once; its numbers did not show that it is full.
    ClosedInHandshake,
    /// The server is at its client limit.
    MaxClients,
}

/// Everything that the pool counts: the [`PoolReport`] and what stands behind it.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PoolStats {
    /// The seven fields of the report, at the top level of the JSON.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub report: PoolReport,
    /// The pool's name, the value of the metric label `pool`.
    pub name: String,
    /// min(`max_connections`, what the server lets us have now).
    pub limit: u32,
    /// Why `limit` is below `max_connections`; `None` when it is not.
    pub limit_reason: Option<LimitReason>,
    /// Operations that one connection carries at a time.
    pub depth: u32,
    /// Open connections without work.
    pub idle_connections: u32,
    /// Connections being opened.
    pub connecting_connections: u32,
    /// Connections without work whose socket is being closed. One that is to be closed and still has work is active.
    pub draining_connections: u32,
    /// Operations under way on all connections.
    pub in_flight: u32,
    /// Operations that the open connections can carry: open × depth.
    pub slots: u32,
    /// Calls that wait for a slot.
    pub waiting: u32,
    /// How long the oldest of them has waited.
    pub oldest_waiting_seconds: f64,
    /// The most connections that had work at once in the last 60 s.
    pub peak_active_connections: u32,
    /// Time integral of `active_connections`.
    pub active_connection_seconds_total: f64,
    /// Time with at least 80 % of `limit`, rounded up to a whole connection, active.
    pub saturated_seconds_total: f64,
    /// Time with every connection active, or with somebody waiting.
    pub exhausted_seconds_total: f64,
    /// Time from asking for a connection to having one, all outcomes.
    pub checkout_wait_seconds: Histogram,
    /// Checkouts that gave no connection, by [`FaultKind`](crate::FaultKind).
    pub checkout_failures_total: BTreeMap<String, u64>,
    /// Time from checkout to reply of one operation.
    pub connection_use_seconds: Histogram,
    /// Time to open a connection (TCP, TLS, handshake, name); its count is the number opened.
    pub connection_create_seconds: Histogram,
    /// Connections that could not be opened, by [`FaultKind`](crate::FaultKind).
    pub connection_create_failures_total: BTreeMap<String, u64>,
    /// Connections closed, by reason.
    pub connections_closed_total: BTreeMap<String, u64>,
}

/// What the lock operations count.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LockStats {
    /// By operation: `acquire`, `extend`, `release`, `read`.
    pub operations: BTreeMap<String, OperationStats>,
    /// Looks of acquires that found the lock held by somebody else; who joins a line in which others wait does not look.
    pub contended_total: u64,
    /// Leases that ended otherwise than by a release, by [`LostReason`](crate::LostReason): noticed when an extend or a release
    /// named their fence, while the process that had acquired them watched, or by their guard.
    pub lost_total: BTreeMap<String, u64>,
    /// Guards that were dropped, lost, or whose release was not confirmed, and calls of which nobody heard what they were granted,
    /// because the answer was lost or the caller had gone away, by what became of it: `released`, `not_granted`, `left_to_caller`
    /// (who took the claim or named the token, or whose holder relies on the lease because of another call), `lapsed` (it had
    /// ended, or lasts its ttl: Redis could not be asked for so long, or there were more than 10,000 such calls at once).
    pub swept_total: BTreeMap<String, u64>,
    /// Calls that wait in line for a lock that somebody else holds.
    pub waiters: u64,
    /// How long a call waited in line, whether it was granted the lock in the end or not.
    pub acquire_wait_seconds: Histogram,
    /// How long a lease was held when it was released.
    pub held_seconds: Histogram,
    /// What was left of the ttl when an extend succeeded: the early warning before a loss.
    pub extend_margin_seconds: Histogram,
    /// Releases and extends that named a fence while the tag was held under another: a stale holder was stopped.
    pub fencing_rejections_total: u64,
    /// Calls that reached the server after their time and did nothing there.
    pub late_total: u64,
    /// Times that the server had forgotten a script.
    pub script_reloads_total: u64,
    /// Guards that hold their lock now.
    #[cfg_attr(feature = "serde", serde(default))]
    pub guards: u64,
    /// Those of them whose last renewal failed.
    #[cfg_attr(feature = "serde", serde(default))]
    pub guards_in_jeopardy: u64,
    /// Acquires that were refused because there were too many, by what there were too many of: `holder`, `tag`.
    #[cfg_attr(feature = "serde", serde(default))]
    pub limited_total: BTreeMap<String, u64>,
}

/// What one kind of operation counts.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct OperationStats {
    /// Finished operations, all outcomes.
    pub total: u64,
    /// Those that failed, by [`FaultKind`](crate::FaultKind). "Held by another" is an answer, not a failure.
    pub failures_total: BTreeMap<String, u64>,
    /// Time of the whole operation, waiting for a connection included, waiting in line for a lock not.
    pub duration_seconds: Histogram,
    /// Tries after the first.
    #[cfg_attr(feature = "serde", serde(default))]
    pub retries_total: u64,
    /// Operations that failed with a fault that may pass, and were not tried again.
    #[cfg_attr(feature = "serde", serde(default))]
    pub retries_exhausted_total: u64,
}

/// What a process does about faults, and what it has been through.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct FaultStats {
    /// What can be done now.
    pub mode: Mode,
    /// The circuits by name: `link`, `writes`.
    pub circuits: BTreeMap<String, CircuitStats>,
    /// What is left of the retry budget, 0 to 1. At a half or less nothing is tried again.
    pub retry_budget_ratio: f64,
    /// Tries after the first that the budget refused.
    pub retries_refused_total: u64,
    /// Times that the mode ceased to be [`Normal`](Mode::Normal).
    pub degraded_entered_total: u64,
    /// Time in another mode.
    pub degraded_seconds_total: f64,
    /// Reads in another mode, and those that Redis did not answer, by where the answer came from: `live`, `snapshot`, `fallback`, or
    /// `none`.
    pub degraded_reads_total: BTreeMap<String, u64>,
    /// When the oldest state was seen that a read was answered with in the present outage; `None` when there was no such read.
    #[cfg_attr(feature = "serde", serde(default, with = "crate::time::rfc3339_option"))]
    pub snapshot_seen_at: Option<SystemTime>,
}

/// Of a process that has not met a fault: all can be done, and the budget is full.
impl Default for FaultStats {
    fn default() -> Self {
        Self {
            mode: Mode::Normal,
            circuits: BTreeMap::new(),
            retry_budget_ratio: 1.0,
            retries_refused_total: 0,
            degraded_entered_total: 0,
            degraded_seconds_total: 0.0,
            degraded_reads_total: BTreeMap::new(),
            snapshot_seen_at: None,
        }
    }
}

/// What a process does so that nothing is lost, and what it has been through.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[non_exhaustive]
pub struct RecoveryStats {
    /// Deferred calls that wait for Redis.
    pub deferred: u64,
    /// Calls that were deferred.
    pub deferred_total: u64,
    /// Calls that could neither be sent nor kept for later: their callers were told.
    pub deferred_refused_total: u64,
    /// Deferred calls that are done with, by [`Settlement`](crate::Settlement); those of earlier processes as well.
    pub settled_total: BTreeMap<String, u64>,
    /// Times that another run of the server was met than before.
    pub restarts_total: u64,
    /// Times that the server was found to have lost data.
    pub data_losses_total: u64,
    /// Leases that were to be put back, by what became of it: `restored`, `stood` (it was not lost), `refused` (it had ended, or
    /// somebody else has the tag).
    pub restored_total: BTreeMap<String, u64>,
    /// Locks that were found to be somebody else's while a guard of this process still counted on them.
    pub overlaps_total: u64,
    /// Whether acquires wait until this process has recovered.
    pub is_recovering: bool,
    /// The phases of recoveries, by [`RecoveryPhase`](crate::RecoveryPhase).
    pub phases: BTreeMap<String, PhaseStats>,
}

/// What one phase of the recoveries counts.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PhaseStats {
    /// Times that it was gone through.
    pub total: u64,
    /// Those of them that were cut short: by a fault, or because their time was over.
    pub failures_total: u64,
    /// Time that it took, all in all.
    pub seconds_total: f64,
}

/// A histogram: counts by bucket, and the sum.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Histogram {
    /// Upper bounds of the buckets, inclusive, rising.
    pub bounds: Vec<f64>,
    /// Observations in each bucket, not cumulative; one more than bounds, for what lies above the last.
    pub counts: Vec<u64>,
    /// Sum of all observations.
    pub sum: f64,
}

/// What the server said of itself when the first connection was opened.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ServerReport {
    /// Version of the server, `memory` for the memory store.
    pub version: String,
    /// `master` or `slave`, in the server's word; empty when it did not say.
    pub role: String,
    /// Changes with each start of the server.
    pub run_id: String,
    /// What the server does when its memory is full; only `noeviction` never evicts a lock.
    pub maxmemory_policy: String,
    /// Whether an append-only file is written.
    pub aof_enabled: bool,
    /// The server's client limit, where it tells.
    pub maxclients: Option<u64>,
    /// Server's wall clock − ours, in seconds.
    pub clock_offset_seconds: f64,
    /// What an operator should change.
    pub warnings: Vec<Warning>,
}

/// Something about the server that endangers locks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Warning {
    /// The warning's name, such as `eviction_policy`; names are stable.
    pub name: String,
    /// What is so, why it matters, what would be right.
    pub message: String,
}

/// Everything a process knows about its locks and its pool.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Stats {
    /// The pool, at the top level of the JSON.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub pool: PoolStats,
    /// The lock operations.
    pub locks: LockStats,
    /// The server, as it was when the first connection was opened; its run id is that of the run that answered last.
    pub server: ServerReport,
    /// Faults: modes, circuits, retries.
    #[cfg_attr(feature = "serde", serde(default))]
    pub faults: FaultStats,
    /// What was done so that nothing is lost.
    #[cfg_attr(feature = "serde", serde(default))]
    pub recovery: RecoveryStats,
}

/// What `GET /v1/snapshot` answers: raw cumulative numbers of one process.
///
/// Readers ignore fields that they do not know and refuse a `schema` that is not theirs.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Snapshot {
    /// [`Snapshot::SCHEMA`].
    pub schema: u32,
    /// Version of the library that wrote this.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Rises by one with each snapshot of this process.
    pub seq: u64,
    /// When the process connected.
    #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
    pub started_at: SystemTime,
    /// When this snapshot was taken.
    #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
    pub generated_at: SystemTime,
    /// The pools behind this snapshot.
    pub pools: Vec<PoolStats>,
    /// The lock operations.
    pub locks: LockStats,
    /// The server, as it was when the first connection was opened; its run id is that of the run that answered last.
    pub server: ServerReport,
    /// Faults: modes, circuits, retries.
    #[cfg_attr(feature = "serde", serde(default))]
    pub faults: FaultStats,
    /// What was done so that nothing is lost.
    #[cfg_attr(feature = "serde", serde(default))]
    pub recovery: RecoveryStats,
}

impl Snapshot {
    /// The version of the form; it rises when a field changes its meaning or goes away.
    pub const SCHEMA: u32 = 1;
}

/// Why the pool closed a connection.
///
/// This list is closed: the snake case of each is a value of the metric label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum ClosedReason {
    /// It had no work for `idle_timeout`.
    IdleTimeout,
    /// It broke, or the server closed it.
    Disconnected,
    /// An operation on it, or on a younger one, got no reply in time.
    Timeout,
    /// Its server had become a replica.
    ReadOnly,
    /// It did not pass the test of a long-idle connection.
    FailedTest,
    /// It had no work, and its place was wanted for the subscription.
    MadeRoom,
    /// It was the subscription, and was let go of.
    Unsubscribed,
}

impl ClosedReason {
    /// Every reason, in the order of the declaration.
    pub const ALL: [Self; 7] = [
        Self::IdleTimeout,
        Self::Disconnected,
        Self::Timeout,
        Self::ReadOnly,
        Self::FailedTest,
        Self::MadeRoom,
        Self::Unsubscribed,
    ];

    /// The reason in snake case, as metrics and JSON have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IdleTimeout => "idle_timeout",
            Self::Disconnected => "disconnected",
            Self::Timeout => "timeout",
            Self::ReadOnly => "read_only",
            Self::FailedTest => "failed_test",
            Self::MadeRoom => "made_room",
            Self::Unsubscribed => "unsubscribed",
        }
    }
}

/// What became of a call of which nobody heard what it was granted. This list is closed: the snake case of each is a value of
/// the metric label `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swept {
    Released,
    NotGranted,
    LeftToCaller,
    Lapsed,
}

impl Swept {
    pub(crate) const ALL: [Self; 4] = [Self::Released, Self::NotGranted, Self::LeftToCaller, Self::Lapsed];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::NotGranted => "not_granted",
            Self::LeftToCaller => "left_to_caller",
            Self::Lapsed => "lapsed",
        }
    }
}

/// What a [`Circuit`](crate::Circuit) has been through.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct CircuitStats {
    /// How it stands.
    pub state: CircuitState,
    /// Whether that is by hand.
    pub forced: bool,
    /// Changes of the state, by the one that it changed to: `closed`, `open`, `half_open`, all three.
    pub transitions_total: BTreeMap<String, u64>,
    /// Calls that were refused.
    pub rejected_total: u64,
    /// When the state changed last; `None` if it never did.
    #[cfg_attr(feature = "serde", serde(default, with = "crate::time::rfc3339_option"))]
    pub last_transition: Option<SystemTime>,
    /// Time in which calls were refused: open or half open, by itself or by hand.
    pub open_seconds_total: f64,
}

/// How a [`Circuit`](crate::Circuit) stands.
///
/// This list is closed: the snake case of each is a value of the metric label `state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum CircuitState {
    /// Calls pass.
    Closed,
    /// Calls are refused.
    Open,
    /// Calls are refused but for one, the probe, which is under way.
    HalfOpen,
}

impl CircuitState {
    /// Every state, in the order of the declaration.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The state in snake case, as metrics and JSON have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }

    /// The state at a place of [`ALL`](Self::ALL), which has no place but these.
    pub(crate) const fn from_place(place: u8) -> Self {
        match place {
            0 => Self::Closed,
            1 => Self::Open,
            _ => Self::HalfOpen,
        }
    }
}
