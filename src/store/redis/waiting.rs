//! The calls of those who wait: the queue of a tag, and how a lock is handed on.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    RedisStore,
    reply::{Answer, unknown_code},
    script,
    wire::{Badge, Digits, Tail, server_time},
};
use crate::{
    Fault, FaultKind, Fence, Lease, RequestId, Tag, Token,
    store::{
        Acquired, Ask, HandedOver, NotYours, Queued, Whose,
        pool::{Road, Way},
    },
};

impl RedisStore {
    pub(super) async fn hand_over(
        &self,
        whose: Whose<'_>,
        request: RequestId,
        next: &Ask,
        others_first: bool,
        deadline: Instant,
    ) -> Result<HandedOver, Fault> {
        let (name, token) = (request.text(), next.token.text());
        let badge = Badge { kind: whose.kind, holder: whose.holder };
        let mut aim = self.aim(whose, Some(request));
        loop {
            let floor = self.floor();
            let mut answer = self
                .write(&script::HAND_OVER, Way::Urgent, deadline, |cmd, not_after| {
                    self.keys(cmd, whose.tag);
                    cmd.arg(name.as_bytes()).arg(badge);
                    cmd.arg(Digits(aim.lowest)).arg(Digits(aim.highest)).arg(not_after);
                    self.told(cmd, whose.tag);
                    cmd.arg(token.as_bytes()).arg(tail(next));
                    cmd.arg(next.ttl.millis()).arg(self.fence_ttl(next.ttl)).arg(Digits(floor));
                    cmd.arg(&self.grants).arg(u8::from(others_first)).arg(self.place_millis);
                })
                .await?;
            let not = match answer.code {
                1 => match answer.number() {
                    Ok(since) => return self.handed(next, &answer, since, answer.now_micros),
                    // Absent where this request had released it before.
                    Err(_) => return Ok(HandedOver::Repeated),
                },
                6 => {
                    let since = answer.number()?;
                    let fence = answer.fence()?.get();
                    return self.handed(next, &answer, since, fence);
                }
                7 => {
                    let since = answer.number()?;
                    let held = held(&answer, since);
                    let (lease, expires_in) = self.lease(whose.tag, &mut answer)?;
                    return Ok(HandedOver::Passed { held, occupant: lease.into(), expires_in });
                }
                2 => NotYours::Free { last: answer.last()? },
                3 => self.occupied(whose.tag, &mut answer)?,
                4 => return Err(no_fence()),
                code => return Err(unknown_code(code)),
            };
            if !aim.again(&self.clock, answer.now_micros, &not) {
                return Ok(HandedOver::Not(not));
            }
        }
    }

    /// The lease of the next one, who was granted the lock under `fence` when the one since `since` was released.
    fn handed(&self, next: &Ask, answer: &Answer, since: i64, fence: u64) -> Result<HandedOver, Fault> {
        let fence = Fence::new(fence).ok_or_else(no_fence)?;
        self.saw(fence, answer.now_micros);
        let granted = server_time(answer.now_micros);
        let lease = Lease {
            tag: next.tag.clone(),
            holder: next.holder.clone(),
            kind: next.kind,
            token: Some(next.token),
            fence,
            since: granted,
            expires_at: granted + next.ttl.duration(),
            note: next.note.clone(),
        };
        Ok(HandedOver::Granted { held: held(answer, since), lease })
    }

    /// Looks for the head of this process's line, which takes the process's place in the queue.
    pub(super) async fn queue(
        &self,
        ask: &Ask,
        before: Option<Token>,
        deadline: Instant,
    ) -> Result<Queued, Fault> {
        self.look_as(&self.grants, ask, before, deadline).await
    }

    /// Looks where others come first, for somebody who will not wait.
    pub(super) async fn look_behind_the_queue(
        &self,
        ask: &Ask,
        deadline: Instant,
    ) -> Result<Acquired, Fault> {
        match self.look_as("", ask, None, deadline).await? {
            Queued::Granted(lease) | Queued::GrantedBefore(lease) => Ok(Acquired::Granted(lease)),
            Queued::AlreadyHeld(lease) => Ok(Acquired::AlreadyHeld(lease)),
            Queued::Waits { occupant, expires_in } => Ok(Acquired::Contended { occupant, expires_in }),
            Queued::Warming { rest } => Ok(Acquired::Warming { rest }),
        }
    }

    /// Looks for a process that takes a place, or for none.
    async fn look_as(
        &self,
        process: &str,
        ask: &Ask,
        before: Option<Token>,
        deadline: Instant,
    ) -> Result<Queued, Fault> {
        let token = ask.token.text();
        let before = before.map(Token::text);
        let floor = self.floor();
        let mut answer = self
            .write(&script::QUEUE, Road::unbroken(self.pool.breaks()), deadline, |cmd, not_after| {
                self.keys(cmd, &ask.tag);
                cmd.arg(token.as_bytes()).arg(tail(ask));
                cmd.arg(ask.ttl.millis()).arg(self.fence_ttl(ask.ttl)).arg(not_after).arg(Digits(floor));
                self.told(cmd, &ask.tag);
                cmd.arg(process).arg(before.as_ref().map_or(&[][..], |token| token.as_bytes()));
                cmd.arg(self.place_millis).arg(self.restart_grace);
            })
            .await?;
        match answer.code {
            1 => Ok(Queued::Granted(self.lease(&ask.tag, &mut answer)?.0)),
            2 => Ok(Queued::GrantedBefore(self.lease(&ask.tag, &mut answer)?.0)),
            3 => {
                let (lease, expires_in) = self.lease(&ask.tag, &mut answer)?;
                if ask.is_by(&lease.holder, lease.kind) {
                    return Ok(Queued::AlreadyHeld(Lease { token: None, ..lease }));
                }
                Ok(Queued::Waits { occupant: lease.into(), expires_in })
            }
            4 => Err(no_fence()),
            6 => Ok(Queued::Warming { rest: answer.millis()? }),
            code => Err(unknown_code(code)),
        }
    }

    pub(super) async fn leave(
        &self,
        tag: &Tag,
        token: Token,
        deadline: Instant,
    ) -> Result<Option<Lease>, Fault> {
        let token = token.text();
        let mut answer = self
            .write(&script::LEAVE, Way::Urgent, deadline, |cmd, not_after| {
                self.keys(cmd, tag);
                cmd.arg(token.as_bytes()).arg(&self.grants).arg(not_after);
            })
            .await?;
        match answer.code {
            1 => Ok(Some(self.lease(tag, &mut answer)?.0)),
            2 => Ok(None),
            code => Err(unknown_code(code)),
        }
    }
}

fn tail(ask: &Ask) -> Tail<'_> {
    Tail { kind: ask.kind, holder: &ask.holder, note: &ask.note }
}

/// How long a lease was held that began at `since`, in ms of the server's time.
pub(super) fn held(answer: &Answer, since: i64) -> Option<Duration> {
    let since = u64::try_from(since).ok()?;
    Some(Duration::from_millis((answer.now_micros / 1000).saturating_sub(since)))
}

pub(super) fn no_fence() -> Fault {
    Fault::new(FaultKind::FenceRegression, "the next fence would not be an exact number")
}
