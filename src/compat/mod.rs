//! Bridges to other crates, one module per crate and version: the only public places that name a type of theirs.

pub mod prometheus0_14;
