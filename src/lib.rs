#![doc = include_str!("../README.md")]

mod abandoned;
mod admission;
mod agenda;
mod attempt;
mod backlog;
mod buckets;
mod builder;
mod circuit;
mod claim;
#[cfg(any(feature = "backoff", feature = "prometheus"))]
pub mod compat;
mod config;
mod deferred;
mod dependency;
mod endpoint;
mod error;
mod event;
mod fallback;
mod fault;
pub mod fence;
mod grant;
mod guard;
mod health;
mod hearing;
mod held;
mod history;
mod holder;
mod hub;
mod inner;
mod known;
mod lease;
mod lease_source;
#[cfg(feature = "rate-limit")]
mod limits;
mod lines;
mod locks;
mod lost;
mod meter;
#[cfg(feature = "prometheus")]
pub mod metrics;
mod mode;
mod node;
mod outcome;
mod phase;
mod prober;
mod rate;
mod recovery;
mod renewal;
mod retry;
mod roster;
mod schedule;
mod server;
#[cfg(feature = "snapshot")]
mod snapshot;
mod stats;
mod store;
mod sweeper;
mod sync;
mod tag;
mod text;
mod time;
mod token;
mod ttl;
mod waiters;
mod watch;

pub use builder::{Acquire, AcquireAll, AcquireGuard, Connect, Extend, Release, Shorten};
pub use circuit::{Circuit, CircuitConfig, CircuitWatch, Permit, Rejected};
pub use claim::Claim;
pub use config::{
    Config, GuardConfig, HistoryConfig, LimitsConfig, Right, RightPurpose, StoreUrl, WaitConfig,
};
pub use deferred::{Deferred, DeferredCall, DeferredLog, DeferredLogAnswer, InvalidDeferred, Settlement};
#[cfg(unix)]
pub use deferred::{FileDeferredLog, Fsync};
pub use endpoint::SnapshotEndpoint;
pub use error::{
    AcquireAllError, AcquireError, ConfigError, ConnectError, DeferError, ExtendError, ForceReleaseError,
    GuardReleaseError, LimitedBy, NotDeferred, ReadError, ReleaseError, RestoreError,
};
pub use event::Event;
pub use fallback::{FallbackReading, ReadFallback};
pub use fault::{Fault, FaultKind};
pub use fence::Fence;
pub use guard::LockGuard;
pub use health::{ConnectionState, Health, HealthDetails, HealthStatus};
pub use held::{GuardState, GuardWatch};
pub use history::{LeaseEnd, PastLease};
pub use holder::Holder;
pub use lease::{Lease, LeaseKind, Occupant, Reading, Source};
pub use lease_source::{LeaseSource, LeaseSourceAnswer};
pub use locks::SpoolLocks;
pub use lost::{LockLost, LostReason};
pub use mode::Mode;
pub use node::ModeWatch;
pub use outcome::{ReleaseOutcome, RestoreOutcome, ShortenOutcome};
pub use phase::RecoveryPhase;
pub use rate::{InvalidRate, Rate};
pub use retry::RetryConfig;
pub use schedule::{Delays, Jitter, Schedule};
pub use stats::{
    CircuitState, CircuitStats, ClosedReason, FaultStats, Histogram, LimitReason, LockStats, OperationStats,
    PhaseStats, PoolAlert, PoolReport, PoolStats, PoolStatus, RecoveryStats, ServerReport, Snapshot, Stats,
    Warning,
};
pub use store::pool::PoolConfig;
pub use tag::Tag;
pub use text::InvalidText;
pub use token::{InvalidRequestId, RequestId, Token};
pub use ttl::{InvalidTtl, Ttl};
pub use watch::Watch;
