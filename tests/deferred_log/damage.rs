//! Files that are not what was written.

use std::{fs, io::ErrorKind, path::PathBuf, process::Command};

use spool_lock::{FileDeferredLog, Fsync};

use super::{keep, lines, open, place, release, releases, text_of, texts};

const HEADER: usize = b"spool-lock deferred 1\n".len();

fn damaged(path: &std::path::Path) -> PathBuf {
    PathBuf::from(format!("{}.damaged", path.display()))
}

#[tokio::test]
async fn a_damaged_line_is_passed_over_and_the_file_put_aside() {
    let (_folder, path) = place();
    let log = open(&path);
    let calls = releases(3);
    for call in &calls {
        keep(&log, call).await;
    }
    drop(log);
    let whole = fs::read(&path).expect("the log");
    let line = (whole.len() - HEADER) / 3;
    // In the second of three lines, each byte; its end joins it to the third.
    for at in HEADER + line..HEADER + 2 * line {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x04;
        fs::write(&path, &bytes).expect("our own file");
        let _ = fs::remove_file(damaged(&path));
        let log = open(&path);
        let others = if whole[at] == b'\n' { text_of(&calls[..1]) } else { text_of([&calls[0], &calls[2]]) };
        assert_eq!(texts(&log).await, others, "byte {at} is damaged");
        assert_eq!(fs::read(damaged(&path)).expect("it was put aside"), bytes);
        drop(log);
        let log = open(&path);
        assert_eq!(texts(&log).await, others, "once more");
        assert_eq!(
            fs::read(damaged(&path)).expect("it stays").len(),
            bytes.len(),
            "and is not put aside again"
        );
    }
}

#[tokio::test]
async fn what_was_put_aside_before_stays() {
    let (_folder, path) = place();
    let mut aside = Vec::new();
    for _ in 0..2 {
        let log = open(&path);
        keep(&log, &release("TEST")).await;
        drop(log);
        let mut bytes = fs::read(&path).expect("the log");
        bytes[HEADER] ^= 0x04;
        fs::write(&path, &bytes).expect("our own file");
        aside.extend(bytes);
        assert_eq!(texts(&open(&path)).await.len(), 0);
        assert_eq!(lines(&path), 1);
    }
    assert_eq!(fs::read(damaged(&path)).expect("both are there"), aside);
}

/// With the checksum that belongs to it.
fn line(record: &str) -> String {
    format!("{:08x} {record}\n", crc32fast::hash(record.as_bytes()))
}

#[tokio::test]
async fn a_file_of_another_kind_or_of_a_newer_version_is_left_as_it_is() {
    let (folder, path) = place();
    let ours = format!("spool-lock deferred 1\n{}", line(&format!("+ {}", release("TEST"))));
    for (text, told) in [
        ("hello", "a path of its own"),
        ("\n", "a path of its own"),
        (&ours.replace("spool-lock", "spool-rack"), "a path of its own"),
        ("spool-lock deferred 2\n", "a newer spool-lock"),
        ("spool-lock deferred 10\n", "a newer spool-lock"),
        (&format!("{ours}{}", line("! 5")), "a newer spool-lock"),
        (&format!("{ours}{}", line("+ 2|AAAAAAAAA")), "a newer spool-lock"),
        (&format!("{ours}{}", line("- AAAAAAAAA forgotten")), "a newer spool-lock"),
    ] {
        fs::write(&path, text).expect("our own file");
        let new = folder.path().join("deferred.new");
        fs::write(&new, "somebody's").expect("our own file");
        let error = FileDeferredLog::open(&path, Fsync::Always).expect_err("it is refused");
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{text:?}");
        assert!(error.to_string().contains(told), "{text:?}: {error}");
        assert_eq!(fs::read_to_string(&path).expect("the file"), text);
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 2);
        assert_eq!(fs::read_to_string(&new).expect("the other file"), "somebody's");
    }
    // A pipe of our own: were a device taken for a file, it would be replaced.
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()));
    let nowhere = folder.path().join("nowhere/deferred");
    for (wrong, kind) in [(pipe, ErrorKind::InvalidInput), (nowhere, ErrorKind::NotFound)] {
        let error = FileDeferredLog::open(&wrong, Fsync::Always).expect_err("it is refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(&wrong.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_was_removed_is_written_anew_and_anothers_is_left_alone() {
    let (_folder, path) = place();
    let log = open(&path);
    let calls = releases(3);
    keep(&log, &calls[0]).await;
    fs::rename(&path, path.with_extension("1")).expect("our own file");
    keep(&log, &calls[1]).await;
    drop(log);
    let log = open(&path);
    assert_eq!(texts(&log).await, text_of(&calls[..2]));

    fs::remove_file(&path).expect("our own file");
    let other = open(&path);
    use spool_lock::DeferredLog as _;
    let error = log.keep(&calls[2]).await.expect_err("it is another's").to_string();
    assert!(error.contains("another file stands in its place"), "{error}");
    keep(&other, &calls[2]).await;
    drop((log, other));
    assert_eq!(texts(&open(&path)).await, text_of(&calls[2..]));
}
