//! [`Rounds`]: the windows of several contenders in turn, and the ratios between them.

use std::time::Duration;

use super::{
    Failure,
    window::{Entry, Span, Window},
};
use crate::support::RedisServer;

const RAMP: Span = Span { warm_up: Duration::from_millis(5), length: Duration::from_millis(10) };

/// For each contender the windows of all rounds.
pub struct Rounds<W = Window> {
    names: Vec<String>,
    windows: Vec<Vec<W>>,
}

/// A median over rounds with its lowest and highest.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub lowest: f64,
    pub highest: f64,
}

/// Brings the load up by doubling: a cold pool refuses a burst that its waiting line cannot hold.
pub async fn ramp(entries: &[Entry], server: &RedisServer, tasks: usize) {
    for entry in entries {
        for ramp in (0..).map(|power| 1 << power).take_while(|&ramp| ramp < tasks) {
            entry.window(server, ramp, RAMP).await;
        }
    }
}

impl Rounds {
    /// Runs every contender for one window a round.
    pub async fn run(
        entries: &[Entry],
        server: &RedisServer,
        tasks: usize,
        rounds: usize,
        span: Span,
    ) -> Self {
        let names = entries.iter().map(|entry| entry.name.clone());
        let window = async |place: usize| Ok(entries[place].window(server, tasks, span).await);
        Self::rotate(names, rounds, window).await.expect("a window counts what fails")
    }

    /// What `of` finds in all rounds together, for each pair.
    pub fn per_pair(&self, name: &str, of: impl Fn(&Window) -> f64) -> f64 {
        let windows = self.windows(name);
        let pairs: u64 = windows.iter().map(|window| window.all_pairs).sum();
        windows.iter().map(of).sum::<f64>() / pairs as f64
    }
}

impl<W> Rounds<W> {
    /// Runs every contender once a round, by its place; each round begins with another one.
    pub async fn rotate(
        names: impl IntoIterator<Item = String>,
        rounds: usize,
        mut window: impl AsyncFnMut(usize) -> Result<W, Failure>,
    ) -> Result<Self, Failure> {
        let names: Vec<_> = names.into_iter().collect();
        let mut windows: Vec<_> = names.iter().map(|_| Vec::with_capacity(rounds)).collect();
        for round in 0..rounds {
            for turn in 0..names.len() {
                let place = (round + turn) % names.len();
                windows[place].push(window(place).await?);
            }
        }
        Ok(Self { names, windows })
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The median over rounds of what `of` finds in a window.
    pub fn spread(&self, name: &str, of: impl Fn(&W) -> f64) -> Spread {
        Spread::of(self.windows(name).iter().map(of).collect())
    }

    /// The median of the ratios of each round, never the ratio of medians: a machine drifts.
    pub fn ratio(&self, name: &str, reference: &str, of: impl Fn(&W) -> f64) -> Spread {
        let rounds = self.windows(name).iter().zip(self.windows(reference));
        Spread::of(rounds.map(|(window, reference)| of(window) / of(reference)).collect())
    }

    pub fn windows(&self, name: &str) -> &[W] {
        let place = self.names.iter().position(|known| known == name).expect("a contender of this run");
        &self.windows[place]
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Self { median, lowest: values[0], highest: values[values.len() - 1] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2}..{:.2})", self.median, self.lowest, self.highest)
    }
}
