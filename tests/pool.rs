//! The pool, seen from the server's side and from that of its callers.

#[path = "pool/connecting.rs"]
mod connecting;
#[path = "pool/eviction.rs"]
mod eviction;
#[allow(unused_imports, reason = "each test takes what it needs")]
mod support;
#[allow(dead_code, reason = "its other tests follow")]
#[path = "pool/workers.rs"]
mod workers;
