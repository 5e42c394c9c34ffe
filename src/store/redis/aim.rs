//! [`Aim`]: which lease of its holder a release or an extend may touch.

use tokio::time::Instant;

use super::{RedisStore, clock::ServerClock, micros_of};
use crate::{
    Fence, RequestId,
    store::{NotYours, Whose},
};

/// The fences that a call may touch. It is aimed anew once at most, at exactly the lease that was seen.
pub(super) struct Aim<'a> {
    whose: Whose<'a>,
    made: Instant,
    pub(super) lowest: u64,
    pub(super) highest: u64,
    is_final: bool,
}

impl RedisStore {
    /// Without a fence a call means the lease that stood when it was made: a later one has a larger fence than the server's
    /// clock showed then.
    ///
    /// Not raised to our floor: where the clock was set back, the fence of a later lease may be below that.
    pub(super) fn aim<'a>(&self, whose: Whose<'a>, request: Option<RequestId>) -> Aim<'a> {
        let made = Instant::now();
        // A repeat keeps to the bounds of the first try.
        let first = request.and_then(|request| request.made());
        let (lowest, highest) = match whose.fence {
            Some(fence) => (fence.get(), fence.get()),
            None => (0, first.unwrap_or_else(|| self.clock.at(made))),
        };
        Aim { whose, made, lowest, highest, is_final: first.is_some() }
    }
}

impl Aim<'_> {
    /// Whether the call is to be sent once more, because the lease that was found is the one that was meant.
    pub(super) fn again(&mut self, clock: &ServerClock, now_micros: u64, found: &NotYours) -> bool {
        let meant = self.meant(clock, now_micros, found);
        let Some(fence) = meant.filter(|_| !self.is_final) else { return false };
        (self.lowest, self.highest, self.is_final) = (fence.get(), fence.get(), true);
        true
    }

    /// The fence of a lease that was found above the bound and had been granted before the call was made nevertheless: the
    /// clock had jumped without our knowing, or the fence is ahead of the clock, because its counter is or because the clock
    /// was set back since.
    ///
    /// Only a caller who still waits asks this. A call that arrives after it was given up stays within its bounds.
    fn meant(&self, clock: &ServerClock, now_micros: u64, found: &NotYours) -> Option<Fence> {
        let NotYours::Occupied(occupant) = found else { return None };
        let fence = occupant.fence.get();
        let is_ours = occupant.holder == *self.whose.holder && occupant.kind == self.whose.kind;
        if self.whose.fence.is_some() || !is_ours || fence <= self.highest {
            return None;
        }
        let since = micros_of(occupant.since);
        // A fence that the clock minted tells the moment more exactly than the milliseconds beside it.
        let granted = if fence / 1000 == since / 1000 { fence } else { since };
        let waited = u64::try_from(self.made.elapsed().as_micros()).unwrap_or(u64::MAX);
        // No clock that went on evenly since the call was made shows that time yet, and the server's does not.
        let before_a_step_back = since > now_micros && since > self.highest.saturating_add(waited);
        (granted <= clock.at(self.made) || before_a_step_back).then_some(occupant.fence)
    }
}
