//! [`OneAddress`]: names one address of a host at a time.
//!
//! The driver dials all the addresses that its resolver names at once and keeps the first that answers. Each such dial is a
//! client for a server that is short of them, and a socket that nobody counts; so ours names one, and the next one after it
//! has failed.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use redis::{RedisFuture, io::AsyncDNSResolver};

#[derive(Debug, Default)]
pub(super) struct OneAddress {
    turn: AtomicUsize,
}

impl OneAddress {
    /// The address that was named last did not work.
    pub(super) fn failed(&self) {
        self.turn.fetch_add(1, Relaxed);
    }

    /// One of the addresses: the same until it has failed.
    fn choose(&self, addresses: &[SocketAddr]) -> Option<SocketAddr> {
        let turn = self.turn.load(Relaxed).checked_rem(addresses.len())?;
        addresses.get(turn).copied()
    }
}

/// A resolver for one dial; the turn is kept by the dialler.
#[derive(Debug, Clone)]
pub(super) struct Resolver(pub(super) std::sync::Arc<OneAddress>);

impl AsyncDNSResolver for Resolver {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
            let one = self.0.choose(&addresses);
            let one = one.ok_or_else(|| {
                std::io::Error::new(std::io::ErrorKind::NotFound, "the host has no address")
            })?;
            Ok(Box::new(std::iter::once(one)) as _)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_address_comes_after_a_failure_only() {
        let addresses: Vec<SocketAddr> = vec!["127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap()];
        let one = OneAddress::default();
        assert_eq!(one.choose(&addresses), Some(addresses[0]));
        assert_eq!(one.choose(&addresses), Some(addresses[0]));
        one.failed();
        assert_eq!(one.choose(&addresses), Some(addresses[1]));
        one.failed();
        assert_eq!(one.choose(&addresses), Some(addresses[0]));
        assert_eq!(one.choose(&[]), None);
    }
}
