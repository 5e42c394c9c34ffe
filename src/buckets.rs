//! Upper bounds of the histograms' buckets, in seconds.

/// A whole lock operation. Holds 2 exactly, so that "p95 < 2 s" is the share of a bucket, not an interpolation.
pub(crate) const OPERATION: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0];
/// Waiting for a connection, and using it.
pub(crate) const CHECKOUT: &[f64] = &[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0];
/// Opening a connection.
pub(crate) const CREATE: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// Waiting in line.
pub(crate) const WAIT: &[f64] = &[0.01, 0.1, 1.0, 10.0, 60.0];
/// Holding a lease.
pub(crate) const HELD: &[f64] = &[1.0, 10.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0];
/// What was left of a ttl when it was extended.
pub(crate) const MARGIN: &[f64] = &[0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0];
