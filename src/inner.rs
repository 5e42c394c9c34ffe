//! [`Inner`]: what the clones of a [`SpoolLocks`](crate::SpoolLocks) share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use crate::{Config, ConnectError, Snapshot, Stats, meter::LockMeter, store::AnyStore};

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) store: AnyStore,
    pub(crate) meter: Arc<LockMeter>,
    started_at: SystemTime,
    seq: AtomicU64,
}

impl Inner {
    pub(crate) async fn connect(config: Config) -> Result<Self, ConnectError> {
        config.check()?;
        let meter = Arc::new(LockMeter::default());
        let store = config.open_store(meter.clone()).await?;
        Ok(Self { config, store, meter, started_at: SystemTime::now(), seq: AtomicU64::new(0) })
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats { pool: self.store.pool(), locks: self.meter.read(), server: self.store.report() }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let Stats { pool, locks, server } = self.stats();
        Snapshot {
            schema: Snapshot::SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            seq: self.seq.fetch_add(1, Relaxed) + 1,
            started_at: self.started_at,
            generated_at: SystemTime::now(),
            pools: vec![pool],
            locks,
            server,
        }
    }
}
