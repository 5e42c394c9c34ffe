//! [`Feeds`]: what the processes of a memory store hear from it.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::mpsc;

use super::{Process, lock};
use crate::{
    Event, Fault, FaultKind, Tag,
    store::{FEED_CAPACITY, Feed, News, Topic, Topics},
};

/// The open feeds of a store.
#[derive(Debug, Clone, Default)]
pub(super) struct Feeds {
    listeners: Arc<Mutex<Vec<Listener>>>,
}

/// The store's end of a feed. Dropped, the feed ends.
#[derive(Debug)]
struct Listener {
    id: u64,
    process: Process,
    topics: HashSet<Topic>,
    news: mpsc::Sender<News>,
}

/// Chooses what one feed brings.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    feeds: Feeds,
    listener: u64,
}

impl Feeds {
    pub(super) fn open(&self, process: Process) -> Feed {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Relaxed);
        let (sender, news) = mpsc::channel(FEED_CAPACITY);
        let mut listeners = lock(&self.listeners);
        // Who no longer reads is noticed by what it cannot be told, which may never come.
        listeners.retain(|listener| !listener.news.is_closed());
        listeners.push(Listener { id, process, topics: HashSet::new(), news: sender });
        Feed { news, topics: Topics::Memory(Subscription { feeds: self.clone(), listener: id }) }
    }

    /// Tells what happened to a tag.
    pub(super) fn say(&self, tag: &Tag, event: &Event) {
        let topic = Topic::Tag(tag.clone());
        let follows =
            |listener: &Listener| listener.topics.contains(&Topic::All) || listener.topics.contains(&topic);
        tell(&mut lock(&self.listeners), follows, || News::Said(event.clone()));
    }

    /// Tells a process that it was granted a lock from the queue.
    pub(super) fn granted(&self, process: Process, tag: &Tag) {
        let follows =
            |listener: &Listener| listener.process == process && listener.topics.contains(&Topic::Grants);
        tell(&mut lock(&self.listeners), follows, || News::Granted(tag.clone()));
    }
}

/// Brings news to some of the listeners, and ends the feed of each who has no room for them: it has missed something.
fn tell(listeners: &mut Vec<Listener>, whom: impl Fn(&Listener) -> bool, news: impl Fn() -> News) {
    listeners.retain(|listener| !whom(listener) || listener.news.try_send(news()).is_ok());
}

impl Subscription {
    pub(crate) async fn follow(&self, topic: &Topic) -> Result<(), Fault> {
        let mut listeners = lock(&self.feeds.listeners);
        self.mine(&mut listeners)?.topics.insert(topic.clone());
        tell(&mut listeners, |listener| listener.id == self.listener, || News::Follows(topic.clone()));
        Ok(())
    }

    pub(crate) async fn unfollow(&self, topic: &Topic) -> Result<(), Fault> {
        self.mine(&mut lock(&self.feeds.listeners))?.topics.remove(topic);
        Ok(())
    }

    fn mine<'a>(&self, listeners: &'a mut [Listener]) -> Result<&'a mut Listener, FaultKind> {
        let mine = listeners.iter_mut().find(|listener| listener.id == self.listener);
        mine.ok_or(FaultKind::Disconnected)
    }
}
