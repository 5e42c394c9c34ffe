//! Stores.
pub(crate) mod pool;
