//! [`Ticket`]: a call that was let through, and what follows from how it ended.

use tokio::time::Instant;

use super::{Node, Purpose, SETUP_PAUSE, Which, denies_everything};
use crate::{Fault, Permit, fault::Blame};

/// A call that was let through. Dropped, nothing is known of its outcome.
#[derive(Debug)]
#[must_use = "a call that was let through says how it ended"]
pub(crate) struct Ticket<'a> {
    pub(super) node: &'a Node,
    pub(super) purpose: Purpose,
    pub(super) began: Instant,
    pub(super) link: Permit<'a>,
    pub(super) writes: Option<Permit<'a>>,
}

impl Ticket<'_> {
    /// Says how it ended.
    pub(crate) fn settle<T>(self, outcome: &Result<T, Fault>) {
        let Self { node, purpose, began, link, writes } = self;
        let Err(fault) = outcome else {
            link.success();
            node.budget.succeeded();
            // That a release is applied says nothing of acquires: it is allowed where they are not.
            if let Some(writes) = writes.filter(|_| purpose == Purpose::Acquire) {
                writes.success();
            }
            return;
        };
        let blame = fault.blame();
        if blame != Blame::Nobody {
            node.budget.failed();
        }
        match (blame, writes) {
            (Blame::Nobody, _) => {}
            // A read that is refused as a write has no answer either.
            (Blame::Link, _) | (Blame::Writes, None) => {
                if node.remember(Which::Link, fault, Some(began)) {
                    link.fault();
                }
            }
            (Blame::Writes, Some(writes)) => {
                link.success();
                // Each is told, so each counts.
                node.remember(Which::Writes, fault, None);
                writes.fault();
            }
            (Blame::Setup, writes) => match (denies_everything(fault), writes) {
                (true, _) => {
                    node.remember(Which::Link, fault, None);
                    link.open_for(SETUP_PAUSE);
                }
                (false, Some(writes)) => {
                    node.remember(Which::Writes, fault, None);
                    writes.open_for(SETUP_PAUSE);
                }
                // What one kind of read may not do is its own affair.
                (false, None) => {}
            },
        }
    }
}
