//! The calls of a recovery: whether the server has lost anything, what stands, and how a lost lease is put back.

use redis::{InfoDict, Value};
use tokio::time::Instant;

use super::{
    RedisStore,
    reply::{unexpected, unknown_code},
    script,
    wire::{Origin, Tail},
};
use crate::{
    Fault, FaultKind, Lease, Occupant, Tag, Token, Ttl,
    store::{NotYours, Restored, Seen, WITNESS_LASTS, Whose, pool::Way},
};

/// How many tags one command looks at: some 100 µs of the server's time.
const LOOK_PAGE: usize = 100;

impl RedisStore {
    pub(super) async fn restore(
        &self,
        lease: &Lease,
        ttl: Ttl,
        deadline: Instant,
    ) -> Result<Restored, Fault> {
        let Lease { tag, holder, kind, token, fence, since, note, .. } = lease;
        let token = token.unwrap_or_else(Token::random).text();
        let mut answer = self
            .write(&script::RESTORE, Way::Urgent, deadline, |cmd, not_after| {
                self.keys(cmd, tag);
                cmd.arg(token.as_bytes()).arg(Origin { fence: *fence, since: *since });
                cmd.arg(Tail { kind: *kind, holder, note });
                cmd.arg(ttl.millis()).arg(self.fence_ttl(ttl)).arg(not_after);
                self.told(cmd, tag);
            })
            .await?;
        match answer.code {
            1 => Ok(Restored::Restored(self.lease(tag, &mut answer)?.0)),
            2 => Ok(Restored::Not(NotYours::Free { last: answer.last()? })),
            3 => {
                let occupant = Occupant::from(self.lease(tag, &mut answer)?.0);
                Ok(if Whose::of(lease).means(&occupant) {
                    Restored::Stands(occupant)
                } else {
                    Restored::Not(NotYours::Occupied(occupant))
                })
            }
            code => Err(unknown_code(code)),
        }
    }

    pub(super) async fn look(&self, tags: &[Tag], deadline: Instant) -> Result<Vec<Option<Seen>>, Fault> {
        let mut seen = Vec::with_capacity(tags.len());
        for page in tags.chunks(LOOK_PAGE) {
            self.look_at_page(page, deadline, &mut seen).await?;
        }
        Ok(seen)
    }

    async fn look_at_page(
        &self,
        tags: &[Tag],
        deadline: Instant,
        seen: &mut Vec<Option<Seen>>,
    ) -> Result<(), Fault> {
        let keys = u32::try_from(2 * tags.len()).unwrap_or(u32::MAX);
        let mut answer = self
            .ask(&script::LOOK.over(keys), Way::Ordinary, deadline, |cmd, _| {
                tags.iter().for_each(|tag| self.keys(cmd, tag));
            })
            .await?;
        if answer.code != 1 {
            return Err(unknown_code(answer.code));
        }
        for tag in tags {
            seen.push(match answer.number()? {
                2 => Some(Seen::Free { last: answer.last()? }),
                3 => match self.lease(tag, &mut answer) {
                    Ok((lease, _)) => Some(Seen::Held(lease.into())),
                    Err(fault) if fault.kind() == FaultKind::NotALock => None,
                    Err(fault) => return Err(fault),
                },
                code => return Err(unknown_code(code)),
            });
        }
        Ok(())
    }

    pub(super) async fn run(&self, deadline: Instant) -> Result<Option<String>, Fault> {
        let mut info = redis::cmd("INFO");
        info.arg("server");
        match self.plain(info, Way::Urgent, deadline).await {
            Ok((reply, _)) => {
                let info: InfoDict = redis::from_redis_value(reply)
                    .map_err(|error| Fault::new(FaultKind::Protocol, error.to_string()))?;
                Ok(info.get("run_id"))
            }
            Err(fault) if fault.kind() == FaultKind::Permission => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Not by a script: it is not to be counted among the calls of locks, nor to fail where the server has forgotten those.
    pub(super) async fn leave_witness(&self, deadline: Instant) -> Result<(), Fault> {
        let mut set = redis::cmd("SET");
        set.arg(&self.witness).arg(1).arg("EX").arg(WITNESS_LASTS.as_secs());
        match self.plain(set, Way::Urgent, deadline).await?.0 {
            Value::Okay => Ok(()),
            other => Err(unexpected("a witness that was left", &other)),
        }
    }

    pub(super) async fn has_witness(&self, deadline: Instant) -> Result<bool, Fault> {
        let mut get = redis::cmd("GET");
        get.arg(&self.witness);
        match self.plain(get, Way::Urgent, deadline).await?.0 {
            Value::BulkString(_) => Ok(true),
            Value::Nil => Ok(false),
            other => Err(unexpected("a witness", &other)),
        }
    }
}

#[cfg(test)]
mod tests;
