//! [`Probe`]: a call that finds out how things stand.

use tokio::time::Instant;

use super::{Node, SETUP_PAUSE, Which, denies_everything};
use crate::{CircuitState, Fault, Permit, fault::Blame};

/// A call that finds out how things stand: by a script that is refused wherever an acquire would be.
#[derive(Debug)]
#[must_use = "a probe says what it found"]
pub(crate) struct Probe<'a> {
    pub(super) node: &'a Node,
    /// When it began; none of the one in the background, which has to prove something: what proves nothing leaves a circuit open
    /// for longer.
    pub(super) began: Option<Instant>,
    pub(super) link: Permit<'a>,
    pub(super) writes: Permit<'a>,
    /// Whether it is the probe of writes, too.
    pub(super) is_due: bool,
}

impl Probe<'_> {
    /// Says what was found.
    pub(crate) fn settle(self, outcome: &Result<(), Fault>) {
        match outcome {
            Ok(()) => self.found_well(),
            Err(fault) => self.found_ill(fault),
        }
    }

    fn found_well(self) {
        self.node.budget.succeeded();
        self.link.success();
        self.writes.success();
    }

    fn found_ill(self, fault: &Fault) {
        let Self { node, began, link, writes, is_due } = self;
        let blame = fault.kind().class().blame;
        let is_of_writes = match blame {
            Blame::Nobody if began.is_some() => return,
            // What was to be proved is not.
            Blame::Nobody => node.link.state() == CircuitState::Closed,
            Blame::Link => false,
            Blame::Writes => true,
            Blame::Setup => !denies_everything(fault),
        };
        let settle = |permit: Permit<'_>| {
            if blame == Blame::Setup { permit.open_for(SETUP_PAUSE) } else { permit.fault() }
        };
        if is_of_writes {
            if blame != Blame::Nobody {
                link.success();
            }
            node.remember(Which::Writes, fault, None);
            settle(writes);
        } else if node.remember(Which::Link, fault, began) {
            settle(link);
            // As long as the link is closed it is the circuit of writes that says when the next probe is due.
            if is_due && node.link.state() == CircuitState::Closed {
                writes.fault();
            }
        }
    }
}
