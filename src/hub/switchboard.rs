//! [`Switchboard`]: the state of the hub and what it does with what it hears.
//!
//! It never waits for anybody: what takes a round trip is an [`Errand`] in a task of its own, whose outcome comes back like news.

use std::{
    collections::{HashMap, HashSet},
    future::pending,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    channel::{Channel, Stage},
    difference::{Change, Changes, difference, heard, may_be_told},
    link::{Link, Pause},
    told::Told,
};
use crate::{
    Event, Fault, FaultKind, LeaseKind, LostReason, Occupant, Tag,
    agenda::Agenda,
    attempt,
    hearing::Request,
    held::Over,
    inner::Inner,
    known::Finding,
    store::{Feed, News, Seen, Store as _, Topic},
};

/// How many tags are looked at side by side: a shift that ends at once is no burst for Redis.
const LOOKS: usize = 8;

/// How often the hub looks for what nobody wants any more, and for a server's clock that was set.
const SWEEP: Duration = Duration::from_secs(1);

/// When to ask again where there was no answer.
const AGAIN: Duration = Duration::from_secs(1);

/// When to ask again where the server's clock is a little behind ours, and how long an answer may be ahead of the news.
const SOON: Duration = Duration::from_millis(20);

/// News taken before anything else is seen to. A timer for each would cost more than the news.
const BURST: usize = 64;

#[derive(Debug)]
pub(super) struct Switchboard {
    inner: Arc<Inner>,
    mailbox: mpsc::UnboundedReceiver<Request>,
    linger: Duration,
    link: Link,
    /// Counts the feeds: what was asked of an earlier one is of no interest.
    generation: u64,
    /// Counts the walks: only the last one says how things stand, and is made again where it fails.
    walk: u64,
    pause: Pause,
    channels: HashMap<Topic, Channel>,
    /// While all are watched, a tag that is not here is free.
    told: Told,
    /// When a tag is looked at, in µs of the server's clock since 1970.
    agenda: Agenda<u64, Tag>,
    looks: usize,
    errands: JoinSet<Errand>,
    swept: Instant,
    unwanted_since: Option<Instant>,
}

/// What was done outside, and how it ended.
#[derive(Debug)]
enum Errand {
    Opened { generation: u64, outcome: Result<Feed, Fault> },
    Followed { generation: u64, topic: Topic, outcome: Result<(), Fault> },
    Unfollowed { generation: u64, topic: Topic, outcome: Result<(), Fault> },
    Looked { tag: Tag, asked: Instant, outcome: Result<Seen, Fault> },
    Listed { walk: u64, asked: Instant, outcome: Result<Vec<Occupant>, Fault> },
    Lost { occupant: Occupant, reason: LostReason, overlaps: bool, at: SystemTime },
}

impl Switchboard {
    pub(super) fn new(
        inner: Arc<Inner>,
        mailbox: mpsc::UnboundedReceiver<Request>,
        linger: Duration,
    ) -> Self {
        Self {
            inner,
            mailbox,
            linger,
            link: Link::Closed,
            generation: 0,
            walk: 0,
            pause: Pause::default(),
            channels: HashMap::new(),
            told: Told::default(),
            agenda: Agenda::default(),
            looks: 0,
            errands: JoinSet::new(),
            swept: Instant::now(),
            unwanted_since: None,
        }
    }

    /// Runs until its task is ended.
    pub(super) async fn run(mut self) {
        loop {
            self.step().await;
        }
    }

    async fn step(&mut self) {
        let wake = self.wake();
        tokio::select! {
            Some(request) = self.mailbox.recv() => self.asked(request),
            news = self.link.news() => self.news(news),
            Some(errand) = self.errands.join_next() => {
                self.done(errand.expect("an errand neither panics nor is ended early"));
            }
            () = until(wake) => self.tick(),
        }
    }

    fn asked(&mut self, request: Request) {
        match request {
            Request::Tell(event) => return self.tell_of_here(event),
            Request::Watch { topic, reply } => {
                let channel = self.channels.entry(topic.clone()).or_insert_with_key(Channel::new);
                channel.admit(reply);
                self.follow(&topic);
            }
            Request::Grants => {}
        }
        if matches!(self.link, Link::Closed) {
            self.swept = Instant::now();
            self.open();
        }
    }

