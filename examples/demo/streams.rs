//! [`Streams`]: event streams, such as those of the screens in the factory. Each hears what happens to any spool.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use spool_lock::{Event, ReadError, SpoolLocks, Watch};

use crate::STREAMS;

/// All event streams of the demo, over the one subscription of the process.
#[derive(Debug, Default)]
pub(crate) struct Streams(Arc<Mutex<Heard>>);

/// What all streams together have heard since somebody looked.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Heard {
    /// Streams that are open now.
    pub(crate) up: usize,
    pub(crate) events: u64,
    /// Events that are gone for a stream that was too slow.
    pub(crate) missed: u64,
}

impl Streams {
    pub(crate) async fn open(locks: &SpoolLocks) -> Result<Self, ReadError> {
        let streams = Self::default();
        for _ in 0..STREAMS {
            let watch = locks.watch().await?;
            streams.add(|heard| heard.up += 1);
            tokio::spawn(Self(streams.0.clone()).listen(watch));
        }
        Ok(streams)
    }

    pub(crate) fn look(&self) -> Heard {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let up = heard.up;
        mem::replace(&mut *heard, Heard { up, ..Heard::default() })
    }

    async fn listen(self, mut watch: Watch) {
        while let Some(event) = watch.next().await {
            match *event {
                Event::Missed { events } => self.add(|heard| heard.missed += events),
                _ => self.add(|heard| heard.events += 1),
            }
        }
        self.add(|heard| heard.up -= 1);
    }

    fn add(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
