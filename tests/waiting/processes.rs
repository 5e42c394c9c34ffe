//! Waiters in several processes, some of which are killed.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::{
    crew::{Child, Crew, Turns, Waiter as _, Worker, collect, machine_clock, start},
    queued,
    support::{RedisServer, eventually},
    workers::{connect, millis},
};

/// How long the place of a process lasts: four polls.
const PLACE: Duration = Duration::from_secs(4);

const CHILD: &[&str] = &["--exact", "processes::child", "--nocapture"];

/// A part of the tests below, which start it as a process of its own.
#[test]
fn child() {
    if let Some(crew) = Crew::of_this_process() {
        crew.run().expect("a child that fails says why");
    }
}

#[tokio::test]
async fn five_processes_share_evenly_and_cheaply() {
    let server = RedisServer::start();
    let (warm_up, length) = (millis(300), Duration::from_secs(4));
    let crew = Crew { waiters: 10, hold: millis(1), length: warm_up + length, ..Crew::new(&server.url()) };
    let mut children = start((0..5).map(|process| Crew { first: 10 * process, ..crew.clone() }), CHILD).await;

    let before = server.sent();
    let from = machine_clock() + warm_up;
    children.iter_mut().for_each(Child::go);
    let turns = Turns { groups: collect(&mut children).await, from, until: from + length };
    let commands = (server.sent() - before) as f64 / turns.groups.concat().len() as f64;

    turns.check().unwrap();
    let ((fewest, most), longest) = (turns.extremes(), turns.longest_wait_in_fair_times(50));
    println!("{:.0} hand-overs/s of {commands:.2} commands", turns.wins_per_second());
    println!("{fewest} to {most} for a process, longest wait {longest:.2} fair times");
    assert!(commands <= 3.0, "{commands} commands for a hand-over");
    assert!(most <= 2 * fewest, "{fewest} to {most} turns for a process");
    assert!(longest <= 3.0, "somebody waited for {longest} fair times");
}

/// Lets a process take the lock and die, and says how long after it was told to take it the next one had it.
async fn after_the_death_of_the_holder(server: &RedisServer, ttl: Duration) -> Duration {
    let crew = Crew { ttl, hold: Duration::from_secs(3600), ..Crew::new(&server.url()) };
    let mut children = start([crew], CHILD).await;
    let locks = connect(&server.url(), |_| {}).await;
    let tag = Crew::tag(0);
    let lock = format!("spool:{{{tag}}}:lock");

    let asked = Instant::now();
    children[0].go();
    eventually(Duration::from_secs(5), async || server.query::<bool>(&["EXISTS", &lock])).await;
    let mut next = Worker::new(&locks, &tag, 1);
    let next = tokio::spawn(async move { next.take().await.map(|_| Instant::now()) });
    queued(server, &tag, 1).await;
    children.remove(0).kill();
    let granted = timeout(2 * ttl, next).await.expect("it is granted").expect("no panic").expect("no fault");
    granted - asked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_was_killed_is_followed_when_its_lease_ends() {
    let ttl = Duration::from_secs(2);
    let spent = after_the_death_of_the_holder(&RedisServer::start(), ttl).await;
    assert!((ttl - millis(2)..=ttl + millis(250)).contains(&spent), "{spent:?}");
}

/// A server expires keys that nobody asks for a few at a time: whoever waits for it to do so waits for all the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_was_killed_is_followed_among_200_000_other_keys() {
    let server = RedisServer::start();
    let fill = "for n = 1, 200000 do redis.call('SET', 'other:' .. n, n, 'PX', 2000 + n % 4000) end";
    server.cmd(&["EVAL", fill, "0"]);
    let ttl = Duration::from_secs(2);
    let spent = after_the_death_of_the_holder(&server, ttl).await;
    assert!((ttl - millis(2)..=ttl + millis(250)).contains(&spent), "{spent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_waiters_hold_up_the_living_for_one_place_at_most() {
    let server = RedisServer::start();
    let tag = Crew::tag(0);
    let locks = connect(&server.url(), |_| {}).await;
    let mut holder = Worker::new(&locks, &tag, 100);
    let lease = holder.take().await.expect("it is free");
    let crew = Crew { connects: 10, ..Crew::new(&server.url()) };
    let mut children =
        start((0..10).map(|process| Crew { first: 10 * process, ..crew.clone() }), CHILD).await;
    children.iter_mut().for_each(Child::go);
    queued(&server, &tag, 100).await;

    for dead in (0..5).rev() {
        children.remove(2 * dead).kill();
    }
    let released = machine_clock();
    holder.give_back(lease).await.expect("it is held");
    let turns = Turns { groups: collect(&mut children).await, from: released, until: released + PLACE };
    turns.check().unwrap();
    println!("the living had waited for up to {:?}", turns.waits().last());
    assert_eq!(turns.wins(), 50, "all that live, in time");
}
