//! The catalogue: every metric of the product as data, the exporter's own included. Each is born here, once.

use crate::{
    buckets,
    deferred::Settlement,
    fault::FaultKind,
    lost::LostReason,
    meter::{Answered, PutBack},
    mode::Mode,
    phase::RecoveryPhase,
    stats::{CircuitState, ClosedReason, Swept},
};

/// One metric: its name and what can be known of it without a value.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// The name, with its unit at the end.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Through which door its values come.
    pub door: Door,
    /// Its labels, in the order in which they are shown. On the page of the exporter those of [`Door::Service`] have the
    /// label `service` before them.
    pub labels: &'static [Label],
    /// Upper bounds of the buckets; empty unless it is a histogram.
    pub buckets: &'static [f64],
    /// What it means, one sentence.
    pub help: &'static str,
}

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rises until the process ends.
    Counter,
    /// Is what it is now.
    Gauge,
    /// Observations by bucket, and their sum.
    Histogram,
}

impl Kind {
    /// The kind in the word of the text format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Through which door the values of a metric come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Out of a [`Snapshot`](crate::Snapshot), in the process or in the exporter.
    Service,
    /// What the exporter says of itself and of its sources.
    Exporter,
    /// What the exporter asks Redis.
    Redis,
}

/// A label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Label {
    /// The label's name.
    pub name: &'static str,
    /// All its values where the set is closed; empty where the value comes from a configuration or a version.
    pub values: &'static [&'static str],
}

/// Every metric of the product, by subject.
pub fn catalogue() -> &'static [Metric] {
    CATALOGUE
}

/// The metric of this name.
pub(crate) fn find(name: &str) -> Option<&'static Metric> {
    CATALOGUE.iter().find(|metric| metric.name == name)
}

/// The snake-case words of a closed list, in a form that a constant can have.
macro_rules! words {
    ($list:ty) => {{
        const WORDS: [&str; <$list>::ALL.len()] = {
            let mut words = [""; <$list>::ALL.len()];
            let mut place = 0;
            while place < words.len() {
                words[place] = <$list>::ALL[place].as_str();
                place += 1;
            }
            words
        };
        &WORDS
    }};
}

const fn open(name: &'static str) -> Label {
    Label { name, values: &[] }
}

const fn closed(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values }
}

const POOL: Label = open("pool");
const STATE: Label = closed("state", &["active", "idle", "connecting", "draining"]);
const LIMIT_REASON: Label = closed("reason", &["closed_in_handshake", "max_clients"]);
const CLOSED_REASON: Label = closed("reason", words!(ClosedReason));
const LOST_REASON: Label = closed("reason", words!(LostReason));
const SWEPT: Label = closed("outcome", words!(Swept));
const FAULT: Label = closed("reason", words!(FaultKind));
const OP: Label = closed("op", &["acquire", "extend", "release", "read"]);
const COLLECTOR: Label = open("collector");

const LIMITED_BY: Label = closed("by", &["holder", "tag"]);
const BREAKER: Label = closed("breaker", &["link", "writes"]);
const BREAKER_STATE: Label = closed("state", words!(CircuitState));
const TO: Label = closed("to", words!(CircuitState));
const RESULT: Label = closed("result", words!(Answered));
const SETTLEMENT: Label = closed("settlement", words!(Settlement));
const PUT_BACK: Label = closed("outcome", words!(PutBack));
const PHASE: Label = closed("phase", words!(RecoveryPhase));
const DEGRADED_MODE: Label = closed("mode", &[Mode::ReadOnlyServer.as_str(), Mode::Unreachable.as_str()]);

// A connection cannot fail to open in each way of a fault. Those that nobody expects there are shown as `other`, which keeps the
// page of one service small.
const CREATE_FAULT: Label = closed(
    "reason",
    &[
        "timeout",
        "connect",
        "closed_in_handshake",
        "max_clients",
        "tls",
        "auth",
        "permission",
        "loading",
        "other",
    ],
);
// Why none could be opened is counted where one is opened.
const CHECKOUT_FAULT: Label = closed("reason", &["checkout_timeout", "saturated", "connect", "other"]);
const PROBE_FAULT: Label =
    closed("reason", &["max_clients", "timeout", "refused", "auth", "tls", "io", "loading"]);

const fn metric(
    door: Door,
    kind: Kind,
    name: &'static str,
    labels: &'static [Label],
    help: &'static str,
) -> Metric {
    Metric { name, kind, door, labels, buckets: &[], help }
}

const fn gauge(name: &'static str, labels: &'static [Label], help: &'static str) -> Metric {
    metric(Door::Service, Kind::Gauge, name, labels, help)
}

