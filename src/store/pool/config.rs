//! [`PoolConfig`]: how many connections, how full, how patient.

use std::time::Duration;

/// How many connections to Redis there may be, and how they are used.
///
/// A connection is shared: it carries up to `depth` operations at a time. 50 workers need 4 connections, not 50.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolConfig {
    /// The most connections that one [`connect`](crate::SpoolLocks::connect) and its clones ever have, everything included:
    /// those being opened and those being closed too. Default 20, what the hosted Redis of the incident could spare; 1 to 1000.
    /// With 1 there is none for the subscription: who waits finds out by looking again and again, who watches hears nothing.
    pub max_connections: u32,
    /// Operations that a connection carries at a time. Default 16 (docs/adr/0002-depth.md); 1 to 1024. With 1 a connection
    /// belongs to one operation at a time, as in a classical pool.
    pub depth: u32,
    /// How long a connection may be without work before it is closed; one stays open, and one for guards while there are any. Default 60 s; 10 ms to 1 day.
    pub idle_timeout: Duration,
    /// How many calls may wait for a connection; one more is refused at once. Extends and releases are counted by themselves,
    /// so that waiting acquires do not turn them away. Default 160, eight times the default maximum; 0 to 100,000.
    pub max_waiters: u32,
    /// How long opening a connection may take: TCP, TLS and handshake. Where somebody waits for one that is older than 1 s, another is
    /// tried beside it, for 1 s at most, again and again: the network may be back that had lost the packets of the first. For that
    /// `max_connections` must leave a place. Default 5 s; 10 ms to 1 min.
    pub connect_timeout: Duration,
    /// How long a reply may take. A call waits for half of what is left until its deadline where that is shorter, so that there is
    /// time for another try: for 250 ms at least, and never beyond its deadline. Default 5 s; 10 ms to 1 min.
    pub response_timeout: Duration,
    /// After how long without work a connection is tested before it is used again. Default 30 s; 10 ms to 1 day.
    pub idle_test: Duration,
    /// Connections opened at the same time, without the one that is tried beside those that hang. Default 4, so that a recovering
    /// server does not meet a herd; 1 to 100.
    pub dials: u32,
    /// Attempts per second to open a connection after one has failed. Default 4; 1 to 100.
    pub dials_per_second: u32,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_connections: 20,
            depth: 16,
            idle_timeout: Duration::from_secs(60),
            max_waiters: 160,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(5),
            idle_test: Duration::from_secs(30),
            dials: 4,
            dials_per_second: 4,
        }
    }
}
