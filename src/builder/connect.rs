use std::{fmt::Display, sync::Arc};

use crate::{Config, DeferredLog, LeaseSource, ReadFallback, dependency::Dependency, inner::Doors};

/// A connect that has its options yet to be given; `.await` it.
///
/// # Examples
/// ```
/// use spool_lock::{Config, ConnectionState, SpoolLocks};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// async fn ping_the_sheet() -> Result<(), std::io::Error> {
///     Ok(())
/// }
/// let locks = SpoolLocks::connect(Config::new("memory://")?).dependency("sheets", ping_the_sheet).await?;
/// assert_eq!(locks.health().await.connections["sheets_connection"], ConnectionState::Ok);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing is connected until this is awaited"]
pub struct Connect {
    pub(crate) config: Config,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) doors: Doors,
}

impl Connect {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, dependencies: Vec::new(), doors: Doors::default() }
    }

    /// Names something else that the service stands on, such as its ledger, and how to find out whether it works;
    /// [`health`](crate::SpoolLocks::health) then has it as `NAME_connection`. Default: none.
    ///
    /// A name is 1 to 32 of `a-z 0-9 _`, not `redis`, and of one dependency only. Each call of `health` calls all the checks, side by
    /// side and each in a task of its own, which must not block its thread. One that fails, panics, or has not answered within 1 s
    /// counts as failed, and what its error says stands in [`HealthDetails::dependencies`](crate::HealthDetails::dependencies).
    /// After 3 failures in a row it is not called for 250 ms, then for longer while it still fails, up to 2 s; meanwhile what it said
    /// last is said again.
    pub fn dependency<F, E>(mut self, name: &str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        self.dependencies.push(Dependency::new(name, check));
        self
    }

    /// Who is asked who holds what when Redis cannot be asked and this process does not remember. Default: nobody; the last one that is
    /// given counts.
    pub fn read_fallback(mut self, fallback: impl ReadFallback) -> Self {
        self.doors.fallback = Some(Box::new(fallback));
        self
    }

    /// Where releases that could not be sent survive this process. What an earlier one has left there is applied before acquires are
    /// let in. Default: nowhere, they are kept in memory; the last one that is given counts.
    pub fn deferred_log(mut self, log: impl DeferredLog) -> Self {
        self.doors.log = Some(Arc::new(log));
        self
    }

    /// Who is asked which leases are to stand, now and whenever Redis may have lost them: what is missing is put back before acquires
    /// are let in. Default: nobody, the guards of this process alone are put back; the last one that is given counts.
    pub fn lease_source(mut self, source: impl LeaseSource) -> Self {
        self.doors.source = Some(Arc::new(source));
        self
    }
}