    fn news(&mut self, news: Option<News>) {
        let Some(news) = news else { return self.broke(&"it ended") };
        self.hear(news);
        for _ in 1..BURST {
            let Some(news) = self.link.more() else { return };
            self.hear(news);
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Granted(tag) => self.inner.lines.look_now(&tag),
            News::Follows(topic) => self.follows(topic),
            News::Said(event) => self.said(event),
        }
    }

    fn done(&mut self, errand: Errand) {
        match errand {
            Errand::Opened { generation, .. }
            | Errand::Followed { generation, .. }
            | Errand::Unfollowed { generation, .. }
                if generation != self.generation => {}
            Errand::Opened { outcome: Ok(feed), .. } => self.opened(feed),
            Errand::Opened { outcome: Err(fault), .. } => self.refused(&fault),
            Errand::Followed { outcome: Ok(()), .. } => {}
            Errand::Followed { topic, outcome: Err(fault), .. } => self.not_followed(&topic, &fault),
            Errand::Unfollowed { topic, outcome: Ok(()), .. } => self.left(&topic),
            Errand::Unfollowed { outcome: Err(fault), .. } => self.broke(&fault),
            Errand::Looked { tag, asked, outcome } => self.looked(&tag, asked, outcome),
            Errand::Listed { walk, .. } if walk != self.walk => {}
            Errand::Listed { asked, outcome, .. } => self.listed(asked, outcome),
            Errand::Lost { occupant, reason, overlaps, at } => self.lost(occupant, reason, overlaps, at),
        }
    }

    /// When there is something to do although nothing was heard.
    fn wake(&self) -> Option<Instant> {
        if matches!(self.link, Link::Closed) {
            return None;
        }
        let mut wake = self.swept + SWEEP;
        if let Link::Resting { until } = self.link {
            wake = wake.min(until);
        }
        if let Some(due) = self.agenda.next().filter(|_| self.looks < LOOKS) {
            let left = Duration::from_micros(due.saturating_sub(self.inner.store.now_micros()));
            wake = wake.min(Instant::now() + left.min(SWEEP));
        }
        Some(wake)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if matches!(self.link, Link::Resting { until } if until <= now) {
            self.open();
        }
        self.look();
        if self.swept + SWEEP <= now {
            self.sweep(now);
        }
    }
}

/// The feed and its topics.
impl Switchboard {
    fn open(&mut self) {
        self.link = Link::Opening;
        self.generation += 1;
        let (inner, generation) = (self.inner.clone(), self.generation);
        self.errands.spawn(async move {
            let outcome = attempt::feed(&inner).await;
            Errand::Opened { generation, outcome }
        });
    }

    fn opened(&mut self, feed: Feed) {
        self.link = Link::Open { feed, since: Instant::now() };
        self.ask(Topic::Grants);
        let topics: Vec<_> = self.channels.keys().cloned().collect();
        for topic in topics {
            self.follow(&topic);
        }
    }

    /// No feed could be opened.
    fn refused(&mut self, fault: &Fault) {
        // Where there is no place, one is being made or comes free, and whoever waits for a watch has a deadline. A pool of one
        // never has another.
        if fault.kind() != FaultKind::Saturated || self.inner.config.pool.max_connections == 1 {
            for channel in self.channels.values_mut() {
                channel.refuse(|| self.inner.node.again(fault));
            }
        }
        self.broke(&fault);
    }

    fn broke(&mut self, why: &dyn std::fmt::Display) {
        // That it was opened and confirmed is no success: what broke it may do so again.
        if matches!(self.link, Link::Open { since, .. } if since.elapsed() >= Pause::LASTING) {
            self.pause.reset();
        }
        if self.pause.is_first() {
            tracing::warn!(%why, "the subscription is broken, another one is opened");
        }
        let pause = self.pause.next(getrandom::u32().unwrap_or_default());
        self.link = Link::Resting { until: Instant::now() + pause };
        // What was asked of that feed is over.
        self.generation += 1;
        for channel in self.channels.values_mut() {
            channel.stage = Stage::Unheard;
        }
    }

    /// Follows a topic that is not followed yet, if there is a feed.
    fn follow(&mut self, topic: &Topic) {
        let Some(channel) = self.channels.get_mut(topic) else { return };
        if channel.stage == Stage::Unheard && matches!(self.link, Link::Open { .. }) {
            channel.stage = Stage::Asked;
            self.ask(topic.clone());
        }
    }

    fn ask(&mut self, topic: Topic) {
        let Link::Open { feed, .. } = &self.link else { return };
        let (topics, generation) = (feed.topics.clone(), self.generation);
        self.errands.spawn(async move {
            let outcome = topics.follow(&topic).await;
            Errand::Followed { generation, topic, outcome }
        });
    }

