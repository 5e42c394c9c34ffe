//! What integration tests stand on: real servers, a faulty network, a shifted clock, a scripted server.
//!
//! Everything listens on 127.0.0.1, lives in temporary directories and ends with its value. Servers and proxies run
//! beside the test's runtime, not on it, so a test may block, pause tokio's clock or use one thread.

// Each test binary includes the whole module and uses a part of it.
#![allow(dead_code, unused_imports)]
// `pub` here means "for the test that includes this module"; there is no crate to reach it from.
#![allow(unreachable_pub)]

pub mod admin;
pub mod clock;
pub mod frame;
pub mod monitor;
pub mod process;
pub mod proxy;
pub mod resp;
pub mod server;
pub mod tls;

use std::fmt::Debug;
use std::net::TcpListener;
use std::panic::Location;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::time::Instant;

pub use clock::ClockShim;
pub use monitor::{Monitor, Sent};
pub use proxy::FaultProxy;
pub use resp::{Answer, ScriptedServer};
pub use server::RedisServer;
pub use tls::TlsFiles;

/// Polls `claim` each 5 ms until it holds, and returns what it found.
///
/// A claim is a `bool`, an `Option` or a `Result`; the text of the last `Err` is part of the panic. The bound is on
/// tokio's clock: with a paused clock it passes without the world having had time to move.
///
/// # Panics
/// When the claim does not hold within `bound`, naming the line that asked.
#[track_caller]
pub fn eventually<F, C>(bound: Duration, mut claim: F) -> impl Future<Output = C::Found>
where
    F: AsyncFnMut() -> C,
    C: Claim,
{
    let asked_at = Location::caller();
    async move {
        let deadline = Instant::now() + bound;
        loop {
            match claim().await.settle() {
                Ok(found) => return found,
                Err(seen) if Instant::now() >= deadline => {
                    panic!("not so within {bound:?}, asked at {asked_at}: {seen}")
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

/// What [`eventually`] can wait for.
pub trait Claim {
    type Found;

    /// `Err` says what was seen instead.
    fn settle(self) -> Result<Self::Found, String>;
}

impl Claim for bool {
    type Found = ();

    fn settle(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("still false".into()) }
    }
}

impl<T> Claim for Option<T> {
    type Found = T;

    fn settle(self) -> Result<T, String> {
        self.ok_or_else(|| "still none".into())
    }
}

impl<T, E: Debug> Claim for Result<T, E> {
    type Found = T;

    fn settle(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:?}"))
    }
}

/// A port of 127.0.0.1 on which nobody listens now.
///
/// Taken below the kernel's ephemeral range, so that no outgoing connection takes the port of a server that is being
/// restarted. Never the same twice in a process; another process can still be faster.
pub fn free_port() -> u16 {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 17_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);

    // Test binaries that run side by side have neighbouring pids: the step keeps their ports apart.
    let start = u16::try_from(u64::from(std::process::id()) * 257 % u64::from(COUNT)).expect("below COUNT");
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
