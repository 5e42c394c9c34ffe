//! Counters and histograms that any thread may feed and any thread may read, without a lock.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::{
    FaultKind, Histogram, LimitedBy, LockStats, LostReason, OperationStats, PhaseStats, RecoveryPhase,
    RecoveryStats, buckets, stats::Swept,
};

/// A count that only rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A count for each kind of fault.
#[derive(Debug)]
pub(crate) struct FaultCounters([Counter; FaultKind::ALL.len()]);

impl Default for FaultCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl FaultCounters {
    pub(crate) fn add_one(&self, kind: FaultKind) {
        self.0[kind as usize].add_one();
    }

    pub(crate) fn read(&self) -> BTreeMap<String, u64> {
        FaultKind::ALL
            .iter()
            .zip(&self.0)
            .map(|(kind, count)| (kind.as_str().to_owned(), count.get()))
            .collect()
    }
}

/// A histogram of durations.
#[derive(Debug)]
pub(crate) struct Timer {
    bounds: &'static [f64],
    /// The bounds in nanoseconds, so that observing needs no floating point.
    nanos: Box<[u64]>,
    counts: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
}

impl Timer {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        let nanos =
            bounds.iter().map(|&seconds| saturating_nanos(Duration::from_secs_f64(seconds))).collect();
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, nanos, counts, sum_nanos: AtomicU64::new(0) }
    }

    pub(crate) fn observe(&self, duration: Duration) {
        let nanos = saturating_nanos(duration);
        // Most observations are short, so the walk from the small end finds their bucket at once.
        let bucket = self.nanos.iter().position(|&bound| nanos <= bound).unwrap_or(self.nanos.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_nanos.fetch_add(nanos, Relaxed);
    }

    pub(crate) fn read(&self) -> Histogram {
        Histogram {
            bounds: self.bounds.to_vec(),
            counts: self.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum: Duration::from_nanos(self.sum_nanos.load(Relaxed)).as_secs_f64(),
        }
    }
}

fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The kinds of lock operations that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Acquire,
    Extend,
    Release,
    Read,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Acquire, Self::Extend, Self::Release, Self::Read];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::Extend => "extend",
            Self::Release => "release",
            Self::Read => "read",
        }
    }
}

/// How a read was answered while Redis was ill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    Live,
    Snapshot,
    Fallback,
    NotAtAll,
}

impl Answered {
    pub(crate) const ALL: [Self; 4] = [Self::Live, Self::Snapshot, Self::Fallback, Self::NotAtAll];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Snapshot => "snapshot",
            Self::Fallback => "fallback",
            Self::NotAtAll => "none",
        }
    }
}

#[derive(Debug)]
struct OperationMeter {
    failures: FaultCounters,
    retries: Counter,
    exhausted: Counter,
    duration: Timer,
}

/// What the lock operations of a process count.
#[derive(Debug)]
pub(crate) struct LockMeter {
    operations: [OperationMeter; 4],
    pub(crate) contended: Counter,
    lost: [Counter; LostReason::ALL.len()],
    pub(crate) acquire_wait: Timer,
    pub(crate) held: Timer,
    pub(crate) extend_margin: Timer,
    pub(crate) fencing_rejections: Counter,
    pub(crate) late: Counter,
    pub(crate) script_reloads: Counter,
    swept: [Counter; Swept::ALL.len()],
    degraded_reads: [Counter; Answered::ALL.len()],
    limited: [Counter; LimitedBy::ALL.len()],
}

