//! Calls with options: builders that are awaited.

mod acquire;
mod acquire_all;
mod connect;
mod extend;
mod guard;
mod release;

use std::pin::Pin;

pub use self::{
    acquire::Acquire,
    acquire_all::AcquireAll,
    connect::Connect,
    extend::{Extend, Shorten},
    guard::AcquireGuard,
    release::Release,
};

/// What awaiting a builder runs.
pub(crate) type Pending<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;
