//! Stores.
mod classify;
pub(crate) mod pool;
