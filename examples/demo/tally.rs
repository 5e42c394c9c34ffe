//! [`Tally`]: what the workers have done since somebody looked.

use std::{
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::causes;

/// Fed by all workers, emptied once a second.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Deeds>);

#[derive(Debug, Default)]
pub(crate) struct Deeds {
    /// A spool taken and released again.
    pub(crate) pairs: u64,
    /// A spool that somebody else had. An answer, not an error.
    pub(crate) contended: u64,
    /// An acquire that was refused at once: the server is known to be away.
    pub(crate) refused: u64,
    /// An acquire that was told to wait: the server has just been started, and knows nothing of the spool.
    pub(crate) warming: u64,
    /// A call that the server was asked, or was to be asked, and did not answer.
    pub(crate) unanswered: u64,
    /// A lease whose extend had no answer, and that was found again as it was.
    pub(crate) stood: u64,
    /// A lease that ended while its worker had it.
    pub(crate) lost: u64,
    /// A worker who in the end could not give back what he had.
    pub(crate) stuck: u64,
    /// Anything else that is no answer.
    pub(crate) errors: u64,
    /// The last of those without an answer and of the errors.
    pub(crate) last_error: Option<String>,
    /// How long each call took.
    calls: Vec<Duration>,
}

impl Tally {
    pub(crate) fn pair(&self) {
        self.add(|deeds| deeds.pairs += 1);
    }

    pub(crate) fn contended(&self) {
        self.add(|deeds| deeds.contended += 1);
    }

    pub(crate) fn refused(&self) {
        self.add(|deeds| deeds.refused += 1);
    }

    pub(crate) fn warming(&self) {
        self.add(|deeds| deeds.warming += 1);
    }

    pub(crate) fn unanswered(&self, error: &(dyn std::error::Error + 'static)) {
        let text = format!("{error}{}", causes(error));
        self.add(|deeds| {
            deeds.unanswered += 1;
            deeds.last_error = Some(text);
        });
    }

    pub(crate) fn stood(&self) {
        self.add(|deeds| deeds.stood += 1);
    }

    pub(crate) fn lost(&self) {
        self.add(|deeds| deeds.lost += 1);
    }

    pub(crate) fn call(&self, took: Duration) {
        self.add(|deeds| deeds.calls.push(took));
    }

    pub(crate) fn error(&self, error: &(dyn std::error::Error + 'static)) {
        let text = format!("{error}{}", causes(error));
        self.add(|deeds| {
            deeds.errors += 1;
            deeds.last_error = Some(text);
        });
    }

    /// Starts the next tally and returns this one.
    pub(crate) fn take(&self) -> Deeds {
        let mut taken = Deeds::default();
        self.add(|deeds| mem::swap(deeds, &mut taken));
        taken
    }

    fn add(&self, change: impl FnOnce(&mut Deeds)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Deeds {
    /// 19 of 20 calls took no longer; 0 when there was none.
    pub(crate) fn p95(&mut self) -> Duration {
        self.calls.sort_unstable();
        let index = (self.calls.len() * 19).div_ceil(20).saturating_sub(1);
        self.calls.get(index).copied().unwrap_or_default()
    }

    pub(crate) fn longest(&self) -> Duration {
        self.calls.iter().copied().max().unwrap_or_default()
    }
}
