//! [`Server`]: which run of the server was met last, and when it was found to have lost what it knew.
//!
//! A run has a name of its own, another one after each start. A flush changes no name; so this process leaves a key there that nobody
//! else writes, its *witness*. Once that is gone, so may be everything else.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::store::WITNESS_LASTS;

/// What is known of the data of the server.
#[derive(Debug, Default)]
pub(crate) struct Server {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    run: Option<String>,
    /// When our witness was left there; none where it was not.
    witness: Option<Instant>,
    /// When it was last asked and found to have lost nothing, and when that was before it was last found that data may be gone.
    vouched: Option<Instant>,
    vouched_before: Option<Instant>,
    /// When it was last found that data may be gone, and how often it was.
    doubted: Option<Instant>,
    doubts: u64,
}

/// What a look at the server found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// Another run of it answers than before. It may have its data, or an earlier state of it.
    pub(crate) is_restarted: bool,
    /// Our witness is gone, and with it what else it knew.
    pub(crate) is_empty: bool,
}

impl Found {
    /// Whether what this process holds may be gone.
    pub(crate) fn is_doubtful(self) -> bool {
        self.is_restarted || self.is_empty
    }
}

impl Server {
    /// Of which this run was met first; empty where it does not say.
    pub(crate) fn new(run: String) -> Self {
        let run = Some(run).filter(|run| !run.is_empty());
        Self { known: Mutex::new(Known { run, ..Known::default() }) }
    }

    /// Whether our witness was left there.
    pub(crate) fn has_witness(&self) -> bool {
        self.known().witness.is_some()
    }

    /// Whether our witness was left there so long ago that it is to be left anew.
    pub(crate) fn needs_witness(&self, now: Instant) -> bool {
        self.known().witness.is_none_or(|left| now >= left + WITNESS_LASTS / 2)
    }

    /// Our witness was left there.
    pub(crate) fn left_witness(&self, now: Instant) {
        self.known().witness = Some(now);
    }

    /// A look of `asked` has found this run of the server, where it may be asked, and our witness or not.
    pub(crate) fn saw(
        &self,
        run: Option<String>,
        is_witness_there: bool,
        asked: Instant,
        now: Instant,
    ) -> Found {
        let mut known = self.known();
        let last = known.doubted.max(known.witness);
        if last.is_some_and(|last| asked < last) {
            // It says how things stood before.
            return Found { is_restarted: false, is_empty: false };
        }
        let is_restarted = run.is_some() && known.run.is_some() && run != known.run;
        // One whose time was over in an outage proves nothing.
        let is_empty = !is_witness_there && known.witness.is_some_and(|left| now < left + WITNESS_LASTS);
        if run.is_some() {
            known.run = run;
        }
        let found = Found { is_restarted, is_empty };
        if !is_witness_there {
            known.witness = None;
        }
        if found.is_doubtful() {
            known.doubted = Some(now);
            known.doubts += 1;
            known.vouched_before = known.vouched;
        } else if known.witness.is_some() {
            known.vouched = Some(asked);
        }
        found
    }

    /// Whether data may have gone since then.
    pub(crate) fn is_doubtful_since(&self, then: Instant) -> bool {
        self.known().doubted.is_some_and(|doubted| doubted >= then)
    }

    /// When all that the server knew was certainly there; none where that was never certain.
    pub(crate) fn vouched(&self) -> Option<Instant> {
        self.known().vouched
    }

    /// As [`vouched`](Self::vouched), before it was last found that data may be gone: what went, went since.
    pub(crate) fn vouched_before(&self) -> Option<Instant> {
        self.known().vouched_before
    }

    /// How often it was found that data may be gone.
    pub(crate) fn doubts(&self) -> u64 {
        self.known().doubts
    }

    /// The run that answered last.
    pub(crate) fn run(&self) -> Option<String> {
        self.known().run.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn restart_and_loss_are_told_once_and_remembered() {
        let (server, start) = (Server::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let run = |name: &str| Some(name.to_owned());
        let nothing = Found { is_restarted: false, is_empty: false };
        assert_eq!(server.saw(run("one"), false, at(0), at(0)), nothing, "no witness was left there");
        server.left_witness(start);
        assert_eq!(server.saw(run("one"), true, at(0), at(1)), nothing);
        assert!(!server.is_doubtful_since(start));
        assert_eq!(server.vouched(), Some(start), "since it was asked");

        assert_eq!(server.saw(run("two"), true, at(2), at(2)), Found { is_restarted: true, is_empty: false });
        assert!(server.is_doubtful_since(at(1)) && !server.is_doubtful_since(at(3)));
        assert_eq!(server.saw(None, false, at(4), at(4)), Found { is_restarted: false, is_empty: true });
        assert!(server.is_doubtful_since(at(3)) && !server.has_witness());
        assert_eq!(server.saw(run("two"), false, at(5), at(5)), nothing, "told before");
        assert_eq!((server.run(), server.doubts()), (run("two"), 2));
        assert_eq!(server.vouched(), Some(start), "since then it was never certain");
        server.left_witness(at(6));
        assert_eq!(server.saw(run("two"), true, at(7), at(7)), nothing);
        assert_eq!((server.vouched(), server.vouched_before()), (Some(at(7)), Some(start)));
    }

    #[test]
    fn another_run_than_the_first_is_a_restart() {
        let now = Instant::now();
        let saw = |first: &str| Server::new(first.to_owned()).saw(Some("two".to_owned()), true, now, now);
        assert!(saw("one").is_restarted);
        assert!(!saw("two").is_restarted && !saw("").is_restarted);
    }
}
