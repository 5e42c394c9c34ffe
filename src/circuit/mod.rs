//! [`Circuit`]: refuses calls to something that fails, until a probe finds it well again.
//!
//! # What it promises
//! - Of those who come to an open circuit one is the probe, when its interval is over; everybody else is refused at once.
//! - Only what began in the present state counts: a late answer from before the circuit opened does not close it.
//! - A call that was cancelled is neutral, and a probe that was cancelled is given back.
//! - Asking how it stands changes nothing, and every refusal says when to come back.
//! - The last state that a watch hears is the state.
//!
//! # Why not `failsafe` alone
//! It is the engine ([`engine`]), and has neither permits nor generations: half open it lets everybody through, any success closes
//! it, and its intervals are whole seconds of a clock that tests cannot pause. [`rules`] adds these, purely; here are the clock, the
//! lock, and what is told to others.
//!
//! # How a call passes
//! While it is closed without a fault, a permit and its success are a look at one number each ([`Glance`]), with no lock. The
//! epoch of the permit is seen together with the state: where the circuit opens in between, the permit is of the old epoch.
//! Watchers are told, and events written, when the lock is released: they may use the circuit.

mod config;
mod engine;
mod glance;
mod permit;
mod rules;
mod tally;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    borrow::Cow,
    fmt, mem,
    sync::{
        PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release},
        },
    },
    time::{Duration, SystemTime},
};

use tokio::{sync::watch::Sender, time::Instant};

pub use self::{
    config::CircuitConfig,
    permit::{Permit, Rejected},
    watch::CircuitWatch,
};
use self::{
    glance::Glance,
    rules::{Outcome, Role, Rules},
    tally::Tally,
};
use crate::{
    CircuitState, CircuitStats,
    meter::Counter,
    sync::{Mutex, MutexGuard},
};

/// A circuit breaker: refuses calls to something that fails, until a probe finds it well again.
///
/// After [`faults`](CircuitConfig::faults) in a row it is open, and refuses. When its interval is over, one call is let through as the
/// probe; its success closes the circuit, its fault opens it for longer. Put it into an `Arc` to share it.
///
/// # Examples
/// A service guards its ledger:
/// ```
/// use spool_lock::{Circuit, CircuitConfig, CircuitState};
/// use std::{io, time::Duration};
/// use tokio::time::{error::Elapsed, timeout};
///
/// # async fn ledger_write() -> io::Result<()> { Err(io::ErrorKind::ConnectionRefused.into()) }
/// async fn write(ledger: &Circuit) -> Result<(), Box<dyn std::error::Error>> {
///     let permit = ledger.permit()?;
///     // The time limit is around the call alone: an answer that never comes is a fault.
///     match timeout(Duration::from_secs(1), ledger_write()).await {
///         Ok(Ok(())) => permit.success(),
///         // What the ledger refuses it has understood: it is well.
///         Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
///             permit.success();
///             return Err(error.into());
///         }
///         Ok(Err(error)) => {
///             permit.fault();
///             return Err(error.into());
///         }
///         Err(elapsed) => {
///             permit.fault();
///             return Err(elapsed.into());
///         }
///     }
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let ledger = Circuit::new("ledger", CircuitConfig::default());
/// for _ in 0..3 {
///     write(&ledger).await.unwrap_err();
/// }
/// assert_eq!(ledger.state(), CircuitState::Open);
/// let rejected = ledger.permit().unwrap_err();
/// assert!(rejected.retry_after <= Duration::from_millis(250), "{rejected}");
/// # }
/// ```
pub struct Circuit {
    name: Cow<'static, str>,
    /// The [`Glance`]; written under the lock of `inside`.
    glance: AtomicU64,
    inside: Mutex<Inside>,
    rejected: Counter,
    watchers: Sender<CircuitState>,
}

struct Inside {
    rules: Rules,
    tally: Tally,
}

impl Circuit {
    /// A closed circuit. The name stands in its events.
    pub fn new(name: impl Into<Cow<'static, str>>, config: CircuitConfig) -> Self {
        let rules = Rules::new(config);
        Self {
            name: name.into(),
            glance: AtomicU64::new(rules.glance().to_bits()),
            inside: Mutex::new(Inside { rules, tally: Tally::default() }),
            rejected: Counter::default(),
            watchers: Sender::new(CircuitState::Closed),
        }
    }

