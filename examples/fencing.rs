//! How does my data refuse a holder that was paused and has lost its lock? Needs no server:
//!
//! ```text
//! cargo run --example fencing
//! SPOOL_LOCK_URL=redis://127.0.0.1:6379 cargo run --example fencing
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use spool_lock::{
    Config, Holder, Lease, SpoolLocks, Tag, Ttl,
    fence::{AdmitError, Register},
};
use tokio::time::sleep;

/// The data, and beside it the register of those who may write it. In SQL both are one row: see the docs of [`Register`].
#[derive(Default)]
struct Drawing {
    text: String,
    register: Register,
}

impl Drawing {
    fn write(&mut self, lease: &Lease, text: &str) -> Result<(), AdmitError> {
        self.register.admit(lease.fence, lease.token)?;
        self.text = text.to_owned();
        println!("{} writes {text:?} under fence {}", lease.holder.name(), lease.fence);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let chosen = std::env::var_os("SPOOL_LOCK_URL").is_some();
    let config = if chosen { Config::from_env()? } else { Config::new("memory://")? };
    let locks = SpoolLocks::connect(config).await?;
    let (tag, rosa, juan) =
        (Tag::new("TEST-02")?, Holder::new("93", "MR(93)")?, Holder::new("94", "JP(94)")?);
    let mut drawing = Drawing::default();

    // Rosa writes, and then her process is paused for longer than her lock lasts.
    let rosas = locks.acquire(&tag, &rosa).ttl(Ttl::new(Duration::from_millis(100))?).await?;
    drawing.write(&rosas, "2 welds")?;
    sleep(Duration::from_millis(200)).await;

    // Juan gets the lock, rightly, and writes.
    let juans = locks.acquire(&tag, &juan).await?;
    drawing.write(&juans, "3 welds")?;

    // She wakes up and believes that she still holds it. No lock can prevent that; the drawing refuses her.
    let refused = drawing.write(&rosas, "2 welds, tested").expect_err("her lock is lost");
    println!("{} is refused: {refused}", rosas.holder.name());

    drawing.write(&juans, "3 welds, tested")?;
    println!("the drawing says {:?}", drawing.text);
    locks.release_lease(&juans).await?;
    Ok(())
}
