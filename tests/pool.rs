//! The pool, seen from the server's side and from that of its callers.

#[path = "pool/connecting.rs"]
mod connecting;
#[path = "pool/eviction.rs"]
mod eviction;
#[allow(unused_imports, reason = "each test takes what it needs")]
mod support;
#[path = "pool/waiting.rs"]
mod waiting;
#[path = "pool/workers.rs"]
mod workers;
