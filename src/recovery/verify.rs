//! [`verify()`]: what this process holds is looked at.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{Tally, tell};
use crate::{Fence, Occupant, RecoveryPhase, Tag, attempt, held::Held, inner::Inner, store::Seen};

/// How long the phase takes at most.
const LONGEST: Duration = Duration::from_secs(2);

/// What this process held and what does not stand.
#[derive(Debug, Default)]
pub(super) struct Missing {
    pub(super) guards: Vec<Arc<Held>>,
    pub(super) identities: Vec<Occupant>,
}

/// Looks at all that this process holds. Of what cannot be looked at in time, guards count as standing, because their renewals find out,
/// and identities as missing, because they are looked at once more before they are told.
///
/// Where data is lost, others may have been granted since what this process held: that is missing too.
pub(super) async fn verify(inner: &Inner, has_lost_data: bool) -> Missing {
    let (began, tally) = (Instant::now(), Tally::default());
    let Inner { server, known, roster, .. } = inner;
    let vouched = if has_lost_data { server.vouched_before() } else { server.vouched() };
    let held = Missing { guards: roster.all(), identities: known.identities(vouched) };
    let tags: Vec<Tag> = held.leases().map(|(tag, _)| tag.clone()).collect();
    let mut seen = Vec::with_capacity(tags.len());
    let looked = timeout(LONGEST, attempt::look_at_as_many(inner, &tags, &mut seen)).await;
    let missing = held.without(&seen, &tally);
    tell(inner, RecoveryPhase::Verify, began, &tally, matches!(looked, Ok(Ok(()))));
    missing
}

impl Missing {
    fn leases(&self) -> impl Iterator<Item = (&Tag, Fence)> {
        let guards = self.guards.iter().map(|held| (&held.lease().tag, held.lease().fence));
        guards.chain(self.identities.iter().map(|occupant| (&occupant.tag, occupant.fence)))
    }

    /// Without those that were seen to stand.
    fn without(self, seen: &[Option<Seen>], tally: &Tally) -> Self {
        let stands: Vec<bool> =
            self.leases().zip(seen).map(|((_, fence), seen)| is_held(seen, fence)).collect();
        let standing = stands.iter().filter(|stands| **stands).count();
        tally.done(standing as u64);
        tally.left((stands.len() - standing) as u64);
        let mut stands = stands.into_iter();
        let mut missing = self;
        missing.guards.retain(|_| !stands.next().unwrap_or(true));
        missing.identities.retain(|_| !stands.next().unwrap_or(false));
        missing
    }
}

pub(super) fn is_held(seen: &Option<Seen>, fence: Fence) -> bool {
    matches!(seen, Some(Seen::Held(occupant)) if occupant.fence == fence)
}
