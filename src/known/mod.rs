//! [`Known`]: the last known state of the tags that this process has to do with, and which leases are its own.
//!
//! Every reply and every event tells it what it says of a tag; [`Finding`] has the rule by which a state that comes late does not
//! hide a newer one. It is bounded: the tag of which nothing was told for the longest time goes first, its own leases with it.
//!
//! A lease is this process's own from its grant on. From the moment its release is asked, its end is no loss: the answer may be
//! slower than the news. It can be lost again once it is certain that it stands.

mod finding;

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use lru::LruCache;
use tokio::time::Instant;

pub(crate) use self::finding::Finding;
use crate::{
    Fence, Lease, LeaseKind, LostReason, Occupant, Tag,
    held::{Held, Over},
    store::{NotYours, Seen, Whose},
};

/// The spools of a large factory, and some 5 MB.
const TAGS: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not 0");

#[derive(Debug)]
pub(crate) struct Known {
    tags: Mutex<Tags>,
}

#[derive(Debug)]
struct Tags {
    entries: LruCache<Tag, Entry>,
    /// Since when every lock that stands has been known, as far as this process was told; none where one may be missing.
    complete: Option<Instant>,
}

#[derive(Debug, Default)]
struct Entry {
    finding: Option<Finding>,
    /// The newest first. A second one has its place because the end of a lease may be heard after the next was granted.
    own: [Option<Own>; 2],
}

#[derive(Debug, Clone)]
struct Own {
    fence: Fence,
    /// Whether it is to stand.
    stands: Result<(), Over>,
    /// What is told of its loss, where a guard has it.
    held: Weak<Held>,
    /// Where it is an identity's: as it was last seen, once something else stood there of which its end did not follow, and since when.
    /// In a box: it is seldom so.
    displaced: Option<Box<(Occupant, Instant)>>,
}

impl Default for Known {
    fn default() -> Self {
        Self { tags: Mutex::new(Tags { entries: LruCache::new(TAGS), complete: None }) }
    }
}

impl Known {
    /// This process was granted the lock.
    pub(crate) fn granted(&self, lease: &Lease, asked: Instant) {
        let fence = lease.fence;
        let mut tags = self.tags();
        let entry = tags.entry(&lease.tag);
        entry.hear(Finding::asked(Seen::Held(lease.clone().into()), asked));
        if entry.own(fence).is_none() {
            let before = entry.own[0].take().filter(|own| own.stands != Err(Over::GivenBack));
            entry.own = [Some(Own { fence, stands: Ok(()), held: Weak::new(), displaced: None }), before];
        }
    }

    /// A guard has the lease that this process was granted. It is told if that was lost before.
    pub(crate) fn guarded(&self, held: &Arc<Held>) {
        let Lease { tag, fence, .. } = held.lease();
        let stands = {
            let mut tags = self.tags();
            let Some(own) = tags.entries.peek_mut(tag).and_then(|entry| entry.own(*fence)) else { return };
            own.held = Arc::downgrade(held);
            own.stands
        };
        if let Err(Over::Lost(reason)) = stands {
            let _ = held.lose(reason, Instant::now);
        }
    }

    /// Somebody has the lock.
    pub(crate) fn stands(&self, occupant: Occupant, asked: Instant) {
        let tag = occupant.tag.clone();
        self.hear(&tag, Finding::asked(Seen::Held(occupant), asked));
    }

    /// Nobody has the lock.
    pub(crate) fn free(&self, tag: &Tag, last: Option<Fence>, asked: Instant) {
        self.hear(tag, Finding::asked(Seen::Free { last }, asked));
    }

    /// The lease that a call named does not stand.
    pub(crate) fn refused(&self, tag: &Tag, not: &NotYours, asked: Instant) {
        match not {
            NotYours::Occupied(occupant) => self.stands(occupant.clone(), asked),
            NotYours::Free { last } => self.free(tag, *last, asked),
        }
    }

