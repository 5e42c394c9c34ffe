//! What is given back while Redis cannot be asked: kept, in order, applied once Redis is back, and to nothing but the lease that was
//! meant. Real servers; the network is a proxy where only the way to Redis is to break.

#[path = "deferred/crowd.rs"]
mod crowd;
#[path = "deferred/effects.rs"]
mod effects;
#[path = "deferred/log.rs"]
mod log;
#[path = "deferred/processes.rs"]
mod processes;
#[path = "deferred/reasons.rs"]
mod reasons;
#[path = "deferred/setup.rs"]
mod setup;
#[path = "deferred/shorten.rs"]
mod shorten;
mod support;
