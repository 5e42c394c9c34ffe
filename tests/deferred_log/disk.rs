//! Disks that are full or ill.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use spool_lock::Deferred;

use super::{
    child::Child, keep, lines, open, place, release, releases, support::clock::compile, text_of, texts,
};

/// Keeps until there is no room, and is told so; once there is again, goes on.
fn keep_until_full(child: &mut Child, make_room: impl FnOnce(&mut Child)) -> Vec<Deferred> {
    let mut kept = Vec::new();
    let refused = loop {
        let call = release("TEST");
        match child.keep(&call) {
            Ok(()) => kept.push(call),
            Err(refused) => break refused,
        }
        assert!(kept.len() < 10_000, "there is room for all");
    };
    assert!(refused.contains("cannot write") && refused.contains("it needs more room"), "{refused}");
    assert!(kept.len() > 100);
    for _ in 0..10 {
        child.keep(&release("no room")).expect_err("there is none");
    }
    make_room(child);
    for call in [release("room"), release("again")] {
        child.keep(&call).expect("there is room");
        kept.push(call);
    }
    kept
}

/// A file that grows too large is an error, and no signal.
const BOUNDED: &[&str] = &["sh", "-c", r#"trap '' XFSZ; exec "$@""#, "sh"];

/// A file that may not grow: the writes are real, and so is the one that is cut short.
#[tokio::test]
async fn a_file_that_may_not_grow_is_told_of_and_nothing_acknowledged_is_missing() {
    let (_folder, path) = place();
    let mut child = Child::start(&path, BOUNDED, &[]);
    assert_eq!(child.ask("limit 20000"), "limited");
    let kept = keep_until_full(&mut child, |child| assert_eq!(child.ask("limit none"), "limited"));
    child.process.kill();
    assert_eq!(texts(&open(&path)).await, text_of(&kept));
}

/// A disk of 64 KiB, in a namespace of its own, where the system allows that to its users.
#[tokio::test]
async fn a_full_disk_is_told_of_and_nothing_acknowledged_is_missing() {
    let (folder, path) = place();
    let at = folder.path().display().to_string();
    let unshare = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        r#"mount -t tmpfs -o size=64k none "$0" && head -c 32768 /dev/zero > "$0/ballast" && exec "$@""#,
        &at,
    ];
    if !Command::new(unshare[0]).args(&unshare[1..]).arg("true").status().is_ok_and(|status| status.success())
    {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: no file system can be mounted, a disk that is full is not tried"
        );
        return;
    }
    let mut child = Child::start(&path, &unshare, &[]);
    // The disk is seen from inside alone.
    let inside = format!("/proc/{}/root{at}", child.process.pid());
    let kept =
        keep_until_full(&mut child, |_| fs::remove_file(format!("{inside}/ballast")).expect("the ballast"));
    let bytes = fs::read(format!("{inside}/deferred")).expect("the log");
    child.process.kill();
    fs::write(&path, bytes).expect("our own file");
    assert_eq!(texts(&open(&path)).await, text_of(&kept));
}

/// What goes wrong with the disk of a child: its syncs, or to cut a file.
struct IllDisk {
    object: &'static Path,
    state: tempfile::NamedTempFile,
}

impl IllDisk {
    fn new() -> Self {
        static OBJECT: LazyLock<PathBuf> = LazyLock::new(|| {
            compile("disk_shim", include_str!("../support/disk_shim.c")).expect("the shim is compiled")
        });
        let ill = Self { object: &OBJECT, state: tempfile::NamedTempFile::new().expect("a file") };
        ill.set(false, false);
        ill
    }

    fn set(&self, no_sync: bool, no_cut: bool) {
        let state = [u8::from(no_sync), u8::from(no_cut)];
        self.state.as_file().write_all_at(&state, 0).expect("our own file");
    }

