use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::lost_to;
use crate::{
    Event, Fault, FaultKind, LostReason,
    held::Held,
    inner::Inner,
    node::Purpose,
    store::{NotYours, Store as _},
};

/// How long a loser waits for the reason.
const SOON: Duration = Duration::from_millis(250);

/// How long a look at the server may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Finds out which run of the server answers, and whether it still has our witness.
pub(crate) async fn look_at_server(inner: &Inner) -> Result<(), Fault> {
    let asked = Instant::now();
    let run = answered(ask(inner, Purpose::Read, |until| inner.store.run(until)).await, None)?;
    let is_there = is_witness_there(inner).await?;
    saw(inner, run, is_there, asked);
    Ok(())
}

/// Finds out whether the server still has its data: our witness, which is left there from the first time on.
pub(crate) async fn look_for_witness(inner: &Inner) -> Result<(), Fault> {
    let asked = Instant::now();
    let is_there = is_witness_there(inner).await?;
    saw(inner, None, is_there, asked);
    if inner.server.needs_witness(Instant::now()) {
        // A server that takes no writes has none left there, and is well otherwise.
        ask(inner, Purpose::Acquire, |until| inner.store.leave_witness(until)).await?;
        inner.server.left_witness(Instant::now());
    }
    Ok(())
}

async fn is_witness_there(inner: &Inner) -> Result<bool, Fault> {
    if !inner.server.has_witness() {
        return Ok(true);
    }
    answered(ask(inner, Purpose::Read, |until| inner.store.has_witness(until)).await, true)
}

/// What was answered, or `unknown` where the server does not answer such a question: nobody is to wait for that.
fn answered<T>(outcome: Result<T, Fault>, unknown: T) -> Result<T, Fault> {
    outcome.or_else(|fault| match fault.kind() {
        FaultKind::Permission | FaultKind::NotALock | FaultKind::Other | FaultKind::Protocol => Ok(unknown),
        _ => Err(fault),
    })
}

/// Asks on nobody's behalf: it counts for the circuits and not as an operation.
async fn ask<T, Asked>(
    inner: &Inner,
    purpose: Purpose,
    call: impl FnOnce(Instant) -> Asked,
) -> Result<T, Fault>
where
    Asked: Future<Output = Result<T, Fault>>,
{
    let now = Instant::now();
    let ticket = inner.node.admit(purpose, now)?;
    // Half of the time that a call has is for its first try.
    let outcome = call(now + 2 * PATIENCE).await;
    // That it is there proves nothing: it may answer this and hold back what the others wait for (`CLIENT PAUSE`).
    if outcome.is_err() {
        ticket.settle(&outcome);
    }
    outcome
}

fn saw(inner: &Inner, run: Option<String>, is_witness_there: bool, asked: Instant) {
    let found = inner.server.saw(run, is_witness_there, asked, Instant::now());
    let at = inner.server_now();
    if found.is_restarted {
        tracing::warn!("another run of redis answers than before");
        inner.recovery.restarts.add_one();
        inner.hearing.tell(Event::ServerRestarted { at });
    }
    if found.is_empty {
        tracing::error!("redis has lost its data, locks among them");
        inner.recovery.data_losses.add_one();
        inner.hearing.tell(Event::DataLost { at });
    }
    if found.is_doubtful() {
        // Whoever asks from now on waits until that is seen to.
        inner.admission.shut();
        inner.admission.bell().notify_one();
    }
}

/// How a guard has lost its lock, of which the store says this: with the data of the server, or otherwise.
pub(super) async fn guard_lost_to(inner: &Inner, held: &Held, not: &NotYours) -> LostReason {
    let Some(confirmed) = held.confirmed() else { return LostReason::Deadline };
    if not.forgets(held.lease().fence) {
        return LostReason::Restarted;
    }
    how_lost(inner, confirmed, lost_to(not, &held.lease().holder)).await
}

/// How a lease was lost that was seen last at `seen`: with the data of the server, or as `otherwise` says.
pub(crate) async fn how_lost(inner: &Inner, seen: Instant, otherwise: LostReason) -> LostReason {
    if !inner.server.is_doubtful_since(seen) {
        // Where it cannot be asked soon, what it said counts: whoever has lost it is to know.
        let _ = timeout(SOON, look_at_server(inner)).await;
    }
    if inner.server.is_doubtful_since(seen) { LostReason::Restarted } else { otherwise }
}

/// Finds out whether the server has lost anything, and waits until it is put back.
pub(super) async fn look_and_wait(inner: &Inner) -> Result<(), Fault> {
    look_at_server(inner).await?;
    wait_until_seen_to(inner).await
}

/// Waits until what this process holds is seen to: until then nobody is told that something has ended which is about to be put back.
pub(crate) async fn wait_until_seen_to(inner: &Inner) -> Result<(), Fault> {
    let Inner { node, store, admission, config, .. } = inner;
    let count = || node.admit(Purpose::Read, Instant::now()).map(|_| store.breaks());
    let waits = timeout(config.deadline, admission.wait_until_seen_to(count));
    waits.await.unwrap_or_else(|_elapsed| Err(node.busy_recovering()))
}
