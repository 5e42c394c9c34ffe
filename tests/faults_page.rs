//! What `docs/faults.md` says was measured, and the pages of `docs/runbooks/faults/`, against the tests in `faults/`.
//!
//! `scripts/faults --write` has those tests write what they saw, and this writes the table of it. Figures differ from one machine to
//! another and are not compared. All else is.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::SystemTime,
};

use spool_lock::FaultKind;

/// A row of the table.
struct Row {
    /// As the test calls it that writes it: its file, and a name.
    name: &'static str,
    /// The tests that show it, of that file.
    tests: &'static [&'static str],
    /// What to do then, in `docs/runbooks/faults/`; empty where it is no fault.
    page: &'static str,
}

const fn row(name: &'static str, tests: &'static [&'static str], page: &'static str) -> Row {
    Row { name, tests, page }
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("dead::killed", &["killed", "three_faults_and_the_fourth_call_is_refused_in_its_first_poll"], "redis-is-gone"),
    row("dead::stopped", &["stopped", "three_faults_and_the_fourth_call_is_refused_in_its_first_poll"], "redis-is-silent"),
    row("dead::blackhole", &["blackhole", "three_faults_and_the_fourth_call_is_refused_in_its_first_poll"], "redis-is-silent"),
    row("dead::refused", &["refused", "three_faults_and_the_fourth_call_is_refused_in_its_first_poll", "a_snapshot_is_answered_up_to_its_age_and_then_the_fallback_is_asked"], "redis-is-gone"),
    row("herd::five_hundred_instances_come_back", &["five_hundred_instances_come_back"], "redis-is-gone"),
    row("server::demoted", &["a_demoted_master_is_read_and_not_asked_for_locks"], "read-only-replica"),
    row("server::disk", &["a_server_that_cannot_save_is_read_and_not_asked_for_locks"], "cannot-save"),
    row("server::memory", &["a_server_without_memory_is_read_and_takes_releases_and_is_not_asked_for_locks"], "out-of-memory"),
    row("server::replicas", &["a_server_without_its_replicas_is_read_and_not_asked_for_locks", "health_checks_alone_find_a_server_that_takes_no_writes"], "too-few-replicas"),
    row("setup::password", &["where_the_password_was_changed_nothing_passes_until_the_next_probe_finds_it_right", "a_wrong_password_is_not_tried_again_for_the_lane_that_guards_want", "lanes_that_are_open_go_on_with_the_old_password"], "wrong-password"),
    row("setup::rights", &["a_user_who_may_run_no_script_is_told_so_and_an_operator_mends_it", "a_right_that_one_script_lacks_stops_nothing_else", "a_right_that_acquires_lack_stops_acquires_alone"], "missing-rights"),
    row("limit::grows", &["where_more_lanes_are_turned_away_those_that_are_open_serve_everybody", "where_the_limit_is_lowered_below_what_is_open_what_is_open_goes_on", "a_subscription_that_is_turned_away_opens_no_circuit"], "client-limit"),
    row("limit::no_lane", &["without_any_lane_the_link_opens_and_closes_by_itself_when_there_is_room"], "client-limit"),
    row("states::loading", &["a_server_that_loads_its_data_is_waited_for"], "loading"),
    row("states::busy", &["a_server_that_is_busy_with_a_script_is_waited_for"], "busy-script"),
    row("states::paused", &["a_server_that_is_paused_is_waited_for", "writes_that_are_paused_are_an_outage_although_pings_are_answered"], "paused"),
    row("contention::refused", &["a_thousand_refused_acquires_are_no_fault", "a_thousand_releases_and_extends_of_what_another_holds_are_no_fault"], ""),
    row("slow::replies_and_a_full_pool", &["replies_and_a_full_pool"], "slow-or-full-pool"),
    row("slow::replies_and_a_line_that_is_too_long", &["replies_and_a_line_that_is_too_long"], "slow-or-full-pool"),
    row("slow::replies_and_callers_in_a_hurry", &["replies_and_callers_in_a_hurry"], "slow-or-full-pool"),
    row("deadline::nothing_passes", &["nothing_passes"], "redis-is-silent"),
    row("deadline::no_answers", &["no_answers"], "redis-is-silent"),
    row("deadline::no_connection", &["no_connection", "a_server_that_is_silent_to_new_connections_is_found_within_two_seconds"], "redis-is-silent"),
    row("forced::open", &["a_link_that_was_opened_by_hand_lets_releases_through_and_nothing_else", "writes_that_were_opened_by_hand_leave_reads_and_releases_alone"], "circuit-forced"),
    row("forced::closed", &["a_link_that_was_closed_by_hand_lets_every_call_be_tried_in_an_outage", "writes_that_were_closed_by_hand_are_tried_each_time"], "circuit-forced"),
];

const PAGE: &str = "docs/faults.md";
const RUNBOOKS: &str = "docs/runbooks/faults";
const BEGIN: &str = "<!-- measured -->\n";
const END: &str = "<!-- /measured -->\n";
/// In place of what must hold, where it is the same as in the row before.
const SAME: &str = "as above";
const HEAD: &str =
    "| fault | must hold | it sets | measured | row: tests |\n| --- | --- | --- | --- | --- |\n";

impl Row {
    /// The file of its tests, without `.rs`.
    fn file(&self) -> &'static str {
        self.name.split("::").next().unwrap_or_default()
    }

    fn shown_by(&self) -> String {
        let file = self.file();
        let links = self.tests.iter().map(|test| format!("[{test}](../tests/faults/{file}.rs)"));
        format!("`{}`: {}", self.name, links.collect::<Vec<_>>().join(",<br>"))
    }

    /// As the first cell has it.
    fn fault(&self, fault: &str) -> String {
        match self.page {
            "" => fault.to_owned(),
            page => format!("[{fault}](runbooks/faults/{page}.md)"),
        }
    }

    /// The line of the table, of what its test has written, and what must hold. That is not repeated from one line to the next.
    fn line(&self, report: &Path, above: &str) -> (String, String) {
        let file = report.join(self.name.replace("::", "-")).with_extension("json");
        let json = fs::read_to_string(&file).unwrap_or_else(|_| panic!("{} was not measured", self.name));
        let seen: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
        let text = |value: &serde_json::Value| value.as_str().expect("a text").replace('|', "\\|");
        let figures = seen["measured"].as_array().expect("figures").iter();
        let figures: Vec<_> = figures.map(|it| format!("{}: {}", text(&it[0]), text(&it[1]))).collect();
        let [fault, must, sets] = ["fault", "must", "timeouts"].map(|name| text(&seen[name]));
        let (fault, figures, shown_by) = (self.fault(&fault), figures.join("<br>"), self.shown_by());
        let said = if must == above { SAME } else { &must };
        (format!("| {fault} | {said} | {sets} | {figures} | {shown_by} |\n"), must)
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The names of a folder's files without their ending.
fn stems(folder: &str, end: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(path(folder)).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter_map(|name| Some(name.strip_suffix(end)?.to_owned())).collect()
}

/// The texts in a source file: those in quotes, without the breaks of those that go over several lines.
fn literals(source: &str) -> BTreeSet<String> {
    let lines = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n").replace("\\\"", "'");
    let quoted = code.split('"').skip(1).step_by(2);
    quoted.map(|text| text.split("\\\n").map(str::trim_start).collect()).collect()
}

/// The rows that are written by the tests of a file. A test that is named for a process of its own is none.
fn written(file: &str, source: &str) -> BTreeSet<String> {
    let is_row = |text: &String| {
        text.strip_prefix(file).is_some_and(|name| name.starts_with("::"))
            && !source.contains(&format!("\"--exact\", \"{text}\""))
    };
    literals(source).into_iter().filter(is_row).collect()
}

/// The asynchronous tests of a file: the others are parts of them.
fn tests(source: &str) -> impl Iterator<Item = &str> {
    let after = source.split("#[tokio::test").skip(1);
    after.filter_map(|rest| rest.split_once("async fn ")?.1.split('(').next())
}

/// The page before, within and after the marks.
fn parts(page: &str) -> [&str; 3] {
    let (head, rest) = page.split_once(BEGIN).expect("the table begins with its mark");
    let (table, tail) = rest.split_once(END).expect("the table ends with its mark");
    [head, table, tail]
}

/// When, where and how it was measured.
fn occasion() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let date = now.split('T').next().unwrap_or_default();
    let cores = thread::available_parallelism().expect("it is known");
    let server = Command::new("redis-server").arg("--version").output().expect("it is installed").stdout;
    let server = String::from_utf8_lossy(&server).into_owned();
    let version = server.split_whitespace().find_map(|word| word.strip_prefix("v=")).expect("a version");
    format!("{date}, {cores} cores, Redis {version}, by `scripts/faults --write`.\n")
}

