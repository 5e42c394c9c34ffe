//! The shape of the incident: a small server, workers who meet, and a crowd that looks on.

use std::{collections::BTreeSet, time::Duration};

use spool_lock::{Event, Watch};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    crew::{Turns, Waiter as _, Worker, crowd},
    support::RedisServer,
    workers::{SOON, connect, millis},
};

const WORKERS: usize = 50;
const WATCHERS: usize = 100;
/// Two workers want each.
const TAGS: usize = 25;
const LENGTH: Duration = Duration::from_secs(20);
/// Whose lease is the last of each tag.
const LAST: usize = 1_000;

fn tag(number: usize) -> String {
    format!("TEST-{:02}", number % TAGS)
}

/// What is heard of a tag, up to the end of the last lease. That a grant from the queue was confirmed is heard as an extend, and
/// is left out: it may come or not.
async fn listen(mut watch: Watch) -> Vec<(&'static str, u64)> {
    let mut heard = Vec::new();
    while let Some(event) = watch.next().await {
        let Some(occupant) = event.occupant() else { panic!("a gap: {event:?}") };
        if !matches!(*event, Event::Extended { .. }) {
            heard.push((event.name(), occupant.fence.get()));
        }
        if occupant.holder.id() == LAST.to_string() && matches!(*event, Event::Released { .. }) {
            return heard;
        }
    }
    panic!("the watch has ended after {heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn fifty_workers_and_a_hundred_watchers_fit_a_server_for_25() {
    let server = RedisServer::builder().maxclients(25).start();
    let locks = connect(&server.url(), |_| {}).await;
    let mut watchers = JoinSet::new();
    for number in 0..WATCHERS {
        let tag = tag(number).parse().expect("a tag");
        let watch = locks.watch_tag(&tag).await.expect("there is room for the subscription");
        watchers.spawn(async move { (number, listen(watch).await) });
    }
    let workers: Vec<_> = (0..WORKERS).map(|number| Worker::new(&locks, &tag(number), number)).collect();
    let work = tokio::spawn(async move {
        let mut crowds = JoinSet::new();
        for number in 0..TAGS {
            let pair = [workers[number].clone(), workers[TAGS + number].clone()];
            crowds.spawn(async move { (number, crowd(pair, millis(2), Duration::ZERO, LENGTH).await) });
        }
        crowds.join_all().await
    });

    let (began, mut most) = (Instant::now(), 0);
    while !work.is_finished() && began.elapsed() < LENGTH + SOON {
        most = most.max(server.clients().len());
        sleep(millis(20)).await;
    }
    let mut turns = vec![Turns::default(); TAGS];
    for (number, outcome) in work.await.expect("no panic") {
        turns[number] = outcome.expect("0 errors");
        turns[number].check().unwrap();
    }
    let mut last = Vec::new();
    for number in 0..TAGS {
        let mut worker = Worker::new(&locks, &tag(number), LAST);
        let lease = worker.take().await.expect("it is free");
        last.push(lease.fence.get());
        worker.give_back(lease).await.expect("it is held");
    }

    let mut events = 0;
    while let Some(heard) = timeout(SOON, watchers.join_next()).await.expect("all hear the last event") {
        let (number, heard) = heard.expect("a watcher without a gap");
        let tag = number % TAGS;
        let fences = turns[tag].groups.iter().flatten().filter_map(|turn| turn.fence).chain([last[tag]]);
        let fences: BTreeSet<_> = fences.collect();
        let expected: Vec<_> =
            fences.into_iter().flat_map(|fence| [("taken", fence), ("released", fence)]).collect();
        assert!(heard == expected, "watcher {number} heard {} of {}", heard.len(), expected.len());
        events += heard.len();
    }
    println!("{} events, at most {most} connections", events);
    assert_eq!(server.info("stats")["rejected_connections"], "0");
    assert!(most <= 6, "{most} connections");
}
