//! [`Tap`]: a connection that is no lane: what the server says over it unasked is why it is there.

use std::time::Duration;

use redis::{Cmd, Value};

use super::flight::Cable;
use crate::{Fault, FaultKind, store::classify};

/// The connection of a feed. Its place comes back when the last clone is dropped, or the connection breaks.
#[derive(Debug, Clone)]
pub(crate) struct Tap {
    cable: Cable,
    patience: Duration,
}

impl Tap {
    pub(super) fn new(cable: Cable, patience: Duration) -> Self {
        Self { cable, patience }
    }

    /// Sends one command and awaits its reply, for as long as the pool waits for any.
    ///
    /// # Cancel safety
    /// Dropped, the command may have been sent and may take effect.
    pub(crate) async fn send(&self, cmd: &Cmd) -> Result<Value, Fault> {
        let mut cable = self.cable.clone();
        match tokio::time::timeout(self.patience, cable.send(cmd)).await {
            Ok(reply) => reply.map_err(classify::of_command),
            Err(elapsed) => Err(Fault::new(FaultKind::Timeout, elapsed)),
        }
    }
}
