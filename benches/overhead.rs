//! What the deadline, the circuits and the retry cost a call that simply succeeds: CPU time and allocations of one thread.
//!
//! The store is `memory://`, which takes next to no time: the whole call is shown, which is more than what is asked about. Run it on
//! two commits for the difference.
//!
//! ```text
//! cargo bench --bench overhead
//! ```

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::{alloc::System, hint::black_box, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use spool_lock::{Circuit, CircuitConfig, Config, SpoolLocks, Tag};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CALLS: u32 = 200_000;
const ROUNDS: usize = 21;

/// The CPU time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// The median of the rounds, in nanoseconds a call, and what all of them allocated.
async fn measure<F: Future>(mut call: impl FnMut() -> F) -> (f64, usize) {
    let mut rounds = Vec::with_capacity(ROUNDS);
    call().await;
    let region = Region::new(COUNTING);
    for _ in 0..ROUNDS {
        let before = cpu();
        for _ in 0..CALLS {
            black_box(call().await);
        }
        rounds.push((cpu() - before).as_secs_f64() * 1e9 / f64::from(CALLS));
    }
    let allocations = region.change().allocations;
    rounds.sort_by(f64::total_cmp);
    (rounds[ROUNDS / 2], allocations)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let circuit = Circuit::new("bench", CircuitConfig::default());
        let (nanos, allocations) = measure(|| {
            if let Ok(permit) = circuit.permit() {
                permit.success();
            }
            std::future::ready(())
        })
        .await;
        println!("a permit and its success: {nanos:.0} ns, {allocations} allocations in {ROUNDS} x {CALLS}");

        let locks = SpoolLocks::connect(Config::new("memory://")?).await?;
        let tag = Tag::new("TEST-02")?;
        let (nanos, allocations) = measure(|| locks.inspect(&tag)).await;
        println!(
            "a whole inspect of memory://: {nanos:.0} ns, {allocations} allocations in {ROUNDS} x {CALLS}; of the difference to a commit \
             without circuits ≤ 300 ns and 0 allocations are wanted"
        );
        Ok(())
    })
}
