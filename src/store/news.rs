//! [`News`]: what a process hears from its store without asking, over one connection.

use tokio::sync::mpsc;

use crate::{Event, Fault, Tag};

/// What a [`Feed`] can be told to bring.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// That this process was granted a lock for which it stood in the queue.
    Grants,
    /// What happens to one tag.
    Tag(Tag),
    /// What happens to any tag of the prefix.
    All,
}

#[derive(Debug)]
pub(crate) enum News {
    /// From now on nothing of this topic is missed, as long as the feed lives.
    Follows(Topic),
    /// The first of this process in the queue of the tag was granted the lock, for a short time; it is to confirm.
    Granted(Tag),
    /// Something happened. Each event comes once, also where its tag and all tags are followed.
    Said(Event),
}

/// News as they come. It ends when the connection does, or when its reader was too slow: whoever reads it must then look again.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) news: mpsc::Receiver<News>,
    pub(crate) topics: Topics,
}

/// Chooses what a feed brings. Dropped with its [`Feed`], the connection is closed.
#[derive(Debug, Clone)]
pub(crate) enum Topics {
    Redis(super::redis::Subscription),
    #[cfg(feature = "memory")]
    Memory(super::memory::Subscription),
}

impl Topics {
    /// Asks for a topic. That it is followed comes among the news ([`News::Follows`]), in its place between the events.
    ///
    /// # Errors
    /// The store refused, or could not be asked.
    pub(crate) async fn follow(&self, topic: &Topic) -> Result<(), Fault> {
        match self {
            Self::Redis(subscription) => subscription.follow(topic).await,
            #[cfg(feature = "memory")]
            Self::Memory(subscription) => subscription.follow(topic).await,
        }
    }

    /// Wants no more of a topic.
    ///
    /// # Errors
    /// As for [`follow`](Self::follow).
    pub(crate) async fn unfollow(&self, topic: &Topic) -> Result<(), Fault> {
        match self {
            Self::Redis(subscription) => subscription.unfollow(topic).await,
            #[cfg(feature = "memory")]
            Self::Memory(subscription) => subscription.unfollow(topic).await,
        }
    }
}

/// How many news may wait for their reader.
pub(crate) const FEED_CAPACITY: usize = 8192;