/// `UPDATE_DOCS=1 SPOOL_FAULTS_REPORT=DIR cargo test --test faults_page` writes the table of what is in DIR.
#[test]
fn every_fault_that_is_measured_has_its_row_and_nothing_else_has() {
    let mut page = text(PAGE);
    let is_written = env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1");
    if let Some(report) = env::var_os("SPOOL_FAULTS_REPORT").filter(|_| is_written) {
        let [head, _, tail] = parts(&page);
        let (mut lines, mut above) = (String::new(), String::new());
        for row in ROWS {
            let (line, must) = row.line(Path::new(&report), &above);
            lines.push_str(&line);
            above = must;
        }
        page = [head, BEGIN, &occasion(), "\n", HEAD, &lines, END, tail].concat();
        fs::write(path(PAGE), &page).expect("the page can be written");
    }
    let [_, table, _] = parts(&page);
    let (_, lines) = table.split_once(HEAD).expect("the head of the table");
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!(lines.len(), ROWS.len(), "run scripts/faults --write");
    let mut above = String::new();
    for (row, line) in ROWS.iter().zip(lines) {
        let cells: Vec<_> = line.trim_matches(['|', ' ']).split(" | ").collect();
        let [fault, must, sets, measured, shown_by] = cells[..] else { panic!("five cells: {line}") };
        assert_eq!(shown_by, row.shown_by(), "run scripts/faults --write");
        let mut known = literals(&text(&format!("tests/faults/{}.rs", row.file())));
        known.extend(FaultKind::ALL.map(|kind| kind.as_str().to_owned()));
        let said = |cell: &str| known.contains(&cell.replace("\\|", "|"));
        if must != SAME {
            above = must.to_owned();
        }
        assert!(said(&above) && said(sets), "{}: its test says otherwise than {above:?}, {sets:?}", row.name);
        assert!(known.iter().any(|known| row.fault(known) == fault), "{}: {fault}", row.name);
        for figure in measured.split("<br>") {
            let (label, _) = figure.split_once(": ").expect("a figure has a name");
            assert!(known.contains(label), "{}: nothing is called {label:?}", row.name);
        }
    }
}

