//! [`row`]: what a test of a fault measured, for `docs/faults.md`.

use std::path::PathBuf;

/// Names the directory to which rows are written.
const VARIABLE: &str = "SPOOL_FAULTS_REPORT";

/// A fault, and how it was borne.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    /// The test, such as `dead::killed`.
    pub(crate) row: &'a str,
    pub(crate) fault: &'a str,
    /// What must hold.
    pub(crate) must: &'a str,
    /// What the test sets; all other timeouts are the defaults.
    pub(crate) timeouts: &'a str,
    /// What was seen: label and text.
    pub(crate) measured: &'a [(&'a str, String)],
}

/// Prints the figures, and writes them to `DIR/ROW.json` (with `-` for `::`) where `SPOOL_FAULTS_REPORT=DIR` says so.
#[expect(clippy::print_stdout, reason = "it is shown with `--nocapture`, and where the test fails")]
pub(crate) fn row(row: Row<'_>) {
    let Row { row: name, fault, must, timeouts, measured } = row;
    let figures: Vec<_> = measured.iter().map(|(label, text)| format!("{label} {text}")).collect();
    println!("{name} ({fault}; {timeouts}): {}", figures.join(" · "));
    if let Some(dir) = std::env::var_os(VARIABLE).map(PathBuf::from) {
        let json = serde_json::json!({
            "row": name, "fault": fault, "must": must, "timeouts": timeouts, "measured": measured,
        });
        std::fs::create_dir_all(&dir).expect("the directory of the report can be made");
        let file = dir.join(name.replace("::", "-")).with_extension("json");
        std::fs::write(file, format!("{json:#}\n")).expect("the report can be written");
    }
}
