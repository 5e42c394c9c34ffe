//! [`Recovery`]: what the process did when the server was back, and whether Redis then had what the ledger names.

use std::{
    fmt::{self, Display},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use spool_lock::{
    Event, Lease, ReadError, RecoveryPhase, RecoveryStats, Settlement, Source, SpoolLocks, Watch,
};

use crate::{ledger::Ledger, outage::Outage, say, total::Told};

/// The recovery of a run, which is told as it comes.
pub(crate) struct Recovery {
    locks: SpoolLocks,
    ledger: Ledger,
    outage: Arc<Outage>,
    findings: Mutex<Findings>,
}

/// What became of the leases of the ledger, as Redis has them after the recovery.
#[derive(Debug, Default, Clone, Copy)]
struct Findings {
    /// They stand under their fences.
    stood: u64,
    missing: u64,
    /// The tag is held under another fence than the ledger has.
    changed: u64,
}

impl Recovery {
    /// A recovery that is yet to come.
    pub(crate) async fn witnessed(
        locks: &SpoolLocks,
        ledger: &Ledger,
        outage: &Arc<Outage>,
    ) -> Result<Arc<Self>, ReadError> {
        let watch = locks.watch().await?;
        let (locks, ledger, outage) = (locks.clone(), ledger.clone(), outage.clone());
        let recovery = Arc::new(Self { locks, ledger, outage, findings: Mutex::default() });
        let witness = recovery.clone();
        tokio::spawn(async move { witness.listen(watch).await });
        Ok(recovery)
    }

    async fn listen(&self, mut watch: Watch) -> io::Result<()> {
        while let Some(event) = watch.next().await {
            // A process that has just connected goes through the phases, too.
            if !self.outage.has_begun() {
                continue;
            }
            match *event {
                Event::Settled { .. } => self.outage.settled(),
                Event::ServerRestarted { .. } => say("        recovery: another run of redis answers")?,
                Event::DataLost { .. } => say("        recovery: redis has lost its data")?,
                Event::Recovered { phase, done, left, took, .. } => {
                    say(format_args!(
                        "        recovery: {} ({})",
                        Gone { phase, done, left },
                        Told(Some(took))
                    ))?;
                    if phase == RecoveryPhase::Restore {
                        self.compare().await;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Looks in Redis for the leases that the ledger names before the look and after it: they were to stand all the while.
    async fn compare(&self) {
        let before = self.ledger.open();
        let list = self.locks.list().await.ok();
        let Some(list) = list.filter(|list| list.source == Source::Live) else { return };
        let after = self.ledger.open();
        let mut findings = self.findings();
        let stood_all_the_while =
            |lease: &&Lease| after.get(&lease.tag).is_some_and(|open| open.fence == lease.fence);
        for lease in before.values().filter(stood_all_the_while) {
            match list.value.iter().find(|occupant| occupant.tag == lease.tag) {
                Some(found) if found.fence == lease.fence && found.holder == lease.holder => {
                    findings.stood += 1
                }
                Some(_) => findings.changed += 1,
                None => findings.missing += 1,
            }
        }
    }

    /// Says what became of the releases that could not be sent, and of what Redis has lost.
    pub(crate) fn sum_up(&self) -> io::Result<()> {
        let stats = self.locks.stats().recovery;
        let [applied, ended] = settled(&stats);
        say(format_args!(
            "         {} releases were deferred, {} of them are settled ({applied} applied, {ended} ended), the last {} after redis was back",
            stats.deferred_total,
            applied + ended,
            Told(self.outage.settled_after()),
        ))?;
        if stats.data_losses_total > 0 {
            let Findings { stood, missing, changed } = *self.findings();
            say(format_args!(
                "restart: redis had lost its data, {} leases were put back; of those in the ledger {stood} were found under their \
                 fences, {changed} under others, {missing} were missing",
                restored(&stats),
            ))?;
        }
        Ok(())
    }

    /// What did not go as it should; `is_emptied`: the server was to come back without its data.
    pub(crate) fn complaint(&self, is_emptied: bool) -> Option<&'static str> {
        let (stats, findings) = (self.locks.stats().recovery, *self.findings());
        let [applied, ended] = settled(&stats);
        let (was_emptied, has_lost_data) =
            (is_emptied && self.outage.has_begun(), stats.data_losses_total > 0);
        let complaints = [
            (stats.deferred_refused_total > 0, "releases were neither sent nor kept for later"),
            (applied + ended < stats.deferred_total, "deferred releases are not settled"),
            (has_lost_data && !was_emptied, "redis has lost its data"),
            (was_emptied && !has_lost_data, "redis has not lost its data"),
            (ended > 0 && !was_emptied, "leases had ended before their deferred release"),
            (was_emptied && restored(&stats) == 0, "no lease was put back"),
            (findings.changed > 0, "leases were put back under other fences"),
            (findings.missing > 0, "leases of the ledger are missing after the recovery"),
        ];
        complaints.into_iter().find_map(|(is_so, complaint)| is_so.then_some(complaint))
    }

    fn findings(&self) -> MutexGuard<'_, Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many deferred releases were applied, and how many had nothing to be applied to.
fn settled(stats: &RecoveryStats) -> [u64; 2] {
    Settlement::ALL.map(|settlement| stats.settled_total.get(settlement.as_str()).copied().unwrap_or(0))
}

fn restored(stats: &RecoveryStats) -> u64 {
    stats.restored_total.get("restored").copied().unwrap_or(0)
}

/// What a phase has done, and what it has not.
struct Gone {
    phase: RecoveryPhase,
    done: u64,
    left: u64,
}

impl Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { phase, done, left } = self;
        write!(f, "{}: ", phase.as_str())?;
        match phase {
            RecoveryPhase::Verify => write!(f, "{done} leases stand, {left} do not"),
            RecoveryPhase::Deferred => write!(f, "{done} releases are settled, {left} wait on"),
            RecoveryPhase::Restore => write!(f, "{done} leases were put back, {left} refused"),
            RecoveryPhase::Admit => f.write_str("acquires come in as before"),
        }
    }
}