impl Default for LockMeter {
    fn default() -> Self {
        let operation = |_| OperationMeter {
            failures: FaultCounters::default(),
            retries: Counter::default(),
            exhausted: Counter::default(),
            duration: Timer::new(buckets::OPERATION),
        };
        Self {
            operations: std::array::from_fn(operation),
            contended: Counter::default(),
            lost: std::array::from_fn(|_| Counter::default()),
            acquire_wait: Timer::new(buckets::WAIT),
            held: Timer::new(buckets::HELD),
            extend_margin: Timer::new(buckets::MARGIN),
            fencing_rejections: Counter::default(),
            late: Counter::default(),
            script_reloads: Counter::default(),
            swept: std::array::from_fn(|_| Counter::default()),
            degraded_reads: std::array::from_fn(|_| Counter::default()),
            limited: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl LockMeter {
    pub(crate) fn finished(&self, operation: Operation, took: Duration, fault: Option<FaultKind>) {
        let meter = &self.operations[operation as usize];
        meter.duration.observe(took);
        if let Some(kind) = fault {
            meter.failures.add_one(kind);
        }
    }

    /// A call is sent again.
    pub(crate) fn tried_again(&self, operation: Operation) {
        self.operations[operation as usize].retries.add_one();
    }

    /// A call failed with a fault that may pass, and was not sent again.
    pub(crate) fn exhausted(&self, operation: Operation) {
        self.operations[operation as usize].exhausted.add_one();
    }

    /// A read was answered while Redis was ill.
    pub(crate) fn answered(&self, answer: Answered) {
        self.degraded_reads[answer as usize].add_one();
    }

    /// The reads while the mode was not normal, by answer.
    pub(crate) fn degraded_reads(&self) -> BTreeMap<String, u64> {
        let read = |(answer, count): (&Answered, &Counter)| (answer.as_str().to_owned(), count.get());
        Answered::ALL.iter().zip(&self.degraded_reads).map(read).collect()
    }

    /// An acquire was refused, because there were too many before it.
    #[cfg(any(feature = "rate-limit", test))]
    pub(crate) fn limited(&self, by: LimitedBy) {
        self.limited[by as usize].add_one();
    }

    pub(crate) fn swept(&self, outcome: Swept) {
        self.swept[outcome as usize].add_one();
    }

    pub(crate) fn lost(&self, reason: LostReason) {
        self.lost[reason as usize].add_one();
    }

    /// What is counted here, and what is so now: how many wait in line, how many guards there are, and how many of these are in
    /// jeopardy.
    pub(crate) fn read(&self, waiters: u64, (guards, guards_in_jeopardy): (u64, u64)) -> LockStats {
        let operation = |operation: &Operation| {
            let meter = &self.operations[*operation as usize];
            let duration_seconds = meter.duration.read();
            let total = duration_seconds.counts.iter().sum();
            let stats = OperationStats {
                total,
                failures_total: meter.failures.read(),
                duration_seconds,
                retries_total: meter.retries.get(),
                retries_exhausted_total: meter.exhausted.get(),
            };
            (operation.as_str().to_owned(), stats)
        };
        let lost = |(reason, count): (&LostReason, &Counter)| (reason.as_str().to_owned(), count.get());
        let swept = |(outcome, count): (&Swept, &Counter)| (outcome.as_str().to_owned(), count.get());
        let limited = |(by, count): (&LimitedBy, &Counter)| (by.as_str().to_owned(), count.get());
        LockStats {
            operations: Operation::ALL.iter().map(operation).collect(),
            contended_total: self.contended.get(),
            lost_total: LostReason::ALL.iter().zip(&self.lost).map(lost).collect(),
            swept_total: Swept::ALL.iter().zip(&self.swept).map(swept).collect(),
            waiters,
            acquire_wait_seconds: self.acquire_wait.read(),
            held_seconds: self.held.read(),
            extend_margin_seconds: self.extend_margin.read(),
            fencing_rejections_total: self.fencing_rejections.get(),
            late_total: self.late.get(),
            script_reloads_total: self.script_reloads.get(),
            guards,
            guards_in_jeopardy,
            limited_total: LimitedBy::ALL.iter().zip(&self.limited).map(limited).collect(),
        }
    }
}

/// What became of a lease that was to be put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PutBack {
    Restored,
    Stood,
    Refused,
}

impl PutBack {
    pub(crate) const ALL: [Self; 3] = [Self::Restored, Self::Stood, Self::Refused];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Restored => "restored",
            Self::Stood => "stood",
            Self::Refused => "refused",
        }
    }
}

