//! What the pool counts.

use std::collections::BTreeMap;

use crate::{
    ClosedReason, buckets,
    meter::{Counter, FaultCounters, Timer},
};

#[derive(Debug)]
pub(super) struct PoolMeter {
    pub(super) checkout_wait: Timer,
    pub(super) checkout_failures: FaultCounters,
    pub(super) connection_use: Timer,
    pub(super) connection_create: Timer,
    pub(super) create_failures: FaultCounters,
    closed: [Counter; ClosedReason::ALL.len()],
}

impl Default for PoolMeter {
    fn default() -> Self {
        Self {
            checkout_wait: Timer::new(buckets::CHECKOUT),
            checkout_failures: FaultCounters::default(),
            connection_use: Timer::new(buckets::CHECKOUT),
            connection_create: Timer::new(buckets::CREATE),
            create_failures: FaultCounters::default(),
            closed: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl PoolMeter {
    pub(super) fn closed(&self, reason: ClosedReason) {
        self.closed[reason as usize].add_one();
    }

    pub(super) fn read_closed(&self) -> BTreeMap<String, u64> {
        let reasons = ClosedReason::ALL.iter().zip(&self.closed);
        reasons.map(|(reason, count)| (reason.as_str().to_owned(), count.get())).collect()
    }
}
