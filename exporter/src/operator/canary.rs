//! `canary`: acquires a lock over a new connection, verifies it and releases it, for a deploy to wait for.
//!
//! It goes the way of a service: the settings, the connection, a guard. Each stage is timed, and all of them together have `--timeout`.
//! Two canaries at once wait for each other; one that dies is waited for as long as its lock lasts, 5 s.

use std::{future::Future, time::Duration};

use serde_json::{Value, json};
use spool_lock::{AcquireError, Fence, Holder, LockGuard, Source, SpoolLocks, Tag, Ttl};
use tokio::time::{Instant, timeout_at};

use super::{
    Answer, Form, Refusal,
    desk::{Desk, settings},
    moment::span,
    table::aligned,
};

/// How long the canary's lock outlives a canary that died: less than what a deploy waits for the next.
const TTL: Duration = Duration::from_secs(5);

/// The flags of `canary`.
#[derive(Debug, clap::Args)]
pub struct Canary {
    /// Do it one time; there is no other way, so that nobody takes it for a service
    #[arg(long, required = true)]
    once: bool,
    /// The tag to acquire, which nobody else should use
    #[arg(long, value_name = "TAG", default_value = "canary")]
    tag: String,
    /// The longest that all of it takes, 100ms to 1m
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    timeout: String,
    #[command(flatten)]
    pub(super) form: Form,
}

impl Canary {
    pub(super) async fn answer(&self) -> Result<Answer, Refusal> {
        let tag = Tag::new(&self.tag)?;
        let timeout = patience(&self.timeout)?;
        let mut flight = Flight { until: Instant::now() + timeout, stages: Vec::new() };
        let fence = match flight.fly(&tag, timeout).await {
            Err(usage @ Refusal::Usage(_)) => return Err(usage),
            outcome => outcome.ok(),
        };
        Ok(flight.answer(&tag, fence))
    }
}

fn patience(text: &str) -> Result<Duration, Refusal> {
    let range = Duration::from_millis(100)..=Duration::from_secs(60);
    match humantime::parse_duration(text.trim()) {
        Ok(timeout) if range.contains(&timeout) => Ok(timeout),
        _ => Err(Refusal::Usage(format!("--timeout: {text:?} cannot be used; 100ms to 1m can, such as 5s"))),
    }
}

/// What has been tried so far, and until when there is time.
#[derive(Debug)]
struct Flight {
    until: Instant,
    stages: Vec<Stage>,
}

#[derive(Debug)]
struct Stage {
    name: &'static str,
    took: Duration,
    wrong: Option<Refusal>,
}

impl Flight {
    async fn fly(&mut self, tag: &Tag, timeout: Duration) -> Result<Fence, Refusal> {
        let mut config = settings()?;
        config.deadline = config.deadline.min(timeout);
        let locks = self.stage("connect", async { Ok(Desk::open_by(config).await?.locks) }).await?;
        // Not all of the time: whoever waits in vain is to say for whom, and not that the time is over.
        let wait = self.until.saturating_duration_since(Instant::now()).mul_f64(0.9);
        let guard = self.stage("acquire", acquire(&locks, tag, wait)).await?;
        let fence = guard.fence();
        let verified = self.stage("verify", is_held_under(&locks, tag, fence)).await;
        // Also where it could not be verified: nobody is to wait for it.
        let released = self.stage("release", async { guard.release().await.map_err(Refusal::of) }).await;
        verified.and(released)?;
        self.stage("gone", is_gone(&locks, tag, fence)).await?;
        Ok(fence)
    }

    async fn stage<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let started = Instant::now();
        let late = || Refusal::failed("timeout", "it did not come to its end within --timeout");
        let outcome = timeout_at(self.until, work).await.unwrap_or_else(|_| Err(late()));
        let wrong = outcome.as_ref().err().cloned();
        self.stages.push(Stage { name, took: started.elapsed(), wrong });
        outcome
    }

    fn answer(&self, tag: &Tag, fence: Option<Fence>) -> Answer {
        let took: Duration = self.stages.iter().map(|stage| stage.took).sum();
        let stages: Vec<_> = self.stages.iter().map(Stage::json).collect();
        let is_well = fence.is_some();
        let json = json!({
            "tag": tag, "is_well": is_well, "fence": fence, "took_ms": millis(took), "stages": stages,
        });
        let rows: Vec<_> = self.stages.iter().map(Stage::row).collect();
        let verdict = match self.stages.iter().find(|stage| stage.wrong.is_some()) {
            Some(stage) => format!("the canary failed at the stage {}", stage.name),
            None => format!("a lock could be acquired and released, in {}", span(took)),
        };
        Answer { text: format!("{}{verdict}\n", aligned(&rows)), json, is_well }
    }
}

impl Stage {
    fn row(&self) -> [String; 3] {
        let outcome = self.wrong.as_ref().map_or("done", Refusal::message);
        [self.name.to_owned(), format!("{:>7.1} ms", millis(self.took)), outcome.to_owned()]
    }

    fn json(&self) -> Value {
        let error = self.wrong.as_ref().map(Refusal::json);
        json!({ "stage": self.name, "took_ms": millis(self.took), "error": error })
    }
}

/// To a tenth.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// A guard, because canaries are one holder, and guards of one holder wait for each other; an identity would be told that it has the
/// lock already.
async fn acquire(locks: &SpoolLocks, tag: &Tag, wait: Duration) -> Result<LockGuard, Refusal> {
    let holder = Holder::new("canary", "spool-lock-exporter")?;
    let ttl = Ttl::new(TTL).map_err(|wrong| Refusal::Usage(wrong.to_string()))?;
    locks.guard(tag, &holder).ttl(ttl).wait(wait).await.map_err(|error| match error {
        AcquireError::Contended { .. } => Refusal::failed("contended", error.to_string()),
        error => Refusal::of(error),
    })
}

async fn is_held_under(locks: &SpoolLocks, tag: &Tag, fence: Fence) -> Result<(), Refusal> {
    match standing(locks, tag).await? {
        Some(standing) if standing == fence => Ok(()),
        Some(other) => {
            Err(Refusal::failed("not_held", format!("it is held under the fence {other}, ours is {fence}")))
        }
        None => Err(Refusal::failed("not_held", "nobody holds it, although it was granted")),
    }
}

/// Somebody who waited for it may have it by now, under a fence of their own.
async fn is_gone(locks: &SpoolLocks, tag: &Tag, fence: Fence) -> Result<(), Refusal> {
    match standing(locks, tag).await? {
        Some(standing) if standing == fence => {
            Err(Refusal::failed("still_held", "it is still held, although it was released"))
        }
        _ => Ok(()),
    }
}

/// Under which fence a tag is held, by Redis' own word: what this process remembers proves nothing.
async fn standing(locks: &SpoolLocks, tag: &Tag) -> Result<Option<Fence>, Refusal> {
    let reading = locks.inspect(tag).await.map_err(Refusal::of)?;
    match reading.source {
        Source::Live => Ok(reading.value.map(|occupant| occupant.fence)),
        _ => Err(Refusal::failed("not_live", "redis did not say who holds it")),
    }
}
