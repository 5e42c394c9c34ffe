//! The locks of the rooms that a model checker tries: there, these are its own.

pub(crate) use std::sync::{Mutex, MutexGuard};