    fn variables(&self) -> [(&str, &Path); 2] {
        [("LD_PRELOAD", self.object), ("DISK_SHIM_FILE", self.state.path())]
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_before_all_is_written_anew() {
    let (_folder, path) = place();
    let disk = IllDisk::new();
    let mut child = Child::start(&path, &[], &disk.variables());
    let inode = || fs::metadata(&path).expect("the log").ino();
    let mut kept = vec![release("before")];
    child.keep(&kept[0]).expect("all is well");
    for no_cut in [false, true] {
        let before = inode();
        disk.set(true, no_cut);
        let refused = child.keep(&release("refused")).expect_err("it cannot be synced");
        assert!(refused.contains("cannot sync") && refused.contains("Input/output error"), "{refused}");
        let refused = child.keep(&release("refused")).expect_err("nor written anew");
        assert!(refused.contains("cannot rewrite"), "{refused}");
        assert_eq!(inode(), before, "a file that is not synced takes no place");
        disk.set(false, false);
        kept.push(release("after"));
        child.keep(kept.last().expect("one")).expect("all is well");
        assert_ne!(inode(), before, "written anew");
        let after = inode();
        kept.push(release("then"));
        child.keep(kept.last().expect("one")).expect("all is well");
        assert_eq!(inode(), after, "once");
    }
    child.process.kill();
    assert_eq!(texts(&open(&path)).await, text_of(&kept));
}

#[tokio::test]
async fn what_was_refused_is_not_found_later_also_where_its_process_ends() {
    let (_folder, path) = place();
    let disk = IllDisk::new();
    let mut child = Child::start(&path, &[], &disk.variables());
    let kept = release("before");
    child.keep(&kept).expect("all is well");
    disk.set(true, false);
    child.keep(&release("refused")).expect_err("it cannot be synced");
    assert_eq!(child.ask(&format!("settle {}", release("unknown"))), "settled");
    child.process.kill();
    assert_eq!(texts(&open(&path)).await, text_of([&kept]));
}

#[tokio::test]
async fn a_settlement_waits_for_no_sync() {
    let (_folder, path) = place();
    let disk = IllDisk::new();
    let mut child = Child::start(&path, &[], &disk.variables());
    let call = release("TEST");
    child.keep(&call).expect("all is well");
    disk.set(true, false);
    assert_eq!(child.ask(&format!("settle {call}")), "settled");
    child.process.kill();
    assert_eq!(texts(&open(&path)).await.len(), 0);
}

#[tokio::test]
async fn a_file_that_cannot_be_cut_back_is_written_anew() {
    let (_folder, path) = place();
    let disk = IllDisk::new();
    let mut child = Child::start(&path, BOUNDED, &disk.variables());
    let before = fs::metadata(&path).expect("the log").ino();
    disk.set(false, true);
    let mut kept = vec![release("before")];
    child.keep(&kept[0]).expect("there is room");
    let bytes = fs::metadata(&path).expect("the log").len();
    child.ask(&format!("limit {}", bytes + 10));
    child.keep(&release("refused")).expect_err("there is none");
    assert_eq!(fs::metadata(&path).expect("the log").len(), bytes + 10, "half a line was written");
    let refused = child.keep(&release("refused")).expect_err("there is none");
    assert!(refused.contains("cannot rewrite") && refused.contains("it needs more room"), "{refused}");
    child.ask("limit none");
    kept.push(release("after"));
    child.keep(&kept[1]).expect("there is room");
    assert_ne!(fs::metadata(&path).expect("the log").ino(), before);
    child.process.kill();
    assert_eq!(texts(&open(&path)).await, text_of(&kept));
}

#[tokio::test]
async fn a_compaction_that_fails_changes_nothing() {
    let (folder, path) = place();
    let disk = IllDisk::new();
    let mut child = Child::start(&path, &[], &disk.variables());
    let inode = || fs::metadata(&path).expect("the log").ino();
    let calls = releases(600);
    for call in &calls {
        child.keep(call).expect("all is well");
    }
    disk.set(true, false);
    let before = inode();
    for call in &calls {
        assert_eq!(child.ask(&format!("settle {call}")), "settled");
    }
    assert_eq!((inode(), lines(&path)), (before, 1 + 2 * 600), "it grows on");
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 1, "nothing is left of it");
    disk.set(false, false);
    let last = release("last");
    child.keep(&last).expect("all is well");
    assert_eq!(child.ask("count"), "counted 1");
    assert_eq!(inode(), before, "it is tried again when there are twice as many lines");
    child.process.kill();
    assert_eq!(texts(&open(&path)).await, text_of([&last]));
}

#[tokio::test]
async fn a_log_opens_on_an_ill_disk_for_what_it_has_and_takes_nothing_until_that_is_well() {
    let (folder, path) = place();
    let kept = releases(3);
    let log = open(&path);
    for call in &kept {
        keep(&log, call).await;
    }
    drop(log);
    let disk = IllDisk::new();
    disk.set(true, true);
    let mut child = Child::start(&path, &[], &disk.variables());
    assert_eq!(child.ask("count"), "counted 3");
    for call in [&release("new"), &kept[0]] {
        let refused = child.keep(call).expect_err("nobody knows whether it is on the disk");
        assert!(refused.contains("cannot rewrite"), "{refused}");
    }
    disk.set(false, false);
    child.keep(&kept[0]).expect("all is well");
    assert_eq!(child.ask("count"), "counted 3");
    child.process.kill();
    assert_eq!(texts(&open(&path)).await, text_of(&kept));

    // Where there is nothing yet, it is a path that cannot be used.
    disk.set(true, false);
    let mut command = Command::new(std::env::current_exe().expect("a program knows where it is"));
    command.args(["--exact", "child::child"]).env("SPOOL_DEFERRED_LOG", folder.path().join("new"));
    let ended = command.envs(disk.variables()).output().expect("a child");
    assert!(!ended.status.success(), "{ended:?}");
    assert!(
        String::from_utf8_lossy(&ended.stdout).contains("as a log of deferred calls: Input/output error"),
        "{ended:?}"
    );
}