    /// The feed does not bring a topic. One that did not answer is given up with all that was asked of it, lest it be applied
    /// late; whoever waits is served by the next one.
    fn not_followed(&mut self, topic: &Topic, fault: &Fault) {
        if fault.kind() != FaultKind::Permission {
            return self.broke(&fault);
        }
        let Some(channel) = self.channels.get_mut(topic) else {
            // Those who wait look by themselves, and those who watch need not do without.
            return tracing::warn!(%fault, "who waits is not told of a grant, and finds it at the next poll");
        };
        channel.refuse(|| self.inner.node.again(fault));
        if !channel.has_watchers() {
            return self.forget(topic);
        }
        // One that was followed before is not given up: the sweep asks for it again.
        channel.stage = Stage::Unheard;
        if !std::mem::replace(&mut channel.is_denied, true) {
            tracing::warn!(%fault, ?topic, "who watches hears nothing until it is allowed again");
        }
    }

    /// From now on nothing of a topic is missed; what was before is asked for.
    fn follows(&mut self, topic: Topic) {
        if topic == Topic::Grants {
            return self.inner.lines.look_again();
        }
        let Some(channel) = self.channels.get_mut(&topic) else { return };
        if channel.stage != Stage::Asked {
            return;
        }
        channel.stage = Stage::Looking { since: Instant::now() };
        channel.is_denied = false;
        match topic {
            Topic::Tag(tag) => {
                self.agenda.set(&tag, 0);
                self.look();
            }
            _ => self.list(Duration::ZERO),
        }
    }

    fn leave(&mut self, topic: &Topic) {
        let (Link::Open { feed, .. }, Some(channel)) = (&self.link, self.channels.get_mut(topic)) else {
            return;
        };
        channel.stage = Stage::Leaving;
        let (topics, generation, topic) = (feed.topics.clone(), self.generation, topic.clone());
        self.errands.spawn(async move {
            let outcome = topics.unfollow(&topic).await;
            Errand::Unfollowed { generation, topic, outcome }
        });
    }

    fn left(&mut self, topic: &Topic) {
        let Some(channel) = self.channels.get_mut(topic) else { return };
        channel.stage = Stage::Unheard;
        if channel.is_wanted() { self.follow(topic) } else { self.forget(topic) }
    }

    fn forget(&mut self, topic: &Topic) {
        self.channels.remove(topic);
        let mut gone: Vec<Tag> = match topic {
            Topic::Tag(tag) => vec![tag.clone()],
            _ => self.told.tags().cloned().collect(),
        };
        gone.retain(|tag| !self.covers(tag));
        for tag in gone {
            self.told.forget(&tag);
            self.agenda.cancel(&tag);
        }
    }

    /// Whether anybody wants to hear of a tag.
    fn covers(&self, tag: &Tag) -> bool {
        self.channels.contains_key(&Topic::All) || self.channels.contains_key(&Topic::Tag(tag.clone()))
    }

    /// Asks again for what the feed refused, gives up what nobody wants any more, and in the end the feed.
    fn sweep(&mut self, now: Instant) {
        self.swept = now;
        let due = |(topic, channel): (&Topic, &mut Channel)| {
            let (stage, is_wanted) = (channel.stage, channel.is_wanted());
            (stage == Stage::Unheard || !is_wanted).then(|| (topic.clone(), stage, is_wanted))
        };
        let due: Vec<_> = self.channels.iter_mut().filter_map(due).collect();
        for (topic, stage, is_wanted) in due {
            match stage {
                Stage::Unheard if is_wanted => self.follow(&topic),
                Stage::Unheard => self.forget(&topic),
                Stage::Looking { .. } | Stage::Heard => self.leave(&topic),
                // Once that is done.
                Stage::Asked | Stage::Leaving => {}
            }
        }
        // A tag that is free is remembered for as long as an older answer about it may be under way.
        let under_way = self.inner.config.deadline;
        let channels = &self.channels;
        self.told.forget_free(now, under_way, |tag| channels.contains_key(&Topic::Tag(tag.clone())));

        if !self.channels.is_empty() || !self.inner.lines.is_empty() {
            self.unwanted_since = None;
            return;
        }
        let since = *self.unwanted_since.get_or_insert(now);
        if now >= since + self.linger || !matches!(self.link, Link::Open { .. }) {
            self.close();
        }
    }

