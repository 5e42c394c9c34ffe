//! [`ModeWatch`]: hearing how the mode changes.

use super::{Node, mode_of};
use crate::{CircuitWatch, Mode};

/// Hears of each change of the mode; made by [`SpoolLocks::watch_mode`](crate::SpoolLocks::watch_mode).
#[derive(Debug, Clone)]
#[must_use = "a watch is read by `changed`"]
pub struct ModeWatch {
    told: Mode,
    link: CircuitWatch,
    writes: CircuitWatch,
}

impl ModeWatch {
    pub(crate) fn of(node: &Node) -> Self {
        let [link, writes] = node.watch();
        Self { told: node.mode(), link, writes }
    }

    /// The mode now.
    pub fn mode(&self) -> Mode {
        mode_of(self.link.state(), self.writes.state())
    }

    /// Waits until the mode is another than this watch was told last, and tells it; what came and went in between is not told. `None`
    /// after the last clone of the locks is gone.
    ///
    /// # Cancel safety
    /// If dropped, no change is lost.
    pub async fn changed(&mut self) -> Option<Mode> {
        loop {
            let mode = self.mode();
            if mode != self.told {
                self.told = mode;
                return Some(mode);
            }
            tokio::select! {
                state = self.link.changed() => state?,
                state = self.writes.changed() => state?,
            };
        }
    }
}
