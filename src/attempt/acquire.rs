use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Call, patience};
use crate::{
    AcquireError, Fault, FaultKind, Lease, Occupant, Tag, Token,
    abandoned::Abandoned,
    grant::Grant,
    inner::{Inner, Sight, Told},
    meter::Operation,
    node::Purpose,
    store::{Acquired, Ask, Queued, Store as _},
};

/// Nobody waits longer, and a moment that far away can be counted.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Asks for the lock, and waits in line where somebody else has it.
///
/// `is_named`: the caller has chosen the token. Such a call may have been granted the lock by an earlier try; dropped, it is not
/// cleared up, because its caller can repeat it; nor do the limits count it, which have counted the earlier try.
pub(crate) async fn acquire(
    inner: &Inner,
    mut ask: Ask,
    is_named: bool,
    wait: Duration,
    deadline: Option<Duration>,
) -> Result<Grant, AcquireError> {
    let now = Instant::now();
    #[cfg(feature = "rate-limit")]
    if !is_named {
        inner
            .limits
            .check(&ask.tag, &ask.holder, now)
            .inspect_err(|limited| inner.meter.limited(limited.by))?;
    }
    if inner.backlog.has_of(&ask.tag, &ask.holder) {
        Box::pin(let_go_first(inner, &ask, now, now + patience(inner, deadline))).await?;
    }
    let until = now + wait.min(LONGEST_WAIT);
    let lines = &inner.lines;
    // Whoever waits comes first: to look would be to come before them. But nobody waits for a lease of his own.
    let mut sight = lines.sight(&ask.tag);
    let is_own = is_named || sight.as_ref().is_some_and(|sight| sight.is_of(&ask));
    if wait.is_zero() || is_own || !lines.is_open(&ask.tag) {
        let mut answer = ask_once(inner, &ask, is_named, deadline).await;
        if matches!(answer, Err(AcquireError::Warming { .. })) {
            // In a box: whoever is granted it at once need not have room for it.
            answer = Box::pin(ask_when_warm(inner, &mut ask, is_named, answer, until, deadline)).await;
        }
        match answer {
            Err(AcquireError::Contended { occupant, expires_in }) if Instant::now() < until => {
                sight = Some(Sight::new(*occupant, expires_in));
                renew_token(&mut ask, is_named);
            }
            // Nothing was sent, and there is time: whoever waits in line takes no place in the pool.
            Err(AcquireError::Saturated) if Instant::now() < until => {}
            answer => return answer,
        }
    } else {
        // They had come before.
        inner.node.admit(Purpose::Acquire, now).map(drop).inspect_err(|refused| {
            inner.meter.finished(Operation::Acquire, Duration::ZERO, Some(refused.kind()));
        })?;
    }
    wait_in_line(inner, Arc::new(ask), is_named, sight, until, deadline).await
}

/// What a lost try is granted under the old token is released, and must not be taken for what is waited for.
fn renew_token(ask: &mut Ask, is_named: bool) {
    if !is_named {
        ask.token = Token::random();
    }
}

/// Asks again as long as the `answer` is that the server has just started, when it says and at `until` for the last time.
async fn ask_when_warm(
    inner: &Inner,
    ask: &mut Ask,
    is_named: bool,
    mut answer: Result<Grant, AcquireError>,
    until: Instant,
    deadline: Option<Duration>,
) -> Result<Grant, AcquireError> {
    while let Err(AcquireError::Warming { retry_after }) = answer
        && Instant::now() < until
    {
        sleep_until(until.min(Instant::now() + retry_after)).await;
        renew_token(ask, is_named);
        answer = ask_once(inner, ask, is_named, deadline).await;
    }
    answer
}

/// Waits until what this holder has given back is applied: it would take what is granted now with it.
async fn let_go_first(inner: &Inner, ask: &Ask, now: Instant, deadline: Instant) -> Result<(), Fault> {
    inner.node.admit(Purpose::Acquire, now).map(drop)?;
    let let_go = inner.backlog.wait_until_none_of(&ask.tag, &ask.holder);
    timeout_at(deadline, let_go).await.map_err(|_elapsed| inner.node.busy_recovering())
}

/// Asks who has it, and to be granted it.
async fn ask_once(
    inner: &Inner,
    ask: &Ask,
    is_named: bool,
    deadline: Option<Duration>,
) -> Result<Grant, AcquireError> {
    let mut call = Call::start(inner, Operation::Acquire, deadline);
    let asked = call.started;
    let until = call.deadline;
    let unanswered = Unanswered { inner, ask: (!is_named).then_some(ask), until };
    let outcome = call.run(|_| inner.store.acquire(ask, until)).await;
    unanswered.settle();
    if call.is_unsure && !is_named {
        see_to_late_tries(inner, ask, &outcome, until);
    }
    match outcome {
        Ok(Acquired::Granted(lease)) => {
            inner.known.granted(&lease, asked);
            Ok(Grant::new(lease, call.asked, ask.ttl.duration()))
        }
        Ok(Acquired::Adopted { lease, expires_in }) => {
            inner.known.granted(&lease, asked);
            Ok(Grant::new(lease, call.asked, expires_in))
        }
        Ok(Acquired::AlreadyHeld(lease)) => {
            inner.known.stands(lease.clone().into(), asked);
            Err(AcquireError::AlreadyHeld(Box::new(lease)))
        }
        Ok(Acquired::Contended { occupant, expires_in }) => {
            inner.known.stands(occupant.clone(), asked);
            inner.meter.contended.add_one();
            Err(AcquireError::Contended { occupant: Box::new(occupant), expires_in })
        }
        Ok(Acquired::Warming { rest }) => Err(AcquireError::Warming { retry_after: rest }),
        Err(fault) if fault.kind().is_ambiguous() => {
            Err(AcquireError::Ambiguous { claim: inner.claim(Arc::new(ask.clone()), is_named, until), fault })
        }
        Err(fault) => Err(fault.into()),
    }
}

