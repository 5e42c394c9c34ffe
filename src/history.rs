//! [`PastLease`]: a grant that is remembered, and how it ended.

use std::time::SystemTime;

use crate::{Event, Occupant};

/// How a lease ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(tag = "end", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum LeaseEnd {
    /// Its holder released it.
    Released {
        /// When.
        #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
        at: SystemTime,
    },
    /// An operator ended it.
    Forced {
        /// The operator's name.
        by: String,
        /// The operator's reason.
        why: String,
        /// When.
        #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
        at: SystemTime,
    },
    /// It ended by itself, before the next grant.
    Expired,
}

/// One grant of a tag, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PastLease {
    /// The lease as it was granted; extends are not remembered. One that was granted from the queue shows the short end that it
    /// had before its holder confirmed it, and the oldest, where only its end is still remembered, the moment of that.
    pub occupant: Occupant,
    /// How it ended; `None` while it stands.
    pub end: Option<LeaseEnd>,
}

impl PastLease {
    /// Grants and their ends, from what was said of a tag, oldest first; the last `most` of them, because a store counts what
    /// was said: of a lease that expired one thing, and an end and the next grant may be one. `over` says of a lease, of which no
    /// end was said, whether it has ended.
    pub(crate) fn pair(
        said: impl IntoIterator<Item = Event>,
        most: usize,
        over: impl Fn(&Occupant) -> bool,
    ) -> Vec<Self> {
        let mut past: Vec<Self> = Vec::new();
        for event in said {
            let (occupant, end) = match event {
                Event::Taken { occupant, .. } => {
                    let end = over(&occupant).then_some(LeaseEnd::Expired);
                    past.push(Self { occupant, end });
                    continue;
                }
                Event::Released { occupant, at } => (occupant, LeaseEnd::Released { at }),
                Event::Forced { occupant, by, why, at } => (occupant, LeaseEnd::Forced { by, why, at }),
                _ => continue,
            };
            match past.iter_mut().rev().find(|lease| lease.occupant.fence == occupant.fence) {
                Some(lease) => lease.end = Some(end),
                // Its grant is too long ago to be remembered.
                None => past.push(Self { occupant, end: Some(end) }),
            }
        }
        past.drain(..past.len().saturating_sub(most));
        past
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{Fence, Holder, LeaseKind, Tag};

    fn lease(number: u64) -> Occupant {
        Occupant {
            tag: Tag::new("TEST-02").unwrap(),
            holder: Holder::new("93", "").unwrap(),
            kind: LeaseKind::Identity,
            fence: Fence::new(number).unwrap(),
            since: at(number),
            expires_at: at(number + 60),
            note: String::new(),
        }
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    fn taken(number: u64) -> Event {
        Event::Taken { occupant: lease(number), at: at(number) }
    }

    fn released(number: u64) -> Event {
        Event::Released { occupant: lease(number), at: at(number + 1) }
    }

    fn forced(number: u64) -> Event {
        Event::Forced {
            occupant: lease(number),
            by: "ops".to_owned(),
            why: "stuck".to_owned(),
            at: at(number + 2),
        }
    }

    #[test]
    fn each_grant_gets_its_own_end() {
        use LeaseEnd::{Expired, Forced, Released};
        let (standing, free) = (9, u64::MAX);
        let by_force = |second| Forced { by: "ops".to_owned(), why: "stuck".to_owned(), at: at(second) };
        for (said, standing, right) in [
            (vec![], free, vec![]),
            (vec![taken(1), released(1)], free, vec![(1, Some(Released { at: at(2) }))]),
            (vec![taken(1), forced(1)], free, vec![(1, Some(by_force(3)))]),
            (vec![taken(1)], free, vec![(1, Some(Expired))]),
            (
                vec![taken(1), taken(5), released(5), taken(9)],
                standing,
                vec![(1, Some(Expired)), (5, Some(Released { at: at(6) })), (9, None)],
            ),
            // Granted after it was asked what stands.
            (
                vec![taken(9), released(9), taken(12)],
                standing,
                vec![(9, Some(Released { at: at(10) })), (12, None)],
            ),
            // One more than is to be remembered.
            (
                vec![taken(1), taken(2), taken(5), taken(9)],
                standing,
                vec![(2, Some(Expired)), (5, Some(Expired)), (9, None)],
            ),
            // The grant was forgotten, its end was not.
            (vec![released(1), taken(5)], free, vec![(1, Some(Released { at: at(2) })), (5, Some(Expired))]),
        ] {
            let past = PastLease::pair(said, 3, |lease| lease.fence.get() < standing);
            let past: Vec<_> = past.into_iter().map(|past| (past.occupant.fence.get(), past.end)).collect();
            assert_eq!(past, right);
        }
    }
}
