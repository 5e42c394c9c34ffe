//! Five operating-system processes, all on one tag: of 10 tasks each, and of one, where each hand-over goes to another process.

use std::time::Duration;

use crate::{
    contest::{Contest, refuse_leftovers},
    crew::{Child, Crew, Failure, Turns, collect, machine_clock, start},
    race::{goals::Goals, table},
    support::RedisServer,
};

const PROCESSES: usize = 5;
const WARM_UP: Duration = Duration::from_millis(300);

pub(crate) async fn race(server: &RedisServer, quick: bool, goals: &mut Goals) -> Result<(), Failure> {
    let length = if quick { Duration::from_secs(1) } else { Duration::from_millis(6_500) };
    let mut rows = Vec::new();
    let millisecond = Duration::from_millis(1);
    for (tasks, hold) in [(10, millisecond), (10, Duration::ZERO), (1, millisecond), (1, Duration::ZERO)] {
        let contest = contest(server, tasks, hold, length).await?;
        let (fewest, most) = contest.turns.extremes();
        rows.push(vec![
            tasks.to_string(),
            format!("{} ms", hold.as_millis()),
            format!("{:.0}", contest.wins_per_second()),
            format!("{:.2}", contest.commands()),
            format!("{fewest}..{most}"),
            format!("{:.2}", contest.unfairness()),
            format!("{:.1}", contest.wait_millis(50)),
            format!("{:.1}", contest.wait_millis(99)),
            format!("{:.2}", contest.longest_wait()),
            format!("{:.0}", contest.server_micros()),
        ]);
        // The goals are for 10 tasks and a hold of 1 ms, as the fairness of tasks is; without a hold it is a contest for CPU.
        if tasks == 10 && !hold.is_zero() {
            goals.at_most("2 five processes: commands per hand-over", 3.0, contest.commands());
            goals.at_most("2 five processes: wins max / min", 2.0, contest.unfairness());
            goals.at_most("2 five processes: longest wait / fair time", 3.0, contest.longest_wait());
        }
    }
    println!("\n{PROCESSES} processes on one tag, {length:?}\n");
    let head = [
        "tasks",
        "hold",
        "wins/s",
        "commands",
        "wins min..max",
        "max / min",
        "wait p50 ms",
        "p99 ms",
        "max / fair",
        "server us",
    ];
    table::print(&head, &rows);
    Ok(())
}

async fn contest(
    server: &RedisServer,
    tasks: usize,
    hold: Duration,
    length: Duration,
) -> Result<Contest, Failure> {
    let crew =
        Crew { waiters: tasks, hold, length: WARM_UP + length, ..Crew::new(&format!("{}/4", server.url())) };
    let mut children =
        start((0..PROCESSES).map(|number| Crew { first: number * tasks, ..crew.clone() }), &[]).await;
    let turns = async {
        let from = machine_clock() + WARM_UP;
        children.iter_mut().for_each(Child::go);
        Ok(Turns { groups: collect(&mut children).await, from, until: from + length })
    };
    let contest = Contest::measure(server, false, PROCESSES * tasks, turns).await?;
    refuse_leftovers(server, 4)?;
    Ok(contest)
}
