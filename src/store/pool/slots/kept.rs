//! [`Kept`]: the lane that is kept for urgent operations, so that an extend or a release never waits behind acquires or a list.
//!
//! # What it promises
//! - While it is wanted one of two lanes is kept, the emptiest; what others have under way on it ends there. Where there is but
//!   one lane it stays everybody's, and another is opened.
//! - Urgent operations come to it first, because it stands first among the lanes. Where it has no room they use the others.
//! - The rest uses it only where there is no other lane to wait for, and none is being or can be opened: then all share it.
//! - It takes no place from a feed. With fewer than three connections one of the two would have to do without, and the kept
//!   lane does: it saves a release a wait, a feed saves every waiter its polls.

use tokio::time::Instant;

use super::{LaneId, lane::Lane};

/// A connection for what is urgent, one for the rest, and one for a feed.
const FEWEST: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) is_wanted: bool,
    lane: Option<LaneId>,
}

impl Kept {
    pub(super) fn is<C>(&self, lane: &Lane<C>) -> bool {
        self.lane == Some(lane.id)
    }

    /// Whether a lane is to be opened for it.
    pub(super) fn is_missing(&self, limit: u32) -> bool {
        self.is_possible(limit) && self.lane.is_none()
    }

    fn is_possible(&self, limit: u32) -> bool {
        self.is_wanted && limit >= FEWEST
    }

    pub(super) fn let_go(&mut self) {
        self.lane = None;
    }

    /// Lets go of a lane that is gone or no longer to be kept, and keeps another where there are two.
    pub(super) fn choose<C>(&mut self, lanes: &mut [Lane<C>], limit: u32, now: Instant, depth: usize) {
        if !self.is_possible(limit) || !lanes.iter().any(|lane| self.is(lane) && lane.serves()) {
            self.lane = None;
        }
        if !self.is_missing(limit) || lanes.iter().filter(|lane| lane.serves()).count() < 2 {
            return;
        }
        let serving = lanes.iter().enumerate().rev().filter(|(_, lane)| lane.serves());
        let emptiest = serving.min_by_key(|(_, lane)| (!lane.has_room(now, depth), lane.started.len()));
        if let Some((place, _)) = emptiest {
            lanes[..=place].rotate_right(1);
            self.lane = lanes.first().map(|lane| lane.id);
        }
    }
}
