//! Locks in Redis: one script and one round trip for each operation.
//!
//! # What it promises
//! - A write that arrives after its attempt's time does nothing (`not_after`, in the server's time).
//! - An acquire with the token that already holds adopts its grant; a release with a request that is recorded is answered as
//!   it was. So a lost reply can be asked for again.
//! - A release or an extend touches only a lease of its holder whose fence is within its bounds: exactly the one that is
//!   named, or one that was granted before the call was made.
//! - Fences of a tag rise, also when their counter is lost: by the server's clock, and by the highest fence that this process
//!   has seen.
//!
//! # How it fails
//! With a [`Fault`] of a kind from the table in `classify`; nothing is retried here but a script that the server has forgotten
//! and a call that came late because the server's clock had jumped.

mod aim;
pub(crate) mod check;
mod clock;
mod feed;
mod message;
mod recovery;
mod reply;
mod script;
#[cfg(test)]
mod tests;
mod waiting;
mod wire;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use redis::{Cmd, Value};
use tokio::time::Instant;

pub(crate) use self::feed::Subscription;
use self::{
    clock::ServerClock,
    message::read_message,
    reply::{Answer, unexpected, unknown_code},
    script::Script,
    waiting::{held, no_fence},
    wire::{Badge, Channel, Digits, Key, Reason, Tail, micros_of, read_key, read_lease, server_time},
};
use super::{
    Acquired, Ask, Extended, Feed, Forced, HandedOver, NotYours, Queued, Reach, Released, Restored, Rules,
    Seen, Store, Whose,
    pool::{Dialler, Pool, PoolConfig, Refusal, Road, Way},
};
use crate::{
    ConnectError, Event, Fault, FaultKind, Fence, Lease, Occupant, PoolStats, RequestId, ServerReport, Tag,
    Token, Ttl, meter::LockMeter, token::Process,
};

/// A fence that is further ahead of the server's clock than this, and of all that was seen, is not taken as a floor: it was
/// not minted by that clock, and to count on from it would poison every tag.
const FENCE_AHEAD: u64 = 60_000_000;

/// Every key that a tag may have.
const KEYS: [&str; 5] = ["lock", "fence", "history", "queue", "asks"];

/// How many keys a page of `list` looks at: some 50 µs of the server's time.
const LIST_PAGE: u32 = 200;

/// What a Redis store needs to know.
#[derive(Debug)]
pub(crate) struct Settings<'a> {
    pub(crate) rules: Rules,
    pub(crate) url: &'a str,
    pub(crate) ca: Option<Vec<u8>>,
    pub(crate) prefix: &'a str,
    pub(crate) fence_kept: Duration,
    pub(crate) deadline: Duration,
    pub(crate) pool: &'a PoolConfig,
}

#[derive(Debug)]
pub(crate) struct RedisStore {
    pool: Pool,
    prefix: Arc<str>,
    fence_kept_millis: u64,
    place_millis: u64,
    /// `records ttl-ms` of the history of a tag; empty where none is kept.
    history: String,
    /// In ms; none where it is not wanted, so that nothing of it is sent.
    restart_grace: Option<u64>,
    /// The channel on which this process hears of its grants, which is also its name in the queues.
    grants: String,
    /// The key by which this process knows whether the server still has its data.
    witness: String,
    clock: ServerClock,
    /// The highest fence that this process has seen.
    floor: AtomicU64,
    meter: Arc<LockMeter>,
    report: ServerReport,
}

