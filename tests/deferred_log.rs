//! Deferred calls in a file: what was acknowledged is there, at whatever byte and in whatever way the process ended.

#![cfg(unix)]

#[path = "deferred_log/child.rs"]
mod child;
#[path = "deferred_log/damage.rs"]
mod damage;
#[path = "deferred_log/disk.rs"]
mod disk;
#[path = "deferred_log/kills.rs"]
mod kills;
#[path = "deferred_log/prefixes.rs"]
mod prefixes;
mod support;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::join_all;
use spool_lock::{Deferred, DeferredLog, FileDeferredLog, Fsync, RequestId, Settlement};
use tempfile::TempDir;
use tokio::time::Instant;

/// A release with a request of its own.
fn release(tag: &str) -> Deferred {
    let request = RequestId::random();
    format!("1|{request}@1700000000000000|identity|7|release|{tag}|93|MR(93)").parse().expect("a release")
}

fn releases(count: usize) -> Vec<Deferred> {
    (0..count).map(|number| release(&format!("TEST-{number}"))).collect()
}

/// A folder, and the path of a log in it.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deferred");
    (folder, path)
}

/// Where a sync costs nothing, for those that open thousands of logs.
fn place_in_memory() -> (TempDir, PathBuf) {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.expect("a folder");
    let path = folder.path().join("deferred");
    (folder, path)
}

fn open(path: &Path) -> FileDeferredLog {
    FileDeferredLog::open(path, Fsync::Always).expect("the log opens")
}

async fn keep(log: &FileDeferredLog, deferred: &Deferred) {
    log.keep(deferred).await.expect("it is kept");
}

async fn settle(log: &FileDeferredLog, deferred: &Deferred) {
    log.settle(&[(deferred.clone(), Settlement::Applied)]).await.expect("it is settled");
}

/// What the log has, as text: equal requests may differ in when they were made.
async fn texts(log: &FileDeferredLog) -> Vec<String> {
    log.load().await.expect("it loads").iter().map(Deferred::to_string).collect()
}

fn text_of<'a>(calls: impl IntoIterator<Item = &'a Deferred>) -> Vec<String> {
    calls.into_iter().map(Deferred::to_string).collect()
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).expect("the log is text").lines().count()
}

#[tokio::test]
async fn what_was_kept_and_not_settled_is_loaded_in_its_order() {
    let (_folder, path) = place();
    let calls = releases(5);
    let log = open(&path);
    for call in &calls {
        keep(&log, call).await;
    }
    keep(&log, &calls[0]).await;
    settle(&log, &calls[1]).await;
    settle(&log, &release("never kept")).await;
    settle(&log, &calls[2]).await;
    keep(&log, &calls[2]).await;
    let expected = text_of([&calls[0], &calls[3], &calls[4], &calls[2]]);
    assert_eq!(texts(&log).await, expected, "in the process that kept them");
    assert_eq!(lines(&path), 1 + 6 + 2, "a line for each that was new");
    drop(log);
    assert_eq!(texts(&open(&path)).await, expected, "in the next one");
}

#[tokio::test]
async fn a_second_log_of_the_same_file_is_refused() {
    let (folder, path) = place();
    let log = open(&path);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).expect("a link");
    for other in [&path, &link] {
        let error = FileDeferredLog::open(other, Fsync::Always).expect_err("it is open");
        assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
        let text = error.to_string();
        assert!(text.contains(&other.display().to_string()) && text.contains("a path of its own"), "{text}");
    }
    // The lock goes with the file when that is replaced.
    let before = fs::metadata(&path).expect("the log").ino();
    for call in &releases(600) {
        keep(&log, call).await;
        settle(&log, call).await;
    }
    assert_eq!(texts(&log).await.len(), 0);
    assert_ne!(fs::metadata(&path).expect("the log").ino(), before, "it was compacted");
    FileDeferredLog::open(&path, Fsync::Always).expect_err("it is still open");
    drop(log);
    drop(open(&link));
    assert!(link.is_symlink(), "what it leads to is replaced, and not the link");
    let left: Vec<_> = fs::read_dir(folder.path())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(left.len(), 2, "the log and the link: {left:?}");
}

#[tokio::test]
async fn ten_thousand_calls_are_kept_at_once() {
    for fsync in [Fsync::Always, Fsync::Never] {
        // Not where temporary files may live in memory.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let path = folder.path().join("deferred");
        let log = FileDeferredLog::open(&path, fsync).expect("the log opens");
        let calls = releases(10_000);
        let began = Instant::now();
        join_all(calls.iter().map(|call| keep(&log, call))).await;
        let took = began.elapsed();
        let began = Instant::now();
        keep(&log, &release("alone")).await;
        println!("{fsync:?}: 10,000 kept at once in {took:?}, one alone in {:?}", began.elapsed());
        assert!(took < Duration::from_secs(5), "{took:?}");
        drop(log);
        let began = Instant::now();
        let log = open(&path);
        println!("opened again in {:?}", began.elapsed());
        let loaded = texts(&log).await;
        assert_eq!(&loaded[..10_000], text_of(&calls));
        let settled: Vec<_> = calls.into_iter().map(|call| (call, Settlement::Ended)).collect();
        let began = Instant::now();
        log.settle(&settled).await.expect("they are settled");
        println!("settled in {:?}", began.elapsed());
        assert_eq!(texts(&log).await.len(), 1);
    }
}

#[tokio::test]
async fn a_log_stays_small() {
    let (_folder, path) = place();
    let log = FileDeferredLog::open(&path, Fsync::Never).expect("the log opens");
    let standing = releases(50);
    for call in &standing {
        keep(&log, call).await;
    }
    for call in &releases(5_000) {
        keep(&log, call).await;
        settle(&log, call).await;
        assert!(lines(&path) <= 1_002, "{} lines", lines(&path));
    }
    assert_eq!(texts(&log).await, text_of(&standing));
    drop(log);
    assert_eq!(texts(&open(&path)).await, text_of(&standing));
}

#[tokio::test]
async fn a_new_file_is_for_its_user_alone_and_a_mode_that_was_given_stays() {
    let (_folder, path) = place();
    let mode = || fs::metadata(&path).expect("the log").permissions().mode() & 0o777;
    let log = FileDeferredLog::open(&path, Fsync::Never).expect("the log opens");
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("our own file");
    let before = fs::metadata(&path).expect("the log").ino();
    for call in &releases(600) {
        keep(&log, call).await;
        settle(&log, call).await;
    }
    texts(&log).await;
    assert_ne!(fs::metadata(&path).expect("the log").ino(), before, "it was compacted");
    assert_eq!(mode(), 0o640);
}

#[tokio::test]
async fn the_same_call_kept_twice_at_once_is_one_entry() {
    let (_folder, path) = place();
    let log = open(&path);
    let call = release("TEST");
    join_all((0..100).map(|_| keep(&log, &call))).await;
    drop(log);
    assert_eq!(lines(&path), 2);
    assert_eq!(texts(&open(&path)).await, text_of([&call]));
}

#[tokio::test]
async fn what_was_asked_for_before_a_drop_is_carried_out() {
    let (_folder, path) = place();
    let log = open(&path);
    let calls = releases(100);
    // The first poll hands the call over; nobody waits for the answer.
    for call in &calls {
        let mut kept = log.keep(call);
        assert!(futures_util::poll!(&mut kept).is_pending());
    }
    drop(log);
    let found: BTreeSet<_> = texts(&open(&path)).await.into_iter().collect();
    assert_eq!(found, text_of(&calls).into_iter().collect());
}
