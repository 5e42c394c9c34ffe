//! [`Journal`]: logs when a source comes or goes, and keeps silent in between.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// What was last said of each source.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<BTreeMap<String, Option<String>>>);

impl Journal {
    /// Takes down how all sources are now; `Some` says what is wrong. A source that is not among them is forgotten.
    pub(crate) fn note(&self, now: BTreeMap<String, Option<String>>) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (source, wrong) in &now {
            match (last.get(source), wrong) {
                (Some(before), wrong) if before == wrong => {}
                (_, Some(wrong)) => tracing::warn!(source, wrong, "source failed"),
                (_, None) => tracing::info!(source, "source answers"),
            }
        }
        for source in last.keys().filter(|source| !now.contains_key(*source)) {
            tracing::info!(source, "source is gone");
        }
        *last = now;
    }
}