impl RedisStore {
    /// Opens the first connection and looks at the server.
    ///
    /// # Errors
    /// [`ConnectError`] — no connection, or a server that cannot run the scripts.
    pub(super) async fn connect(settings: Settings<'_>, meter: Arc<LockMeter>) -> Result<Self, ConnectError> {
        let Settings { rules, url, ca, prefix, fence_kept, deadline, pool } = settings;
        let name = format!("spool-lock:{prefix}");
        let dialler = Dialler::new(url, ca, name, pool).map_err(|wrong| {
            // The address was read before, so what is wrong is what this build can do with it.
            ConnectError::Fault(Fault::new(FaultKind::Connect, wrong))
        })?;
        let pool_config = pool.clone();
        let pool = Pool::open(dialler, pool_config, rules.tries_again).await.map_err(ConnectError::Fault)?;
        let process = Process::random();
        let mut store = Self {
            pool,
            prefix: prefix.into(),
            fence_kept_millis: millis(fence_kept),
            place_millis: millis(rules.place),
            history: rules.history.map(history_argument).unwrap_or_default(),
            clock: ServerClock::new(),
            floor: AtomicU64::new(0),
            meter,
            report: ServerReport::default(),
            restart_grace: Some(millis(rules.restart_grace)).filter(|millis| *millis > 0),
            grants: format!("{prefix}:grants:{process}"),
            // The tag that no lock has.
            witness: format!("{prefix}:{{}}:witness:{process}"),
        };
        store.report = store.check(Instant::now() + deadline).await?;
        Ok(store)
    }

    pub(super) fn pool(&self) -> PoolStats {
        self.pool.read()
    }

    pub(super) fn report(&self) -> &ServerReport {
        &self.report
    }

