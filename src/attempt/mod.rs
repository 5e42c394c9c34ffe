//! The corridor: how each operation goes from the front door to the store and back.
//!
//! Every operation has the same parts, one straight function each: deadline → try again { circuits → store } → count → answer.
//! This is the only place that knows all rooms; the rooms do not know each other.

mod acquire;
mod acquire_all;
mod deferred;
mod extend;
mod probe;
mod read;
mod release;
mod restore;
mod server;

pub(crate) use self::{
    acquire::{acquire, find, leave, queue},
    acquire_all::acquire_all,
    deferred::{apply, is_everybodys, settled},
    extend::{extend, renew, shorten},
    probe::{feed, health, ping, probe},
    read::{history, inspect, list, look, look_at_all, look_at_as_many, walk},
    release::{force_release, release, release_guard, sweep},
    restore::{restore, restore_guard, take_back},
    server::{how_lost, look_at_server, look_for_witness, wait_until_seen_to},
};

use std::{
    pin::{Pin, pin},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    Fault, FaultKind, Fence, Holder, LeaseKind, LostReason, Tag,
    admission::{TooLate, Turn},
    held::Over,
    inner::Inner,
    meter::Operation,
    node::Purpose,
    store::{NotYours, Store as _, Whose},
};

/// No call needs longer, and a deadline that far away can be counted.
const LONGEST: Duration = Duration::from_secs(3600);

/// How long a call may take: what it says itself, or the config.
fn patience(inner: &Inner, deadline: Option<Duration>) -> Duration {
    deadline.unwrap_or(inner.config.deadline).min(LONGEST)
}

/// One call of an operation: when it began and when it must be over.
struct Call<'a> {
    inner: &'a Inner,
    operation: Operation,
    purpose: Purpose,
    started: Instant,
    /// When its last try began.
    asked: Instant,
    deadline: Instant,
    /// Whether a try of this call may still be carried out of which nobody heard.
    is_unsure: bool,
}

impl<'a> Call<'a> {
    fn start(inner: &'a Inner, operation: Operation, deadline: Option<Duration>) -> Self {
        let purpose = match operation {
            Operation::Acquire => Purpose::Acquire,
            Operation::Read => Purpose::Read,
            Operation::Extend | Operation::Release => Purpose::Keep,
        };
        let started = Instant::now();
        let deadline = started + patience(inner, deadline);
        Self { inner, operation, purpose, started, asked: started, deadline, is_unsure: false }
    }

    /// Of a release on behalf of somebody who has gone away.
    fn sweep(inner: &'a Inner) -> Self {
        Self { purpose: Purpose::Sweep, ..Self::start(inner, Operation::Release, None) }
    }

    /// Asks once, if the circuits let it, and counts the outcome.
    async fn once<T>(&mut self, ask: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let outcome = self.try_once(self.started, pin!(ask)).await;
        self.count(outcome)
    }

    /// Asks until there is an answer, or no sense in asking again, and counts the outcome. What is asked must be safe to repeat; `ask`
    /// is told whether it is a repeat.
    ///
    /// The fault that is told is the last one of which it is not known what Redis did, or else the last.
    async fn run<T, Asked>(&mut self, ask: impl Fn(bool) -> Asked) -> Result<T, Fault>
    where
        Asked: Future<Output = Result<T, Fault>>,
    {
        let first = self.try_once(self.started, pin!(ask(false))).await;
        let outcome = match first {
            // In a box: a call that is answered need not have room for it.
            Err(fault) => Box::pin(self.run_again(fault, ask)).await,
            answer => answer,
        };
        self.count(outcome)
    }