/// A try of which nobody heard may still be carried out, although a later one was answered: what it is granted then is released.
fn see_to_late_tries(inner: &Inner, ask: &Ask, outcome: &Result<Acquired, Fault>, until: Instant) {
    let answered = match outcome {
        Ok(Acquired::Granted(lease) | Acquired::Adopted { lease, .. }) => Some(lease.fence),
        Ok(Acquired::AlreadyHeld(_) | Acquired::Contended { .. } | Acquired::Warming { .. }) => None,
        // The claim sees to it.
        Err(_) => return,
    };
    inner.abandon(Abandoned::Unknown { ask: Arc::new(ask.clone()), answered, until });
}

/// An acquire that is under way. Dropped before its answer is there, it has released what it may be granted.
struct Unanswered<'a> {
    inner: &'a Inner,
    ask: Option<&'a Ask>,
    until: Instant,
}

impl Unanswered<'_> {
    fn settle(mut self) {
        self.ask = None;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(ask) = self.ask {
            let ask = Arc::new(ask.clone());
            self.inner.abandon(Abandoned::Unknown { ask, answered: None, until: self.until });
        }
    }
}

/// Waits for the answer that a hand-over or the keeper of the line gives.
async fn wait_in_line(
    inner: &Inner,
    ask: Arc<Ask>,
    is_named: bool,
    sight: Option<Sight>,
    until: Instant,
    deadline: Option<Duration>,
) -> Result<Grant, AcquireError> {
    let started = Instant::now();
    let Ok(mut seat) = inner.lines.join(&ask.tag, ask.clone(), is_named, sight, until, started) else {
        return Err(AcquireError::Saturated);
    };
    inner.hearing.someone_waits();
    let last = until + patience(inner, deadline);
    let answer = match timeout_at(until, seat.answer()).await {
        Ok(answer) => answer,
        Err(_elapsed) if seat.withdraw() => None,
        // It may have been granted in this moment: a call never says that it was not and leaves a lock.
        Err(_elapsed) => match timeout_at(last, seat.answer()).await {
            Ok(answer) => answer,
            Err(_elapsed) => {
                seat.leave_to_caller();
                Some(Told::Ambiguous)
            }
        },
    };
    let sight = inner.lines.sight(&ask.tag);
    drop(seat);
    inner.meter.acquire_wait.observe(started.elapsed());
    match (answer, sight) {
        (Some(Told::Granted(grant)), _) => Ok(grant),
        (Some(Told::Refused(error)), _) => Err(error),
        (Some(Told::Ambiguous), _) => {
            let claim = inner.claim(ask, is_named, inner.until_all_is_over());
            Err(AcquireError::Ambiguous { claim, fault: FaultKind::Timeout.into() })
        }
        (None, Some(sight)) if !sight.is_of(&ask) => Err(AcquireError::Contended {
            occupant: Box::new(Occupant::clone(&sight.occupant)),
            expires_in: sight.ends.saturating_duration_since(Instant::now()),
        }),
        // Nobody remembers who stood in the way, or it is who asks.
        (None, _) => {
            let left = last.saturating_duration_since(Instant::now());
            // In a box: whoever waits need not have room for it meanwhile.
            Box::pin(ask_once(inner, &ask, is_named, Some(left))).await
        }
    }
}

/// Looks for the head of a line.
pub(crate) async fn queue(inner: &Inner, ask: &Ask, before: Option<Token>) -> Result<Queued, Fault> {
    let mut call = Call::start(inner, Operation::Acquire, None);
    let asked = call.started;
    let queued = call.once(inner.store.queue(ask, before, call.deadline)).await?;
    match &queued {
        Queued::Granted(lease) | Queued::GrantedBefore(lease) => inner.known.granted(lease, asked),
        Queued::AlreadyHeld(lease) => inner.known.stands(lease.clone().into(), asked),
        Queued::Waits { occupant, .. } => inner.known.stands(occupant.clone(), asked),
        Queued::Warming { .. } => {}
    }
    Ok(queued)
}

/// The lease that a token was granted by a call of which nobody heard the answer.
pub(crate) async fn find(inner: &Inner, ask: &Ask) -> Result<Option<Lease>, Fault> {
    let mut call = Call::start(inner, Operation::Read, None);
    let asked = call.started;
    let found = call.once(inner.store.find(&ask.tag, ask.token, call.deadline)).await?;
    if let Some(lease) = &found {
        inner.known.granted(lease, asked);
    }
    Ok(found)
}

/// Leaves the store's queue; answers the lease that `token` was granted meanwhile.
pub(crate) async fn leave(inner: &Inner, tag: &Tag, token: Token) -> Result<Option<Lease>, Fault> {
    // Not as an acquire, which may have to wait for its turn.
    let mut call = Call { purpose: Purpose::Sweep, ..Call::start(inner, Operation::Acquire, None) };
    let asked = call.started;
    let granted = call.once(inner.store.leave(tag, token, call.deadline)).await?;
    if let Some(lease) = &granted {
        inner.known.granted(lease, asked);
    }
    Ok(granted)
}
