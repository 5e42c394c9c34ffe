//! SIGKILL at any moment.

use std::{collections::HashSet, time::Duration};

use super::{child::Child, open, place, texts};

#[tokio::test]
async fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let (_folder, path) = place();
    let (mut kept, mut settling, mut settled) = (HashSet::new(), HashSet::new(), HashSet::new());
    for round in 0..20 {
        let mut child = Child::start(&path, &[], &[]);
        child.tell("flood");
        let said = child.kill_after(Duration::from_millis(fastrand::u64(1..150)));
        let before = kept.len();
        for line in said {
            match line.split_once(' ') {
                Some(("kept", call)) => drop(kept.insert(call.to_owned())),
                Some(("settling", call)) => drop(settling.insert(call.to_owned())),
                Some(("settled", call)) => drop(settled.insert(call.to_owned())),
                _ => {}
            }
        }
        let log = open(&path);
        let texts = texts(&log).await;
        let found: HashSet<_> = texts.iter().cloned().collect();
        assert_eq!(found.len(), texts.len(), "none twice");
        let lost: Vec<_> =
            kept.iter().filter(|call| !settling.contains(*call) && !found.contains(*call)).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
        let back: Vec<_> = settled.intersection(&found).collect();
        assert!(back.is_empty(), "round {round}: {back:?}");
        println!("round {round}: {} more were kept, {} are live", kept.len() - before, found.len());
    }
    assert!(kept.len() > 1_000, "only {} were kept", kept.len());
}
