//! The two scripts of a pair, as bare redis-rs commands: the work that no client of the same scripts can avoid.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use redis::{Cmd, Value, aio::ConnectionLike};

use super::{Failure, fence_key, lock_key, tag};

/// The files of a script in their order, behind the first line that the crate gives it.
macro_rules! script {
    ($first:literal, $($file:literal),+) => {
        concat!($first, "\n", $(include_str!(concat!("../../src/store/redis/scripts/", $file))),+)
    };
}
const ACQUIRE: &str = script!("#!lua", "common.lua", "tools.lua", "acquire.lua");
const RELEASE: &str =
    script!("#!lua flags=allow-oom", "common.lua", "tools.lua", "ending.lua", "release.lua");

static ACQUIRE_HASH: LazyLock<String> = LazyLock::new(|| redis::Script::new(ACQUIRE).get_hash().to_owned());
static RELEASE_HASH: LazyLock<String> = LazyLock::new(|| redis::Script::new(RELEASE).get_hash().to_owned());

/// Later than any call is, in µs.
const NEVER_LATE: &str = "9000000000000000";
/// Below any fence.
const NO_FLOOR: &str = "0000000000000000";
const NO_HISTORY: &str = "";
const TTL_MILLIS: u64 = 3_600_000;
const FENCE_TTL_MILLIS: u64 = TTL_MILLIS + 86_400_000;

/// One task's names, written once.
#[derive(Debug)]
pub struct Names {
    lock: String,
    fence: String,
    events: String,
    token: String,
    /// Makes request ids that no other task and no other window has.
    instance: u64,
    pairs: u64,
}

impl Names {
    pub fn of(number: usize) -> Self {
        static INSTANCES: AtomicU64 = AtomicU64::new(0);
        let tag = tag(number);
        let instance = INSTANCES.fetch_add(1, Relaxed) % 0x1_0000;
        Self {
            lock: lock_key(&tag),
            fence: fence_key(&tag),
            events: format!("spool:events:{{{tag}}}"),
            token: format!("{number:022}"),
            instance,
            pairs: 0,
        }
    }

    /// The command that acquires.
    pub fn acquire(&self) -> Cmd {
        let mut cmd = Cmd::with_capacity(13, 360);
        cmd.arg("EVALSHA").arg(&*ACQUIRE_HASH).arg(2).arg(&self.lock).arg(&self.fence);
        cmd.arg(&self.token).arg("|i|93|MR(93)|ARM");
        cmd.arg(TTL_MILLIS).arg(FENCE_TTL_MILLIS).arg(NEVER_LATE).arg(NO_FLOOR);
        cmd.arg(&self.events).arg(NO_HISTORY);
        cmd
    }

    /// The command that releases what was acquired under `fence`.
    pub fn release(&mut self, fence: &[u8]) -> Cmd {
        // A request that the server remembers would release nothing.
        self.pairs += 1;
        let mut cmd = Cmd::with_capacity(12, 360);
        cmd.arg("EVALSHA").arg(&*RELEASE_HASH).arg(2).arg(&self.lock).arg(&self.fence);
        cmd.arg(format!("{:04x}{:05x}", self.instance, self.pairs)).arg("i|93|");
        cmd.arg(fence).arg(fence).arg(NEVER_LATE).arg(&self.events).arg(NO_HISTORY);
        cmd
    }
}

/// The fence of a grant, in 16 digits.
pub fn granted(reply: &Value) -> Result<&[u8], Failure> {
    match reply {
        Value::BulkString(fence) if fence.len() == 16 => Ok(fence),
        _ => Err(format!("not granted: {reply:?}").into()),
    }
}

/// Whether the reply says that this release ended the lease.
pub fn released(reply: &Value) -> Result<(), Failure> {
    match reply {
        Value::BulkString(digits) if digits.len() == 29 => Ok(()),
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
