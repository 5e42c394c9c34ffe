//! [`Dependency`]: something beside Redis that the service stands on, and whether it works.

use std::{
    fmt::{self, Display},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task::JoinSet, time::timeout};

use crate::{Circuit, CircuitConfig, ConfigError, Jitter, Schedule};

/// A check that has not answered by then has failed.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a dependency that has failed is left alone, at first and at last: a health check every second or two finds out within
/// 5 s that it works again.
const LEFT_ALONE: Schedule =
    Schedule::new(Duration::from_millis(250), Duration::from_secs(2)).jitter(Jitter::Equal);

/// The longest name.
const MAX_NAME: usize = 32;

type Check = dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync;

/// Something that the service stands on, and how to find out whether it works.
pub(crate) struct Dependency {
    check: Arc<Check>,
    circuit: Circuit,
    /// What it failed of last: the answer while its circuit is open.
    failed_of: Mutex<String>,
}

impl Dependency {
    pub(crate) fn new<F, E>(name: &str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        let check = move || -> Pin<Box<dyn Future<Output = _> + Send>> {
            let checked = check();
            Box::pin(async { checked.await.map_err(|error| error.to_string()) })
        };
        let config = CircuitConfig { open: LEFT_ALONE, ..CircuitConfig::default() };
        let circuit = Circuit::new(name.to_owned(), config);
        Self { check: Arc::new(check), circuit, failed_of: Mutex::default() }
    }

    /// Checks that a report can name each of them.
    ///
    /// # Errors
    /// [`ConfigError`] — the first name that cannot be used, and why.
    pub(crate) fn check_names(dependencies: &[Self]) -> Result<(), ConfigError> {
        for (place, name) in dependencies.iter().map(Self::name).enumerate() {
            let is_word = name.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_'));
            let is_taken = dependencies[..place].iter().any(|other| other.name() == name);
            let right = match name {
                _ if !is_word || !(1..=MAX_NAME).contains(&name.len()) => "1 to 32 of a-z 0-9 _ can",
                "redis" => "redis is asked anyway",
                _ if is_taken => "another one has that name",
                _ => continue,
            };
            let (variable, value) = ("dependency".to_owned(), name.to_owned());
            return Err(ConfigError { variable, value, right: right.to_owned() });
        }
        Ok(())
    }

    pub(crate) fn name(&self) -> &str {
        self.circuit.name()
    }

    /// Finds out whether it works, in a second at most; it is left alone while its circuit is open.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) async fn ask(&self) -> Result<(), String> {
        let Ok(permit) = self.circuit.permit() else { return Err(self.failed_of().clone()) };
        let outcome = self.run_check().await;
        match &outcome {
            Ok(()) => permit.success(),
            Err(error) => {
                // Before the circuit may open: whoever it refuses reads this.
                self.failed_of().clone_from(error);
                permit.fault();
            }
        }
        outcome
    }

    async fn run_check(&self) -> Result<(), String> {
        let check = self.check.clone();
        // A task of its own, the only one of its set: what panics there ends nothing else, and it ends with this call.
        let mut task = JoinSet::new();
        task.spawn(async move { check().await });
        match timeout(PATIENCE, task.join_next()).await {
            Ok(Some(Ok(outcome))) => outcome,
            Ok(_) => Err("its check panicked".to_owned()),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        }
    }

    fn failed_of(&self) -> MutexGuard<'_, String> {
        self.failed_of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dependency").field("circuit", &self.circuit).finish_non_exhaustive()
    }
}
