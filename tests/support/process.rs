//! A child process that does not outlive the test, whatever ends the test.

use std::io;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

/// A running child, with a watchdog that kills it when this process is gone.
///
/// `Drop` is enough for a test that passes or panics. The watchdog is for the rest: a test binary that is killed, and
/// values in a `static`, which are never dropped. It is a shell that reads from a pipe which only we hold open.
#[derive(Debug)]
pub struct Process {
    child: Child,
    watchdog: Child,
}

impl Process {
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let watchdog = Command::new("sh")
            .args(["-c", r#"read -r _; kill -9 "$1""#, "sh", &child.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match watchdog {
            Ok(watchdog) => Ok(Self { child, watchdog }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Both ends of a child that was given pipes, once.
    pub fn pipes(&mut self) -> (ChildStdin, ChildStdout) {
        let pipes = self.child.stdin.take().zip(self.child.stdout.take());
        pipes.expect("a child with pipes, which nobody has taken")
    }

    /// The status of a child that has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be waited for")
    }

    /// SIGKILL, and reaps the child. Doing it twice is harmless.
    pub fn kill(&mut self) {
        // The watchdog goes first: from here on the pid may belong to somebody else.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGSTOP, and returns when the child stands still.
    pub fn stop(&self) {
        self.signal("STOP");
        let stat = PathBuf::from(format!("/proc/{}/stat", self.pid()));
        for _ in 0..400 {
            // "pid (name) state …"; without a /proc the signal alone has to do.
            let Ok(stat) = std::fs::read_to_string(&stat) else { return };
            if stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("process {} did not stop within 2 s", self.pid());
    }

    /// SIGCONT.
    pub fn cont(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        // The shell's own `kill`: the program of that name is not on every machine.
        let status = Command::new("sh")
            .args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &self.pid().to_string()])
            .status()
            .expect("a shell can be started");
        assert!(status.success(), "could not send SIG{name} to {}", self.pid());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
