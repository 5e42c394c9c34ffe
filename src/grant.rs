//! [`Grant`]: a lease as this process was granted it, with how long it stands for certain.

use std::time::Duration;

use tokio::time::Instant;

use crate::Lease;

/// A lease that was just granted.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) lease: Lease,
    /// Until then it stands by our clock, if both clocks go alike: counted from before it was asked for.
    pub(crate) until: Instant,
}

impl Grant {
    /// A lease that was asked for at `asked`, and lasts `lasts` since.
    pub(crate) fn new(lease: Lease, asked: Instant, lasts: Duration) -> Self {
        Self { lease, until: asked + lasts }
    }
}
