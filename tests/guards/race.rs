//! Renewals and releases that race, as the server wrote down what it did.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{
    task::{JoinSet, yield_now},
    time::sleep,
};

use super::*;

const GUARDS: usize = 10_000;
const TAGS: usize = 50;
/// Two for each tag and process: most guards are handed over, some are granted where nobody waits.
const WORKERS: usize = 200;
const INTERVAL: Duration = Duration::from_millis(1);

/// Must hold 3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_renewal_follows_a_release() {
    let server = RedisServer::builder()
        .arg("appendonly", "yes")
        .arg("appendfsync", "no")
        .arg("auto-aof-rewrite-percentage", "0")
        .start();
    let processes = [connect(&server.url()).await, connect(&server.url()).await];
    let numbers = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        workers.spawn(work(processes[worker % 2].clone(), numbers.clone()));
    }
    let confirmed: u64 = workers.join_all().await.iter().sum();

    let swept = || processes.iter().map(|locks| locks.stats().locks.swept_total["released"]).sum::<u64>();
    eventually(SOON, async || match swept() + confirmed {
        all if all == GUARDS as u64 => Ok(()),
        so_far => Err(format!("{so_far} are released")),
    })
    .await;
    for locks in &processes {
        let stats = locks.stats().locks;
        assert_eq!(stats.lost_total.values().sum::<u64>(), 0, "{:?}", stats.lost_total);
        assert_eq!(stats.swept_total["lapsed"] + stats.swept_total["left_to_caller"], 0);
        assert_eq!(stats.fencing_rejections_total, 0);
    }
    assert_eq!(processes[0].list().await.expect("healthy").value, []);

    // Those that were under way when the last guard was released have arrived by now, or are about to.
    sleep(50 * INTERVAL).await;
    let (asked, scripts) = (renewals(&processes), server.calls("evalsha"));
    sleep(300 * INTERVAL).await;
    assert_eq!((renewals(&processes), server.calls("evalsha")), (asked, scripts), "nobody renews any more");
    assert_eq!(swept() + confirmed, GUARDS as u64, "nobody releases once more");

    let told = Story::read(&journal(&server)).expect("no renewal after a release");
    println!("{confirmed} released, {} swept; {asked} renewals, {} applied", swept(), told.renewals);
    assert_eq!((told.grants, told.ends), (GUARDS, GUARDS), "each is granted once, and released once");
    assert!(told.renewals > GUARDS / 5, "{} renewals prove nothing", told.renewals);
    assert!(asked > told.renewals as u64, "no renewal was overtaken by its release");
}

/// Holds guards for up to 5 ms each until all have been taken, and says of how many Redis confirmed the release to us.
async fn work(locks: SpoolLocks, numbers: Arc<AtomicUsize>) -> u64 {
    let mut confirmed = 0;
    loop {
        let number = numbers.fetch_add(1, Relaxed);
        if number >= GUARDS {
            return confirmed;
        }
        let (tag, robot) = (numbered(number % TAGS), robot());
        let guard = locks.guard(&tag, &robot).ttl(ttl(1000)).renew_every(INTERVAL).wait(6 * SOON);
        let guard = guard.await.expect("its turn comes");
        sleep(Duration::from_micros(number as u64 * 997 % 5000)).await;
        match number % 4 {
            0 | 1 => {
                guard.release().await.expect("it is held");
                confirmed += 1;
            }
            2 => drop(guard),
            // Dropped before it was sent, on its way there or back, or not in time.
            _ => tokio::select! {
                biased;
                released = guard.release() => {
                    released.expect("it is held");
                    confirmed += 1;
                }
                () = turns(number / 4 % 16) => {}
            },
        }
    }
}

async fn turns(count: usize) {
    for _ in 0..count {
        yield_now().await;
    }
}

fn renewals(processes: &[SpoolLocks]) -> u64 {
    processes.iter().map(|locks| locks.stats().locks.operations["extend"].total).sum()
}

/// The commands that were applied, in their order: scripts as what they did.
fn journal(server: &RedisServer) -> Vec<Vec<String>> {
    let [_, folder]: [String; 2] = server.query(&["CONFIG", "GET", "dir"]);
    let folder = Path::new(&folder).join("appendonlydir");
    let files = fs::read_dir(folder).expect("the server keeps one").map(|file| file.expect("a file").path());
    let file =
        files.filter(|path| path.to_string_lossy().ends_with(".incr.aof")).max().expect("it was begun");
    let text = String::from_utf8(fs::read(file).expect("it can be read")).expect("the tests write text");
    let mut lines = text.split("\r\n");
    let mut commands = Vec::new();
    while let Some(words) = lines.next().and_then(|line| line.strip_prefix('*')) {
        let words: usize = words.parse().expect("a number of words");
        commands.push((0..words).filter_map(|_| lines.by_ref().nth(1)).map(str::to_owned).collect());
    }
    commands
}

/// What became of the grants of all tags.
#[derive(Debug, Default)]
struct Story {
    grants: usize,
    renewals: usize,
    ends: usize,
}

impl Story {
    /// A grant begins with the first write of its fence, and ends when the lock is deleted or written with another.
    ///
    /// # Errors
    /// Something was written of a grant that had ended, or was never granted.
    fn read(journal: &[Vec<String>]) -> Result<Self, String> {
        let mut story = Self::default();
        let mut standing: HashMap<&str, &str> = HashMap::new();
        let mut ended = HashSet::new();
        for command in journal {
            let words: Vec<_> = command.iter().map(String::as_str).collect();
            let Some((tag, part)) = words.get(1).and_then(|key| key.rsplit_once(':')) else { continue };
            match (words[0], part) {
                ("SET", "lock") => {
                    let fence = &words[2][25..41];
                    if ended.contains(&(tag, fence)) {
                        return Err(format!("{tag}: written after its end: {words:?}"));
                    }
                    match standing.insert(tag, fence) {
                        Some(before) if before == fence => story.renewals += 1,
                        before => {
                            story.grants += 1;
                            story.ends += usize::from(before.is_some());
                            ended.extend(before.map(|before| (tag, before)));
                        }
                    }
                }
                ("DEL" | "UNLINK", "lock") => {
                    let Some(fence) = standing.remove(tag) else {
                        return Err(format!("{tag}: deleted twice"));
                    };
                    story.ends += 1;
                    ended.insert((tag, fence));
                }
                ("PEXPIRE" | "PEXPIREAT", _) if !standing.contains_key(tag) => {
                    return Err(format!("{tag}: prolonged after its end: {words:?}"));
                }
                _ => {}
            }
        }
        Ok(story)
    }
}
