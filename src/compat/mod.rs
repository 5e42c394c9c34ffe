//! Bridges to other crates, one module per crate and version: the only public places that name a type of theirs.

#[cfg(feature = "backoff")]
pub mod backoff0_4;
#[cfg(feature = "prometheus")]
pub mod prometheus0_14;
