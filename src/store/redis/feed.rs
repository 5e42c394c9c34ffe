//! [`Subscription`]: the connection over which the process hears from Redis.
//!
//! What the server says is turned into [`News`] where it arrives, in the driver's task, so the order of confirmations and
//! events is the server's. Nobody is waited for there: when the reader is so slow that the news do not fit any more, the feed
//! ends, and who reads it looks again.
//!
//! An event of a tag that is followed comes a second time while all tags are, by the pattern. The server's confirmations say
//! from when to when, so each is passed on once.

use std::sync::{Arc, Mutex, PoisonError};

use redis::{
    Cmd, PushInfo, PushKind, Value,
    aio::{AsyncPushSender, SendError},
};
use tokio::{
    sync::mpsc::{self, Sender},
    time::Instant,
};

use super::{
    message::read_message,
    wire::{Channel, read_channel, read_key},
};
use crate::{
    Fault,
    store::{
        FEED_CAPACITY, Feed, News, Topic, Topics,
        pool::{Pool, Tap},
    },
};

/// Chooses topics. With the last clone the connection is closed.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    tap: Tap,
    names: Names,
}

impl Subscription {
    /// Opens the connection; nothing is followed yet.
    ///
    /// # Errors
    /// Those of [`Pool::tap`].
    pub(super) async fn open(
        pool: &Pool,
        prefix: &Arc<str>,
        grants: &str,
        deadline: Instant,
    ) -> Result<Feed, Fault> {
        let names =
            Names { prefix: prefix.clone(), grants: grants.into(), all: format!("{prefix}:events:*").into() };
        let (sender, news) = mpsc::channel(FEED_CAPACITY);
        let reader = Reader { names: names.clone(), follows_all: false };
        let tap = pool.tap(Ear(Mutex::new(Some((reader, sender)))), deadline).await?;
        Ok(Feed { news, topics: Topics::Redis(Self { tap, names }) })
    }

    pub(crate) async fn follow(&self, topic: &Topic) -> Result<(), Fault> {
        self.tell(topic, "SUBSCRIBE", "PSUBSCRIBE").await
    }

    pub(crate) async fn unfollow(&self, topic: &Topic) -> Result<(), Fault> {
        self.tell(topic, "UNSUBSCRIBE", "PUNSUBSCRIBE").await
    }

    async fn tell(&self, topic: &Topic, of_channel: &str, of_pattern: &str) -> Result<(), Fault> {
        let Names { prefix, grants, all } = &self.names;
        let mut cmd = Cmd::new();
        match topic {
            Topic::Grants => cmd.arg(of_channel).arg(&**grants),
            Topic::Tag(tag) => cmd.arg(of_channel).arg(Channel { prefix, tag: tag.as_str() }),
            Topic::All => cmd.arg(of_pattern).arg(&**all),
        };
        self.tap.send(&cmd).await.map(drop)
    }
}

/// What the topics are called in Redis.
#[derive(Debug, Clone)]
struct Names {
    prefix: Arc<str>,
    /// The channel of this process.
    grants: Arc<str>,
    /// The pattern of the channels of all tags.
    all: Arc<str>,
}

/// Makes news of what the server says.
struct Reader {
    names: Names,
    /// Whether the pattern brings the events: what a tag's own channel brings came or comes by it too.
    follows_all: bool,
}

impl Reader {
    fn read(&mut self, push: &PushInfo) -> Vec<News> {
        let Names { prefix, grants, all } = &self.names;
        let said = |channel: &[u8], message: &[u8]| {
            let events = read_channel(prefix, channel).map(|tag| read_message(&tag, message));
            events.into_iter().flatten().map(News::Said).collect()
        };
        let texts: Vec<_> = push.data.iter().map_while(text).collect();
        match (&push.kind, &texts[..]) {
            (PushKind::Message, [channel, key]) if *channel == grants.as_bytes() => {
                read_key(prefix, key).map(News::Granted).into_iter().collect()
            }
            (PushKind::Message, [channel, message]) if !self.follows_all => said(channel, message),
            (PushKind::PMessage, [_pattern, channel, message]) => said(channel, message),
            (PushKind::Subscribe, [channel]) if *channel == grants.as_bytes() => {
                vec![News::Follows(Topic::Grants)]
            }
            (PushKind::Subscribe, [channel]) => {
                let topic = read_channel(prefix, channel).map(Topic::Tag);
                topic.map(News::Follows).into_iter().collect()
            }
            (PushKind::PSubscribe, [pattern]) if *pattern == all.as_bytes() => {
                self.follows_all = true;
                vec![News::Follows(Topic::All)]
            }
            (PushKind::PUnsubscribe, [pattern]) if *pattern == all.as_bytes() => {
                self.follows_all = false;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }
}

/// The names and texts of a push; the count of subscriptions after them is none.
fn text(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(text) => Some(text),
        _ => None,
    }
}

/// Hears the server. Nothing is left to hear with once the reader of the news is gone, or was too slow.
struct Ear(Mutex<Option<(Reader, Sender<News>)>>);

impl AsyncPushSender for Ear {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        // Never contended: the driver alone speaks to us.
        let mut hears = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((reader, sender)) = &mut *hears else { return Err(SendError) };
        let is_heard = reader.read(&push).into_iter().all(|news| sender.try_send(news).is_ok());
        if !is_heard {
            *hears = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
