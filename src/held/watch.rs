//! [`GuardWatch`]: hearing how a guard's lock stands.

use std::sync::Arc;

use tokio::time::Instant;

use super::{GuardState, Held};

/// Hears how a guard's lock stands, in whatever task it is used. It needs neither the guard nor Redis.
#[derive(Debug, Clone)]
pub struct GuardWatch {
    held: Arc<Held>,
    told: Option<GuardState>,
}

impl GuardWatch {
    pub(crate) fn new(held: Arc<Held>) -> Self {
        Self { held, told: None }
    }

    /// How the lock stands now.
    pub fn state(&self) -> GuardState {
        self.held.state(Instant::now())
    }

    /// The state now, for the first time; then each change, at the moment of it. `None` after the
    /// [last](GuardState::is_final) one.
    ///
    /// # Cancel safety
    /// If dropped, no state is lost: the next call tells it.
    pub async fn next(&mut self) -> Option<GuardState> {
        let state = match self.told {
            None => self.state(),
            Some(told) if told.is_final() => return None,
            Some(told) => self.held.changed(told).await,
        };
        self.told = Some(state);
        Some(state)
    }
}