    fn close(&mut self) {
        self.link = Link::Closed;
        self.generation += 1;
        self.pause.reset();
        self.unwanted_since = None;
        self.inner.hearing.forget();
        // Who came in line just before has not said so.
        if !self.inner.lines.is_empty() {
            self.open();
        }
    }
}

/// What is told.
impl Switchboard {
    fn said(&mut self, event: Event) {
        let Some(finding) = Finding::told(&event) else { return };
        let Some(tag) = event.tag().cloned().filter(|tag| self.covers(tag)) else { return };
        if !self.told.is_news(&tag, &finding) {
            return;
        }
        let changes = heard(self.before(&tag), event);
        self.settle(tag, finding, changes);
    }

    /// The store, asked at `asked`, says how things stand.
    fn saw(&mut self, tag: Tag, seen: Seen, asked: Instant) {
        let now = self.inner.server_now();
        let before = self.before(&tag);
        let changes = before.map(|before| difference(before, &seen, now)).unwrap_or_default();
        let may_be_told = before.is_some_and(|before| may_be_told(before, &seen, now)) && self.is_heard(&tag);

        let finding = Finding::asked(seen, asked);
        if !self.told.is_news(&tag, &finding) {
            self.plan(&tag);
        } else if may_be_told && self.told.doubts(&tag, asked, Instant::now(), SOON) {
            self.agenda.set(&tag, self.in_a(SOON));
        } else {
            self.settle(tag, finding, changes);
        }
    }

    /// The state that was told of a tag: once the store was asked for all, those of which nothing was told are free.
    fn before(&self, tag: &Tag) -> Option<&Seen> {
        const FREE: &Seen = &Seen::Free { last: None };
        let told = self.told.get(tag).map(|told| &told.state);
        told.or_else(|| self.channels.get(&Topic::All).filter(|all| all.has_base).map(|_| FREE))
    }

    /// Whether all that is said of a tag is heard.
    fn is_heard(&self, tag: &Tag) -> bool {
        let is_heard = |topic| self.channels.get(&topic).is_some_and(|channel| channel.stage == Stage::Heard);
        is_heard(Topic::All) || is_heard(Topic::Tag(tag.clone()))
    }

    fn settle(&mut self, tag: Tag, finding: Finding, changes: Changes) {
        for change in changes.into_iter().flatten() {
            self.tell(&tag, change);
        }
        self.inner.known.hear(&tag, finding.clone());
        self.told.settle(tag.clone(), finding);
        self.plan(&tag);
    }

    fn tell(&mut self, tag: &Tag, Change { event, lost }: Change) {
        let own = lost.and_then(|reason| Some((reason, event.occupant()?.clone(), event.at()?)));
        // Nobody has said why it ended.
        let is_unexplained = matches!(event, Event::Released { .. });
        self.send(event);
        let own = own.filter(|(_, occupant, _)| self.inner.known.is_own(tag, occupant.fence));
        let Some((reason, occupant, at)) = own else { return };
        if !is_unexplained {
            return self.lost(occupant, reason, false, at);
        }
        let seen = self.told.get(tag).map_or_else(Instant::now, Finding::heard);
        let inner = self.inner.clone();
        self.errands.spawn(async move {
            // Its guard counts on it, and somebody else has it.
            let overlaps = reason == LostReason::Stolen && occupant.kind == LeaseKind::Guard;
            let reason = attempt::how_lost(&inner, seen, reason).await;
            Errand::Lost { occupant, reason, overlaps, at }
        });
    }

    /// A lease that this process had acquired was lost. It may have been noticed before, and is told of now.
    fn lost(&self, occupant: Occupant, reason: LostReason, overlaps: bool, at: SystemTime) {
        let lost = self.inner.lose(&occupant.tag, occupant.fence, reason);
        if overlaps && lost == Some(Ok(reason)) {
            self.inner.overlap(&occupant.tag, occupant.fence);
        }
        if let Some(Ok(reason) | Err(Over::Lost(reason))) = lost {
            self.send(Event::Lost { occupant, reason, at });
        }
    }

    /// Something happened that no store tells. A lease of which it is told here that it was lost is not told to have ended again.
    fn tell_of_here(&mut self, event: Event) {
        if let Some((tag, finding)) = event.tag().cloned().zip(Finding::told(&event))
            && self.covers(&tag)
            && self.told.is_news(&tag, &finding)
        {
            self.told.settle(tag.clone(), finding);
            self.plan(&tag);
        }
        self.send(event);
    }

