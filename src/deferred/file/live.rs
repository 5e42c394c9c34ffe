//! [`Live`]: what was kept and is not settled.

use std::collections::{BTreeMap, HashMap};

use crate::{Deferred, RequestId};

/// What was kept and is not settled, in the order in which it was kept.
#[derive(Debug, Default)]
pub(super) struct Live {
    entries: BTreeMap<u64, Deferred>,
    numbers: HashMap<RequestId, u64>,
    /// Of the last that was kept.
    last: u64,
}

impl Live {
    /// Takes one in as the last, and says whether it is new: what is here already stays where it is.
    pub(super) fn keep(&mut self, deferred: &Deferred) -> bool {
        let is_new = !self.numbers.contains_key(&deferred.request);
        if is_new {
            self.last += 1;
            self.numbers.insert(deferred.request, self.last);
            self.entries.insert(self.last, deferred.clone());
        }
        is_new
    }

    /// Takes one out, and says whether it was here.
    pub(super) fn settle(&mut self, request: RequestId) -> bool {
        self.numbers.remove(&request).is_some_and(|number| self.entries.remove(&number).is_some())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Deferred> {
        self.entries.values()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