    /// A release is about to be asked. Answers which lease it means, as far as that is known.
    pub(crate) fn giving_back(&self, whose: &Whose<'_>) -> Option<Fence> {
        let mut tags = self.tags();
        let Some(entry) = tags.entries.peek_mut(whose.tag) else { return whose.fence };
        let fence = entry.meant(whose)?;
        if let Some(own) = entry.own(fence).filter(|own| own.stands.is_ok()) {
            own.stands = Err(Over::GivenBack);
        }
        Some(fence)
    }

    /// A lease stands, although its release may have been asked: that was not applied.
    pub(crate) fn keeps(&self, tag: &Tag, fence: Option<Fence>) {
        let mut tags = self.tags();
        let own = fence.zip(tags.entries.peek_mut(tag)).and_then(|(fence, entry)| entry.own(fence));
        if let Some(own) = own.filter(|own| own.stands == Err(Over::GivenBack)) {
            own.stands = Ok(());
        }
    }

    /// A lease has ended, whatever stands now.
    pub(crate) fn ended(&self, tag: &Tag, fence: Option<Fence>) {
        if let Some(fence) = fence {
            self.hear(tag, Finding::ended(fence));
        }
    }

    /// A lease has ended without a release; its guard is told. The first who says so is answered how it was lost. None where this
    /// process had not acquired it.
    pub(crate) fn lose(
        &self,
        tag: &Tag,
        fence: Fence,
        reason: LostReason,
    ) -> Option<Result<LostReason, Over>> {
        let (stood, held) = {
            let mut tags = self.tags();
            let own = tags.entries.peek_mut(tag)?.own(fence)?;
            let stood = own.stands;
            // One that was given back stays so: of its end more than one piece of news may come.
            if stood.is_ok() {
                own.stands = Err(Over::Lost(reason));
            }
            (stood, own.held.upgrade())
        };
        // Whoever has a guard knows it better, but not what was counted when it was given back too late.
        let told = held.map(|held| held.lose(reason, Instant::now));
        Some(match stood {
            Err(Over::Lost(_)) => stood.map(|()| reason),
            _ => told.unwrap_or(stood.map(|()| reason)),
        })
    }

    /// Whether this process acquired a lease and has not given it back.
    pub(crate) fn is_own(&self, tag: &Tag, fence: Fence) -> bool {
        let mut tags = self.tags();
        let own = tags.entries.peek_mut(tag).and_then(|entry| entry.own(fence));
        own.is_some_and(|own| own.stands != Err(Over::GivenBack))
    }

    /// A lease had ended before its release came.
    pub(crate) fn had_ended(&self, tag: &Tag, fence: Fence, reason: LostReason) {
        if let Some(own) = self.tags().entries.peek_mut(tag).and_then(|entry| entry.own(fence)) {
            own.stands = Err(Over::Lost(reason));
        }
    }

    /// All locks that stand were asked for.
    pub(crate) fn listed(&self, occupants: &[Occupant], asked: Instant) {
        let mut tags = self.tags();
        for occupant in occupants {
            let finding = Finding::asked(Seen::Held(occupant.clone()), asked);
            tags.entry(&occupant.tag).hear(finding);
        }
        let listed: HashSet<&Tag> = occupants.iter().map(|occupant| &occupant.tag).collect();
        // What stood all the time would have been listed; not what was granted meanwhile.
        for (tag, entry) in &mut tags.entries {
            if !listed.contains(tag)
                && let Some(last) = entry.held_before(asked)
            {
                entry.hear(Finding::asked(Seen::Free { last: Some(last) }, asked));
            }
        }
        tags.complete = (occupants.len() <= TAGS.get()).then_some(asked);
    }

    /// The last known state of a tag, and when it was so at the latest. None where nothing is known, or no more than that a lease has
    /// ended: somebody else may have the lock since.
    pub(crate) fn last(&self, tag: &Tag) -> Option<(Seen, Instant)> {
        let tags = self.tags();
        let finding = tags.entries.peek(tag)?.finding.as_ref().filter(|finding| !finding.is_an_end())?;
        Some((finding.state.clone(), finding.seen()))
    }

