//! Contenders that take and release locks side by side, on a server of their own.
//!
//! A contender does one thing: a **pair**, an acquire and the release of it, of a tag that nobody else wants. Each has a
//! database of its own on the server, so that all use the same keys and `CLIENT LIST` tells whose connection is whose.

// Each bench includes the whole module and uses a part of it.
#![allow(dead_code)]
// `pub` here means "for the bench that includes this module"; there is no crate to reach it from.
#![allow(unreachable_pub)]

pub mod checked_out;
pub mod floor;
pub mod goals;
pub mod guards;
pub mod options;
pub mod rounds;
pub mod rslock;
pub mod scripts;
pub mod spool;
pub mod table;
pub mod window;

/// Whatever went wrong; a bench only counts and prints it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Somebody who takes and releases locks.
pub trait Contender: Send + Sync + 'static {
    /// What one task keeps between its pairs: its tag, its handle.
    type Task: Send + 'static;

    /// Prepares the task with this number.
    fn task(&self, number: usize) -> Self::Task;

    /// Acquires and releases once. `Err` unless both are known to have succeeded.
    fn pair(&self, task: &mut Self::Task) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// The tag of a task: 12 bytes, as a spool's number has.
pub fn tag(number: usize) -> String {
    format!("TEST-{number:07}")
}

/// The key of a lock as spool-lock writes it; every contender uses it.
pub fn lock_key(tag: &str) -> String {
    format!("spool:{{{tag}}}:lock")
}

/// The key of a fence.
pub fn fence_key(tag: &str) -> String {
    format!("spool:{{{tag}}}:fence")
}
