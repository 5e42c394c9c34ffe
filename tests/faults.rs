//! Redis is ill, or the way to it is: what callers are told meanwhile, what is sent, and how soon all is well again. Real servers,
//! real faults; the network is a proxy.

#[path = "faults/contention.rs"]
mod contention;
#[path = "faults/dead.rs"]
mod dead;
#[path = "faults/deadline.rs"]
mod deadline;
#[path = "faults/forced.rs"]
mod forced;
#[path = "faults/herd.rs"]
mod herd;
#[path = "faults/limit.rs"]
mod limit;
#[path = "faults/outage.rs"]
mod outage;
#[path = "faults/outlook.rs"]
mod outlook;
#[path = "faults/report.rs"]
mod report;
#[path = "faults/server.rs"]
mod server;
#[path = "faults/service.rs"]
mod service;
#[path = "faults/setup.rs"]
mod setup;
#[path = "faults/slow.rs"]
mod slow;
#[path = "faults/states.rs"]
mod states;
mod support;
