//! [`Contest`]: what waiters did at one lock in one window, and what it cost.

use std::time::Duration;

use crate::{
    crew::{Crew, Failure, Turns, Waiter, Worker, crowd, percentile},
    race::{
        lock_key,
        rounds::{Rounds, Spread},
        spool::Spool,
        window::{Counts, cpu_time},
    },
    support::RedisServer,
};

/// The row of one worker who has the lock to itself.
pub(crate) const ALONE: &str = "spool-lock, alone";

/// What all contests of a table have in common.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) hold: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) length: Duration,
    pub(crate) rounds: usize,
}

/// Counts and CPU are of all turns, the warm-up's too; the rest is of the window.
pub(crate) struct Contest {
    pub(crate) waiters: usize,
    pub(crate) turns: Turns,
    commands: u64,
    client_cpu: Duration,
    server_cpu: Duration,
}

impl Contest {
    /// Lets the waiters of one contender take turns. `sets` says that its `SET` comes from the client.
    pub(crate) async fn hold<W: Waiter>(
        server: &RedisServer,
        sets: bool,
        waiters: impl ExactSizeIterator<Item = W>,
        rules: Rules,
    ) -> Result<Self, Failure> {
        let number = waiters.len();
        let turns = crowd(waiters, rules.hold, rules.warm_up, rules.length);
        Self::measure(server, sets, number, turns).await
    }

    /// Runs what makes the turns, and asks the server what that cost it.
    pub(crate) async fn measure(
        server: &RedisServer,
        sets: bool,
        waiters: usize,
        turns: impl Future<Output = Result<Turns, Failure>>,
    ) -> Result<Self, Failure> {
        let (before, cpu) = (Counts::ask(server, sets), cpu_time());
        let turns = turns.await?;
        let (client_cpu, after) = (cpu_time().saturating_sub(cpu), Counts::ask(server, sets));
        turns.check()?;
        Ok(Self {
            waiters,
            turns,
            commands: after.commands - before.commands,
            client_cpu,
            server_cpu: after.cpu.saturating_sub(before.cpu),
        })
    }

    pub(crate) fn wins_per_second(&self) -> f64 {
        self.turns.wins_per_second()
    }

    pub(crate) fn commands(&self) -> f64 {
        self.commands as f64 / self.all_turns()
    }

    pub(crate) fn client_micros(&self) -> f64 {
        self.client_cpu.as_secs_f64() * 1e6 / self.all_turns()
    }

    pub(crate) fn server_micros(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / self.all_turns()
    }

    /// Most wins ÷ fewest; infinite where somebody had none.
    pub(crate) fn unfairness(&self) -> f64 {
        let (fewest, most) = self.turns.extremes();
        most as f64 / fewest as f64
    }

    pub(crate) fn longest_wait(&self) -> f64 {
        self.turns.longest_wait_in_fair_times(self.waiters)
    }

    pub(crate) fn wait_millis(&self, percent: usize) -> f64 {
        percentile(&self.turns.waits(), percent).as_secs_f64() * 1e3
    }

    /// Of one who is alone it is a pair: the release and the next acquire.
    pub(crate) fn hand_over_micros(&self, percent: usize) -> f64 {
        percentile(&self.turns.hand_overs(), percent).as_secs_f64() * 1e6
    }

    fn all_turns(&self) -> f64 {
        self.turns.groups.iter().map(Vec::len).sum::<usize>() as f64
    }
}

/// Workers who all want the same tag.
pub(crate) fn workers(spool: &Spool, number: usize) -> impl ExactSizeIterator<Item = Worker> {
    (0..number).map(|worker| Worker::new(&spool.locks, &Crew::tag(0), worker))
}

/// Nothing of a lock may be left when everybody has gone.
pub(crate) fn refuse_leftovers(server: &RedisServer, database: u32) -> Result<(), Failure> {
    server.cmd(&["SELECT", &database.to_string()]);
    let lock = lock_key(&Crew::tag(0));
    let queue = lock.replace(":lock", ":queue");
    match server.query::<u64>(&["EXISTS", &lock, &queue]) {
        0 => Ok(()),
        _ => Err(format!("a lock or a queue was left behind in database {database}").into()),
    }
}

/// The worst of all rounds.
pub(crate) fn worst(rounds: &Rounds<Contest>, name: &str, of: impl Fn(&Contest) -> f64) -> f64 {
    let Spread { highest, .. } = rounds.spread(name, of);
    highest
}

/// The columns that the tables of contests share; [`cells`] fills them.
pub(crate) const HEADS: [&str; 9] = [
    "commands",
    "wins min..max",
    "max / min",
    "wait p50 ms",
    "p99 ms",
    "max ms",
    "max / fair",
    "cpu us",
    "server us",
];

/// Their cells: medians over rounds, but the worst round for fairness and the longest wait.
pub(crate) fn cells(rounds: &Rounds<Contest>, name: &str) -> Vec<String> {
    let median = |of: &dyn Fn(&Contest) -> f64| rounds.spread(name, of).median;
    let worst = |of: &dyn Fn(&Contest) -> f64| worst(rounds, name, of);
    let fewest = -worst(&|contest| -(contest.turns.extremes().0 as f64));
    let most = worst(&|contest| contest.turns.extremes().1 as f64);
    vec![
        format!("{:.2}", median(&Contest::commands)),
        format!("{fewest}..{most}"),
        format!("{:.2}", worst(&Contest::unfairness)),
        format!("{:.1}", median(&|contest| contest.wait_millis(50))),
        format!("{:.1}", median(&|contest| contest.wait_millis(99))),
        format!("{:.1}", worst(&|contest| contest.wait_millis(100))),
        format!("{:.2}", worst(&Contest::longest_wait)),
        format!("{:.0}", median(&Contest::client_micros)),
        format!("{:.0}", median(&Contest::server_micros)),
    ]
}
