//! Killed between any two bytes: each beginning of a real log is opened.

use std::{collections::BTreeMap, fs, ops::RangeInclusive, path::PathBuf, thread};

use spool_lock::{Deferred, FileDeferredLog, Fsync, RequestId};

use super::{keep, open, place_in_memory, release, releases, settle, text_of, texts};

/// One file as it was written, and what was acknowledged at which length.
#[derive(Default)]
struct Life {
    bytes: Vec<u8>,
    acknowledged: BTreeMap<usize, Vec<String>>,
}

impl Life {
    /// What is to be found in its first `len` bytes.
    fn at(&self, len: usize) -> Vec<String> {
        self.acknowledged.range(..=len).next_back().map(|(_, texts)| texts.clone()).unwrap_or_default()
    }
}

/// As few bytes as there can be: each of them is a case.
fn short() -> Deferred {
    format!("1|{}|guard|-|release|T|1|", RequestId::random()).parse().expect("a release")
}

/// Keeps and settles in turn until the file has been replaced and has grown again, and says what the files were.
async fn lives() -> Vec<Life> {
    let (_folder, path) = place_in_memory();
    let log = FileDeferredLog::open(&path, Fsync::Never).expect("the log opens");
    let mut random = fastrand::Rng::with_seed(7);
    let mut live = Vec::new();
    let mut lives = vec![Life::default()];
    for _ in 0..1_100 {
        let last = lives.last().expect("a life").bytes.len();
        if live.len() > 3 && random.u8(..) < 132 {
            settle(&log, &live.remove(random.usize(..live.len()))).await;
        } else {
            live.push(short());
            keep(&log, live.last().expect("one")).await;
        }
        // Asked behind all that was written, and behind a compaction.
        assert_eq!(texts(&log).await, text_of(&live));
        let bytes = fs::read(&path).expect("the log");
        if bytes.len() < last {
            lives.push(Life::default());
            // What it was born with: a line for each that is live. A crash cannot cut these, but a disk may.
            let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
            let life = lives.last_mut().expect("a life");
            life.acknowledged = ends.enumerate().map(|(count, end)| (end, text_of(&live[..count]))).collect();
        }
        let life = lives.last_mut().expect("a life");
        assert!(bytes.starts_with(&life.bytes), "lines are only added");
        life.acknowledged.insert(bytes.len(), text_of(&live));
        life.bytes = bytes;
    }
    lives
}

/// Opens the first `len` bytes for each `len`, as its own file in its own thread.
fn open_each(life: &Life, lens: RangeInclusive<usize>) {
    let (_folder, path) = place_in_memory();
    let aside = PathBuf::from(format!("{}.damaged", path.display()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for len in lens {
        fs::write(&path, &life.bytes[..len]).expect("our own file");
        let log =
            FileDeferredLog::open(&path, Fsync::Never).unwrap_or_else(|error| panic!("{len} bytes: {error}"));
        let found = runtime.block_on(texts(&log));
        assert_eq!(found, life.at(len), "{len} bytes");
        assert!(!aside.exists(), "{len} bytes: a torn tail is no damage");
    }
}

#[tokio::test]
async fn each_beginning_of_a_log_has_what_was_acknowledged_by_then() {
    let lives = lives().await;
    assert_eq!(lives.len(), 2, "it was compacted");
    for life in &lives {
        let parts = thread::available_parallelism().map_or(4, usize::from);
        let part = life.bytes.len() / parts + 1;
        println!("{} beginnings, {} acknowledged", life.bytes.len() + 1, life.acknowledged.len());
        thread::scope(|scope| {
            for from in (0..=life.bytes.len()).step_by(part) {
                scope.spawn(move || open_each(life, from..=(from + part - 1).min(life.bytes.len())));
            }
        });
    }
}

#[tokio::test]
async fn a_log_goes_on_after_a_torn_tail() {
    let (_folder, path) = place_in_memory();
    let calls = releases(3);
    let log = open(&path);
    for call in &calls {
        keep(&log, call).await;
    }
    drop(log);
    let whole = fs::read(&path).expect("the log");
    let line = (whole.len() - b"spool-lock deferred 1\n".len()) / 3;
    for torn in 0..=2 * line {
        fs::write(&path, &whole[..whole.len() - torn]).expect("our own file");
        let mut expected = text_of(&calls[..3 - torn.div_ceil(line)]);
        for _ in 0..3 {
            let log = open(&path);
            let call = release("after");
            keep(&log, &call).await;
            expected.push(call.to_string());
            assert_eq!(texts(&log).await, expected);
            drop(log);
            assert_eq!(texts(&open(&path)).await, expected, "{torn} bytes were torn off");
        }
    }
}

#[tokio::test]
async fn a_crash_while_it_is_compacted_leaves_one_file_whole() {
    let [before, after] = <[Life; 2]>::try_from(lives().await).unwrap_or_else(|_| panic!("it was compacted"));
    let (_folder, path) = place_in_memory();
    let new = PathBuf::from(format!("{}.new", path.display()));
    let compacted = after.acknowledged.keys().find(|len| after.at(**len) == before.at(usize::MAX));
    let compacted = *compacted.expect("it says the same");
    for len in (0..=compacted).step_by(7).chain([compacted]) {
        fs::write(&path, &before.bytes).expect("our own file");
        fs::write(&new, &after.bytes[..len]).expect("our own file");
        let log = FileDeferredLog::open(&path, Fsync::Never).expect("the log opens");
        assert_eq!(texts(&log).await, before.at(usize::MAX), "{len} bytes of the new file were there");
        assert!(!new.exists(), "it was never in place");
        drop(log);
    }
}
