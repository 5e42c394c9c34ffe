//! The files of `grafana/`, read for the tests that hold them to the catalogue and to a real Prometheus.

// Each test binary includes the whole module and uses a part of it.
#![allow(dead_code)]

pub(crate) mod board;
pub(crate) mod promql;
pub(crate) mod rules;

use std::{
    ffi::OsStr,
    fs,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A file or folder of this repository.
pub(crate) fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file of this repository.
pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files of a folder that end so, as paths in this repository, by name.
pub(crate) fn files(folder: &str, end: &str) -> Vec<String> {
    let entries = fs::read_dir(file(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let names = entries.map(|entry| entry.expect("the folder can be read").file_name());
    let mut paths: Vec<_> = names
        .map(|name| format!("{folder}/{}", name.to_string_lossy()))
        .filter(|path| path.ends_with(end))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no {end} in {folder}");
    paths
}

/// Runs a tool in the root of the repository and asserts that it is content; `None` when it is not installed.
pub(crate) fn accepted_by<A: AsRef<OsStr>>(tool: &str, arguments: &[A]) -> Option<String> {
    let output = match Command::new(tool).args(arguments).current_dir(file("")).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skipped(tool);
            return None;
        }
        other => other.unwrap_or_else(|error| panic!("{tool}: {error}")),
    };
    let Output { status, stdout, stderr } = output;
    let (said, complained) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{tool} ended with {status}\n{said}{complained}");
    Some(said.into_owned())
}

/// Says aloud that a check did not run. Past the capture of the test harness, which would swallow it.
pub(crate) fn skipped(tool: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED: {tool} is not installed, what it checks is not checked");
}