#[derive(Debug, Default)]
struct PhaseMeter {
    total: Counter,
    failures: Counter,
    micros: AtomicU64,
}

/// What the recoveries of a process count.
#[derive(Debug, Default)]
pub(crate) struct RecoveryMeter {
    pub(crate) restarts: Counter,
    pub(crate) data_losses: Counter,
    pub(crate) overlaps: Counter,
    put_back: [Counter; PutBack::ALL.len()],
    phases: [PhaseMeter; RecoveryPhase::ALL.len()],
}

impl RecoveryMeter {
    pub(crate) fn put_back(&self, outcome: PutBack) {
        self.put_back[outcome as usize].add_one();
    }

    /// A phase is over, or was cut short.
    pub(crate) fn phase(&self, phase: RecoveryPhase, took: Duration, is_complete: bool) {
        let meter = &self.phases[phase as usize];
        meter.total.add_one();
        meter.micros.fetch_add(saturating_nanos(took) / 1000, Relaxed);
        if !is_complete {
            meter.failures.add_one();
        }
    }

    /// What is counted here; the deferred calls are counted elsewhere.
    pub(crate) fn read(&self, is_recovering: bool) -> RecoveryStats {
        let put_back = |(outcome, count): (&PutBack, &Counter)| (outcome.as_str().to_owned(), count.get());
        let phase = |(phase, meter): (&RecoveryPhase, &PhaseMeter)| {
            let stats = PhaseStats {
                total: meter.total.get(),
                failures_total: meter.failures.get(),
                seconds_total: Duration::from_micros(meter.micros.load(Relaxed)).as_secs_f64(),
            };
            (phase.as_str().to_owned(), stats)
        };
        RecoveryStats {
            restarts_total: self.restarts.get(),
            data_losses_total: self.data_losses.get(),
            overlaps_total: self.overlaps.get(),
            restored_total: PutBack::ALL.iter().zip(&self.put_back).map(put_back).collect(),
            phases: RecoveryPhase::ALL.iter().zip(&self.phases).map(phase).collect(),
            is_recovering,
            ..RecoveryStats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let timer = Timer::new(&[0.001, 1.0]);
        for millis in [0, 1, 2, 1000, 1001] {
            timer.observe(Duration::from_millis(millis));
        }
        let read = timer.read();
        assert_eq!(read.counts, [2, 2, 1]);
        assert!((read.sum - 2.004).abs() < 1e-9);
    }
    #[test]
    fn further_tries_count_for_their_operation_alone() {
        let meter = LockMeter::default();
        meter.finished(Operation::Extend, Duration::ZERO, Some(FaultKind::Timeout));
        meter.tried_again(Operation::Extend);
        meter.tried_again(Operation::Extend);
        meter.exhausted(Operation::Extend);
        for (name, operation) in meter.read(0, (0, 0)).operations {
            let wanted = if name == "extend" { [1, 2, 1] } else { [0; 3] };
            let counted = [operation.total, operation.retries_total, operation.retries_exhausted_total];
            assert_eq!(counted, wanted, "{name}");
        }
    }

    #[test]
    fn reads_and_refusals_are_counted_under_their_word() {
        let meter = LockMeter::default();
        meter.limited(LimitedBy::Tag);
        meter.answered(Answered::Snapshot);
        meter.answered(Answered::NotAtAll);
        assert_eq!(
            meter.read(0, (0, 0)).limited_total,
            [("holder".to_owned(), 0), ("tag".to_owned(), 1)].into()
        );
        let reads = [("live", 0), ("snapshot", 1), ("fallback", 0), ("none", 1)];
        assert_eq!(meter.degraded_reads(), reads.map(|(word, count)| (word.to_owned(), count)).into());
    }
}
