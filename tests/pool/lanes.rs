//! Lanes that are slow, idle or dead.

use std::time::Duration;

use spool_lock::Tag;

use crate::{
    support::{
        FaultProxy, RedisServer, eventually,
        proxy::{LostReply, containing, named},
    },
    workers::{SOON, at_rest, connect, holder, millis, open, pool},
};

fn tag(name: &str) -> Tag {
    Tag::new(name).expect("a tag")
}

#[tokio::test]
async fn a_stalled_lane_takes_no_new_calls() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url(), |config| {
        config.deadline = Duration::from_secs(20);
        config.pool.response_timeout = Duration::from_secs(20);
    })
    .await;
    let held = proxy.hold_requests(containing("STUCK"));
    let stuck = tokio::spawn({
        let locks = locks.clone();
        async move { locks.acquire(&tag("STUCK"), &holder(1)).await }
    });
    held.caught(1).await;
    // For a second it is only slow; then it is stalled.
    tokio::time::sleep(millis(1100)).await;
    for number in 0..5 {
        let tag = tag(&format!("CALL-{number}"));
        let call = tokio::time::timeout(Duration::from_secs(1), locks.inspect(&tag));
        call.await.expect("it is on another lane").expect("the server is well");
    }
    assert_eq!((open(&pool(&locks)), pool(&locks).in_flight), (2, 1));
    held.release();
    stuck.await.expect("no panic").expect("it was only late");
    assert_eq!(open(&at_rest(&locks).await), 2, "and the lane is good again");
}

#[tokio::test]
async fn long_idle_lanes_are_tested_first() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url(), |config| config.pool.idle_test = millis(200)).await;
    eventually(SOON, async || proxy.requests("PING") >= 2).await;
    assert_eq!(pool(&locks).connections_closed_total["failed_test"], 0);
    assert_eq!(proxy.connections_opened(), 1);

    // A firewall forgets the connection: it is open and silent.
    proxy.drop_replies(1, LostReply::Swallow, named("PING"));
    eventually(SOON, async || proxy.replies_dropped() == 1).await;
    locks.inspect(&tag("TEST-02")).await.expect("the caller gets a connection that answers");
    eventually(SOON, async || pool(&locks).connections_closed_total["failed_test"] == 1).await;
    let rest = at_rest(&locks).await;
    assert_eq!(open(&rest), 1);
    eventually(SOON, async || server.clients().len() == 1).await;
}
