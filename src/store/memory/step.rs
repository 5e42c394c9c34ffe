//! [`Step`]: what one call does to one tag, with nothing in between, as a script does it in Redis.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    MemoryStore,
    queue::{Place, Queue},
};
use crate::{
    Event, Fault, FaultKind, Fence, Lease, LeaseKind, Occupant, RequestId, Token, Ttl,
    store::{Ask, NotYours, Released, Whose},
};

/// How many releases of a tag are remembered, as in Redis.
const REQUESTS: usize = 3;

/// All that is kept of a tag.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) held: Option<Held>,
    pub(super) queue: Queue,
    /// What was said, oldest first, each with the time until which it is kept.
    pub(super) history: VecDeque<(Instant, Event)>,
    fence: u64,
    requests: VecDeque<RequestId>,
}

#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) lease: Lease,
    pub(super) until: Instant,
    /// Somebody of its holder was told of it besides the call that was granted it.
    pub(super) is_relied_on: bool,
}

impl Held {
    /// Whoever of an identity's holder is told of its lease relies on it from then on. A guard's belongs to the call that was
    /// granted it.
    pub(super) fn rely(&mut self) {
        self.is_relied_on |= self.lease.kind == LeaseKind::Identity;
    }
}

impl Entry {
    /// Drops what has run out. Nobody is told: it is nobody's doing.
    pub(super) fn bury(&mut self, now: Instant) {
        self.held.take_if(|held| held.until <= now);
        self.queue.bury(now);
        self.history.retain(|(until, _)| *until > now);
    }

    pub(super) fn last(&self) -> Option<Fence> {
        Fence::new(self.fence).filter(|fence| fence.get() > 0)
    }

    pub(super) fn was_released_by(&self, request: RequestId) -> bool {
        self.requests.contains(&request)
    }

    /// The lease that a call means, or why it may not touch it.
    pub(super) fn meant(&self, whose: &Whose<'_>) -> Result<Held, NotYours> {
        let Some(held) = &self.held else { return Err(NotYours::Free { last: self.last() }) };
        let occupant = held.lease.clone().into();
        if whose.means(&occupant) { Ok(held.clone()) } else { Err(NotYours::Occupied(occupant)) }
    }
}

#[derive(Debug)]
pub(super) struct Step<'a> {
    store: &'a MemoryStore,
    pub(super) entry: &'a mut Entry,
    pub(super) now: Instant,
    /// What the wall clock shows now.
    pub(super) at: SystemTime,
    /// The fence of what this step grants; none grants twice.
    fence: Fence,
}

impl<'a> Step<'a> {
    pub(super) fn new(store: &'a MemoryStore, entry: &'a mut Entry, now: Instant) -> Result<Self, Fault> {
        entry.bury(now);
        let fence = store.shared.micros(now).max(entry.fence + 1);
        let fence = Fence::new(fence).ok_or(FaultKind::FenceRegression)?;
        Ok(Self { store, entry, now, at: store.shared.wall(now), fence })
    }

    /// Grants the lock, which is free.
    pub(super) fn grant(&mut self, ask: &Ask) -> Lease {
        self.grant_until(ask, self.now + ask.ttl.duration())
    }

    /// Grants the lock, if it is free, to the first process in the queue: only for as long as it counts as living,
    /// because it may be dead by now.
    pub(super) fn serve(&mut self) {
        if self.entry.held.is_some() {
            return;
        }
        let Some(Place { process, ask, living, .. }) = self.entry.queue.take_first(self.now) else { return };
        self.grant_until(&ask, living.min(self.now + ask.ttl.duration()));
        self.store.shared.feeds.granted(process, &ask.tag);
    }

    fn grant_until(&mut self, ask: &Ask, until: Instant) -> Lease {
        let Ask { tag, holder, kind, token, ttl: _, note } = ask.clone();
        let expires_at = self.store.shared.wall(until);
        let (fence, since) = (self.fence, self.at);
        let lease = Lease { tag, holder, kind, token: Some(token), fence, since, expires_at, note };
        self.entry.fence = fence.get();
        self.entry.held = Some(Held { lease: lease.clone(), until, is_relied_on: false });
        self.say(Event::Taken { occupant: lease.clone().into(), at: self.at });
        lease
    }

    /// Puts back a lease that is not known here; the lock is free.
    pub(super) fn restore(&mut self, lease: &Lease, ttl: Ttl) -> Lease {
        let until = self.now + ttl.duration();
        let token = lease.token.or_else(|| Some(Token::random()));
        let lease = Lease { token, expires_at: self.store.shared.wall(until), ..lease.clone() };
        self.entry.fence = lease.fence.get();
        let mut held = Held { lease: lease.clone(), until, is_relied_on: false };
        held.rely();
        self.entry.held = Some(held);
        self.say(Event::Taken { occupant: lease.clone().into(), at: self.at });
        lease
    }

    /// Lets the lease that stands last `ttl` from now.
    pub(super) fn set_ttl(&mut self, mut held: Held, ttl: Ttl) -> Lease {
        held.until = self.now + ttl.duration();
        held.lease.expires_at = self.store.shared.wall(held.until);
        let lease = held.lease.clone();
        self.entry.held = Some(held);
        self.say(Event::Extended { occupant: lease.clone().into(), at: self.at });
        lease
    }

    /// Somebody of its holder is told of the lease that stands.
    pub(super) fn rely(&mut self) {
        self.entry.held.iter_mut().for_each(Held::rely);
    }

    /// Ends the lease that a release means, and serves the queue.
    pub(super) fn end(&mut self, whose: &Whose<'_>, request: RequestId) -> Released {
        match self.release(whose, request) {
            Err(not) => Released::Not(not),
            Ok(held) => {
                if held.is_some() {
                    self.serve();
                }
                Released::Released { held }
            }
        }
    }

    /// Ends the lease that a release means, and says how long it was held; `None` where this request had ended it before.
    pub(super) fn release(
        &mut self,
        whose: &Whose<'_>,
        request: RequestId,
    ) -> Result<Option<Duration>, NotYours> {
        if self.entry.was_released_by(request) {
            return Ok(None);
        }
        let Held { lease, .. } = self.entry.meant(whose)?;
        if request.made().is_some_and(|made| lease.fence.get() > made) {
            // A repeat, and this was granted after the first try was made.
            return Err(NotYours::Occupied(lease.into()));
        }
        self.entry.held = None;
        self.entry.requests.push_front(request);
        self.entry.requests.truncate(REQUESTS);
        self.say(Event::Released { occupant: self.ended(&lease), at: self.at });
        Ok(Some(self.at.duration_since(lease.since).unwrap_or_default()))
    }

    /// A lease that ends now, as others see it.
    pub(super) fn ended(&self, lease: &Lease) -> Occupant {
        Occupant { expires_at: self.at, ..lease.clone().into() }
    }

    /// Tells what happened to those who listen, and remembers it.
    pub(super) fn say(&mut self, event: Event) {
        let Some(tag) = event.tag() else { return };
        self.store.shared.feeds.say(tag, &event);
        if let Some((entries, kept)) = self.store.rules.history
            && !matches!(event, Event::Extended { .. })
        {
            self.entry.history.push_back((self.now + kept, event));
            // A grant and its end for each.
            let over = self.entry.history.len().saturating_sub(2 * entries as usize);
            self.entry.history.drain(..over);
        }
    }
}
