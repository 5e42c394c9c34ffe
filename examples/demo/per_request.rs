//! The contrast: a connection for each request, as in the incident.

use std::{error::Error, time::Duration};

use redis::{Client, Cmd, RedisResult};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{WORK, WORKERS, say, server::Server};

/// Lets the workers take, extend and release without a pool until `length` has passed, and says how many requests failed.
pub(crate) async fn show(server: &mut Server, length: Duration) -> Result<(), Box<dyn Error>> {
    let before = server.look().await?;
    say(format_args!(
        "{WORKERS} workers, a connection per request, a server that accepts {} clients: {} s",
        before.max,
        length.as_secs_f64()
    ))?;
    let end = Instant::now() + length;
    let mut workers: JoinSet<_> =
        (0..WORKERS).map(|worker| work(server.client.clone(), worker, end)).collect();
    let (mut failed, mut attempts) = (0, 0);
    while let Some(done) = workers.join_next().await {
        let done = done?;
        failed += done.0;
        attempts += done.1;
    }
    let rejected = server.look().await?.rejected - before.rejected;
    say(format_args!(
        "connection per request: {failed} of {attempts} attempts failed, server rejected {rejected}"
    ))?;
    Ok(())
}

/// Returns how many requests failed, and how many there were.
async fn work(client: Client, worker: usize, end: Instant) -> (u64, u64) {
    let key = format!("per-request:{worker}");
    let (mut failed, mut attempts) = (0, 0);
    loop {
        // TOMAR, an extension, PAUSAR: three requests, perhaps of different processes.
        for command in [
            Cmd::new().arg("SET").arg(&key).arg(worker).arg("NX").arg("PX").arg(1_000),
            Cmd::new().arg("PEXPIRE").arg(&key).arg(1_000),
            Cmd::new().arg("DEL").arg(&key),
        ] {
            if Instant::now() >= end {
                return (failed, attempts);
            }
            attempts += 1;
            if request(&client, command).await.is_err() {
                failed += 1;
                sleep(WORK).await;
            }
        }
    }
}

/// One request: its connection is open for as long as it lasts, the work of the request included.
async fn request(client: &Client, command: &Cmd) -> RedisResult<()> {
    let mut connection = client.get_multiplexed_async_connection().await?;
    let _: redis::Value = command.query_async(&mut connection).await?;
    sleep(WORK).await;
    Ok(())
}
