//! [`LeaseSource`]: who knows which leases are to stand.

use std::{fmt, pin::Pin};

use crate::Lease;

/// Somebody who knows which leases are to stand, such as the ledger of a service. [`Connect::lease_source`](crate::Connect::lease_source)
/// takes one.
///
/// It is asked when a process connects, and when Redis was restarted or has lost its data, before acquires are let in. What Redis has
/// lost is [put back](crate::SpoolLocks::restore): under the old fence, for what is left of its time. Once that is done it is asked
/// again, and what it does not name any more is released.
///
/// # Cancel safety
/// The future is dropped when it has not answered within 5 s. A source that fails, hangs or panics is asked again after a pause, from
/// 250 ms up to 30 s, until it answers; acquires wait for that for 10 s at most. What another has by then is theirs.
pub trait LeaseSource: Send + Sync + 'static {
    /// Every lease that is to stand now, in any order. One that has run out does no harm.
    fn leases(&self) -> LeaseSourceAnswer<'_>;
}

/// What a [`LeaseSource`] answers, boxed as `Box::pin(async { .. })`.
pub type LeaseSourceAnswer<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<Lease>, Box<dyn std::error::Error + Send + Sync>>> + Send + 'a>>;

impl fmt::Debug for dyn LeaseSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseSource")
    }
}
