//! 50 tasks on one tag in one process, beside rslock.

use std::{sync::Arc, time::Duration};

use crate::{
    contest::{ALONE, Contest, HEADS, Rules, cells, refuse_leftovers, workers, worst},
    crew::{Crew, Failure, Waiter},
    race::{goals::Goals, lock_key, rounds::Rounds, rslock::Rslock, spool::Spool, table},
    support::RedisServer,
};

const TASKS: usize = 50;
const SPOOL: &str = "spool-lock";
const RSLOCK: &str = "rslock";

const FULL: Rules = Rules {
    hold: Duration::from_millis(1),
    warm_up: Duration::from_millis(300),
    length: Duration::from_millis(6_500),
    rounds: 3,
};
const QUICK: Rules = Rules { length: Duration::from_millis(700), rounds: 1, ..FULL };

/// A task that waits as rslock does: it asks again every now and then, after up to 200 ms.
struct Rival(Arc<Rslock>);

impl Waiter for Rival {
    type Lock = rslock::Lock;

    async fn take(&mut self) -> Result<rslock::Lock, Failure> {
        self.0.wait(&lock_key(&Crew::tag(0))).await
    }

    fn fence(_lock: &rslock::Lock) -> Option<u64> {
        None
    }

    async fn give_back(&mut self, lock: rslock::Lock) -> Result<(), Failure> {
        self.0.unlock(&lock).await;
        Ok(())
    }
}

pub(crate) async fn race(server: &RedisServer, quick: bool, goals: &mut Goals) -> Result<(), Failure> {
    let rules = if quick { QUICK } else { FULL };
    let url = |database: u32| format!("{}/{database}", server.url());
    let rslock = Arc::new(Rslock::new(&url(1)));
    let (spool, alone) = (Spool::connect(&url(2)).await?, Spool::connect(&url(3)).await?);
    let rounds =
        Rounds::rotate([RSLOCK, SPOOL, ALONE].map(str::to_owned), rules.rounds, async |place| match place {
            0 => Contest::hold(server, true, (0..TASKS).map(|_| Rival(rslock.clone())), rules).await,
            1 => Contest::hold(server, false, workers(&spool, TASKS), rules).await,
            _ => Contest::hold(server, false, workers(&alone, 1), rules).await,
        })
        .await?;
    for database in 1..=3 {
        refuse_leftovers(server, database)?;
    }

    println!("\n{TASKS} tasks on one tag, hold 1 ms, {} rounds of {:?}\n", rules.rounds, rules.length);
    let row = |name: &String| {
        let wins = rounds.spread(name, Contest::wins_per_second).median;
        let against = rounds.ratio(name, ALONE, Contest::wins_per_second).to_string();
        [vec![name.clone(), format!("{wins:.0}"), against], cells(&rounds, name)].concat()
    };
    let rows: Vec<_> = rounds.names().iter().map(row).collect();
    table::print(&[&["contender", "wins/s", "/ alone"][..], &HEADS].concat(), &rows);

    let p99 = rounds.ratio(SPOOL, RSLOCK, |contest| contest.wait_millis(99)).median;
    let cpu = rounds.ratio(SPOOL, RSLOCK, Contest::client_micros).median;
    let wins = rounds.ratio(SPOOL, ALONE, Contest::wins_per_second).median;
    goals.at_most("1 commands per hand-over", 1.2, worst(&rounds, SPOOL, Contest::commands));
    goals.at_most("1 wins max / min", 1.1, worst(&rounds, SPOOL, Contest::unfairness));
    goals.at_most("1 wait p99 / rslock's", 0.2, p99);
    goals.at_most("1 longest wait / fair time", 1.5, worst(&rounds, SPOOL, Contest::longest_wait));
    goals.at_most("1 client CPU per hand-over / rslock's", 0.7, cpu);
    goals.at_least("1 wins/s / alone", 0.92, wins);
    Ok(())
}
