//! [`Node`]: how this process stands with its Redis.
//!
//! Two circuits: *link* guards everything, *writes* guards acquires. A read's outcome touches the link alone; a server that
//! refuses writes answers, so its link stays closed. Releases and extends pass an open circuit: an outage of two seconds must not
//! turn into the loss of a lock. But where an operator has to act first nothing passes, because nothing would come of it.
//!
//! What a fault counts against is said by its [`Class`](crate::fault::Class), but for two things. A right that is missing for one
//! command within a script is no reason to stop what does without it. And a connection that breaks takes all its calls with it: a
//! fault of the link counts only for a call that began after the last one that counted, so three faults are three events.

mod degraded;
mod probe;
#[cfg(test)]
mod tests;
mod ticket;
mod watch;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use self::degraded::Degraded;
pub use self::watch::ModeWatch;
pub(crate) use self::{probe::Probe, ticket::Ticket};
use crate::{
    Circuit, CircuitConfig, CircuitState, CircuitWatch, Fault, FaultKind, FaultStats, Mode, RetryConfig,
    fault::{Blame, Refusal},
    meter::Counter,
    retry::Budget,
};

/// How often Redis is tried while nothing will change until an operator acts.
const SETUP_PAUSE: Duration = Duration::from_secs(30);

/// When it is worth asking again where a recovery has taken a whole call's time.
const RECOVERING_PAUSE: Duration = Duration::from_secs(1);

/// What a call is to do, as far as circuits care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Needs the link.
    Read,
    /// Needs the link, and a server that takes writes.
    Acquire,
    /// Extends and releases of those who wait for them: they pass.
    Keep,
    /// Releases on behalf of those who have gone away: they have time.
    Sweep,
}

/// How this process stands with its Redis.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) link: Circuit,
    pub(crate) writes: Circuit,
    pub(crate) retry: RetryConfig,
    pub(crate) budget: Budget,
    /// The last faults that counted, of the link and of writes.
    causes: Mutex<[Option<Cause>; 2]>,
    degraded: Mutex<Degraded>,
    refused_tries: Counter,
}

#[derive(Debug, Clone)]
struct Cause {
    kind: FaultKind,
    said: String,
    at: Instant,
}

/// Which circuit.
#[derive(Debug, Clone, Copy)]
enum Which {
    Link,
    Writes,
}

impl Node {
    pub(crate) fn new(circuit: CircuitConfig, retry: RetryConfig) -> Self {
        Self {
            link: Circuit::new("link", circuit.clone()),
            writes: Circuit::new("writes", circuit),
            retry,
            budget: Budget::full(),
            causes: Mutex::default(),
            degraded: Mutex::default(),
            refused_tries: Counter::default(),
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        mode_of(self.link.state(), self.writes.state())
    }

    /// The mode, by the fault of a call that was just made: it takes more than one to open a circuit.
    pub(crate) fn mode_by(&self, fault: Option<&Fault>) -> Mode {
        let by_fault = match fault.map(|fault| fault.kind().class().blame) {
            None | Some(Blame::Nobody | Blame::Setup) => Mode::Normal,
            Some(Blame::Writes) => Mode::ReadOnlyServer,
            Some(Blame::Link) => Mode::Unreachable,
        };
        self.mode().max(by_fault)
    }

    /// What changes the mode.
    pub(crate) fn watch(&self) -> [CircuitWatch; 2] {
        [self.link.watch(), self.writes.watch()]
    }

    /// Lets a call that began then through, or says why not and for how long.
    pub(crate) fn admit(&self, purpose: Purpose, began: Instant) -> Result<Ticket<'_>, Fault> {
        let link = match purpose {
            Purpose::Keep if !self.is_misconfigured() => self.link.witness(),
            _ => self
                .link
                .permit_closed()
                .map_err(|rejected| self.refusal(Which::Link, rejected.retry_after))?,
        };
        let writes = match purpose {
            Purpose::Read => None,
            Purpose::Acquire => {
                let writes = self.writes.permit_closed();
                Some(writes.map_err(|rejected| self.refusal(Which::Writes, rejected.retry_after))?)
            }
            Purpose::Keep | Purpose::Sweep => Some(self.writes.witness()),
        };
        Ok(Ticket { node: self, purpose, began, link, writes })
    }

    /// Whether a call that has just failed would be let through again.
    pub(crate) fn is_closed_for(&self, purpose: Purpose) -> bool {
        self.link.state() == CircuitState::Closed
            && (purpose != Purpose::Acquire || self.writes.state() == CircuitState::Closed)
    }

