//! [`Monitor`]: every command that a server is sent, as its `MONITOR` tells it.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use redis::{Connection, FromRedisValue as _};

use super::RedisServer;

/// What the test sends last: whatever the server was sent before is told before.
const END: &str = "the monitor ends here";

/// Listens on a thread of its own, from its start until it is asked. It costs the server about as much as what it is sent: not for
/// a time that is measured.
#[derive(Debug)]
pub struct Monitor {
    listening: JoinHandle<Vec<Sent>>,
}

/// One command.
#[derive(Debug, Clone)]
pub struct Sent {
    /// By the server's clock, since 1970.
    pub at: Duration,
    /// The connection, by its address at the client.
    pub from: String,
    /// The name of the command and its arguments, as Redis quotes them.
    pub words: Vec<String>,
}

impl Monitor {
    pub(super) fn listen(mut connection: Connection) -> Self {
        redis::cmd("MONITOR").exec(&mut connection).expect("the server may be monitored");
        let listening = thread::spawn(move || {
            let lines = std::iter::from_fn(|| {
                let line = connection.recv_response().expect("the server tells what it is sent");
                Some(String::from_redis_value(line).expect("a line"))
            });
            // What a script calls has no connection of its own.
            lines.take_while(|line| !line.contains(END)).filter_map(|line| Sent::read(&line)).collect()
        });
        Self { listening }
    }

    /// What clients have sent `server` since the start, but for what the test asked of it.
    ///
    /// # Panics
    /// When the server was sent nothing for 5 s.
    pub fn heard(self, server: &RedisServer) -> Vec<Sent> {
        server.cmd(&["ECHO", END]);
        self.listening.join().expect("the server tells what it is sent")
    }
}

impl Sent {
    /// `1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`; in the brackets the database, and `lua` or `unix:…` where it comes
    /// from a script or from the test.
    fn read(line: &str) -> Option<Self> {
        let (seconds, rest) = line.split_once(" [")?;
        let (origin, words) = rest.split_once("] ")?;
        let (_database, from) = origin.split_once(' ')?;
        if from == "lua" || from.starts_with("unix:") {
            return None;
        }
        let words = words.trim_matches('"').split("\" \"").map(str::to_owned).collect();
        Some(Self { at: Duration::from_secs_f64(seconds.parse().ok()?), from: from.to_owned(), words })
    }
}
