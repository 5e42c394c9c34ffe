//! [`Task`]: a spawned task that ends with its value.

use tokio::task::JoinHandle;

/// Aborts its task on drop, so that nobody who gives up leaves work behind.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