    fn key<'a>(&'a self, tag: &'a Tag, part: &'static str) -> Key<'a> {
        Key { prefix: &self.prefix, tag: tag.as_str(), part }
    }

    /// The keys that every call declares.
    fn keys(&self, cmd: &mut Cmd, tag: &Tag) {
        cmd.arg(self.key(tag, "lock")).arg(self.key(tag, "fence"));
    }

    fn channel<'a>(&'a self, tag: &'a Tag) -> Channel<'a> {
        Channel { prefix: &self.prefix, tag: tag.as_str() }
    }

    /// Where a change is published, and how long it is remembered.
    fn told(&self, cmd: &mut Cmd, tag: &Tag) {
        cmd.arg(self.channel(tag)).arg(&self.history);
    }

    /// Runs a script, with its text where the server has forgotten it. `arguments` is told when the attempt ends.
    async fn eval(
        &self,
        script: &Script,
        road: impl Into<Road>,
        deadline: Instant,
        arguments: impl Fn(&mut Cmd, Instant),
    ) -> Result<(Value, Instant), Fault> {
        let road = road.into();
        let command = |verb: &str, body: &str, until| {
            let mut cmd = Cmd::with_capacity(24, 640);
            cmd.arg(verb).arg(body).arg(script.keys);
            arguments(&mut cmd, until);
            cmd
        };
        let by_hash = |until| command("EVALSHA", &script.hash, until);
        let reply = match self.pool.call(by_hash, road, deadline).await {
            Err(Refusal::NoScript) => {
                self.meter.script_reloads.add_one();
                self.pool.call(|until| command("EVAL", script.text, until), road, deadline).await
            }
            reply => reply,
        };
        match reply {
            Ok(reply) => Ok((reply.value, reply.sent)),
            Err(Refusal::Fault(fault)) => Err(fault),
            Err(Refusal::NoScript) => Err(Fault::new(FaultKind::Other, "NOSCRIPT in answer to EVAL")),
        }
    }

    /// Sends a command that is no script.
    async fn plain(&self, cmd: Cmd, way: Way, deadline: Instant) -> Result<(Value, Instant), Fault> {
        match self.pool.call(|_| cmd, way, deadline).await {
            Ok(reply) => Ok((reply.value, reply.sent)),
            Err(Refusal::Fault(fault)) => Err(fault),
            Err(Refusal::NoScript) => Err(Fault::new(FaultKind::Other, "NOSCRIPT in answer to no script")),
        }
    }

    /// Runs a script whose reply begins with a code and the server's time.
    async fn ask(
        &self,
        script: &Script,
        road: impl Into<Road>,
        deadline: Instant,
        arguments: impl Fn(&mut Cmd, Instant),
    ) -> Result<Answer, Fault> {
        let (value, sent) = self.eval(script, road, deadline, arguments).await?;
        let answer = Answer::read(value)?;
        self.clock.observe(sent, Instant::now(), answer.now_micros);
        Ok(answer)
    }

    /// As [`ask`](Self::ask), for writes: `arguments` is given the `not_after` of the attempt. A live call that the server
    /// finds late is sent once more, because then its clock has jumped and we know by how much.
    async fn write(
        &self,
        script: &Script,
        road: impl Into<Road>,
        deadline: Instant,
        arguments: impl Fn(&mut Cmd, Digits),
    ) -> Result<Answer, Fault> {
        let road = road.into();
        for _ in 0..2 {
            let until = |cmd: &mut Cmd, end| arguments(cmd, Digits(self.clock.at(end)));
            let answer = self.ask(script, road, deadline, until).await?;
            if answer.code != 0 {
                return Ok(answer);
            }
            self.meter.late.add_one();
        }
        Err(FaultKind::Late.into())
    }

    /// The fence outlives its lock.
    fn fence_ttl(&self, ttl: Ttl) -> u64 {
        ttl.millis().saturating_add(self.fence_kept_millis)
    }

    fn floor(&self) -> u64 {
        self.floor.load(Relaxed)
    }

    /// Remembers a fence that was seen, unless no clock can have minted it.
    fn saw(&self, fence: Fence, now_micros: u64) {
        let floor = self.floor();
        if fence.get() > floor && fence.get() <= now_micros.max(floor).saturating_add(FENCE_AHEAD) {
            self.floor.fetch_max(fence.get(), Relaxed);
        }
    }

    /// The lease that an answer shows: ttl and value.
    fn lease(&self, tag: &Tag, answer: &mut Answer) -> Result<(Lease, Duration), Fault> {
        // Both, whatever they are: there may be another lease behind them.
        let (pttl, value) = (answer.pttl(), answer.bytes()?);
        let pttl = pttl?;
        let lease = read_lease(tag, &value, answer.now_micros, pttl)
            .ok_or_else(|| Fault::new(FaultKind::NotALock, "the value at the key is not a lease"))?;
        self.saw(lease.fence, answer.now_micros);
        Ok((lease, pttl))
    }

    fn occupied(&self, tag: &Tag, answer: &mut Answer) -> Result<NotYours, Fault> {
        Ok(NotYours::Occupied(self.lease(tag, answer)?.0.into()))
    }

    /// Runs a script that ends a lease; `token` is an argument of those that want one.
    async fn end(
        &self,
        script: &Script,
        whose: Whose<'_>,
        request: RequestId,
        token: Option<Token>,
        deadline: Instant,
    ) -> Result<Released, Fault> {
        let token = token.map(Token::text);
        let name = request.text();
        let badge = Badge { kind: whose.kind, holder: whose.holder };
        let mut aim = self.aim(whose, Some(request));
        loop {
            let mut answer = self
                .write(script, Way::Urgent, deadline, |cmd, not_after| {
                    self.keys(cmd, whose.tag);
                    cmd.arg(name.as_bytes()).arg(badge);
                    cmd.arg(Digits(aim.lowest)).arg(Digits(aim.highest)).arg(not_after);
                    self.told(cmd, whose.tag);
                    if let Some(token) = &token {
                        cmd.arg(token.as_bytes());
                    }
                })
                .await?;
            let not = match answer.code {
                1 => {
                    // Absent where this request had released it before.
                    let held = answer.number().ok().and_then(|since| held(&answer, since));
                    return Ok(Released::Released { held });
                }
                2 => NotYours::Free { last: answer.last()? },
                3 => self.occupied(whose.tag, &mut answer)?,
                code => return Err(unknown_code(code)),
            };
            if !aim.again(&self.clock, answer.now_micros, &not) {
                return Ok(Released::Not(not));
            }
        }
    }
}