    /// All locks that stood when they were last asked for, with what was heard since, in the order of the tags; and when that was. One
    /// that was handed on to somebody else since is missing until that is heard.
    /// None where they never were, or one of them has been forgotten since.
    pub(crate) fn list(&self) -> Option<(Vec<Occupant>, Instant)> {
        let tags = self.tags();
        let complete = tags.complete?;
        let states = tags.entries.iter().filter_map(|(_, entry)| entry.finding.as_ref());
        let held = states.filter_map(|finding| match &finding.state {
            Seen::Held(occupant) => Some(occupant.clone()),
            Seen::Free { .. } => None,
        });
        let mut held: Vec<_> = held.collect();
        held.sort_by(|one, other| one.tag.cmp(&other.tag));
        Some((held, complete))
    }

    /// The leases that identities have through this process, as far as it was told; also where something else was seen there that came
    /// after `vouched`: what the server has lost others may have taken.
    pub(crate) fn identities(&self, vouched: Option<Instant>) -> Vec<Occupant> {
        let tags = self.tags();
        let of_entry = |(_, entry): (_, &'_ Entry)| {
            let displaced = entry.displaced(vouched).cloned();
            entry.identity().cloned().into_iter().chain(displaced).collect::<Vec<_>>()
        };
        tags.entries.iter().flat_map(of_entry).collect()
    }

    /// Whether there is one.
    pub(crate) fn has_identities(&self, vouched: Option<Instant>) -> bool {
        let is_one = |entry: &Entry| entry.identity().is_some() || entry.displaced(vouched).is_some();
        self.tags().entries.iter().any(|(_, entry)| is_one(entry))
    }

    /// Something was seen of a tag.
    pub(crate) fn hear(&self, tag: &Tag, finding: Finding) {
        self.tags().entry(tag).hear(finding);
    }

    fn tags(&self) -> MutexGuard<'_, Tags> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tags {
    /// The entry of a tag; a new one may have another forgotten.
    fn entry(&mut self, tag: &Tag) -> &mut Entry {
        if self.entries.len() == TAGS.get() && !self.entries.contains(tag) {
            self.complete = None;
        }
        self.entries.get_or_insert_mut_ref(tag, Entry::default)
    }
}

impl Entry {
    /// The fence of the lease that was last seen to stand, if that was before `asked`.
    fn held_before(&self, asked: Instant) -> Option<Fence> {
        match &self.finding.as_ref().filter(|finding| finding.heard() < asked)?.state {
            Seen::Held(occupant) => Some(occupant.fence),
            Seen::Free { .. } => None,
        }
    }

    fn hear(&mut self, finding: Finding) {
        if self.finding.as_ref().is_none_or(|known| finding.supersedes(known)) {
            self.displace(&finding);
            self.finding = Some(finding);
        }
    }

    /// What stood there stands no more; unless it is certain that it has ended, that may be the server's doing.
    fn displace(&mut self, finding: &Finding) {
        let Some(lease) = self.identity().filter(|lease| !finding.accounts_for(lease)).cloned() else {
            return;
        };
        if let Some(own) = self.own(lease.fence) {
            own.displaced = Some(Box::new((lease, finding.heard())));
        }
    }

    fn own(&mut self, fence: Fence) -> Option<&mut Own> {
        self.own.iter_mut().flatten().find(|own| own.fence == fence)
    }

    /// The lease that stands, where it is an identity's that this process was granted and has not given back.
    fn identity(&self) -> Option<&Occupant> {
        let Seen::Held(occupant) = &self.finding.as_ref()?.state else { return None };
        let is_own = |own: &Own| own.fence == occupant.fence && own.stands.is_ok();
        let is_own = self.own.iter().flatten().any(is_own);
        (is_own && occupant.kind == LeaseKind::Identity).then_some(occupant)
    }

