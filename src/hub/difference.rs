//! [`difference`]: what there is to tell when a tag is seen in another state than the one that was told last. Pure.

use std::time::{Duration, SystemTime};

use crate::{Event, Fence, LeaseKind, LostReason, Occupant, store::Seen};

/// When a lease ends is read from a clock each time, in whole milliseconds: two readings of one end differ by that much.
const SAME: Duration = Duration::from_millis(20);

/// Something to tell; where a lease has ended otherwise than by a release that was heard of, also how its holder lost it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) event: Event,
    pub(super) lost: Option<LostReason>,
}

/// At most the end of the lease before and one thing about the one that stands.
pub(super) type Changes = [Option<Change>; 2];

/// What has changed when the store, asked at `now`, says `seen`.
pub(super) fn difference(told: &Seen, seen: &Seen, now: SystemTime) -> Changes {
    match (told, seen) {
        (Seen::Held(before), Seen::Held(next)) if before.fence == next.fence => {
            let extended = || Change::of(Event::Extended { occupant: next.clone(), at: now });
            let same = apart(before.expires_at, next.expires_at) <= SAME;
            [None, (!same).then(extended)]
        }
        (_, Seen::Held(next)) => [ended(told, Some(next), seen.fence(), now), Some(taken(next))],
        (_, Seen::Free { last }) => [ended(told, None, *last, now), None],
    }
}

/// Whether an event of what makes `seen` another state than what was told may be under way. Of an expiry there is none.
pub(super) fn may_be_told(told: &Seen, seen: &Seen, now: SystemTime) -> bool {
    match (told, seen) {
        _ if told.fence() != seen.fence() => true,
        (Seen::Held(before), Seen::Held(next)) => apart(before.expires_at, next.expires_at) > SAME,
        (Seen::Held(before), Seen::Free { .. }) => before.expires_at > now + SAME,
        (Seen::Free { .. }, _) => false,
    }
}

/// What has changed when an event was heard: that, and before it the end of another lease, of which nothing was heard. Whose
/// grant was not heard is told to be taken when an extend of it is.
pub(super) fn heard(told: Option<&Seen>, event: Event) -> Changes {
    let (Some(occupant), Some(at)) = (event.occupant(), event.at()) else { return [None, None] };
    let same = told.is_some_and(|told| told.fence() == Some(occupant.fence));
    let ended = match told {
        Some(told) if !same => ended(told, Some(occupant), Some(occupant.fence), at),
        _ => None,
    };
    let change = match event {
        Event::Taken { .. } if same => return [None, None],
        Event::Extended { .. } if told.is_some() && !same => taken(occupant),
        Event::Forced { .. } => Change { event, lost: Some(LostReason::Forced) },
        // Its guard, if it did not ask for that itself.
        Event::Released { .. } if occupant.kind == LeaseKind::Guard => {
            Change { event, lost: Some(LostReason::Expired) }
        }
        _ => Change::of(event),
    };
    [ended, Some(change)]
}

impl Change {
    fn of(event: Event) -> Self {
        Self { event, lost: None }
    }
}

fn taken(occupant: &Occupant) -> Change {
    Change::of(Event::Taken { occupant: occupant.clone(), at: occupant.since })
}

/// The end of a lease of which nothing was heard. `last` is the highest fence that the store remembers.
///
/// Whose end had not come was released, by whichever process of its holder, and that is no loss. It is one where the counter has
/// gone, or gone back: then the data has. And a guard's lease is released by nobody but its own process. That an operator ended
/// it leaves no other trace than a release does.
fn ended(told: &Seen, next: Option<&Occupant>, last: Option<Fence>, now: SystemTime) -> Option<Change> {
    let Seen::Held(before) = told else { return None };
    let over_at = next.map_or(now, |next| next.since);
    let occupant = before.clone();
    if before.expires_at <= over_at + SAME {
        return Some(Change { event: Event::Expired { occupant, at: now }, lost: Some(LostReason::Expired) });
    }
    let is_lost = before.kind == LeaseKind::Guard || last < Some(before.fence);
    let reason = if next.is_some() { LostReason::Stolen } else { LostReason::Expired };
    Some(Change { event: Event::Released { occupant, at: now }, lost: is_lost.then_some(reason) })
}

