//! [`CircuitWatch`]: hearing how a circuit stands.

use tokio::sync::watch::Receiver;

use crate::CircuitState;

/// Hears how a [`Circuit`](super::Circuit) stands, in whatever task it is used; it does not keep the circuit alive.
///
/// Of states that follow each other quickly it may hear the last alone; that one it always hears.
#[derive(Debug, Clone)]
pub struct CircuitWatch {
    states: Receiver<CircuitState>,
}

impl CircuitWatch {
    pub(super) fn new(states: Receiver<CircuitState>) -> Self {
        Self { states }
    }

    /// How the circuit stands; how it last stood, where it is gone.
    pub fn state(&self) -> CircuitState {
        *self.states.borrow()
    }

    /// Waits for another state than the last one that was heard, and says which; the state in which the watch was made counts as
    /// heard. `None` when the circuit is gone.
    ///
    /// # Cancel safety
    /// If dropped, no state is lost: the next call tells it.
    pub async fn changed(&mut self) -> Option<CircuitState> {
        self.states.changed().await.ok()?;
        Some(*self.states.borrow_and_update())
    }
}
