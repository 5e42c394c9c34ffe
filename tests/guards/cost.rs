//! What it takes to keep many guards.

use std::collections::BTreeMap;

use spool_lock::GuardState;
use tokio::time::sleep;

use super::*;

const GUARDS: usize = 500;
/// A third of the ttl.
const INTERVAL: Duration = Duration::from_secs(1);
const SLOT: Duration = Duration::from_millis(100);

/// Must hold 10. Guards that were taken at once are renewed one after the other, each in its own rhythm.
#[tokio::test]
async fn renewals_of_many_guards_are_spread_over_one_lane() {
    let server = RedisServer::start();
    let locks = connect(&server.url()).await;
    let mut guards = Vec::new();
    for number in 0..GUARDS {
        guards.push(locks.guard(&numbered(number), &robot()).ttl(ttl(3000)).await.expect("it is free"));
    }
    // From here on each is in its rhythm.
    sleep(INTERVAL).await;
    let monitor = server.monitor();
    sleep(2 * INTERVAL).await;
    let renewals: Vec<_> =
        monitor.heard(&server).into_iter().filter(|sent| sent.words[0] == "EVALSHA").collect();

    let mut tags = BTreeMap::<_, Vec<_>>::new();
    let mut slots = BTreeMap::<_, usize>::new();
    let mut connections = BTreeMap::<_, usize>::new();
    for sent in &renewals {
        tags.entry(&sent.words[3]).or_default().push(sent.at);
        *slots.entry((sent.at - renewals[0].at).as_micros() / SLOT.as_micros()).or_default() += 1;
        *connections.entry(&sent.from).or_default() += 1;
    }
    let listened = renewals[renewals.len() - 1].at - renewals[0].at;
    assert_eq!(connections.len(), 1, "{connections:?}");
    assert_eq!(tags.len(), GUARDS, "each is renewed");
    for (tag, times) in &tags {
        let apart = |pair: &[Duration]| (INTERVAL / 2..2 * INTERVAL).contains(&(pair[1] - pair[0]));
        assert!(times.windows(2).all(apart), "{tag} once in an interval: {times:?}");
    }
    // A tenth of them on average; what a busy machine holds up comes late, and more at once.
    let expected = listened.as_micros() / SLOT.as_micros();
    assert!(slots.len() as u128 >= expected / 2, "in {} of {expected} slots: {slots:?}", slots.len());
    assert!(slots.values().all(|&number| number <= GUARDS / 2), "{slots:?}");
    assert!(guards.iter().all(|guard| matches!(guard.state(), GuardState::Held { .. })));
}