impl Store for RedisStore {
    fn now_micros(&self) -> u64 {
        self.clock.at(Instant::now())
    }

    async fn acquire(&self, ask: &Ask, deadline: Instant) -> Result<Acquired, Fault> {
        let Ask { tag, holder, kind, token, ttl, note } = ask;
        let (kind, token, ttl) = (*kind, *token, *ttl);
        let floor = self.floor();
        let token_text = token.text();
        let mut answer = self
            .write(&script::ACQUIRE, Road::unbroken(self.pool.breaks()), deadline, |cmd, not_after| {
                self.keys(cmd, tag);
                cmd.arg(token_text.as_bytes()).arg(Tail { kind, holder, note });
                cmd.arg(ttl.millis()).arg(self.fence_ttl(ttl)).arg(not_after).arg(Digits(floor));
                self.told(cmd, tag);
                cmd.arg(self.restart_grace);
            })
            .await?;
        match answer.code {
            1 => {
                let fence = answer.fence()?;
                if fence.get() <= floor {
                    return Err(Fault::new(
                        FaultKind::FenceRegression,
                        "the new fence is below one that was seen",
                    ));
                }
                self.saw(fence, answer.now_micros);
                let since = server_time(answer.now_micros);
                Ok(Acquired::Granted(Lease {
                    tag: tag.clone(),
                    holder: holder.clone(),
                    kind,
                    token: Some(token),
                    fence,
                    since,
                    expires_at: since + ttl.duration(),
                    note: note.to_owned(),
                }))
            }
            3 => {
                let (lease, expires_in) = self.lease(tag, &mut answer)?;
                if lease.token == Some(token) {
                    return Ok(Acquired::Adopted { lease, expires_in });
                }
                if ask.is_by(&lease.holder, lease.kind) {
                    return Ok(Acquired::AlreadyHeld(Lease { token: None, ..lease }));
                }
                Ok(Acquired::Contended { occupant: lease.into(), expires_in })
            }
            4 => Err(no_fence()),
            5 => self.look_behind_the_queue(ask, deadline).await,
            6 => Ok(Acquired::Warming { rest: answer.millis()? }),
            code => Err(unknown_code(code)),
        }
    }

    async fn extend(
        &self,
        whose: Whose<'_>,
        ttl: Ttl,
        reach: Reach,
        deadline: Instant,
    ) -> Result<Extended, Fault> {
        let reach = match reach {
            Reach::AtLeast => 0,
            Reach::Exactly => 1,
            Reach::AtMost => 2,
        };
        let badge = Badge { kind: whose.kind, holder: whose.holder };
        let mut aim = self.aim(whose, None);
        loop {
            let mut answer = self
                .write(&script::EXTEND, Way::Urgent, deadline, |cmd, not_after| {
                    self.keys(cmd, whose.tag);
                    cmd.arg(badge).arg(Digits(aim.lowest)).arg(Digits(aim.highest));
                    cmd.arg(ttl.millis()).arg(self.fence_ttl(ttl)).arg(reach).arg(not_after);
                    cmd.arg(self.channel(whose.tag));
                })
                .await?;
            let not = match answer.code {
                1 => {
                    let (lease, _) = self.lease(whose.tag, &mut answer)?;
                    let margin = answer.pttl()?;
                    return Ok(Extended::Extended { lease: Lease { token: None, ..lease }, margin });
                }
                2 => NotYours::Free { last: answer.last()? },
                3 => self.occupied(whose.tag, &mut answer)?,
                code => return Err(unknown_code(code)),
            };
            if !aim.again(&self.clock, answer.now_micros, &not) {
                return Ok(Extended::Not(not));
            }
        }
    }

    async fn release(
        &self,
        whose: Whose<'_>,
        request: RequestId,
        deadline: Instant,
    ) -> Result<Released, Fault> {
        self.end(&script::RELEASE, whose, request, None, deadline).await
    }

