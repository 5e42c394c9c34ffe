//! [`Place`]: where a guard may be dropped, each in a process of its own that writes down nothing but what goes wrong.
//!
//! What unwinds here does so by `resume_unwind`, which says nothing: any panic that is heard of is one too many.

use std::{
    cell::RefCell,
    io::Write,
    mem,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Mutex, mpsc},
    thread,
};

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
};

use super::*;
use crate::crew::machine_clock;

/// Names the variable by which a process learns that it is a child, and where it is to drop its guards.
pub(crate) const VARIABLE: &str = "SPOOL_PLACE";
/// Stands before the time at which the end of a child began.
pub(crate) const MOMENT: &str = "moment ";

/// How many guards are dropped at each place.
pub(crate) const GUARDS: usize = 1000;
/// Where nobody is left to release them.
pub(crate) const TTL: Duration = Duration::from_secs(2);

/// What a process does with its guards; where it can, with one half in tasks and with the other outside of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// 20 current-thread runtimes one after another are dropped, before some guards, and after others.
    DroppedRuntimes,
    /// Tasks and threads unwind; the process goes on.
    Unwinding,
    /// Of a thread that ends, after what the runtime has there; the process goes on.
    ThreadLocal,
    /// `main` returns with its runtime.
    Main,
    /// `main` unwinds, its runtime too.
    UnwindingMain,
    /// `std::process::exit`.
    Exit,
    ShutdownBackground,
    ShutdownTimeout,
    /// In a `static`, with their runtime.
    Static,
    /// `mem::forget`.
    Leaked,
    /// With their runtime in a thread that nobody waits for.
    Thread,
}

impl Place {
    pub(crate) const ALL: [Self; 11] = [
        Self::DroppedRuntimes,
        Self::Unwinding,
        Self::ThreadLocal,
        Self::Main,
        Self::UnwindingMain,
        Self::Exit,
        Self::ShutdownBackground,
        Self::ShutdownTimeout,
        Self::Static,
        Self::Leaked,
        Self::Thread,
    ];

    /// What this process is to do, if it is a child, and at which server.
    pub(crate) fn of_this_process() -> Option<(Self, String)> {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, url) = text.split_once(' ').expect("what the parent wrote");
        let place = Self::ALL.into_iter().find(|place| format!("{place:?}") == name);
        Some((place.expect("what the parent wrote"), url.to_owned()))
    }

    /// The status of the process.
    pub(crate) fn code(self) -> i32 {
        if self == Self::UnwindingMain { 101 } else { 0 }
    }

    /// Whether the process goes on for long enough to release them.
    pub(crate) fn is_released(self) -> bool {
        matches!(self, Self::Unwinding | Self::ThreadLocal)
    }

    /// The life of a child.
    pub(crate) fn visit(self, url: &str) {
        if self == Self::DroppedRuntimes {
            const EACH: usize = GUARDS / 20;
            (0..20).for_each(|part| drop_runtime(url, part * EACH..(part + 1) * EACH));
            return moment();
        }
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
        let ttl = if self.is_released() { ttl(30_000) } else { Ttl::new(TTL).expect("a ttl") };
        let (locks, mut guards) = runtime.block_on(async {
            let locks = connect(url).await;
            let guards = take(&locks, 0..GUARDS, ttl).await;
            (locks, guards)
        });
        match self {
            Self::DroppedRuntimes => unreachable!("it has runtimes of its own"),
            Self::Unwinding => {
                unwind(&runtime, guards);
                released(&runtime, &locks);
            }
            Self::ThreadLocal => {
                drop_with_thread(&runtime, guards);
                released(&runtime, &locks);
            }
            Self::Main => {
                into_tasks(&runtime, guards.split_off(GUARDS / 2));
                runtime.block_on(async {
                    moment();
                    drop((guards, locks));
                });
            }
            Self::UnwindingMain => {
                into_tasks(&runtime, guards.split_off(GUARDS / 2));
                moment();
                resume_unwind(Box::new("as it is to be"));
            }
            Self::Exit => {
                into_tasks(&runtime, guards.split_off(GUARDS / 2));
                runtime.block_on(async {
                    let _kept = (guards, locks);
                    moment();
                    std::process::exit(0)
                })
            }
            Self::ShutdownBackground => {
                into_tasks(&runtime, guards.split_off(GUARDS / 2));
                moment();
                runtime.shutdown_background();
            }
            Self::ShutdownTimeout => {
                into_tasks(&runtime, guards.split_off(GUARDS / 2));
                moment();
                runtime.shutdown_timeout(Duration::from_millis(100));
            }
            Self::Static => {
                static LEFT: Mutex<Option<(Runtime, SpoolLocks, Vec<LockGuard>)>> = Mutex::new(None);
                *LEFT.lock().expect("nobody panics") = Some((runtime, locks, guards));
                moment();
            }
            Self::Leaked => {
                guards.into_iter().for_each(mem::forget);
                mem::forget(runtime);
                moment();
            }
            Self::Thread => {
                let (sender, ready) = mpsc::channel();
                thread::spawn(move || {
                    into_tasks(&runtime, guards.split_off(GUARDS / 2));
                    runtime.block_on(async {
                        let _kept = (guards, locks);
                        sender.send(()).expect("main waits");
                        std::future::pending::<()>().await;
                    });
                });
                ready.recv().expect("it says so");
                moment();
            }
        }
    }
}

