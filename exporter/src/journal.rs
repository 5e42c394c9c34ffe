//! [`Journal`]: logs when a source comes or goes, and keeps silent in between.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// What was last said of each source.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<BTreeMap<String, Option<Wrong>>>);

/// What is wrong with a source.
#[derive(Debug)]
pub(crate) struct Wrong {
    /// Tells one state from another; the text may have a new number in it each time.
    pub(crate) kind: &'static str,
    pub(crate) text: String,
}

impl Journal {
    /// Takes down how all sources are now; `None` is well. A source that is not among them is forgotten.
    pub(crate) fn note(&self, now: BTreeMap<String, Option<Wrong>>) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = |wrong: &Option<Wrong>| wrong.as_ref().map(|wrong| wrong.kind);
        for (source, wrong) in &now {
            match (last.get(source), wrong) {
                (Some(before), wrong) if kind(before) == kind(wrong) => {}
                (_, Some(Wrong { kind, text })) => tracing::warn!(source, kind, text, "source failed"),
                (_, None) => tracing::info!(source, "source answers"),
            }
        }
        for source in last.keys().filter(|source| !now.contains_key(*source)) {
            tracing::info!(source, "source is gone");
        }
        *last = now;
    }
}
