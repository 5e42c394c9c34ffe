//! Many guards, and nothing else to do: what it costs to keep them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use spool_lock::{Config, GuardState, LockGuard, SpoolLocks, Ttl};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    race::{
        Failure,
        goals::Goals,
        spool::Worker,
        table,
        window::{Counts, cpu_time},
    },
    support::{RedisServer, Sent},
};

/// How many tasks take the guards, and give them back.
const TASKS: usize = 50;

/// How many slots of an interval the spread is judged by.
const SLOTS: u32 = 10;

struct Plan {
    guards: usize,
    ttl: Ttl,
    window: Duration,
}

impl Plan {
    fn of(quick: bool) -> Result<Self, Failure> {
        let (guards, ttl, window) = if quick { (1_000, 3, 3) } else { (10_000, 30, 30) };
        Ok(Self { guards, ttl: Ttl::new(Duration::from_secs(ttl))?, window: Duration::from_secs(window) })
    }

    /// How often each guard is renewed.
    fn interval(&self) -> Duration {
        self.ttl.duration() / 3
    }

    fn slot(&self) -> Duration {
        self.interval() / SLOTS
    }

    fn renewals_per_second(&self) -> f64 {
        self.guards as f64 / self.interval().as_secs_f64()
    }
}

pub(crate) async fn measure(server: &RedisServer, quick: bool, goals: &mut Goals) -> Result<(), Failure> {
    let plan = Plan::of(quick)?;
    let locks = SpoolLocks::connect(Config::new(&format!("{}/4", server.url()))?).await?;
    let began = Instant::now();
    let guards = take(&locks, &plan).await?;
    let taken = began.elapsed();
    // The first renewals, and whatever else the taking has left.
    sleep(plan.interval()).await;

    let kept = Kept::watch(server, &locks, plan.window).await;
    let monitor = server.monitor();
    // A little longer: whoever was renewed just before it began is due again just after it ends.
    sleep(plan.interval() + 3 * plan.slot()).await;
    let heard = Heard::of(monitor.heard(server), plan.slot());

    let outage = outage(server, &plan).await;

    let lost = guards.iter().filter(|guard| !matches!(guard.state(), GuardState::Held { .. })).count();
    let began = Instant::now();
    give_back(guards).await?;
    let given_back = began.elapsed();
    server.cmd(&["SELECT", "4"]);
    let left: Vec<String> = server.query(&["KEYS", "*:lock"]);
    if lost + left.len() > 0 {
        return Err(format!("{lost} guards were not held, {} locks were left behind", left.len()).into());
    }

    println!(
        "\n{} guards of ttl {:?}, taken by {TASKS} tasks in {taken:.1?}, kept for {:?}, released in {given_back:.1?}\n",
        plan.guards,
        plan.ttl.duration(),
        plan.window
    );
    let cells = [
        ("keeper's CPU, % of a core", format!("{:.2}", kept.cpu_percent())),
        (
            "keeper's CPU, us / renewal",
            format!("{:.1}", kept.cpu_percent() * 1e4 / kept.renewals_per_second()),
        ),
        ("server's CPU, us / renewal", format!("{:.1}", kept.server_micros())),
        ("renewals/s", format!("{:.0}", kept.renewals_per_second())),
        ("commands/s", format!("{:.0}", kept.commands_per_second())),
        ("server's reads / renewal", format!("{:.3}", kept.reads as f64 / kept.renewals as f64)),
        ("renewals in each tenth of an interval", format!("{}..{}", heard.fewest(), heard.most())),
        ("guards renewed in an interval", format!("{}", heard.guards.len())),
        ("connections that carried renewals", format!("{}", heard.connections.len())),
        ("the busiest one's share", format!("{:.4}", heard.busiest_share())),
        ("keeper's CPU while the server is silent, % of a core", format!("{outage:.2}")),
    ];
    table::print(&["", "seen"], &cells.map(|(what, seen)| vec![what.to_owned(), seen]));

    goals.at_most("10 keeper's CPU, % of a core", 2.0, kept.cpu_percent());
    let expected = kept.commands_per_second() / plan.renewals_per_second();
    goals.at_most("10 commands / expected renewals", 1.01, expected);
    goals.at_least("10 commands / expected renewals", 0.99, expected);
    goals.at_most(
        "10 renewals in each tenth of an interval, most / mean",
        1.25,
        heard.most() as f64 * f64::from(SLOTS) / plan.guards as f64,
    );
    goals.at_least(
        "10 guards renewed in an interval, share",
        1.0,
        heard.guards.len() as f64 / plan.guards as f64,
    );
    goals.at_most("10 connections that carried renewals", 1.0, heard.connections.len() as f64);
    Ok(())
}

