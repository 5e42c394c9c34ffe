//! [`Abandoned`]: what a call may have been granted whose caller does not know of it, or has gone away.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{Fence, Lease, RequestId, claim::Owner, store::Ask};

/// Something for the sweeper.
#[derive(Debug)]
pub(crate) enum Abandoned {
    /// It was granted, to somebody who has gone away.
    Granted(Lease),
    /// Its release was asked for by this request, or was to be.
    GivenBack { lease: Lease, request: RequestId },
    /// Nobody knows whether it was, and who asked has gone away, or has the lease of the fence that was `answered` and no other. From
    /// `until` on it is granted nothing.
    Unknown { ask: Arc<Ask>, answered: Option<Fence>, until: Instant },
    /// Nobody knows whether it was; who asked wants to.
    Claimed { ask: Arc<Ask>, until: Instant, owner: Owner },
}