const fn counter(name: &'static str, labels: &'static [Label], help: &'static str) -> Metric {
    metric(Door::Service, Kind::Counter, name, labels, help)
}

const fn histogram(
    name: &'static str,
    labels: &'static [Label],
    buckets: &'static [f64],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Histogram, door: Door::Service, labels, buckets, help }
}

const fn exporter(kind: Kind, name: &'static str, labels: &'static [Label], help: &'static str) -> Metric {
    metric(Door::Exporter, kind, name, labels, help)
}

const fn redis(kind: Kind, name: &'static str, labels: &'static [Label], help: &'static str) -> Metric {
    metric(Door::Redis, kind, name, labels, help)
}

const CATALOGUE: &[Metric] = &[
    gauge(
        "spool_pool_connections",
        &[POOL, STATE],
        "Connections by state: active have at least one operation under way or are the subscription, idle have none, \
         connecting are being opened, draining are being closed.",
    ),
    gauge("spool_pool_connections_max", &[POOL], "Connections that the process may open, as configured."),
    gauge(
        "spool_pool_connections_limit",
        &[POOL],
        "Connections that the process may open now: the configured maximum, or what the server lets it have where \
         that is less.",
    ),
    gauge(
        "spool_pool_limited",
        &[POOL, LIMIT_REASON],
        "1 for the reason why the limit is below the configured maximum, 0 otherwise.",
    ),
    gauge(
        "spool_pool_active_connections_peak",
        &[POOL],
        "Most connections that were active at once in the last 60 s; a scrape does not reset it.",
    ),
    counter(
        "spool_pool_active_connection_seconds_total",
        &[POOL],
        "Time integral of the active connections: its rate divided by the limit is the exact mean utilisation.",
    ),
    counter(
        "spool_pool_saturated_seconds_total",
        &[POOL],
        "Time with at least 80 % of the limit active, rounded up to a whole connection.",
    ),
    counter(
        "spool_pool_exhausted_seconds_total",
        &[POOL],
        "Time with every connection active, or with a call waiting.",
    ),
    gauge("spool_pool_waiting_calls", &[POOL], "Calls that wait for a slot on a connection."),
    gauge(
        "spool_pool_oldest_waiting_seconds",
        &[POOL],
        "How long the oldest waiting call has waited; 0 when none waits.",
    ),
    gauge("spool_pool_in_flight_operations", &[POOL], "Operations under way on all connections."),
    gauge(
        "spool_pool_slots",
        &[POOL],
        "Operations that the open connections can carry at once: open connections times depth.",
    ),
    histogram(
        "spool_pool_checkout_wait_seconds",
        &[POOL],
        buckets::CHECKOUT,
        "Time from asking for a slot on a connection to having it, all outcomes.",
    ),
    counter(
        "spool_pool_checkout_failures_total",
        &[POOL, CHECKOUT_FAULT],
        "Calls that got no connection, by the kind of fault; connect and other are that none could be \
         opened, and spool_pool_connection_create_failures_total says why.",
    ),
    histogram(
        "spool_pool_connection_use_seconds",
        &[POOL],
        buckets::CHECKOUT,
        "Time from checkout to reply of one operation.",
    ),
    histogram(
        "spool_pool_connection_create_seconds",
        &[POOL],
        buckets::CREATE,
        "Time to open a connection, TLS and handshake included; its count is the number opened.",
    ),
    counter(
        "spool_pool_connection_create_failures_total",
        &[POOL, CREATE_FAULT],
        "Connections that could not be opened, by the kind of fault.",
    ),
    counter("spool_pool_connections_closed_total", &[POOL, CLOSED_REASON], "Connections closed, by reason."),
    counter(
        "spool_lock_operations_total",
        &[OP],
        "Finished calls to the store, all outcomes; a look of who waits is an acquire, a hand-over a release.",
    ),
    counter(
        "spool_lock_operation_failures_total",
        &[OP, FAULT],
        "Lock operations that failed, by the kind of fault; held by another is an answer, not a failure.",
    ),
    histogram(
        "spool_lock_operation_duration_seconds",
        &[OP],
        buckets::OPERATION,
        "Time of a lock operation, the wait for a connection included, the wait in line for a lock not.",
    ),
    counter(
        "spool_lock_contended_total",
        &[],
        "Looks of acquires that found the lock held by somebody else.",
    ),
    counter(
        "spool_lock_swept_total",
        &[SWEPT],
        "Guards that were dropped, lost, or whose release was not confirmed, and calls of which nobody heard what they were granted, by what became of it.",
    ),
    gauge("spool_lock_waiters", &[], "Calls that wait in line for a lock that somebody else holds."),
    histogram(
        "spool_lock_acquire_wait_seconds",
        &[],
        buckets::WAIT,
        "How long a call waited in line, whether it was granted the lock in the end or not.",
    ),
    histogram(
        "spool_lock_held_seconds",
        &[],
        buckets::HELD,
        "How long a lease was held when it was released.",
    ),
    counter(
        "spool_lock_lost_total",
        &[LOST_REASON],
        "Leases that ended otherwise than by a release: noticed while the process that acquired them watched, when an extend or release named their fence, or by their guard.",
    ),
    histogram(
        "spool_lock_extend_margin_seconds",
        &[],
        buckets::MARGIN,
        "What was left of the ttl when an extend succeeded: small margins come before losses.",
    ),
    counter(
        "spool_lock_fencing_rejections_total",
        &[],
        "Releases and extends of a lease that no longer stands while another does: a stale holder was stopped.",
    ),
    counter(
        "spool_lock_late_total",
        &[],
        "Calls that reached the server after their time and did nothing there.",
    ),
    counter("spool_lock_script_reloads_total", &[], "Times that the server had forgotten a script."),
    gauge("spool_lock_guards", &[], "Guards that hold their lock."),
    gauge(
        "spool_lock_guards_in_jeopardy",
        &[],
        "Guards whose last renewal failed: they still hold their lock, and lose it if none succeeds in time.",
    ),
    counter(
        "spool_lock_limited_total",
        &[LIMITED_BY],
        "Acquires that a limit refused, by whose limit it was; they are no operations.",
    ),
    gauge(
        "spool_breaker_state",
        &[BREAKER, BREAKER_STATE],
        "1 for the state of the circuit breaker, 0 otherwise: closed lets calls pass, open refuses them, half_open refuses all \
         but the probe.",
    ),
    gauge(
        "spool_breaker_forced",
        &[BREAKER],
        "1 while an operator holds the breaker in its state, 0 otherwise.",
    ),
    counter(
        "spool_breaker_transitions_total",
        &[BREAKER, TO],
        "Changes of the state, by the one that it changed to.",
    ),
    counter(
        "spool_breaker_rejected_total",
        &[BREAKER],
        "Calls that the breaker refused: Redis was not asked.",
    ),
    gauge(
        "spool_breaker_last_transition_timestamp_seconds",
        &[BREAKER],
        "When the state changed last, in Unix time; 0 when it never did.",
    ),
    counter(
        "spool_breaker_open_seconds_total",
        &[BREAKER],
        "Time in which the breaker refused calls: open or half open, by itself or by hand.",
    ),
    counter("spool_retry_attempts_total", &[OP], "Tries of lock operations after the first."),
    counter(
        "spool_retry_exhausted_total",
        &[OP],
        "Lock operations that failed with a fault that may pass, and were not tried again.",
    ),
    gauge(
        "spool_retry_budget_remaining_ratio",
        &[],
        "What is left of the retry budget, 0 to 1; at a half or less nothing is tried again.",
    ),
    counter("spool_retry_budget_refused_total", &[], "Tries after the first that the budget refused."),
    gauge(
        "spool_degraded_mode",
        &[DEGRADED_MODE],
        "1 for the mode of the service, 0 otherwise; all 0 is the normal mode. In both acquires are refused: with \
         read_only_server reads are live, with unreachable they come from the last known state.",
    ),
    counter("spool_degraded_entered_total", &[], "Times that the mode ceased to be normal."),
    counter("spool_degraded_seconds_total", &[], "Time in a mode other than normal."),
    counter(
        "spool_degraded_reads_total",
        &[RESULT],
        "Reads in a mode other than normal, and those in the normal one that Redis did not answer, by where the answer came \
         from; none is that there was none.",
    ),
    gauge(
        "spool_degraded_oldest_read_timestamp_seconds",
        &[],
        "When the oldest state was seen that a read was answered with in the present outage, in Unix time; 0 when \
         there was no such read.",
    ),
    gauge(
        "spool_deferred_calls",
        &[],
        "Releases, and extends downwards, that wait until Redis can be asked.",
    ),
    counter("spool_deferred_total", &[], "Calls that were deferred because Redis could not be asked."),
    counter(
        "spool_deferred_refused_total",
        &[],
        "Calls that could neither be sent nor kept for later: their callers were told, and nobody else knows of them.",
    ),
    counter(
        "spool_deferred_settled_total",
        &[SETTLEMENT],
        "Deferred calls that are done with, by what became of them: applied, or the lease had ended.",
    ),
    gauge(
        "spool_recovery_in_progress",
        &[],
        "1 while acquires wait until the service has recovered, 0 otherwise.",
    ),
    counter("spool_recovery_phases_total", &[PHASE], "Times that a phase of a recovery was gone through."),
    counter(
        "spool_recovery_phase_failures_total",
        &[PHASE],
        "Those of them that were cut short, by a fault or because their time was over.",
    ),
    counter(
        "spool_recovery_phase_seconds_total",
        &[PHASE],
        "Time that the phase took, all recoveries together.",
    ),
    counter(
        "spool_recovery_server_restarts_total",
        &[],
        "Times that the service met another run of Redis than before.",
    ),
    counter(
        "spool_recovery_data_losses_total",
        &[],
        "Times that Redis was found to have lost its data: restarted without it, or flushed.",
    ),
    counter(
        "spool_recovery_restored_leases_total",
        &[PUT_BACK],
        "Leases that were to be put back, by what became of them: refused ones had ended, or the tag was somebody else's.",
    ),
    counter(
        "spool_lock_overlaps_total",
        &[],
        "Locks that were found to be somebody else's while a guard still counted on them: both have held them.",
    ),
    gauge("spool_service_info", &[open("version")], "1, with the version of the library in the service."),
    gauge("spool_service_start_time_seconds", &[], "When the service connected, in Unix time."),
    gauge("spool_service_snapshot_timestamp_seconds", &[], "When the snapshot was taken, in Unix time."),
    exporter(
        Kind::Gauge,
        "spool_up",
        &[],
        "1 when the snapshot of the service could be read, 0 otherwise; its other metrics are then absent.",
    ),
    exporter(
        Kind::Gauge,
        "spool_exporter_build_info",
        &[open("version")],
        "1, with the version of the exporter.",
    ),
    exporter(
        Kind::Gauge,
        "spool_exporter_collector_success",
        &[COLLECTOR],
        "1 when the collector succeeded in this scrape, 0 otherwise.",
    ),
    exporter(
        Kind::Gauge,
        "spool_exporter_collector_duration_seconds",
        &[COLLECTOR],
        "Time that the collector took in this scrape.",
    ),
    exporter(
        Kind::Gauge,
        "spool_exporter_scrape_duration_seconds",
        &[],
        "Time that this scrape took in the exporter.",
    ),
    exporter(
        Kind::Counter,
        "spool_exporter_snapshot_schema_errors_total",
        &[],
        "Snapshots that the exporter could not understand.",
    ),
    redis(
        Kind::Gauge,
        "spool_redis_up",
        &[],
        "1 when Redis answered the exporter in this scrape, 0 otherwise; its other numbers are then absent.",
    ),
    redis(
        Kind::Gauge,
        "spool_redis_probe_failure",
        &[PROBE_FAULT],
        "1 for the reason why Redis did not answer the exporter, 0 otherwise.",
    ),
    redis(
        Kind::Gauge,
        "spool_redis_connected_clients",
        &[],
        "Clients connected to Redis, all services together.",
    ),
    redis(Kind::Gauge, "spool_redis_connections_limit", &[], "Clients that Redis, or its provider, admits."),
    redis(
        Kind::Gauge,
        "spool_redis_connections_limit_info",
        &[closed("source", &["flag", "info"])],
        "1, with where the limit comes from: the exporter's flag, or INFO of Redis.",
    ),
    redis(
        Kind::Counter,
        "spool_redis_rejected_connections_total",
        &[],
        "Connections that Redis rejected at its limit.",
    ),
    redis(
        Kind::Counter,
        "spool_redis_connections_received_total",
        &[],
        "Connections that Redis has accepted since its start.",
    ),
    redis(
        Kind::Gauge,
        "spool_redis_start_time_seconds",
        &[],
        "When Redis started, in Unix time; locks that it does not keep on disk ended then.",
    ),
    redis(
        Kind::Gauge,
        "spool_redis_instance_info",
        &[open("role"), open("redis_version")],
        "1, with the role and the version of Redis.",
    ),
    redis(
        Kind::Gauge,
        "spool_redis_maxmemory_policy_info",
        &[open("policy")],
        "1, with what Redis does when its memory is full; only noeviction never evicts a lock.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_listed_once_and_says_what_it_is() {
        let names: std::collections::HashSet<_> = CATALOGUE.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), CATALOGUE.len());
        for metric in CATALOGUE {
            assert!(metric.name.starts_with("spool_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert_eq!(metric.buckets.is_empty(), metric.kind != Kind::Histogram, "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains("  "), "{}", metric.help);
        }
    }

    #[test]
    fn buckets_rise() {
        for metric in CATALOGUE {
            assert!(metric.buckets.is_sorted_by(|low, high| low < high), "{}", metric.name);
        }
    }

    #[test]
    fn faults_of_a_connection_are_faults() {
        for word in CREATE_FAULT.values.iter().chain(CHECKOUT_FAULT.values) {
            assert!(FAULT.values.contains(word), "{word}");
        }
    }
}
