//! Redis was restarted, flushed, cut off or split in two: what was lost is put back before anybody else comes in, and who cannot have
//! his lease back is told.

// Every behaviour is a test; the lints see that only where `#[test]` stands on the function itself.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "restart/extend.rs"]
mod extend;
#[path = "restart/loss.rs"]
mod loss;
#[path = "restart/order.rs"]
mod order;
#[path = "restart/outage.rs"]
mod outage;
#[path = "restart/scene.rs"]
mod scene;
#[path = "restart/server.rs"]
mod server;
#[path = "restart/source.rs"]
mod source;
#[path = "restart/split.rs"]
mod split;
#[path = "restart/strangers.rs"]
mod strangers;
mod support;
