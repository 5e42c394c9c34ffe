//! [`AnyStore`]: the store that a URL names.
//!
//! An enum and not a trait object: a boxed future for each operation would be an allocation for each operation.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

#[cfg(feature = "memory")]
use super::memory::MemoryStore;
use super::{
    Acquired, Ask, Extended, Feed, Forced, HandedOver, Queued, Reach, Released, Restored, Seen, Settings,
    Store, Whose, redis::RedisStore,
};
use crate::{
    ConnectError, Event, Fault, Lease, Occupant, PoolStats, RequestId, ServerReport, Tag, Token, Ttl,
    meter::LockMeter,
};

#[derive(Debug)]
pub(crate) enum AnyStore {
    Redis(Box<RedisStore>),
    #[cfg(feature = "memory")]
    Memory(MemoryStore),
}

impl AnyStore {
    pub(crate) async fn redis(settings: Settings<'_>, meter: Arc<LockMeter>) -> Result<Self, ConnectError> {
        Ok(Self::Redis(Box::new(RedisStore::connect(settings, meter).await?)))
    }

    #[cfg(feature = "memory")]
    pub(crate) fn memory(name: Option<&str>, rules: super::Rules) -> Self {
        Self::Memory(MemoryStore::open(name, rules))
    }

    pub(crate) fn pool(&self) -> PoolStats {
        match self {
            Self::Redis(store) => store.pool(),
            #[cfg(feature = "memory")]
            Self::Memory(store) => store.pool(),
        }
    }

    pub(crate) fn report(&self) -> ServerReport {
        match self {
            Self::Redis(store) => store.report().clone(),
            #[cfg(feature = "memory")]
            Self::Memory(store) => store.report(),
        }
    }
}

macro_rules! either {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            AnyStore::Redis($store) => $call.await,
            #[cfg(feature = "memory")]
            AnyStore::Memory($store) => $call.await,
        }
    };
}

impl Store for AnyStore {
    fn now_micros(&self) -> u64 {
        match self {
            Self::Redis(store) => store.now_micros(),
            #[cfg(feature = "memory")]
            Self::Memory(store) => store.now_micros(),
        }
    }

    async fn acquire(&self, ask: &Ask, deadline: Instant) -> Result<Acquired, Fault> {
        either!(self, store => store.acquire(ask, deadline))
    }

    async fn extend(
        &self,
        whose: Whose<'_>,
        ttl: Ttl,
        reach: Reach,
        deadline: Instant,
    ) -> Result<Extended, Fault> {
        either!(self, store => store.extend(whose, ttl, reach, deadline))
    }

    async fn restore(&self, lease: &Lease, ttl: Ttl, deadline: Instant) -> Result<Restored, Fault> {
        either!(self, store => store.restore(lease, ttl, deadline))
    }

    async fn release(
        &self,
        whose: Whose<'_>,
        request: RequestId,
        deadline: Instant,
    ) -> Result<Released, Fault> {
        either!(self, store => store.release(whose, request, deadline))
    }

    async fn hand_over(
        &self,
        whose: Whose<'_>,
        request: RequestId,
        next: &Ask,
        others_first: bool,
        deadline: Instant,
    ) -> Result<HandedOver, Fault> {
        either!(self, store => store.hand_over(whose, request, next, others_first, deadline))
    }

    async fn queue(&self, ask: &Ask, before: Option<Token>, deadline: Instant) -> Result<Queued, Fault> {
        either!(self, store => store.queue(ask, before, deadline))
    }

    async fn leave(&self, tag: &Tag, token: Token, deadline: Instant) -> Result<Option<Lease>, Fault> {
        either!(self, store => store.leave(tag, token, deadline))
    }

    async fn sweep(&self, lease: &Lease, request: RequestId, deadline: Instant) -> Result<Released, Fault> {
        either!(self, store => store.sweep(lease, request, deadline))
    }

    async fn find(&self, tag: &Tag, token: Token, deadline: Instant) -> Result<Option<Lease>, Fault> {
        either!(self, store => store.find(tag, token, deadline))
    }

    async fn force_release(
        &self,
        tag: &Tag,
        by: &str,
        why: &str,
        deadline: Instant,
    ) -> Result<Forced, Fault> {
        either!(self, store => store.force_release(tag, by, why, deadline))
    }

    async fn inspect(&self, tag: &Tag, deadline: Instant) -> Result<Seen, Fault> {
        either!(self, store => store.inspect(tag, deadline))
    }

    async fn look(&self, tags: &[Tag], deadline: Instant) -> Result<Vec<Option<Seen>>, Fault> {
        either!(self, store => store.look(tags, deadline))
    }

    async fn history(&self, tag: &Tag, deadline: Instant) -> Result<Vec<Event>, Fault> {
        either!(self, store => store.history(tag, deadline))
    }

    fn keep_lane(&self, is_wanted: bool) {
        match self {
            Self::Redis(store) => store.keep_lane(is_wanted),
            #[cfg(feature = "memory")]
            Self::Memory(store) => store.keep_lane(is_wanted),
        }
    }

    async fn feed(&self, deadline: Instant) -> Result<Feed, Fault> {
        either!(self, store => store.feed(deadline))
    }

    async fn probe(&self, deadline: Instant) -> Result<(), Fault> {
        either!(self, store => store.probe(deadline))
    }

    fn is_connected(&self) -> bool {
        match self {
            Self::Redis(store) => store.is_connected(),
            #[cfg(feature = "memory")]
            Self::Memory(store) => store.is_connected(),
        }
    }

    fn silence(&self) -> Duration {
        match self {
            Self::Redis(store) => store.silence(),
            #[cfg(feature = "memory")]
            Self::Memory(store) => store.silence(),
        }
    }

    async fn ping(&self, deadline: Instant) -> Result<(), Fault> {
        either!(self, store => store.ping(deadline))
    }

    async fn run(&self, deadline: Instant) -> Result<Option<String>, Fault> {
        either!(self, store => store.run(deadline))
    }

    async fn leave_witness(&self, deadline: Instant) -> Result<(), Fault> {
        either!(self, store => store.leave_witness(deadline))
    }

    async fn has_witness(&self, deadline: Instant) -> Result<bool, Fault> {
        either!(self, store => store.has_witness(deadline))
    }

    fn breaks(&self) -> u64 {
        match self {
            Self::Redis(store) => store.breaks(),
            #[cfg(feature = "memory")]
            Self::Memory(store) => store.breaks(),
        }
    }

    async fn list(&self, deadline: Instant) -> Result<Vec<Occupant>, Fault> {
        either!(self, store => store.list(deadline))
    }
}
