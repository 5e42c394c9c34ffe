//! Where the numbers come from: the services' snapshots and the Redis server.

mod info;
mod mask;
mod reason;
mod redis;
mod service;
mod target;
mod url;

pub use mask::mask;
pub use target::ServiceSpec;
pub use url::RedisUrl;

pub(crate) use self::redis::RedisSource;
pub(crate) use info::Info;
pub(crate) use reason::Reason;
pub(crate) use service::{SnapshotError, read_snapshot};
pub(crate) use target::{Listing, MAX_SERVICES, Service, list};
