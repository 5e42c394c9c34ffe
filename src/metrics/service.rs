//! From a [`Snapshot`] to a page: all metrics of one service, and nothing that it may not say.
//!
//! A snapshot may have been written by another version of the library, or by something else that listens on the socket. So
//! what is not in the catalogue's closed sets, not a finite number from zero up, or not in the catalogue's buckets stays off
//! the page. It is left out rather than shown as zero: a counter that falls to zero and comes back would look like a restart.

use std::{
    collections::{BTreeMap, HashSet},
    time::SystemTime,
};

use super::{
    catalogue::{self, Door, Metric},
    family::{Labels, Value},
    page::{Page, is_number, is_short},
};
use crate::{
    fault::FaultKind,
    mode::Mode,
    stats::{
        CircuitState, CircuitStats, FaultStats, Histogram, LimitReason, LockStats, PoolStats, RecoveryStats,
        Snapshot,
    },
    time::unix_seconds,
};

/// More pools than one process can sensibly have.
const MAX_POOLS: usize = 4;

impl Page {
    /// Adds all metrics of one service and returns how many values had to be dropped.
    ///
    /// `service` is the value of the label `service`, for a page that shows several services; `None` leaves the label out. It
    /// is the caller's word and at most 64 characters long. Series of a closed set which the snapshot does not mention are
    /// zero. Dropped is what the catalogue does not foresee: a foreign reason, operation or circuit, a number that is negative or not
    /// finite, other buckets, a pool beyond the fourth or with a name that is not `[A-Za-z0-9_.-]{1,64}` (one value each).
    pub fn add_snapshot(&mut self, snapshot: &Snapshot, service: Option<&str>) -> usize {
        if service.is_some_and(|service| !is_short(service)) {
            return 1;
        }
        let mut entry = Entry { page: self, service, dropped: 0 };
        entry.info(snapshot);
        entry.pools(&snapshot.pools);
        entry.locks(&snapshot.locks);
        entry.faults(&snapshot.faults);
        entry.recovery(&snapshot.recovery);
        entry.dropped
    }
}

/// One service being written on a page.
struct Entry<'a> {
    page: &'a mut Page,
    service: Option<&'a str>,
    dropped: usize,
}

