//! Connections that stay silent: no wrong answer.

use std::time::Duration;

use spool_lock::{AcquireError, Tag};

use crate::{
    support::{
        FaultProxy, RedisServer, eventually,
        proxy::{LostReply, named},
    },
    workers::{connect, holder, millis, pool},
};

/// A waiter was handed the slot of a call that had timed out, on the very connection that had just been found silent.
#[tokio::test]
async fn nobody_is_put_on_a_lane_that_has_just_timed_out() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url(), |config| {
        config.pool.max_connections = 1;
        config.pool.depth = 1;
        config.pool.response_timeout = millis(300);
    })
    .await;
    proxy.drop_replies(1, LostReply::Swallow, named("EVALSHA"));
    let (tag, holder) = (Tag::new("TEST-02").expect("a tag"), holder(1));
    let waits = async {
        eventually(Duration::from_secs(1), async || pool(&locks).in_flight == 1).await;
        locks.inspect(&tag).await
    };
    let (lost, waited) = tokio::join!(locks.acquire(&tag, &holder), waits);
    assert!(matches!(lost, Err(AcquireError::Ambiguous { .. })), "{lost:?}");
    waited.expect("a new connection serves it");
}