    /// The name that it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets a call through; after the interval of an open circuit the first one that asks is its probe, and there is no other until
    /// it is settled.
    ///
    /// # Errors
    /// [`Rejected`] — the circuit is open, or half open: do not call, and ask again after `retry_after`.
    pub fn permit(&self) -> Result<Permit<'_>, Rejected> {
        self.admit(|rules, now| match rules.probe(now) {
            Some(epoch) => Ok((Role::Prober, epoch)),
            None => rules.admit(now).map(|epoch| (Role::Caller, epoch)),
        })
    }

    /// Lets a call through a closed circuit, and never as the probe: for whoever probes in the background.
    pub(crate) fn permit_closed(&self) -> Result<Permit<'_>, Rejected> {
        self.admit(|rules, now| rules.admit(now).map(|epoch| (Role::Caller, epoch)))
    }

    /// The probe, if it is due and none is under way.
    pub(crate) fn probe(&self) -> Option<Permit<'_>> {
        self.change(Rules::probe).map(|epoch| Permit::new(self, Role::Prober, epoch))
    }

    /// Lets a call through whatever the state. While the circuit is closed it is like any other; otherwise its fault changes nothing,
    /// and its success closes the circuit, if it began after the circuit opened.
    pub(crate) fn witness(&self) -> Permit<'_> {
        Permit::new(self, Role::Witness, self.glance().epoch)
    }

    /// When the next probe is due: while the circuit is open, unless it is forced.
    pub(crate) fn probe_at(&self) -> Option<Instant> {
        self.lock().rules.probe_at()
    }

    /// How it stands: [`HalfOpen`](CircuitState::HalfOpen) while a probe is under way. An open circuit stays open after its interval,
    /// until somebody probes.
    pub fn state(&self) -> CircuitState {
        self.glance().state
    }

    /// How often the state has changed.
    pub(crate) fn epoch(&self) -> u64 {
        self.glance().epoch
    }

    /// Whether it was opened or closed by hand, and stays so until it is [`reset`](Self::reset).
    pub fn is_forced(&self) -> bool {
        self.glance().is_forced
    }

    /// When it is worth asking again, as a [`Rejected`] would say it; zero while it is closed.
    pub fn retry_after(&self) -> Duration {
        self.lock().rules.retry_after(Instant::now())
    }

    /// Opens it by hand: every call is refused, nothing is probed, and what calls under way report is ignored, until it is
    /// [`reset`](Self::reset) or [forced closed](Self::force_closed).
    pub fn force_open(&self) {
        self.change(|rules, _| rules.force(CircuitState::Open));
    }

    /// Closes it by hand: every call passes and what it reports is ignored, until it is [`reset`](Self::reset) or
    /// [forced open](Self::force_open).
    pub fn force_closed(&self) {
        self.change(|rules, _| rules.force(CircuitState::Closed));
    }

    /// Closes it and lets it do its work: not forced, no run of faults, the interval back at its first. What calls under way report is
    /// ignored. The [numbers](Self::stats) stay.
    pub fn reset(&self) {
        self.change(|rules, _| rules.reset());
    }

    /// Hears how it stands from now on.
    pub fn watch(&self) -> CircuitWatch {
        CircuitWatch::new(self.watchers.subscribe())
    }

    /// What it has been through, since it was made.
    pub fn stats(&self) -> CircuitStats {
        let Inside { rules, tally } = &*self.lock();
        tally.read(rules.glance(), self.rejected.get(), Instant::now())
    }

    fn admit(
        &self,
        ask: impl FnOnce(&mut Rules, Instant) -> Result<(Role, u64), Rejected>,
    ) -> Result<Permit<'_>, Rejected> {
        let glance = self.glance();
        if glance.state == CircuitState::Closed {
            return Ok(Permit::new(self, Role::Caller, glance.epoch));
        }
        match self.change(ask) {
            Ok((role, epoch)) => Ok(Permit::new(self, role, epoch)),
            Err(rejected) => {
                self.rejected.add_one();
                Err(rejected)
            }
        }
    }

    /// Hears how a call went.
    fn settle(&self, role: Role, epoch: u64, outcome: Outcome) {
        if outcome == Outcome::Success && self.glance().is_calm {
            return;
        }
        self.change(|rules, now| rules.settle(role, epoch, outcome, now));
    }

    fn glance(&self) -> Glance {
        Glance::from_bits(self.glance.load(Acquire))
    }

    /// Does something by the rules, and tells of what it changed.
    fn change<T>(&self, act: impl FnOnce(&mut Rules, Instant) -> T) -> T {
        let mut inside = self.lock();
        let Inside { rules, tally } = &mut *inside;
        // Read while nobody else can change anything: a task that was stopped before it would bring back what is over.
        let now = Instant::now();
        let before = rules.glance();
        let answer = act(rules, now);
        let after = rules.glance();
        self.glance.store(after.to_bits(), Release);
        if before.state != after.state {
            tally.changed(after.state, now, SystemTime::now());
        }
        let retry_after = rules.retry_after(now);
        drop(inside);
        if (before.state, before.is_forced) != (after.state, after.is_forced) {
            self.tell(before, after, retry_after);
        }
        answer
    }

    fn tell(&self, before: Glance, after: Glance, retry_after: Duration) {
        // Not `after`: whoever comes here last tells how it stands, whoever changed it last.
        self.watchers.send_if_modified(|told| {
            let state = self.state();
            mem::replace(told, state) != state
        });
        let (circuit, from, to) = (self.name(), before.state.as_str(), after.state.as_str());
        let forced = after.is_forced;
        if after.state == CircuitState::Open {
            tracing::warn!(circuit, from, to, forced, ?retry_after, "a circuit is open");
        } else {
            tracing::info!(circuit, from, to, forced, ?retry_after, "a circuit has changed");
        }
    }

    /// Held for a few lines, and never while anything is called.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuit")
            .field("name", &self.name)
            .field("glance", &self.glance())
            .finish_non_exhaustive()
    }
}