#[test]
fn every_row_that_a_test_writes_is_listed_with_the_tests_that_show_it() {
    let (mut rows, mut shown) = (BTreeSet::new(), BTreeSet::new());
    for file in stems("tests/faults", ".rs") {
        let source = text(&format!("tests/faults/{file}.rs"));
        rows.extend(written(&file, &source));
        shown.extend(tests(&source).map(|test| format!("{file}::{test}")));
    }
    let listed: BTreeSet<_> = ROWS.iter().map(|row| row.name.to_owned()).collect();
    assert_eq!(rows, listed);
    let named = ROWS.iter().flat_map(|row| row.tests.iter().map(|test| format!("{}::{test}", row.file())));
    assert_eq!(shown, named.collect());
}

#[test]
fn every_fault_has_a_page_that_says_what_to_do() {
    let index = text(&format!("{RUNBOOKS}/README.md"));
    let pages: BTreeSet<_> = stems(RUNBOOKS, ".md").into_iter().filter(|page| page != "README").collect();
    for row in ROWS.iter().filter(|row| !row.page.is_empty()) {
        assert!(pages.contains(row.page), "{}: {}", row.name, row.page);
    }
    for page in &pages {
        assert!(index.contains(&format!("[{page}]({page}.md)")), "the index links {page}");
        let text = text(&format!("{RUNBOOKS}/{page}.md"));
        assert!(text.starts_with("# "), "{page}: a title");
        let parts = ["Symptom.", "What the crate does by itself.", "What to check", "What to do."];
        let places = parts.map(|part| text.find(&format!("\n**{part}**")));
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{page}: {parts:?}, at {places:?}");
    }
    for kind in FaultKind::ALL {
        assert!(index.contains(&format!("`{}`", kind.as_str())), "the index leads on from {kind:?}");
    }
}

/// What to grant stands in three places, and an operator may read any of them.
#[test]
fn what_to_grant_is_the_same_wherever_it_is_said() {
    let check = literals(&text("src/store/redis/check.rs"));
    let rights: Vec<_> = check.iter().filter(|text| text.starts_with('+') && text.contains(' ')).collect();
    assert_eq!(rights.len(), 4, "for locks, channels, a history and the look at the server: {rights:?}");
    for page in ["README.md", &format!("{RUNBOOKS}/missing-rights.md")] {
        // In a table a bar is escaped.
        let page_says = text(page).replace("\\|", "|");
        for rights in rights.iter().map(|rights| rights.as_str()).chain(["&spool:events:* &spool:grants:*"]) {
            assert!(page_says.contains(rights), "{page} does not say {rights}");
        }
    }
}
