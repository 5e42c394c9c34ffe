//! [`ReadFallback`]: who is asked when Redis cannot be.

use std::{fmt, pin::Pin};

use crate::{Occupant, Reading, Tag};

/// Somebody else who can say who holds what, such as the ledger of a service. [`Connect::read_fallback`](crate::Connect::read_fallback)
/// takes one.
///
/// It is asked when Redis cannot be and this process does not remember either. What it answers is a
/// [`Reading::from_fallback`]: it helps people who look, and is never proof that a tag is free now. No acquire asks it.
///
/// `None` means that it does not know; whoever asked is then told why Redis did not answer. There is no other way to fail.
///
/// # Cancel safety
/// Both futures are dropped at the deadline of the call that asks, 1 s after they were asked at the latest; but they are given 200 ms
/// where Redis has used up the time.
///
/// # Examples
/// ```
/// use std::{collections::HashMap, time::SystemTime};
///
/// use spool_lock::{Config, FallbackReading, Occupant, ReadFallback, Reading, SpoolLocks, Tag};
///
/// /// What the ledger said when it was last read.
/// struct Ledger {
///     read_at: SystemTime,
///     rows: HashMap<Tag, Occupant>,
/// }
///
/// impl Ledger {
///     fn reading<T>(&self, value: T) -> Option<Reading<T>> {
///         Some(Reading::from_fallback(value, self.read_at.elapsed().unwrap_or_default()))
///     }
/// }
///
/// impl ReadFallback for Ledger {
///     fn inspect<'a>(&'a self, tag: &'a Tag) -> FallbackReading<'a, Option<Occupant>> {
///         Box::pin(async { self.reading(self.rows.get(tag).cloned()) })
///     }
///
///     fn list(&self) -> FallbackReading<'_, Vec<Occupant>> {
///         Box::pin(async { self.reading(self.rows.values().cloned().collect()) })
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let ledger = Ledger { read_at: SystemTime::now(), rows: HashMap::new() };
/// let locks = SpoolLocks::connect(Config::new("memory://")?).read_fallback(ledger).await?;
/// assert!(locks.inspect(&Tag::new("TEST-02")?).await?.value.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait ReadFallback: Send + Sync + 'static {
    /// Who holds `tag`, as far as is known here; `Some` of a reading without an occupant: nobody did.
    fn inspect<'a>(&'a self, tag: &'a Tag) -> FallbackReading<'a, Option<Occupant>>;

    /// Who holds which tag, as far as is known here, in any order.
    fn list(&self) -> FallbackReading<'_, Vec<Occupant>>;
}

/// What a [`ReadFallback`] answers, boxed as `Box::pin(async { .. })`; `None`: it does not know.
pub type FallbackReading<'a, T> = Pin<Box<dyn Future<Output = Option<Reading<T>>> + Send + 'a>>;

impl fmt::Debug for dyn ReadFallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadFallback")
    }
}
