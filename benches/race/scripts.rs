//! The two scripts of a pair, as bare redis-rs commands: the work that no client of the same scripts can avoid.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use redis::{Cmd, Value, aio::ConnectionLike};

use super::{Failure, fence_key, lock_key, tag};

const ACQUIRE: &str = include_str!("../../src/store/redis/scripts/acquire.lua");
const RELEASE: &str = include_str!("../../src/store/redis/scripts/release.lua");

static ACQUIRE_HASH: LazyLock<String> = LazyLock::new(|| redis::Script::new(ACQUIRE).get_hash().to_owned());
static RELEASE_HASH: LazyLock<String> = LazyLock::new(|| redis::Script::new(RELEASE).get_hash().to_owned());

/// Later than any call is.
const NEVER_LATE_MILLIS: u64 = 9_000_000_000_000;
const TTL_MILLIS: u64 = 3_600_000;
const FENCE_KEPT_MILLIS: u64 = 86_400_000;

/// One task's names, written once.
#[derive(Debug)]
pub struct Names {
    lock: String,
    fence: String,
    token: String,
    /// Makes request ids that no other task and no other window has.
    instance: u64,
    pairs: u64,
}

impl Names {
    pub fn of(number: usize) -> Self {
        static INSTANCES: AtomicU64 = AtomicU64::new(0);
        let tag = tag(number);
        let instance = INSTANCES.fetch_add(1, Relaxed) % 100_000;
        Self {
            lock: lock_key(&tag),
            fence: fence_key(&tag),
            token: format!("{number:022}"),
            instance,
            pairs: 0,
        }
    }

    /// The command that acquires.
    pub fn acquire(&self) -> Cmd {
        let mut cmd = Cmd::with_capacity(14, 320);
        cmd.arg("EVALSHA").arg(&*ACQUIRE_HASH).arg(2).arg(&self.lock).arg(&self.fence);
        cmd.arg(&self.token).arg("i").arg("93").arg("MR(93)").arg("ARM");
        cmd.arg(TTL_MILLIS).arg(NEVER_LATE_MILLIS).arg(0).arg(FENCE_KEPT_MILLIS);
        cmd
    }

    /// The command that releases what was acquired under `fence`.
    pub fn release(&mut self, fence: i64) -> Cmd {
        // A request that the server remembers would release nothing.
        self.pairs += 1;
        let mut cmd = Cmd::with_capacity(12, 320);
        cmd.arg("EVALSHA").arg(&*RELEASE_HASH).arg(2).arg(&self.lock).arg(&self.fence);
        cmd.arg(format!("{:05}{:06}", self.instance, self.pairs)).arg("i").arg("93").arg(fence).arg(fence);
        cmd.arg(NEVER_LATE_MILLIS).arg(FENCE_KEPT_MILLIS);
        cmd
    }
}

/// The fence of a grant.
pub fn granted(reply: &Value) -> Result<i64, Failure> {
    match reply {
        Value::Array(parts) => match &parts[..] {
            [Value::Int(1), Value::Int(_), Value::Int(fence)] => Ok(*fence),
            _ => Err(format!("not granted: {reply:?}").into()),
        },
        _ => Err(format!("not a reply of acquire.lua: {reply:?}").into()),
    }
}

/// Whether the reply says that this release ended the lease.
pub fn released(reply: &Value) -> Result<(), Failure> {
    match reply {
        Value::Array(parts) if matches!(&parts[..], [Value::Int(1), _, Value::Int(since)] if *since >= 0) => {
            Ok(())
        }
        _ => Err(format!("not released: {reply:?}").into()),
    }
}

/// Makes the server know both scripts.
pub async fn load(connection: &mut impl ConnectionLike) -> Result<(), Failure> {
    for script in [ACQUIRE, RELEASE] {
        redis::cmd("SCRIPT").arg("LOAD").arg(script).query_async::<String>(connection).await?;
    }
    Ok(())
}
