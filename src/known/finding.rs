//! [`Finding`]: a state of a tag, and when it was seen.

use tokio::time::Instant;

use crate::{Event, Fence, Occupant, store::Seen};

/// What was seen of a tag.
///
/// Replies and events of one tag come over several connections and overtake each other, and nothing in them orders two states
/// of one lease: an extend may shorten. So this is the rule, of two states of a tag:
///
/// 1. What was asked after the other was heard is newer, whatever it says: also a lower fence, where the server has lost its
///    data. An event, or that a release was applied, is no answer to what stands.
/// 2. Otherwise the higher fence is newer, and a tag that is free is as new as the last fence it names;
/// 3. for the same fence, "ended" is newer than "held";
/// 4. and of two that say "held", an event is newer than what was there: it tells of a change, and events come in their order.
///    Of two answers whose questions overlap, the later end is taken: mostly it is an extend that the other one did not see.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) state: Seen,
    /// When the question was sent; none for what is no answer.
    asked: Option<Instant>,
    heard: Instant,
}

impl Finding {
    /// The answer, just now, to a question of `asked`.
    pub(crate) fn asked(state: Seen, asked: Instant) -> Self {
        Self { state, asked: Some(asked), heard: Instant::now() }
    }

    /// A lease has ended; that nobody has the lock since is not said.
    pub(crate) fn ended(fence: Fence) -> Self {
        Self { state: Seen::Free { last: Some(fence) }, asked: None, heard: Instant::now() }
    }

    /// What an event, just heard, says of its tag; nothing where it tells of no tag.
    pub(crate) fn told(event: &Event) -> Option<Self> {
        let occupant = event.occupant()?;
        let state = match event {
            Event::Taken { .. } | Event::Extended { .. } => Seen::Held(occupant.clone()),
            _ => return Some(Self::ended(occupant.fence)),
        };
        Some(Self { state, asked: None, heard: Instant::now() })
    }

    /// Whether it tells that a lease has ended, and not what stands.
    pub(crate) fn is_an_end(&self) -> bool {
        self.asked.is_none() && matches!(self.state, Seen::Free { .. })
    }

    /// Whether it says of a lease that stood before that it stands still, or has ended as leases do.
    pub(crate) fn accounts_for(&self, lease: &Occupant) -> bool {
        match &self.state {
            Seen::Held(occupant) => occupant.fence == lease.fence,
            Seen::Free { last } => last.is_some_and(|last| last >= lease.fence),
        }
    }

    /// When it was so at the latest, for all that is known.
    pub(crate) fn seen(&self) -> Instant {
        self.asked.unwrap_or(self.heard)
    }

    pub(crate) fn heard(&self) -> Instant {
        self.heard
    }

    /// Whether this one is newer than `known`.
    pub(crate) fn supersedes(&self, known: &Self) -> bool {
        if self.asked.is_some_and(|asked| asked > known.heard) {
            return true;
        }
        let (fence, known_fence) = (self.state.fence(), known.state.fence());
        match (&self.state, &known.state) {
            _ if fence != known_fence => fence > known_fence,
            (Seen::Free { .. }, Seen::Held(_)) => true,
            (_, Seen::Free { .. }) => false,
            (Seen::Held(new), Seen::Held(old)) => self.asked.is_none() || new.expires_at > old.expires_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{Holder, LeaseKind, Tag};

    #[derive(Debug, Clone, Copy)]
    enum State {
        Held { fence: u64, expires: u64 },
        Free { last: u64 },
    }
    use State::{Free, Held};

    /// Asked and heard in these seconds; an event is heard only.
    fn finding(start: Instant, state: State, asked: Option<u64>, heard: u64) -> Finding {
        let second = |second| start + Duration::from_secs(second);
        let state = match state {
            Free { last } => Seen::Free { last: Fence::new(last).filter(|_| last > 0) },
            Held { fence, expires } => Seen::Held(Occupant {
                tag: Tag::new("TEST-02").unwrap(),
                holder: Holder::new("93", "").unwrap(),
                kind: LeaseKind::Identity,
                fence: Fence::new(fence).unwrap(),
                since: UNIX_EPOCH,
                expires_at: UNIX_EPOCH + Duration::from_secs(expires),
                note: String::new(),
            }),
        };
        Finding { state, asked: asked.map(second), heard: second(heard) }
    }

    #[test]
    fn newer_state_is_found_whatever_the_order_of_arrival() {
        let start = Instant::now();
        let held = |fence, expires| Held { fence, expires };
        // The known state was asked in second 10 and heard in second 20.
        for (known, new, asked, is_newer, why) in [
            (held(5, 100), held(9, 100), Some(5), true, "a higher fence"),
            (held(9, 100), held(5, 100), Some(5), false, "a lower fence"),
            (held(9, 100), held(5, 100), None, false, "an old event"),
            (held(9, 100), held(5, 100), Some(21), true, "a server that lost its data, asked afterwards"),
            (held(5, 100), Free { last: 5 }, Some(5), true, "ended beats held"),
            (held(5, 100), Free { last: 5 }, None, true, "so does an event"),
            (Free { last: 5 }, held(5, 100), Some(5), false, "and held does not beat ended"),
            (Free { last: 5 }, held(5, 100), None, false, "nor does an old event"),
            (held(5, 100), Free { last: 9 }, Some(5), true, "free after a later lease"),
            (held(9, 100), Free { last: 5 }, Some(5), false, "free before it was taken"),
            (held(9, 100), Free { last: 0 }, Some(5), false, "free, nobody knows when"),
            (held(9, 100), Free { last: 0 }, Some(21), true, "free, asked afterwards"),
            (held(5, 100), held(5, 200), Some(5), true, "an extend that the other did not see"),
            (held(5, 200), held(5, 100), Some(5), false, "a look that did not see the extend"),
            (held(5, 200), held(5, 100), Some(21), true, "shortened, asked afterwards"),
            (held(5, 200), held(5, 100), None, true, "shortened, by an event"),
        ] {
            let known = finding(start, known, Some(10), 20);
            let new = finding(start, new, asked, 22);
            assert_eq!(new.supersedes(&known), is_newer, "{why}");
        }
    }
}
