//! The pool, seen from the server's side and from that of its callers: what it opens, what it carries, what it says when it
//! is full, slow or cut off, and what a call leaves behind that nobody waits for any more.

#[path = "pool/cancellation.rs"]
mod cancellation;
#[path = "pool/connecting.rs"]
mod connecting;
#[path = "pool/economy.rs"]
mod economy;
#[path = "pool/eviction.rs"]
mod eviction;
#[path = "pool/lanes.rs"]
mod lanes;
#[path = "pool/limits.rs"]
mod limits;
mod support;
#[path = "pool/waiting.rs"]
mod waiting;
#[path = "pool/workers.rs"]
mod workers;
