//! [`Channel`]: those who watch one topic.

use std::sync::Arc;

use tokio::{
    sync::{broadcast, oneshot},
    time::Instant,
};

use crate::{Event, Fault, Watch, store::Topic};

/// How many events of all tags a slow watcher may be behind.
const ALL_CAPACITY: usize = 1024;

/// The same for one tag, of which less happens. The room is taken when the channel is made, some 5 KB, and a process may watch
/// thousands of tags.
const TAG_CAPACITY: usize = 128;

#[derive(Debug)]
pub(super) struct Channel {
    events: broadcast::Sender<Arc<Event>>,
    pub(super) stage: Stage,
    /// Those who get their watch when everything since their call is sure to reach it.
    waiting: Vec<oneshot::Sender<Result<Watch, Fault>>>,
    /// Whether the store was ever asked how things stand: what differs from that afterwards is told.
    pub(super) has_base: bool,
    /// Whether those who watch have been without it since the user lost the right to it.
    pub(super) is_denied: bool,
}

/// How far a topic is on the way to be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is no feed, or it may not bring the topic.
    Unheard,
    /// The feed is asked for it.
    Asked,
    /// The feed brings it since then; the store is being asked how things stand.
    Looking { since: Instant },
    /// Nothing is missed.
    Heard,
    /// The feed is asked for it no more. Only when that is done may it be asked again, or the two could overtake each other.
    Leaving,
}

impl Channel {
    pub(super) fn new(topic: &Topic) -> Self {
        let capacity = if *topic == Topic::All { ALL_CAPACITY } else { TAG_CAPACITY };
        let (events, _) = broadcast::channel(capacity);
        Self { events, stage: Stage::Unheard, waiting: Vec::new(), has_base: false, is_denied: false }
    }

    /// Answers at once where nothing is missed, otherwise later.
    pub(super) fn admit(&mut self, reply: oneshot::Sender<Result<Watch, Fault>>) {
        self.waiting.push(reply);
        if self.stage == Stage::Heard {
            self.serve();
        }
    }

    /// The store has said how things stand, asked at `asked`.
    pub(super) fn looked(&mut self, asked: Instant) {
        if matches!(self.stage, Stage::Looking { since } if asked >= since) {
            self.stage = Stage::Heard;
            self.has_base = true;
            self.serve();
        }
    }

    /// Those who have their watch stay; those who wait for one learn why there is none.
    pub(super) fn refuse(&mut self, why: impl Fn() -> Fault) {
        for reply in self.waiting.drain(..) {
            let _ = reply.send(Err(why()));
        }
    }

    pub(super) fn tell(&self, event: &Arc<Event>) {
        // Nobody listens: it will be swept away.
        let _ = self.events.send(event.clone());
    }

    pub(super) fn has_watchers(&self) -> bool {
        self.events.receiver_count() > 0
    }

    /// Whether anybody is there, or still waits to be.
    pub(super) fn is_wanted(&mut self) -> bool {
        self.waiting.retain(|reply| !reply.is_closed());
        self.has_watchers() || !self.waiting.is_empty()
    }

    fn serve(&mut self) {
        for reply in self.waiting.drain(..) {
            // Who has gone meanwhile takes his watch with him.
            let _ = reply.send(Ok(Watch::new(self.events.subscribe())));
        }
    }
}