    /// Tells those who watch its tag, and those who watch all.
    fn send(&self, event: Event) {
        let event = Arc::new(event);
        for topic in event.tag().cloned().map(Topic::Tag).into_iter().chain([Topic::All]) {
            if let Some(channel) = self.channels.get(&topic) {
                channel.tell(&event);
            }
        }
    }
}

/// What is asked.
impl Switchboard {
    /// Notes when a lease ends unless something is heard before.
    fn plan(&mut self, tag: &Tag) {
        let channel = self.channels.get(&Topic::Tag(tag.clone()));
        let is_looked_at = channel.is_some_and(|channel| matches!(channel.stage, Stage::Looking { .. }));
        if is_looked_at || self.told.is_doubted(tag) {
            // Or it is on the agenda for it.
            return;
        }
        match self.told.get(tag).map(|told| &told.state) {
            Some(Seen::Held(occupant)) => {
                self.agenda.set(tag, micros(occupant.expires_at).max(self.in_a(SOON)));
            }
            _ => self.agenda.cancel(tag),
        }
    }

    /// Looks at tags whose time has come, as many as may be looked at side by side.
    fn look(&mut self) {
        let now = self.inner.store.now_micros();
        while self.looks < LOOKS {
            let Some(tag) = self.agenda.take(now) else { return };
            self.looks += 1;
            let inner = self.inner.clone();
            self.errands.spawn(async move {
                let seen_to = attempt::wait_until_seen_to(&inner).await;
                let asked = Instant::now();
                let outcome = match seen_to {
                    Ok(()) => attempt::look(&inner, &tag).await,
                    Err(fault) => Err(fault),
                };
                Errand::Looked { tag, asked, outcome }
            });
        }
    }

    fn looked(&mut self, tag: &Tag, asked: Instant, outcome: Result<Seen, Fault>) {
        self.looks -= 1;
        if !self.covers(tag) {
            self.told.forget(tag);
        } else {
            match outcome {
                Ok(seen) => {
                    self.saw(tag.clone(), seen, asked);
                    if let Some(channel) = self.channels.get_mut(&Topic::Tag(tag.clone())) {
                        channel.looked(asked);
                        self.plan(tag);
                    }
                }
                Err(fault) => {
                    if let Some(channel) = self.channels.get_mut(&Topic::Tag(tag.clone())) {
                        channel.refuse(|| self.inner.node.again(&fault));
                    }
                    if !self.agenda.has(tag) {
                        self.agenda.set(tag, self.in_a(AGAIN));
                    }
                }
            }
        }
        self.look();
    }

    fn list(&mut self, after: Duration) {
        self.walk += 1;
        let (inner, walk) = (self.inner.clone(), self.walk);
        self.errands.spawn(async move {
            sleep(after).await;
            let seen_to = attempt::wait_until_seen_to(&inner).await;
            let asked = Instant::now();
            let outcome = match seen_to {
                Ok(()) => attempt::walk(&inner).await,
                Err(fault) => Err(fault),
            };
            Errand::Listed { walk, asked, outcome }
        });
    }

    fn listed(&mut self, asked: Instant, outcome: Result<Vec<Occupant>, Fault>) {
        let Some(all) = self.channels.get_mut(&Topic::All) else { return };
        let listed = match outcome {
            Ok(listed) => listed,
            Err(fault) => {
                all.refuse(|| self.inner.node.again(&fault));
                if matches!(all.stage, Stage::Looking { .. }) {
                    self.list(AGAIN);
                }
                return;
            }
        };
        let tags: HashSet<_> = listed.iter().map(|occupant| occupant.tag.clone()).collect();
        for occupant in listed {
            self.saw(occupant.tag.clone(), Seen::Held(occupant), asked);
        }
        // What stood during the whole walk is listed. What is not has ended, perhaps not for the last time: it is asked for.
        let missing = self.told.held_before(asked).filter(|tag| !tags.contains(*tag));
        let missing: Vec<_> = missing.cloned().collect();
        for tag in missing {
            self.agenda.set(&tag, 0);
        }
        self.look();
        if let Some(all) = self.channels.get_mut(&Topic::All) {
            all.looked(asked);
        }
    }

    /// On the server's clock.
    fn in_a(&self, while_: Duration) -> u64 {
        self.inner.store.now_micros() + u64::try_from(while_.as_micros()).unwrap_or(u64::MAX)
    }
}

fn micros(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// Never, where there is no time.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

#[cfg(feature = "memory")]
#[cfg(test)]
mod tests;
