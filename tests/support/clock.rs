//! The wall clock of a server or another child, shifted while it runs.
//!
//! A shared object stands before the C library's clock functions (`LD_PRELOAD`). Stepping the machine's clock would
//! need root and hit every test; a debug command that shifts time does not exist.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::NamedTempFile;

use super::server::ServerBuilder;

/// One clock, for the processes that were started with it. Dropped, it stays as it is.
#[derive(Debug)]
pub struct ClockShim {
    object: &'static Path,
    file: NamedTempFile,
}

impl ClockShim {
    /// Compiles the shared object, once in a process.
    ///
    /// # Errors
    /// When there is no C compiler `cc`, or it fails: the text says what to do.
    pub fn build() -> Result<Self, String> {
        static OBJECT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let object = OBJECT
            .get_or_init(|| compile("clock_shim", include_str!("clock_shim.c")))
            .as_ref()
            .map_err(String::clone)?;
        let file =
            NamedTempFile::with_prefix("clock-").map_err(|error| format!("no file for it: {error}"))?;
        let shim = Self { object, file };
        shim.shift_millis(0);
        Ok(shim)
    }

    /// Sets the clock `seconds` ahead of the machine's (behind, if negative). Not added to an earlier shift.
    pub fn shift(&self, seconds: i64) {
        self.shift_millis(seconds * 1_000);
    }

    pub fn shift_millis(&self, millis: i64) {
        // In place and in one write: the file is mapped by processes that read it at any moment.
        write_at_start(self.file.as_file(), &millis.to_ne_bytes());
    }

    /// The variables with which a process reads the time from this clock.
    pub fn variables(&self) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", self.object), ("CLOCK_SHIM_FILE", self.file.path())]
    }
}

impl ServerBuilder {
    /// The server reads the time from `shim`.
    #[must_use]
    pub fn clock(self, shim: &ClockShim) -> Self {
        shim.variables()
            .into_iter()
            .fold(self, |server, (name, value)| server.env(name, &value.display().to_string()))
    }
}

fn write_at_start(file: &File, bytes: &[u8]) {
    file.write_all_at(bytes, 0).expect("our own file can be written");
}

/// Compiles a shared object for `LD_PRELOAD` from the text of `tests/support/NAME.c`, whichever package's tests ask.
///
/// # Errors
/// When there is no C compiler `cc`, or it fails: the text says what to do.
pub fn compile(name: &str, text: &str) -> Result<PathBuf, String> {
    // Below the target directory, so `cargo clean` removes it.
    let target =
        option_env!("CARGO_TARGET_TMPDIR").ok_or("cargo names the folder to integration tests alone")?;
    let object = Path::new(target).join(name).with_extension("so");
    let unfinished = object.with_extension(std::process::id().to_string());
    let source = Path::new(target).join(format!("{name}-{}.c", std::process::id()));
    std::fs::write(&source, text).map_err(|error| format!("{}: {error}", source.display()))?;
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-o"])
        .args([&unfinished, &source])
        .output()
        .map_err(|error| format!("{name} needs a C compiler, `cc`: {error}"))?;
    let _ = std::fs::remove_file(&source);
    if !output.status.success() {
        return Err(format!("cc failed on {name}.c:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    // Test binaries that run side by side compile the same thing; a rename never shows half of it.
    std::fs::rename(&unfinished, &object).map_err(|error| format!("{}: {error}", object.display()))?;
    Ok(object)
}