    /// As [`identity`](Self::identity), where something else was seen there after `vouched`.
    fn displaced(&self, vouched: Option<Instant>) -> Option<&Occupant> {
        let own = self.own.iter().flatten().find(|own| own.stands.is_ok() && own.displaced.is_some())?;
        let (lease, since) = own.displaced.as_deref()?;
        let stands = self.identity().is_some_and(|standing| standing.fence == lease.fence);
        (!stands && vouched.is_none_or(|vouched| *since >= vouched)).then_some(lease)
    }

    /// The lease that a release means: who names no fence means the lease of that holder that is known to stand.
    fn meant(&self, whose: &Whose<'_>) -> Option<Fence> {
        whose.fence.or_else(|| match &self.finding.as_ref()?.state {
            Seen::Held(occupant) if occupant.holder == *whose.holder && occupant.kind == whose.kind => {
                Some(occupant.fence)
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use tokio::time::advance;

    use super::*;
    use crate::{Holder, Token};

    fn lease(tag: &str, fence: u64) -> Lease {
        Lease {
            tag: Tag::new(tag).unwrap(),
            holder: Holder::new("93", "").unwrap(),
            kind: LeaseKind::Identity,
            token: Some(Token::random()),
            fence: Fence::new(fence).unwrap(),
            since: UNIX_EPOCH,
            expires_at: UNIX_EPOCH + Duration::from_secs(60),
            note: String::new(),
        }
    }

    fn whose(lease: &Lease, fence: Option<Fence>) -> Whose<'_> {
        Whose { tag: &lease.tag, holder: &lease.holder, kind: lease.kind, fence }
    }

    #[test]
    fn lease_is_lost_once_and_only_by_who_acquired_it() {
        let known = Known::default();
        let lease = lease("TEST-02", 5);
        assert_eq!(known.lose(&lease.tag, lease.fence, LostReason::Expired), None);
        known.stands(lease.clone().into(), Instant::now());
        assert_eq!(known.lose(&lease.tag, lease.fence, LostReason::Expired), None, "seen is not acquired");
        known.granted(&lease, Instant::now());
        assert_eq!(known.lose(&lease.tag, lease.fence, LostReason::Expired), Some(Ok(LostReason::Expired)));
        assert_eq!(
            known.lose(&lease.tag, lease.fence, LostReason::Expired),
            Some(Err(Over::Lost(LostReason::Expired)))
        );
        known.granted(&lease, Instant::now());
        assert_eq!(
            known.lose(&lease.tag, lease.fence, LostReason::Expired),
            Some(Err(Over::Lost(LostReason::Expired))),
            "adopted again, it is the same one"
        );
    }

    #[test]
    fn what_is_given_back_is_not_lost() {
        for with_fence in [true, false] {
            let known = Known::default();
            let lease = lease("TEST-02", 5);
            let whose = whose(&lease, with_fence.then_some(lease.fence));
            known.granted(&lease, Instant::now());
            let meant = known.giving_back(&whose);
            assert_eq!(known.lose(&lease.tag, lease.fence, LostReason::Expired), Some(Err(Over::GivenBack)));
            known.ended(&lease.tag, meant);
            let state =
                known.tags().entries.peek(&lease.tag).and_then(|entry| entry.finding.clone()).unwrap().state;
            assert_eq!(state, Seen::Free { last: Some(lease.fence) });
        }
    }

    #[test]
    fn what_is_given_back_is_not_lost_however_often_its_end_is_heard() {
        let known = Known::default();
        let lease = lease("TEST-02", 5);
        known.granted(&lease, Instant::now());
        known.giving_back(&whose(&lease, None));
        for _ in 0..3 {
            let lost = known.lose(&lease.tag, lease.fence, LostReason::Expired);
            assert_eq!(lost, Some(Err(Over::GivenBack)));
        }
        known.had_ended(&lease.tag, lease.fence, LostReason::Stolen);
        let lost = known.lose(&lease.tag, lease.fence, LostReason::Expired);
        assert_eq!(lost, Some(Err(Over::Lost(LostReason::Stolen))), "its release found that it had ended");
    }

    #[test]
    fn what_stands_after_its_release_was_asked_can_be_lost() {
        let known = Known::default();
        let lease = lease("TEST-02", 5);
        known.granted(&lease, Instant::now());
        let meant = known.giving_back(&whose(&lease, None));
        known.keeps(&lease.tag, meant);
        assert_eq!(known.lose(&lease.tag, lease.fence, LostReason::Expired), Some(Ok(LostReason::Expired)));
        known.keeps(&lease.tag, meant);
        assert_eq!(
            known.lose(&lease.tag, lease.fence, LostReason::Expired),
            Some(Err(Over::Lost(LostReason::Expired))),
            "and only once"
        );
    }

    /// What the server had lost somebody else took, and that was heard before the loss was noticed: nobody was told.
    #[tokio::test(start_paused = true)]
    async fn an_identity_stays_one_until_it_is_known_how_its_lease_has_ended() {
        let start = Instant::now();
        let second = async || {
            advance(Duration::from_secs(1)).await;
            Instant::now()
        };
        let fences = |known: &Known, vouched| -> Vec<u64> {
            let fences: Vec<_> =
                known.identities(vouched).iter().map(|occupant| occupant.fence.get()).collect();
            assert_eq!(known.has_identities(vouched), !fences.is_empty());
            fences
        };
        for (seen, is_displaced) in [
            (Seen::Held(occupant("A", 5)), false),
            (Seen::Held(occupant("A", 9)), true),
            (Seen::Free { last: None }, true),
            (Seen::Free { last: Fence::new(4) }, true),
            (Seen::Free { last: Fence::new(5) }, false),
            (Seen::Free { last: Fence::new(9) }, false),
        ] {
            let known = Known::default();
            let lease = lease("A", 5);
            known.granted(&lease, start);
            assert_eq!(fences(&known, None), [5]);
            known.hear(&lease.tag, Finding::asked(seen.clone(), second().await));
            let stands = matches!(&seen, Seen::Held(occupant) if occupant.fence == lease.fence);
            let right: &[u64] = if stands || is_displaced { &[5] } else { &[] };
            assert_eq!(fences(&known, None), right, "{seen:?}");
            assert_eq!(fences(&known, Some(start)), right, "{seen:?}, since the server had all");
            let vouched = Some(second().await);
            let right: &[u64] = if stands { &[5] } else { &[] };
            assert_eq!(fences(&known, vouched), right, "{seen:?}, and the server has lost nothing since");
            known.granted(&lease, second().await);
            assert_eq!(fences(&known, None), [5], "{seen:?}, and put back: it is one");
        }
    }

    #[test]
    fn end_of_a_lease_may_be_heard_after_the_next_grant() {
        let known = Known::default();
        let (old, new) = (lease("TEST-02", 5), lease("TEST-02", 9));
        known.granted(&old, Instant::now());
        known.granted(&new, Instant::now());
        assert_eq!(known.lose(&old.tag, old.fence, LostReason::Expired), Some(Ok(LostReason::Expired)));
        assert_eq!(known.lose(&new.tag, new.fence, LostReason::Expired), Some(Ok(LostReason::Expired)));
    }

    #[test]
    fn least_recently_told_is_forgotten_first() {
        let known = Known::default();
        let (first, second) = (lease("first", 1), lease("second", 2));
        known.granted(&first, Instant::now());
        known.granted(&second, Instant::now());
        for number in 2..TAGS.get() {
            known.free(&Tag::new(format!("TEST-{number}")).unwrap(), None, Instant::now());
        }
        known.stands(first.clone().into(), Instant::now());
        known.free(&Tag::new("one more").unwrap(), None, Instant::now());
        assert_eq!(known.lose(&second.tag, second.fence, LostReason::Expired), None);
        assert_eq!(known.lose(&first.tag, first.fence, LostReason::Expired), Some(Ok(LostReason::Expired)));
        assert_eq!(known.tags().entries.len(), TAGS.get());
    }

    fn occupant(tag: &str, fence: u64) -> Occupant {
        lease(tag, fence).into()
    }

    fn listed(known: &Known) -> Option<Vec<u64>> {
        known.list().map(|(occupants, _)| occupants.iter().map(|occupant| occupant.fence.get()).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_last_known_is_as_old_as_its_question() {
        let known = Known::default();
        let tag = Tag::new("TEST-02").unwrap();
        assert!(known.last(&tag).is_none());
        let asked = Instant::now();
        advance(Duration::from_millis(800)).await;
        known.stands(occupant("TEST-02", 5), asked);
        let (state, at) = known.last(&tag).unwrap();
        assert_eq!((state.occupant().map(|it| it.fence.get()), at), (Some(5), asked));
    }

    /// With its release the lock may have been handed on to another process.
    #[test]
    fn that_a_lease_has_ended_does_not_say_that_the_tag_is_free() {
        let known = Known::default();
        let lease = lease("TEST-02", 5);
        known.granted(&lease, Instant::now());
        known.ended(&lease.tag, Some(lease.fence));
        assert!(known.last(&lease.tag).is_none());
        known.free(&lease.tag, Some(lease.fence), Instant::now());
        assert!(known.last(&lease.tag).is_some());
    }

    /// Whoever never asked for all cannot say that a tag is not among them.
    #[tokio::test(start_paused = true)]
    async fn a_list_is_known_only_after_one_was_asked_for_and_follows_what_is_heard_since() {
        let known = Known::default();
        known.stands(occupant("A", 1), Instant::now());
        assert!(known.list().is_none());
        advance(Duration::from_secs(1)).await;
        let asked = Instant::now();
        known.listed(&[occupant("C", 3), occupant("B", 2)], asked);
        assert_eq!(
            listed(&known),
            Some(vec![2, 3]),
            "in the order of the tags, without the one that is gone"
        );
        assert_eq!(known.list().unwrap().1, asked);
        advance(Duration::from_secs(1)).await;
        known.free(&Tag::new("B").unwrap(), Fence::new(2), Instant::now());
        known.stands(occupant("D", 4), Instant::now());
        assert_eq!(listed(&known), Some(vec![3, 4]));
        assert_eq!(known.list().unwrap().1, asked, "of the rest nothing newer is known");
    }

    /// A lock that was taken while the list was made need not be in it.
    #[tokio::test(start_paused = true)]
    async fn what_was_granted_during_a_list_is_not_taken_for_gone() {
        let known = Known::default();
        let asked = Instant::now();
        advance(Duration::from_millis(1)).await;
        known.granted(&lease("A", 1), Instant::now());
        known.listed(&[], asked);
        assert_eq!(listed(&known), Some(vec![1]));
    }

    #[test]
    fn a_list_of_which_something_was_forgotten_is_none() {
        let known = Known::default();
        let occupants: Vec<_> =
            (1..=TAGS.get() as u64).map(|fence| occupant(&fence.to_string(), fence)).collect();
        known.listed(&occupants, Instant::now());
        assert_eq!(known.list().map(|(occupants, _)| occupants.len()), Some(TAGS.get()));
        known.free(&Tag::new("7").unwrap(), None, Instant::now());
        assert!(known.list().is_some(), "it was known already");
        known.free(&Tag::new("one more").unwrap(), None, Instant::now());
        assert!(known.list().is_none());
        known.listed(&[occupant("A", 1)], Instant::now());
        assert!(known.list().is_some());
        let more: Vec<_> =
            (0..=TAGS.get() as u64).map(|fence| occupant(&format!("more-{fence}"), fence + 1)).collect();
        known.listed(&more, Instant::now());
        assert!(known.list().is_none(), "more than can be remembered");
    }
}
