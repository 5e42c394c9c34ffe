//! How the number of waiters matters, and what they cost while they wait.

use std::time::Duration;

use tokio::{task::JoinSet, time::sleep};

use crate::{
    contest::{ALONE, Contest, HEADS, Rules, cells, refuse_leftovers, workers, worst},
    crew::{Crew, Failure, Waiter as _, Worker},
    race::{goals::Goals, rounds::Rounds, spool::Spool, table},
    support::{RedisServer, eventually},
};

const FEW: usize = 50;
const MANY: usize = 500;

const FULL: Rules = Rules {
    hold: Duration::ZERO,
    warm_up: Duration::from_millis(200),
    length: Duration::from_millis(1_200),
    rounds: 7,
};
const QUICK: Rules = Rules { length: Duration::from_millis(400), rounds: 1, ..FULL };

/// Nobody holds the lock for any time: what is left is the hand-over.
pub(crate) async fn race(server: &RedisServer, quick: bool, goals: &mut Goals) -> Result<(), Failure> {
    let rules = if quick { QUICK } else { FULL };
    let names = [ALONE.to_owned(), format!("{FEW} waiters"), format!("{MANY} waiters")];
    let [_, few, many] = &names;
    let mut spools = Vec::new();
    for database in 5..8 {
        spools.push(Spool::connect(&format!("{}/{database}", server.url())).await?);
    }
    let rounds = Rounds::rotate(names.clone(), rules.rounds, async |place| {
        Contest::hold(server, false, workers(&spools[place], [1, FEW, MANY][place]), rules).await
    })
    .await?;
    for database in 5..8 {
        refuse_leftovers(server, database)?;
    }

    println!("\none tag, hold 0, {} rounds of {:?}\n", rules.rounds, rules.length);
    let hand_over = |contest: &Contest| contest.hand_over_micros(50);
    let row = |name: &String| {
        let median = |of: &dyn Fn(&Contest) -> f64| format!("{:.0}", rounds.spread(name, of).median);
        let own = vec![
            name.clone(),
            median(&Contest::wins_per_second),
            rounds.ratio(name, few, Contest::wins_per_second).to_string(),
            median(&hand_over),
            rounds.ratio(name, ALONE, hand_over).to_string(),
            median(&|contest| contest.hand_over_micros(99)),
        ];
        [own, cells(&rounds, name)].concat()
    };
    let heads = ["", "hand-overs/s", "/ 50", "hand-over p50 us", "/ pair", "hand-over p99 us"];
    table::print(&[&heads[..], &HEADS].concat(), &rounds.names().iter().map(row).collect::<Vec<_>>());

    let ratio = rounds.ratio(many, few, Contest::wins_per_second).median;
    goals.at_least("3 hand-overs/s with 500 waiters / with 50", 0.8, ratio);
    goals.at_most("4 hand-over p50 / pair p50", 1.25, rounds.ratio(few, ALONE, hand_over).median);
    goals.at_most("1 commands per hand-over, 500 waiters", 1.2, worst(&rounds, many, Contest::commands));
    Ok(())
}

const IDLE_TAGS: usize = 20;

/// One waiter for each of some tags that somebody else holds.
pub(crate) async fn idle(server: &RedisServer, quick: bool, goals: &mut Goals) -> Result<(), Failure> {
    let length = Duration::from_secs(if quick { 2 } else { 10 });
    let url = format!("{}/8", server.url());
    let (holders, waiters) = (Spool::connect(&url).await?, Spool::connect(&url).await?);
    let mut crowd = JoinSet::new();
    for number in 0..IDLE_TAGS {
        let tag = Crew::tag(number);
        Worker::new(&holders.locks, &tag, number).take().await?;
        let mut waiter = Worker::new(&waiters.locks, &tag, IDLE_TAGS + number);
        crowd.spawn(async move { waiter.take().await.map(drop) });
    }
    server.cmd(&["SELECT", "8"]);
    let queues = async || server.query::<Vec<String>>(&["KEYS", "*:queue"]).len() == IDLE_TAGS;
    eventually(Duration::from_secs(5), queues).await;
    let before = server.sent();
    sleep(length).await;
    let commands = (server.sent() - before) as f64 / IDLE_TAGS as f64 / length.as_secs_f64();
    println!(
        "\n{IDLE_TAGS} tags that somebody else holds, a waiter for each, {length:?}: {commands:.2} commands/s for each tag"
    );
    goals.at_most("3 idle commands/s for each tag", 1.0, commands);
    Ok(())
}
