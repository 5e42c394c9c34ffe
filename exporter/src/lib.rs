//! The exporter as a library: everything but the command line's first and last word.
//!
//! [`serve`] takes a bound listener and a future that ends it, so a test runs the whole exporter on port 0. One scrape is
//! one fresh look at every source, inside the scraper's own deadline; a source that fails is a sample (`…_up 0`), never
//! an error page. No number is kept from one look to the next.

mod budget;
mod collect;
mod collection;
mod config;
mod journal;
mod operator;
mod pace;
mod readiness;
pub mod server;
mod source;
mod task;

pub use config::{CommandLine, Config, ConfigError, RedisConfig, Setting};
pub use operator::{Order, Outcome};
pub use server::serve;
pub use source::{RedisUrl, ServiceSpec, mask};