/// The CPU, in % of a core, while nothing is answered and every guard becomes overdue. None is lost by that.
async fn outage(server: &RedisServer, plan: &Plan) -> f64 {
    server.stop();
    let (began, cpu) = (Instant::now(), cpu_time());
    sleep(plan.interval() * 3 / 2).await;
    let percent = percent(cpu_time().saturating_sub(cpu), began.elapsed());
    server.cont();
    sleep(plan.interval()).await;
    percent
}

fn percent(cpu: Duration, of: Duration) -> f64 {
    100.0 * cpu.as_secs_f64() / of.as_secs_f64()
}

async fn take(locks: &SpoolLocks, plan: &Plan) -> Result<Vec<LockGuard>, Failure> {
    let mut tasks = JoinSet::new();
    for first in 0..TASKS {
        let (locks, numbers, ttl) = (locks.clone(), (first..plan.guards).step_by(TASKS), plan.ttl);
        tasks.spawn(async move {
            let mut guards = Vec::new();
            for number in numbers {
                guards.push(Worker::of(number).guard(&locks, ttl).await?);
            }
            Ok::<_, Failure>(guards)
        });
    }
    let mut guards = Vec::with_capacity(plan.guards);
    while let Some(taken) = tasks.join_next().await {
        guards.extend(taken??);
    }
    Ok(guards)
}

async fn give_back(guards: Vec<LockGuard>) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    let mut shares: Vec<_> = (0..TASKS).map(|_| Vec::new()).collect();
    for (number, guard) in guards.into_iter().enumerate() {
        shares[number % TASKS].push(guard);
    }
    for share in shares {
        tasks.spawn(async move {
            for guard in share {
                guard.release().await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// What a window cost.
struct Kept {
    length: Duration,
    cpu: Duration,
    renewals: u64,
    commands: u64,
    reads: u64,
    server_cpu: Duration,
}

impl Kept {
    async fn watch(server: &RedisServer, locks: &SpoolLocks, window: Duration) -> Self {
        let renewals = || locks.stats().locks.operations["extend"].total;
        let (before, renewed, began, cpu) =
            (Counts::ask(server, false), renewals(), Instant::now(), cpu_time());
        sleep(window).await;
        let (cpu, length) = (cpu_time().saturating_sub(cpu), began.elapsed());
        let (renewed, after) = (renewals() - renewed, Counts::ask(server, false));
        Self {
            length,
            cpu,
            renewals: renewed,
            commands: after.commands - before.commands,
            reads: after.reads - before.reads,
            server_cpu: after.cpu.saturating_sub(before.cpu),
        }
    }

    fn cpu_percent(&self) -> f64 {
        percent(self.cpu, self.length)
    }

    fn server_micros(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / self.renewals as f64
    }

    fn renewals_per_second(&self) -> f64 {
        self.renewals as f64 / self.length.as_secs_f64()
    }

    fn commands_per_second(&self) -> f64 {
        self.commands as f64 / self.length.as_secs_f64()
    }
}

/// The renewals of one interval, as the server has heard them. Nothing else is sent meanwhile that is a script.
struct Heard {
    /// By their first moment.
    slots: BTreeMap<u128, usize>,
    connections: BTreeMap<String, usize>,
    guards: BTreeSet<String>,
}

impl Heard {
    fn of(sent: Vec<Sent>, slot: Duration) -> Self {
        let mut heard =
            Self { slots: BTreeMap::new(), connections: BTreeMap::new(), guards: BTreeSet::new() };
        let renewals = sent.into_iter().filter(|sent| sent.words[0].eq_ignore_ascii_case("EVALSHA"));
        for Sent { at, from, words } in renewals {
            *heard.slots.entry(at.as_micros() / slot.as_micros()).or_default() += 1;
            *heard.connections.entry(from).or_default() += 1;
            // The first key: that of the lock.
            heard.guards.insert(words[3].clone());
        }
        heard
    }

    fn most(&self) -> usize {
        self.slots.values().copied().max().unwrap_or(0)
    }

    fn fewest(&self) -> usize {
        let (Some((first, _)), Some((last, _))) = (self.slots.first_key_value(), self.slots.last_key_value())
        else {
            return 0;
        };
        // Not the first and the last one, which were not heard to the end. One that is not here had none.
        (first + 1..*last).map(|slot| self.slots.get(&slot).copied().unwrap_or(0)).min().unwrap_or(0)
    }

    fn busiest_share(&self) -> f64 {
        let all: usize = self.connections.values().sum();
        self.connections.values().copied().max().unwrap_or(0) as f64 / all as f64
    }
}