    async fn sweep(&self, lease: &Lease, request: RequestId, deadline: Instant) -> Result<Released, Fault> {
        self.end(&script::SWEEP, Whose::of(lease), request, lease.token, deadline).await
    }

    async fn hand_over(
        &self,
        whose: Whose<'_>,
        request: RequestId,
        next: &Ask,
        others_first: bool,
        deadline: Instant,
    ) -> Result<HandedOver, Fault> {
        self.hand_over(whose, request, next, others_first, deadline).await
    }

    async fn queue(&self, ask: &Ask, before: Option<Token>, deadline: Instant) -> Result<Queued, Fault> {
        self.queue(ask, before, deadline).await
    }

    async fn leave(&self, tag: &Tag, token: Token, deadline: Instant) -> Result<Option<Lease>, Fault> {
        self.leave(tag, token, deadline).await
    }

    async fn restore(&self, lease: &Lease, ttl: Ttl, deadline: Instant) -> Result<Restored, Fault> {
        self.restore(lease, ttl, deadline).await
    }

    async fn look(&self, tags: &[Tag], deadline: Instant) -> Result<Vec<Option<Seen>>, Fault> {
        self.look(tags, deadline).await
    }

    async fn history(&self, tag: &Tag, deadline: Instant) -> Result<Vec<Event>, Fault> {
        let (value, _) = self
            .eval(&script::HISTORY, Way::Ordinary, deadline, |cmd, _| {
                cmd.arg(self.key(tag, "history"));
            })
            .await?;
        let Value::Array(messages) = value else { return Err(unexpected("an array", &value)) };
        let text = |message| match message {
            Value::BulkString(text) => Ok(text),
            other => Err(unexpected("a string", &other)),
        };
        // The newest comes first.
        let messages = messages.into_iter().rev().map(text).collect::<Result<Vec<_>, _>>()?;
        Ok(messages.iter().flat_map(|message| read_message(tag, message)).collect())
    }

    fn keep_lane(&self, is_wanted: bool) {
        self.pool.keep_lane(is_wanted);
    }

    async fn feed(&self, deadline: Instant) -> Result<Feed, Fault> {
        Subscription::open(&self.pool, &self.prefix, &self.grants, deadline).await
    }

    async fn force_release(
        &self,
        tag: &Tag,
        by: &str,
        why: &str,
        deadline: Instant,
    ) -> Result<Forced, Fault> {
        let mut answer = self
            .write(&script::FORCE_RELEASE, Way::Urgent, deadline, |cmd, not_after| {
                self.keys(cmd, tag);
                cmd.arg(not_after).arg(self.fence_kept_millis).arg(Reason { by, why });
                self.told(cmd, tag);
            })
            .await?;
        match answer.code {
            1 => Ok(Forced::Ended(self.lease(tag, &mut answer).ok().map(|(lease, _)| lease.into()))),
            2 => Ok(Forced::Free { last: answer.last()? }),
            code => Err(unknown_code(code)),
        }
    }

    async fn find(&self, tag: &Tag, token: Token, deadline: Instant) -> Result<Option<Lease>, Fault> {
        let found = self.read(tag, deadline).await?;
        Ok(found.ok().filter(|lease| lease.token == Some(token)))
    }

    async fn inspect(&self, tag: &Tag, deadline: Instant) -> Result<Seen, Fault> {
        Ok(match self.read(tag, deadline).await? {
            Ok(lease) => Seen::Held(lease.into()),
            Err(last) => Seen::Free { last },
        })
    }

    async fn probe(&self, deadline: Instant) -> Result<(), Fault> {
        // No tag is empty, so no lock stands at these keys.
        let arguments = |cmd: &mut Cmd, _: Instant| {
            for part in KEYS {
                cmd.arg(Key { prefix: &self.prefix, tag: "", part });
            }
            cmd.arg(self.restart_grace);
        };
        match self.ask(&script::PROBE, Way::Urgent, deadline, arguments).await?.code {
            1 => Ok(()),
            code => Err(unknown_code(code)),
        }
    }

