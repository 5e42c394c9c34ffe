//! Pool.
mod config;
pub use config::PoolConfig;