impl Entry<'_> {
    fn info(&mut self, snapshot: &Snapshot) {
        if is_word(&snapshot.version) {
            self.number("spool_service_info", &[&snapshot.version], 1.0);
        } else {
            self.dropped += 1;
        }
        self.number("spool_service_start_time_seconds", &[], unix_seconds(snapshot.started_at));
        self.number("spool_service_snapshot_timestamp_seconds", &[], unix_seconds(snapshot.generated_at));
    }

    fn pools(&mut self, pools: &[PoolStats]) {
        let mut names = HashSet::new();
        for pool in pools {
            if names.len() < MAX_POOLS && is_word(&pool.name) && names.insert(&pool.name) {
                self.pool(pool);
            } else {
                self.dropped += 1;
            }
        }
    }

    fn pool(&mut self, pool: &PoolStats) {
        let name = pool.name.as_str();
        for (state, connections) in [
            ("active", pool.report.active_connections),
            ("idle", pool.idle_connections),
            ("connecting", pool.connecting_connections),
            ("draining", pool.draining_connections),
        ] {
            self.number("spool_pool_connections", &[name, state], connections.into());
        }
        for reason in [LimitReason::ClosedInHandshake, LimitReason::MaxClients] {
            let word = match reason {
                LimitReason::ClosedInHandshake => "closed_in_handshake",
                LimitReason::MaxClients => "max_clients",
            };
            let is_limited = pool.limit_reason == Some(reason);
            self.number("spool_pool_limited", &[name, word], is_limited.into());
        }
        for (metric, value) in [
            ("spool_pool_connections_max", pool.report.max_connections.into()),
            ("spool_pool_connections_limit", pool.limit.into()),
            ("spool_pool_active_connections_peak", pool.peak_active_connections.into()),
            ("spool_pool_active_connection_seconds_total", pool.active_connection_seconds_total),
            ("spool_pool_saturated_seconds_total", pool.saturated_seconds_total),
            ("spool_pool_exhausted_seconds_total", pool.exhausted_seconds_total),
            ("spool_pool_waiting_calls", pool.waiting.into()),
            ("spool_pool_oldest_waiting_seconds", pool.oldest_waiting_seconds),
            ("spool_pool_in_flight_operations", pool.in_flight.into()),
            ("spool_pool_slots", pool.slots.into()),
        ] {
            self.number(metric, &[name], value);
        }
        self.histogram("spool_pool_checkout_wait_seconds", &[name], &pool.checkout_wait_seconds);
        self.histogram("spool_pool_connection_use_seconds", &[name], &pool.connection_use_seconds);
        self.histogram("spool_pool_connection_create_seconds", &[name], &pool.connection_create_seconds);
        self.reasons("spool_pool_checkout_failures_total", &[name], &pool.checkout_failures_total);
        self.reasons(
            "spool_pool_connection_create_failures_total",
            &[name],
            &pool.connection_create_failures_total,
        );
        self.reasons("spool_pool_connections_closed_total", &[name], &pool.connections_closed_total);
    }

    fn locks(&mut self, locks: &LockStats) {
        self.operations(locks);
        for (metric, total) in [
            ("spool_lock_contended_total", locks.contended_total),
            ("spool_lock_fencing_rejections_total", locks.fencing_rejections_total),
            ("spool_lock_late_total", locks.late_total),
            ("spool_lock_script_reloads_total", locks.script_reloads_total),
        ] {
            self.number(metric, &[], total as f64);
        }
        for (metric, now) in [
            ("spool_lock_waiters", locks.waiters),
            ("spool_lock_guards", locks.guards),
            ("spool_lock_guards_in_jeopardy", locks.guards_in_jeopardy),
        ] {
            self.number(metric, &[], now as f64);
        }
        self.histogram("spool_lock_acquire_wait_seconds", &[], &locks.acquire_wait_seconds);
        self.histogram("spool_lock_held_seconds", &[], &locks.held_seconds);
        self.histogram("spool_lock_extend_margin_seconds", &[], &locks.extend_margin_seconds);
        self.reasons("spool_lock_lost_total", &[], &locks.lost_total);
        self.reasons("spool_lock_swept_total", &[], &locks.swept_total);
        self.reasons("spool_lock_limited_total", &[], &locks.limited_total);
    }

    fn operations(&mut self, locks: &LockStats) {
        let known = last_label_values("spool_lock_operations_total");
        for op in known {
            let (calls, failures, duration) = match locks.operations.get(*op) {
                Some(stats) => (
                    [stats.total, stats.retries_total, stats.retries_exhausted_total],
                    &stats.failures_total,
                    Some(&stats.duration_seconds),
                ),
                None => ([0; 3], &BTreeMap::new(), None),
            };
            let metrics =
                ["spool_lock_operations_total", "spool_retry_attempts_total", "spool_retry_exhausted_total"];
            for (metric, calls) in metrics.into_iter().zip(calls) {
                self.number(metric, &[op], calls as f64);
            }
            self.reasons("spool_lock_operation_failures_total", &[op], failures);
            match duration {
                Some(duration) => {
                    self.histogram("spool_lock_operation_duration_seconds", &[op], duration);
                }
                None => self.empty_histogram("spool_lock_operation_duration_seconds", &[op]),
            }
        }
        self.dropped += locks.operations.keys().filter(|op| !known.contains(&op.as_str())).count();
    }

    fn faults(&mut self, faults: &FaultStats) {
        let known = last_label_values("spool_breaker_rejected_total");
        for breaker in known {
            self.breaker(breaker, faults.circuits.get(*breaker));
        }
        self.dropped += faults.circuits.keys().filter(|name| !known.contains(&name.as_str())).count();
        for mode in Mode::ALL.into_iter().filter(|mode| mode.is_degraded()) {
            self.number("spool_degraded_mode", &[mode.as_str()], (faults.mode == mode).into());
        }
        for (metric, value) in [
            ("spool_retry_budget_remaining_ratio", faults.retry_budget_ratio),
            ("spool_retry_budget_refused_total", faults.retries_refused_total as f64),
            ("spool_degraded_entered_total", faults.degraded_entered_total as f64),
            ("spool_degraded_seconds_total", faults.degraded_seconds_total),
            ("spool_degraded_oldest_read_timestamp_seconds", moment(faults.snapshot_seen_at)),
        ] {
            self.number(metric, &[], value);
        }
        self.reasons("spool_degraded_reads_total", &[], &faults.degraded_reads_total);
    }

    fn recovery(&mut self, recovery: &RecoveryStats) {
        for (metric, value) in [
            ("spool_deferred_calls", recovery.deferred),
            ("spool_deferred_total", recovery.deferred_total),
            ("spool_deferred_refused_total", recovery.deferred_refused_total),
            ("spool_recovery_in_progress", recovery.is_recovering.into()),
            ("spool_recovery_server_restarts_total", recovery.restarts_total),
            ("spool_recovery_data_losses_total", recovery.data_losses_total),
            ("spool_lock_overlaps_total", recovery.overlaps_total),
        ] {
            self.number(metric, &[], value as f64);
        }
        self.reasons("spool_deferred_settled_total", &[], &recovery.settled_total);
        self.reasons("spool_recovery_restored_leases_total", &[], &recovery.restored_total);
        let known = last_label_values("spool_recovery_phases_total");
        for phase in known {
            let stats = recovery.phases.get(*phase).cloned().unwrap_or_default();
            for (metric, value) in [
                ("spool_recovery_phases_total", stats.total as f64),
                ("spool_recovery_phase_failures_total", stats.failures_total as f64),
                ("spool_recovery_phase_seconds_total", stats.seconds_total),
            ] {
                self.number(metric, &[phase], value);
            }
        }
        self.dropped += recovery.phases.keys().filter(|phase| !known.contains(&phase.as_str())).count();
    }

    fn breaker(&mut self, name: &str, circuit: Option<&CircuitStats>) {
        for state in CircuitState::ALL {
            let is_so = circuit.is_some_and(|circuit| circuit.state == state);
            self.number("spool_breaker_state", &[name, state.as_str()], is_so.into());
        }
        let (transitions, values) = match circuit {
            Some(circuit) => (
                &circuit.transitions_total,
                [
                    circuit.forced.into(),
                    circuit.rejected_total as f64,
                    moment(circuit.last_transition),
                    circuit.open_seconds_total,
                ],
            ),
            None => (&BTreeMap::new(), [0.0; 4]),
        };
        self.reasons("spool_breaker_transitions_total", &[name], transitions);
        let metrics = [
            "spool_breaker_forced",
            "spool_breaker_rejected_total",
            "spool_breaker_last_transition_timestamp_seconds",
            "spool_breaker_open_seconds_total",
        ];
        for (metric, value) in metrics.into_iter().zip(values) {
            self.number(metric, &[name], value);
        }
    }

    fn number(&mut self, name: &'static str, labels: &[&str], value: f64) {
        if is_number(value) {
            self.put(name, labels, Value::Number(value));
        } else {
            self.dropped += 1;
        }
    }

    /// One counter for each value of the metric's last label.
    fn reasons(&mut self, name: &'static str, labels: &[&str], totals: &BTreeMap<String, u64>) {
        let known = last_label_values(name);
        let mut counts: BTreeMap<&str, u64> = known.iter().map(|word| (*word, 0)).collect();
        for (reason, total) in totals {
            // A fault which this metric does not tell apart is `other`; a word that is no fault at all is not ours.
            let is_fault = || FaultKind::ALL.iter().any(|kind| kind.as_str() == reason);
            let word =
                if known.contains(&reason.as_str()) || !is_fault() { reason.as_str() } else { "other" };
            match counts.get_mut(word) {
                Some(count) => *count = count.saturating_add(*total),
                None => self.dropped += 1,
            }
        }
        for (word, count) in counts {
            let labels: Vec<_> = labels.iter().copied().chain([word]).collect();
            self.put(name, &labels, Value::Number(count as f64));
        }
    }

    fn histogram(&mut self, name: &'static str, labels: &[&str], histogram: &Histogram) {
        let bounds = catalogue::find(name).map_or(&[][..], |metric| metric.buckets);
        let fits = histogram.bounds == bounds && histogram.counts.len() == bounds.len() + 1;
        if !fits || !is_number(histogram.sum) {
            self.dropped += 1;
            return;
        }
        let running = histogram.counts.iter().scan(0_u64, |total, count| {
            *total = total.saturating_add(*count);
            Some(*total)
        });
        let cumulative = running.collect();
        self.put(name, labels, Value::Buckets { cumulative, sum: histogram.sum });
    }

    fn empty_histogram(&mut self, name: &'static str, labels: &[&str]) {
        let bounds = catalogue::find(name).map_or(0, |metric| metric.buckets.len());
        self.put(name, labels, Value::Buckets { cumulative: vec![0; bounds + 1], sum: 0.0 });
    }

    fn put(&mut self, name: &'static str, labels: &[&str], value: Value) {
        let metric = catalogue::find(name).filter(|metric| metric.door == Door::Service);
        let Some(metric) = metric.filter(|metric| metric.labels.len() == labels.len()) else {
            debug_assert!(false, "the catalogue has no {name} of a service with {} labels", labels.len());
            return;
        };
        self.page.put(metric, self.labels(metric, labels), value);
    }

    fn labels(&self, metric: &'static Metric, values: &[&str]) -> Labels {
        let service = self.service.map(|service| ("service", service.to_owned()));
        let others = metric.labels.iter().zip(values).map(|(label, value)| (label.name, (*value).to_owned()));
        service.into_iter().chain(others).collect()
    }
}

/// Unix time, and 0 for what has not happened: a series that appears with its first value has not changed.
fn moment(time: Option<SystemTime>) -> f64 {
    time.map_or(0.0, unix_seconds)
}

/// The closed set of a metric's last label.
fn last_label_values(name: &'static str) -> &'static [&'static str] {
    catalogue::find(name).and_then(|metric| metric.labels.last()).map_or(&[], |label| label.values)
}

/// Whether a word of a snapshot may become a label value.
fn is_word(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(is_plain)
}

#[cfg(test)]
mod tests;