    /// The one call in the background that finds out whether an open circuit may be closed; none where it is not time yet.
    pub(crate) fn probe(&self) -> Option<Probe<'_>> {
        let link = match self.link.state() {
            CircuitState::Closed => None,
            _ => Some(self.link.probe()?),
        };
        // Made now, where it is not time yet for this one: what opens meanwhile is not closed by what was asked before.
        let (writes, is_due) = match self.writes.probe() {
            Some(writes) => (writes, true),
            None if link.is_some() => (self.writes.witness(), false),
            None => return None,
        };
        let link = link.unwrap_or_else(|| self.link.witness());
        Some(Probe { node: self, began: None, link, writes, is_due })
    }

    /// As a probe, on behalf of somebody who wants to know now: also where it is not time yet, and while the circuits are closed.
    pub(crate) fn check(&self, now: Instant) -> Probe<'_> {
        let (link, writes) = (self.link.witness(), self.writes.witness());
        Probe { node: self, began: Some(now), link, writes, is_due: false }
    }

    /// When there is something to probe.
    pub(crate) fn probe_at(&self) -> Option<Instant> {
        match self.link.state() {
            CircuitState::Closed => self.writes.probe_at(),
            _ => self.link.probe_at(),
        }
    }

    /// Whether the process can afford to send a call again.
    pub(crate) fn may_try_again(&self) -> bool {
        let may = self.budget.allows();
        if !may {
            self.refused_tries.add_one();
        }
        may
    }

    /// A read was answered from what was last known at `at`.
    pub(crate) fn answered_from(&self, at: Instant) {
        self.degraded().answered_from(at);
    }

    /// Takes note of the mode, which may have changed.
    pub(crate) fn note_mode(&self, now: Instant) {
        let is_degraded = self.mode().is_degraded();
        self.degraded().note(is_degraded, now);
    }

    /// The numbers of faults; the reads by answer are counted elsewhere.
    pub(crate) fn read(&self, degraded_reads_total: BTreeMap<String, u64>) -> FaultStats {
        let now = Instant::now();
        let ago = |at: Instant| SystemTime::now().checked_sub(now.saturating_duration_since(at));
        let circuits = [&self.link, &self.writes];
        let degraded = self.degraded();
        FaultStats {
            mode: self.mode(),
            circuits: circuits.map(|circuit| (circuit.name().to_owned(), circuit.stats())).into(),
            retry_budget_ratio: self.budget.ratio(),
            retries_refused_total: self.refused_tries.get(),
            degraded_entered_total: degraded.entered,
            degraded_seconds_total: degraded.lasted(now).as_secs_f64(),
            degraded_reads_total,
            snapshot_seen_at: degraded.oldest_read.and_then(ago),
        }
    }

    fn degraded(&self) -> MutexGuard<'_, Degraded> {
        self.degraded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why Redis is not asked, where it is not.
    pub(crate) fn standing(&self) -> Result<(), Fault> {
        for which in [Which::Link, Which::Writes] {
            let circuit = self.circuit(which);
            if circuit.state() != CircuitState::Closed {
                return Err(self.refusal(which, circuit.retry_after()));
            }
        }
        Ok(())
    }

    /// Why nothing was acquired although Redis is there: it was not the turn of acquires yet.
    pub(crate) fn busy_recovering(&self) -> Fault {
        let refusal = Refusal { mode: self.mode(), retry_after: RECOVERING_PAUSE, cause: None };
        Fault::refused(refusal, "redis was away, and what this process holds is seen to first")
    }

    /// The same fault, for one more who waits for what it refused.
    pub(crate) fn again(&self, fault: &Fault) -> Fault {
        let refused = || self.standing().err().filter(|_| fault.kind() == FaultKind::CircuitOpen);
        refused().unwrap_or_else(|| fault.kind().into())
    }

    /// Whether nothing would come of asking: a circuit was opened by hand, or an operator has to act first.
    pub(crate) fn is_held_open(&self) -> bool {
        (self.link.is_forced() && self.link.state() == CircuitState::Open) || self.is_misconfigured()
    }

    /// Whether an operator has to act before anything can be asked.
    pub(crate) fn is_misconfigured(&self) -> bool {
        self.link.state() != CircuitState::Closed
            && !self.link.is_forced()
            && self.cause(Which::Link).is_some_and(|cause| cause.kind.class().blame == Blame::Setup)
    }

    fn refusal(&self, which: Which, retry_after: Duration) -> Fault {
        let mode = match which {
            Which::Link => Mode::Unreachable,
            Which::Writes => Mode::ReadOnlyServer,
        };
        let cause = self.cause(which).filter(|_| !self.circuit(which).is_forced());
        let refusal = Refusal { mode, retry_after, cause: cause.as_ref().map(|cause| cause.kind) };
        match cause {
            Some(Cause { kind, said, .. }) if said.is_empty() => Fault::refused(refusal, Fault::from(kind)),
            Some(Cause { kind, said, .. }) => Fault::refused(refusal, Fault::new(kind, said)),
            None => Fault::refused(refusal, "the circuit was opened by hand"),
        }
    }

    fn circuit(&self, which: Which) -> &Circuit {
        match which {
            Which::Link => &self.link,
            Which::Writes => &self.writes,
        }
    }

    fn cause(&self, which: Which) -> Option<Cause> {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner)[which as usize].clone()
    }

    /// Remembers why, and says whether it counts. It does not where the call began before the last fault that did: that one was told
    /// of all that it took with it. Nor where it comes late and would hide that an operator has to act.
    fn remember(&self, which: Which, fault: &Fault, began: Option<Instant>) -> bool {
        let cause = Cause { kind: fault.kind(), said: fault.said(), at: Instant::now() };
        let circuit = self.circuit(which);
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut causes[which as usize];
        if let (Some(known), Some(began)) = (&known, began) {
            let hides = known.kind.class().blame == Blame::Setup && circuit.state() != CircuitState::Closed;
            if known.at > began || hides {
                return false;
            }
        }
        *known = Some(cause);
        true
    }
}

/// The mode, by the states of link and writes.
fn mode_of(link: CircuitState, writes: CircuitState) -> Mode {
    match (link, writes) {
        (CircuitState::Closed, CircuitState::Closed) => Mode::Normal,
        (CircuitState::Closed, _) => Mode::ReadOnlyServer,
        _ => Mode::Unreachable,
    }
}

/// Whether a fault of the set-up stops every call, and not just those with a certain command in their script.
fn denies_everything(fault: &Fault) -> bool {
    // The words of the server for a right that a script lacks, and of our probe.
    const PARTIAL: [&str; 2] = ["executing the script", "may not run"];
    let said = fault.said();
    fault.kind() != FaultKind::Permission || !PARTIAL.iter().any(|words| said.contains(words))
}
