//! A guard and its release, beside an acquire and its release of an identity: in turn, one window each in a round.

use std::time::Duration;

use crate::{
    race::{
        Failure,
        guards::Guards,
        rounds::{Rounds, ramp},
        spool::Spool,
        table,
        window::{Entry, Span, Window},
    },
    support::RedisServer,
};

const IDENTITY: &str = "identity";
const IDENTITY_AGAIN: &str = "identity2";
const GUARD: &str = "guard";

pub(crate) async fn race(server: &RedisServer, quick: bool) -> Result<(), Failure> {
    let (rounds, millis) = if quick { (3, 150) } else { (9, 350) };
    let span = Span { warm_up: Duration::from_millis(60), length: Duration::from_millis(millis) };
    let url = |database: u32| format!("{}/{database}", server.url());
    let entries = [
        Entry::new(IDENTITY, 1, Spool::connect(&url(1)).await?),
        Entry::new(IDENTITY_AGAIN, 2, Spool::connect(&url(2)).await?),
        Entry::new(GUARD, 3, Guards(Spool::connect(&url(3)).await?)),
    ];
    for tasks in [1, 50] {
        ramp(&entries, server, tasks).await;
        print(tasks, &Rounds::run(&entries, server, tasks, rounds, span).await)?;
    }
    Ok(())
}

fn print(tasks: usize, rounds: &Rounds) -> Result<(), Failure> {
    let row = |name: &String| {
        let against = |of: &dyn Fn(&Window) -> f64| rounds.ratio(name, IDENTITY, of).to_string();
        let commands = |window: &Window| window.commands as f64;
        let micros = |window: &Window| window.client_cpu.as_secs_f64() * 1e6;
        vec![
            name.clone(),
            format!("{:.0}", rounds.spread(name, |window| window.pairs_per_second).median),
            against(&|window| window.pairs_per_second),
            against(&|window| window.p50_micros),
            format!("{:.1}", rounds.per_pair(name, micros)),
            against(&|window| micros(window) / window.all_pairs as f64),
            against(&|window| window.server_cpu.as_secs_f64() / window.all_pairs as f64),
            format!("{:.3}", rounds.per_pair(name, commands)),
        ]
    };
    println!("\npairs, tasks {tasks}, {} rounds; beside the identity\n", rounds.windows(GUARD).len());
    let head =
        ["", "pairs/s", "pairs/s ratio", "p50 ratio", "cpu us", "cpu ratio", "server ratio", "commands"];
    table::print(&head, &rounds.names().iter().map(row).collect::<Vec<_>>());
    for name in rounds.names() {
        if let Some(error) = rounds.windows(name).iter().find_map(|window| window.first_error.as_ref()) {
            return Err(format!("{name}: {error}").into());
        }
    }
    Ok(())
}