/// Takes a guard for each number, some side by side, and sees that it holds all of them.
pub(crate) async fn take(locks: &SpoolLocks, numbers: Range<usize>, ttl: Ttl) -> Vec<LockGuard> {
    const SIDE_BY_SIDE: usize = 20;
    let mut takers = JoinSet::new();
    for first in numbers.clone().take(SIDE_BY_SIDE) {
        let (locks, numbers) = (locks.clone(), (first..numbers.end).step_by(SIDE_BY_SIDE));
        takers.spawn(async move {
            let mut guards = Vec::new();
            for number in numbers {
                guards.push(locks.guard(&numbered(number), &robot()).ttl(ttl).await.expect("it is free"));
            }
            guards
        });
    }
    let guards: Vec<_> = takers.join_all().await.into_iter().flatten().collect();
    assert_eq!(guards.len(), numbers.len());
    assert!(guards.iter().all(|guard| !guard.state().is_final()), "all are held");
    guards
}

/// Lets a task have each of them that never ends by itself.
fn into_tasks(runtime: &Runtime, guards: Vec<LockGuard>) {
    for guard in guards {
        runtime.spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
    }
}

/// Drops a runtime whose tasks have a third of the guards. The others outlive it, here and in another thread.
fn drop_runtime(url: &str, numbers: Range<usize>) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (locks, mut guards) = runtime.block_on(async {
        let locks = connect(url).await;
        let guards = take(&locks, numbers, Ttl::new(TTL).expect("a ttl")).await;
        (locks, guards)
    });
    into_tasks(&runtime, guards.split_off(2 * guards.len() / 3));
    let elsewhere = guards.split_off(guards.len() / 2);
    // Each task comes as far as to its guard.
    runtime.block_on(tokio::task::yield_now());
    drop(runtime);
    thread::spawn(move || drop(elsewhere)).join().expect("no panic");
    drop((guards, locks));
}

/// Unwinds a task, or a thread without a runtime, for each of them.
fn unwind(runtime: &Runtime, mut guards: Vec<LockGuard>) {
    let outside = guards.split_off(GUARDS / 2);
    runtime.block_on(async {
        let mut tasks = JoinSet::<()>::new();
        for guard in guards {
            tasks.spawn(async move {
                let _guard = guard;
                tokio::task::yield_now().await;
                resume_unwind(Box::new("as it is to be"))
            });
        }
        while let Some(ended) = tasks.join_next().await {
            assert!(ended.expect_err("it unwound").is_panic());
        }
    });
    let outside = move || {
        for guard in outside {
            let unwinds = AssertUnwindSafe(move || {
                let _guard = guard;
                resume_unwind(Box::new("as it is to be"));
            });
            catch_unwind(unwinds).expect_err("it unwound");
        }
    };
    thread::spawn(outside).join().expect("no panic");
}

/// Drops them with a thread. What the runtime keeps there was made later, and so goes first.
fn drop_with_thread(runtime: &Runtime, guards: Vec<LockGuard>) {
    thread_local! {
        static OWN: RefCell<Vec<LockGuard>> = const { RefCell::new(Vec::new()) };
    }
    let life = || {
        OWN.set(guards);
        runtime.block_on(async {});
    };
    thread::scope(|scope| scope.spawn(life).join().expect("no panic"));
}

/// The process stays until all are released; then its end begins.
fn released(runtime: &Runtime, locks: &SpoolLocks) {
    let free = async || locks.list().await.expect("healthy").value.is_empty();
    runtime.block_on(async { eventually(SOON, free).await });
    moment();
}

/// The end of this process begins.
fn moment() {
    let mut out = std::io::stdout().lock();
    // On a line of its own, whatever a test harness has begun to write.
    writeln!(out, "\n{MOMENT}{}", machine_clock().as_nanos()).expect("the parent reads it");
    out.flush().expect("the parent reads it");
}
