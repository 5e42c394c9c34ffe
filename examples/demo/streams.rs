//! [`Streams`]: event streams, such as those of the screens in the factory. Each hears what happens to any spool.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use spool_lock::{Event, ReadError, SpoolLocks, Watch};

use crate::{STREAMS, outage::Outage};

/// All event streams of the demo, over the one subscription of the process.
#[derive(Debug)]
pub(crate) struct Streams {
    heard: Arc<Mutex<Heard>>,
    outage: Arc<Outage>,
}

/// What all streams together have heard since somebody looked.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Heard {
    /// Streams that are open now.
    pub(crate) up: usize,
    /// Streams that have heard something after the outage.
    pub(crate) up_again: usize,
    pub(crate) events: u64,
    /// Events that are gone for a stream that was too slow.
    pub(crate) missed: u64,
}

impl Streams {
    pub(crate) async fn open(locks: &SpoolLocks, outage: &Arc<Outage>) -> Result<Self, ReadError> {
        let streams = Self { heard: Arc::default(), outage: outage.clone() };
        for _ in 0..STREAMS {
            let watch = locks.watch().await?;
            streams.add(|heard| heard.up += 1);
            let stream = Self { heard: streams.heard.clone(), outage: outage.clone() };
            tokio::spawn(stream.listen(watch));
        }
        Ok(streams)
    }

    pub(crate) fn look(&self) -> Heard {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let Heard { up, up_again, .. } = *heard;
        mem::replace(&mut *heard, Heard { up, up_again, ..Heard::default() })
    }

    async fn listen(self, mut watch: Watch) {
        let mut is_up_again = false;
        while let Some(event) = watch.next().await {
            match *event {
                Event::Missed { events } => self.add(|heard| heard.missed += events),
                _ => self.add(|heard| heard.events += 1),
            }
            if !is_up_again && self.outage.is_over() {
                is_up_again = true;
                self.add(|heard| heard.up_again += 1);
            }
        }
        self.add(|heard| heard.up -= 1);
    }

    fn add(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