    fn is_connected(&self) -> bool {
        self.pool.is_connected()
    }

    fn silence(&self) -> Duration {
        self.pool.silence()
    }

    async fn ping(&self, deadline: Instant) -> Result<(), Fault> {
        self.pool.ping(deadline).await
    }

    async fn run(&self, deadline: Instant) -> Result<Option<String>, Fault> {
        self.run(deadline).await
    }

    async fn leave_witness(&self, deadline: Instant) -> Result<(), Fault> {
        self.leave_witness(deadline).await
    }

    async fn has_witness(&self, deadline: Instant) -> Result<bool, Fault> {
        self.has_witness(deadline).await
    }

    fn breaks(&self) -> u64 {
        self.pool.breaks()
    }

    async fn list(&self, deadline: Instant) -> Result<Vec<Occupant>, Fault> {
        let pattern = format!("{}:{{*}}:lock", self.prefix);
        let mut cursor = b"0".to_vec();
        // SCAN may name a key twice.
        let mut found = std::collections::BTreeMap::new();
        loop {
            let arguments = |cmd: &mut Cmd, _: Instant| {
                cmd.arg(&cursor[..]).arg(&pattern).arg(LIST_PAGE);
            };
            let (value, _) = self.eval(&script::LIST, Way::Alone, deadline, arguments).await?;
            let (next, page) = self.read_page(value)?;
            found.extend(page.into_iter().map(|occupant| (occupant.tag.clone(), occupant)));
            if next == b"0" {
                return Ok(found.into_values().collect());
            }
            cursor = next;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A grant and its end are a message each, or less: a hand-over is one for two leases.
fn history_argument((entries, kept): (u32, Duration)) -> String {
    format!("{} {}", entries.saturating_mul(2), millis(kept))
}

impl RedisStore {
    /// The lease that stands, or the last fence that is remembered.
    async fn read(&self, tag: &Tag, deadline: Instant) -> Result<Result<Lease, Option<Fence>>, Fault> {
        let mut answer =
            self.ask(&script::INSPECT, Way::Ordinary, deadline, |cmd, _| self.keys(cmd, tag)).await?;
        match answer.code {
            2 => Ok(Err(answer.last()?)),
            3 => Ok(Ok(self.lease(tag, &mut answer)?.0)),
            code => Err(unknown_code(code)),
        }
    }

    /// A page of `list`: the next cursor, and the locks. A key that is none, or whose value is none, is left out.
    fn read_page(&self, value: Value) -> Result<(Vec<u8>, Vec<Occupant>), Fault> {
        let Value::Array(parts) = value else { return Err(unexpected("an array", &value)) };
        let mut parts = parts.into_iter();
        let (Some(Value::BulkString(cursor)), Some(Value::Int(now))) = (parts.next(), parts.next()) else {
            return Err(Fault::new(FaultKind::Protocol, "a page without cursor and time"));
        };
        let now_micros = u64::try_from(now).unwrap_or(0);
        let mut page = Vec::new();
        while let (Some(key), Some(pttl), Some(value)) = (parts.next(), parts.next(), parts.next()) {
            let (Value::BulkString(key), Value::Int(pttl), Value::BulkString(value)) = (key, pttl, value)
            else {
                return Err(Fault::new(FaultKind::Protocol, "a page whose entries are not key, ttl, value"));
            };
            let pttl = u64::try_from(pttl).ok().map(Duration::from_millis);
            let tag = read_key(&self.prefix, &key);
            page.extend(
                tag.zip(pttl)
                    .and_then(|(tag, pttl)| read_lease(&tag, &value, now_micros, pttl))
                    .map(Occupant::from),
            );
        }
        Ok((cursor, page))
    }
}
