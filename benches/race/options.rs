//! [`Options`]: what the command line asks for.

/// How the benches are called.
pub const USAGE: &str = "\
cargo bench --bench pairs -- [--quick] [--rounds N] [--tasks 1,50,200] [--depth 8,16,32,64] [--memory]
  --quick    3 rounds of 0.15 s: shows that it works, not how fast
  --rounds   rounds of each table, default 9, at least 7 for figures
  --tasks    tasks at the same time, a table for each; with --depth default 50,200
  --depth    sweeps our depth instead of racing the others
  --memory   bytes of server memory for each lock instead of racing the others
cargo bench --bench allocations
             allocations of a pair, in a build of its own: counting slows everything";

/// What is to be done.
#[derive(Debug)]
pub struct Options {
    pub quick: bool,
    pub rounds: usize,
    pub tasks: Option<Vec<usize>>,
    pub depth: Option<Vec<u32>>,
    pub memory: bool,
    pub allocations: bool,
}

impl Options {
    /// Reads the arguments; `Err` says which cannot be used.
    pub fn read(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options =
            Self { quick: false, rounds: 9, tasks: None, depth: None, memory: false, allocations: false };
        let mut rounds = None;
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--memory" => options.memory = true,
                "--allocations" => options.allocations = true,
                "--rounds" => rounds = Some(numbers(&value()?)?.remove(0)),
                "--tasks" => options.tasks = Some(numbers(&value()?)?),
                "--depth" => options.depth = Some(numbers(&value()?)?),
                // cargo adds it.
                "--bench" => {}
                _ => return Err(format!("{arg} is not known")),
            }
        }
        options.rounds = rounds.unwrap_or(if options.quick { 3 } else { options.rounds });
        Ok(options)
    }
}

/// Positive numbers with commas between.
fn numbers<N: TryFrom<u32>>(text: &str) -> Result<Vec<N>, String> {
    let number =
        |part: &str| part.parse().ok().filter(|&number| number > 0).and_then(|n| N::try_from(n).ok());
    text.split(',').map(|part| number(part.trim()).ok_or_else(|| format!("{part:?} is no number"))).collect()
}
