//! What Prometheus is told: the [`catalogue`] of every metric, and the [`Page`] that shows their values.
//!
//! The numbers of a process come out of its [`Snapshot`](crate::Snapshot), whether it shows them itself (by the collector in
//! [`compat::prometheus0_14`](crate::compat::prometheus0_14)) or the exporter shows them for it: one catalogue, one reader of
//! snapshots, one page.
//!
//! # What it promises
//! Metric names and labels are public API. Labels are closed sets or short words from a configuration, never a tag, a holder
//! or a message. Every series of a closed set exists from the first page on, at zero: a counter that is born at one is
//! invisible to `increase()`.
//!
//! # Why plain data and no registry
//! A registry's counters would be a second set of numbers beside the snapshot, and the exporter cannot count in a registry
//! what has been counted in another process. So values are read where they are counted, at the moment of the scrape.

mod catalogue;
mod family;
mod page;
mod service;

pub use catalogue::{Door, Kind, Label, Metric, catalogue};
pub use page::Page;