fn apart(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).or_else(|_| other.duration_since(one)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{Holder, Tag};

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    /// The lease that was granted in second `fence`.
    fn lease(fence: u64, expires: u64) -> Occupant {
        Occupant {
            tag: Tag::new("TEST-02").unwrap(),
            holder: Holder::new("93", "").unwrap(),
            kind: LeaseKind::Identity,
            fence: Fence::new(fence).unwrap(),
            since: at(fence),
            expires_at: at(expires),
            note: String::new(),
        }
    }

    fn held(fence: u64, expires: u64) -> Seen {
        Seen::Held(lease(fence, expires))
    }

    fn free(last: u64) -> Seen {
        Seen::Free { last: Fence::new(last).filter(|_| last > 0) }
    }

    /// Name, fence and reason of each.
    fn brief(changes: Changes) -> Vec<(&'static str, u64, Option<LostReason>)> {
        let brief = |Change { event, lost }: Change| {
            (event.name(), event.occupant().map_or(0, |occupant| occupant.fence.get()), lost)
        };
        changes.into_iter().flatten().map(brief).collect()
    }

    #[test]
    fn two_states_differ_by_what_must_have_happened() {
        use LostReason::Expired;
        let now = 100;
        for (told, seen, right) in [
            (free(0), free(0), vec![]),
            (free(5), free(7), vec![]),
            (free(5), held(9, 200), vec![("taken", 9, None)]),
            (held(5, 200), held(5, 200), vec![]),
            (held(5, 200), held(5, 300), vec![("extended", 5, None)]),
            (held(5, 200), held(5, 150), vec![("extended", 5, None)]),
            (held(5, 200), held(9, 200), vec![("released", 5, None), ("taken", 9, None)]),
            (held(5, 8), held(9, 200), vec![("expired", 5, Some(Expired)), ("taken", 9, None)]),
            // It ended before its time, which has come meanwhile.
            (held(5, 50), held(9, 200), vec![("released", 5, None), ("taken", 9, None)]),
            (held(5, 200), free(5), vec![("released", 5, None)]),
            (held(5, 200), free(9), vec![("released", 5, None)]),
            (held(5, 100), free(5), vec![("expired", 5, Some(Expired))]),
            (held(5, 99), free(9), vec![("expired", 5, Some(Expired))]),
        ] {
            assert_eq!(brief(difference(&told, &seen, at(now))), right, "{told:?} to {seen:?}");
        }
    }

    #[test]
    fn whatever_differs_may_be_told_but_an_expiry() {
        for (told, seen, right) in [
            (held(5, 200), held(5, 200), false),
            (held(5, 200), held(5, 300), true),
            (held(5, 200), held(9, 200), true),
            (held(5, 200), free(5), true),
            (held(5, 100), free(5), false),
            // Another lease came and went.
            (held(5, 100), free(9), true),
            (free(5), free(9), true),
            (free(5), free(5), false),
            (free(0), held(9, 200), true),
        ] {
            assert_eq!(may_be_told(&told, &seen, at(100)), right, "{told:?} to {seen:?}");
        }
    }

    /// Another process had released it for the same holder, and nobody heard: that was told as a loss.
    #[test]
    fn end_before_its_time_is_a_loss_where_no_release_explains_it() {
        use LostReason::{Expired, Stolen};
        for (kind, seen, right) in [
            (LeaseKind::Identity, free(5), None),
            (LeaseKind::Identity, held(9, 200), None),
            // A counter that has gone, or gone back: so has the data.
            (LeaseKind::Identity, free(4), Some(Expired)),
            (LeaseKind::Identity, free(0), Some(Expired)),
            (LeaseKind::Identity, held(4, 200), Some(Stolen)),
            (LeaseKind::Guard, free(5), Some(Expired)),
            (LeaseKind::Guard, held(9, 200), Some(Stolen)),
        ] {
            let told = Seen::Held(Occupant { kind, ..lease(5, 200) });
            let changes = brief(difference(&told, &seen, at(100)));
            assert_eq!(changes[0], ("released", 5, right), "{kind:?} to {seen:?}");
        }
    }

    #[test]
    fn an_end_read_twice_is_one_end() {
        let mut later = lease(5, 200);
        later.expires_at += Duration::from_millis(3);
        assert_eq!(brief(difference(&held(5, 200), &Seen::Held(later), at(100))), []);
        let mut due = lease(5, 100);
        due.expires_at += Duration::from_millis(3);
        assert_eq!(brief(difference(&Seen::Held(due), &free(5), at(100)))[0].0, "expired");
    }

    #[test]
    fn event_comes_after_the_end_that_was_not_heard() {
        use LostReason::{Expired, Forced};
        let taken = |fence| Event::Taken { occupant: lease(fence, 200), at: at(fence) };
        let extended = |fence| Event::Extended { occupant: lease(fence, 200), at: at(60) };
        let released = |fence| Event::Released { occupant: lease(fence, 200), at: at(60) };
        let forced = |fence| Event::Forced {
            occupant: lease(fence, 200),
            by: "ops".to_owned(),
            why: "stuck".to_owned(),
            at: at(60),
        };
        for (told, event, right) in [
            (None, taken(9), vec![("taken", 9, None)]),
            (None, released(9), vec![("released", 9, None)]),
            (Some(free(5)), taken(9), vec![("taken", 9, None)]),
            (Some(held(9, 200)), taken(9), vec![]),
            (Some(held(9, 200)), extended(9), vec![("extended", 9, None)]),
            (Some(held(9, 200)), released(9), vec![("released", 9, None)]),
            (Some(held(9, 200)), forced(9), vec![("forced", 9, Some(Forced))]),
            (Some(held(5, 200)), taken(9), vec![("released", 5, None), ("taken", 9, None)]),
            // Its grant was not heard.
            (Some(free(5)), extended(9), vec![("taken", 9, None)]),
            (Some(held(5, 200)), extended(9), vec![("released", 5, None), ("taken", 9, None)]),
            (None, extended(9), vec![("extended", 9, None)]),
            (Some(held(5, 9)), taken(9), vec![("expired", 5, Some(Expired)), ("taken", 9, None)]),
            (Some(held(5, 9)), forced(11), vec![("expired", 5, Some(Expired)), ("forced", 11, Some(Forced))]),
        ] {
            let what = format!("{told:?}, {event:?}");
            assert_eq!(brief(heard(told.as_ref(), event)), right, "{what}");
        }
    }
}
