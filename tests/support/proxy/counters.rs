//! What a proxy has seen.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) open: AtomicUsize,
    pub(super) frames_to_server: AtomicU64,
    pub(super) frames_to_client: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) replies_dropped: AtomicU64,
    dials: Mutex<Vec<Instant>>,
    commands: Mutex<BTreeMap<String, u64>>,
}

impl Counters {
    /// Counts a dial and returns its number, from 1.
    pub(super) fn dialled(&self) -> usize {
        let mut dials = self.dials.lock().expect("nothing panics while counting");
        dials.push(Instant::now());
        dials.len()
    }

    pub(super) fn dials(&self) -> usize {
        self.dials.lock().expect("nothing panics while counting").len()
    }

    pub(super) fn dialled_at(&self) -> Vec<Instant> {
        self.dials.lock().expect("nothing panics while counting").clone()
    }

    pub(super) fn requested(&self, command: String) {
        *self.commands.lock().expect("nothing panics while counting").entry(command).or_default() += 1;
    }

    pub(super) fn commands(&self) -> BTreeMap<String, u64> {
        self.commands.lock().expect("nothing panics while counting").clone()
    }
}
