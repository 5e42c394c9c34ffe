//! [`Ledger`]: which spools are being worked on, as the service itself knows it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use spool_lock::{Lease, LeaseSource, LeaseSourceAnswer, Tag};
use tokio::time::sleep;

use crate::dice::Dice;

/// How long a ledger takes to answer which of its leases are open: for so long a stranger would find the spools free.
const QUERY: Duration = Duration::from_millis(250);

/// The leases that are worked under, by tag. In a real service it is a table.
///
/// A lease is written in once it is granted, before its worker counts on it, and struck out before it is given back: so what stands
/// here stands in Redis as well, unless that has lost it.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<BTreeMap<Tag, Lease>>>);

impl Ledger {
    /// A lease was granted, or extended.
    pub(crate) fn write(&self, lease: &Lease) {
        self.lock().insert(lease.tag.clone(), lease.clone());
    }

    /// A lease is about to be given back, or was lost.
    pub(crate) fn strike(&self, lease: &Lease) {
        let mut leases = self.lock();
        if leases.get(&lease.tag).is_some_and(|open| open.fence == lease.fence) {
            leases.remove(&lease.tag);
        }
    }

    pub(crate) fn open(&self) -> BTreeMap<Tag, Lease> {
        self.lock().clone()
    }

    pub(crate) fn is_open(&self, tag: &Tag) -> bool {
        self.lock().contains_key(tag)
    }

    /// A spool that is being worked on, if there is one.
    pub(crate) fn any(&self, dice: &mut Dice) -> Option<Tag> {
        let leases = self.lock();
        if leases.is_empty() {
            return None;
        }
        leases.keys().nth(dice.roll(leases.len())).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Tag, Lease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeaseSource for Ledger {
    fn leases(&self) -> LeaseSourceAnswer<'_> {
        Box::pin(async {
            sleep(QUERY).await;
            Ok(self.open().into_values().collect())
        })
    }
}