    async fn run_again<T, Asked>(&mut self, fault: Fault, ask: impl Fn(bool) -> Asked) -> Result<T, Fault>
    where
        Asked: Future<Output = Result<T, Fault>>,
    {
        let Inner { node, meter, .. } = self.inner;
        let mut pauses = node.retry.delays.delays().take(node.retry.attempts.saturating_sub(1) as usize);
        let (mut last, mut told) = (fault.kind(), fault);
        while last.class().is_retried {
            let pause = pauses.next().filter(|pause| Instant::now() + *pause < self.deadline);
            let Some(pause) = pause.filter(|_| node.is_closed_for(self.purpose) && node.may_try_again())
            else {
                meter.exhausted(self.operation);
                break;
            };
            sleep(pause).await;
            meter.tried_again(self.operation);
            let fault = match self.try_once(Instant::now(), pin!(ask(true))).await {
                Err(fault) => fault,
                answer => return answer,
            };
            last = fault.kind();
            let tells_more = last.is_ambiguous() || (!self.is_unsure && last != FaultKind::CircuitOpen);
            if tells_more {
                told = fault;
            }
        }
        Err(told)
    }

    /// By reference: a future that is handed on by value has its room twice in the call.
    async fn try_once<T>(
        &mut self,
        began: Instant,
        ask: Pin<&mut impl Future<Output = Result<T, Fault>>>,
    ) -> Result<T, Fault> {
        let is_open = self.purpose != Purpose::Acquire || self.inner.is_open();
        // Whoever has to wait for his turn has not asked yet.
        let (turn, began) = if is_open { (None, began) } else { (self.turn().await?, Instant::now()) };
        self.asked = began;
        let ticket = self.inner.node.admit(self.purpose, began)?;
        let outcome = ask.await;
        ticket.settle(&outcome);
        if let Some(turn) = turn.filter(|_| outcome.is_ok()) {
            turn.answered();
        }
        self.is_unsure |= matches!(&outcome, Err(fault) if fault.kind().is_ambiguous());
        outcome
    }

    /// Acquires wait until what this process holds is seen to.
    async fn turn(&self) -> Result<Option<Turn<'a>>, Fault> {
        let Inner { node, store, admission, .. } = self.inner;
        let count = || node.admit(self.purpose, Instant::now()).map(|_| store.breaks());
        // In a box: a call that passes need not have room for it.
        match Box::pin(admission.turn(count, self.deadline)).await {
            Ok(turn) => turn,
            Err(TooLate) => Err(node.busy_recovering()),
        }
    }

    /// Counts the outcome and hands it on.
    fn count<T>(&self, outcome: Result<T, Fault>) -> Result<T, Fault> {
        let fault = outcome.as_ref().err().map(Fault::kind);
        self.inner.meter.finished(self.operation, self.started.elapsed(), fault);
        outcome
    }
}

/// How a holder has lost the lease of which the store says this.
fn lost_to(not: &NotYours, holder: &Holder) -> LostReason {
    match not {
        NotYours::Occupied(occupant) if occupant.holder != *holder => LostReason::Stolen,
        // Its holder has another one by now, for which this one had to end first.
        NotYours::Occupied(_) | NotYours::Free { .. } => LostReason::Expired,
    }
}

impl Inner {
    /// Counts what it means for a holder that the lease it named does not stand. Who names no fence claims no lease in
    /// particular and may never have had one: to release what is not held is a mistake of its caller, not a loss.
    fn refused(&self, operation: Operation, whose: &Whose<'_>, not: &NotYours, asked: Instant) {
        self.known.refused(whose.tag, not, asked);
        let Some(fence) = whose.fence else { return };
        if matches!(not, NotYours::Occupied(_)) {
            self.meter.fencing_rejections.add_one();
        }
        let is_loss = match not {
            // Its guard finds out, and whoever else names its lease has not lost it.
            _ if whose.kind == LeaseKind::Guard => false,
            // A release comes too late also when it comes twice; who extends is at work.
            NotYours::Free { .. } => operation == Operation::Extend,
            NotYours::Occupied(occupant) => occupant.holder != *whose.holder,
        };
        if is_loss {
            self.had_ended(whose.tag, fence, lost_to(not, whose.holder));
        }
    }

    /// A call found that a lease had ended. The hub may have noticed it first: a lease is lost once. Nobody else is told of one that
    /// was given back.
    fn had_ended(&self, tag: &Tag, fence: Fence, reason: LostReason) {
        if let None | Some(Err(Over::GivenBack)) = self.lose(tag, fence, reason) {
            self.known.had_ended(tag, fence, reason);
            self.meter.lost(reason);
        }
    }
}
