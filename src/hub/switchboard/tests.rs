//! A hub whose test says when it hears: nothing happens but by a step.

use super::*;
use crate::{
    Config, Holder, Lease, LeaseKind, LostReason, RequestId, Token, Ttl, Watch,
    inner::Doors,
    store::{Ask, Whose},
};

const LINGER: Duration = Duration::from_secs(60);

async fn board() -> Switchboard {
    let (inner, mailboxes) =
        Inner::connect(Config::new("memory://").unwrap(), Doors::default()).await.unwrap();
    Switchboard::new(Arc::new(inner), mailboxes.requests, LINGER)
}

fn tag() -> Tag {
    Tag::new("TEST-02").unwrap()
}

async fn acquire(inner: &Inner) -> Lease {
    let ask = Ask {
        tag: tag(),
        holder: Holder::new("93", "").unwrap(),
        kind: LeaseKind::Identity,
        token: Token::random(),
        ttl: Ttl::HOUR,
        note: String::new(),
    };
    attempt::acquire(inner, ask, false, Duration::ZERO, None).await.unwrap().lease
}

async fn release(inner: &Inner, lease: &Lease) {
    attempt::release(inner, Whose::of(lease), RequestId::random(), None).await.unwrap();
}

async fn extend(inner: &Inner, lease: &Lease) {
    attempt::extend(inner, Whose::of(lease), Ttl::new(2 * Ttl::HOUR.duration()).unwrap(), None)
        .await
        .unwrap();
}

/// All that the watch has to tell, each with its fence.
async fn told(watch: &mut Watch) -> Vec<(&'static str, u64)> {
    let mut told = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, watch.next()).await {
        told.push((event.name(), event.occupant().unwrap().fence.get()));
    }
    told
}

impl Switchboard {
    /// Asks how things stand, and has the answer before the news that are under way.
    async fn look_first(&mut self) {
        let asked = Instant::now();
        let seen = attempt::look(&self.inner, &tag()).await;
        self.looks += 1;
        self.looked(&tag(), asked, seen);
    }

    async fn run_for(&mut self, time: Duration) {
        let _ = tokio::time::timeout(time, async {
            loop {
                self.step().await;
            }
        })
        .await;
    }

    async fn watch(&mut self, topic: Topic) -> Watch {
        let inner = self.inner.clone();
        let mut watch = Box::pin(inner.hearing.watch(topic));
        loop {
            tokio::select! {
                watch = &mut watch => return watch.unwrap(),
                () = self.step() => {}
            }
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.link, Link::Open { .. })
    }
}

#[tokio::test(start_paused = true)]
async fn feed_opens_with_the_first_watcher_and_closes_a_while_after_the_last() {
    let mut board = board().await;
    board.run_for(LINGER).await;
    assert!(!board.is_open(), "nobody listens");

    let (one, all) = (board.watch(Topic::Tag(tag())).await, board.watch(Topic::All).await);
    board.run_for(3 * LINGER).await;
    assert!(board.is_open(), "somebody listens");

    drop(one);
    board.run_for(2 * SWEEP).await;
    assert_eq!(board.channels.keys().collect::<Vec<_>>(), [&Topic::All]);
    drop(all);
    board.run_for(LINGER - SWEEP).await;
    assert!(board.is_open(), "somebody may come back");
    board.run_for(3 * SWEEP).await;
    assert!(matches!(board.link, Link::Closed), "{:?}", board.link);
    assert!(board.told.tags().next().is_none() && board.channels.is_empty() && board.agenda.next().is_none());

    let _again = board.watch(Topic::All).await;
    assert!(board.is_open());
}

#[tokio::test(start_paused = true)]
async fn watcher_who_comes_back_while_his_topic_is_left_is_served() {
    let mut board = board().await;
    drop(board.watch(Topic::Tag(tag())).await);
    board.sweep(Instant::now());
    assert_eq!(board.channels[&Topic::Tag(tag())].stage, Stage::Leaving);
    let _again = board.watch(Topic::Tag(tag())).await;
    assert_eq!(board.channels[&Topic::Tag(tag())].stage, Stage::Heard);
}

#[tokio::test(start_paused = true)]
async fn waiter_keeps_the_feed_without_any_watcher() {
    let mut board = board().await;
    board.inner.clone().hearing.someone_waits();
    board.run_for(SWEEP).await;
    assert!(board.is_open());
    board.run_for(LINGER + 2 * SWEEP).await;
    assert!(!board.is_open(), "nobody stands in line any more");
    board.inner.clone().hearing.someone_waits();
    board.run_for(SWEEP).await;
    assert!(board.is_open(), "the next one is heard");
}

#[tokio::test(start_paused = true)]
async fn broken_feed_is_opened_again_and_its_watchers_stay() {
    let mut board = board().await;
    let mut watch = board.watch(Topic::Tag(tag())).await;
    board.broke(&"the test says so");
    let lease = acquire(&board.inner).await;
    board.run_for(SWEEP).await;
    assert!(board.is_open());
    let event = watch.next().await.unwrap();
    assert!(matches!(&*event, Event::Taken { occupant, .. } if occupant.fence == lease.fence), "{event:?}");
}

#[tokio::test(start_paused = true)]
async fn feed_that_does_not_answer_is_given_up() {
    let mut board = board().await;
    let topic = Topic::Tag(tag());
    let _watch = board.watch(topic.clone()).await;
    for is_wanted in [true, false] {
        let (generation, topic) = (board.generation, topic.clone());
        let outcome = Err(FaultKind::Timeout.into());
        board.done(match is_wanted {
            true => Errand::Followed { generation, topic, outcome },
            false => Errand::Unfollowed { generation, topic, outcome },
        });
        assert!(!board.is_open(), "what it was asked may be applied late");
        board.run_for(SWEEP).await;
        assert_eq!(board.channels[&Topic::Tag(tag())].stage, Stage::Heard);
    }
}

/// One that began before the subscription was broken, and failed afterwards, began another beside the new one.
#[tokio::test(start_paused = true)]
async fn only_the_last_walk_is_made_again() {
    let mut board = board().await;
    let _watch = board.watch(Topic::All).await;
    let fails = |walk| {
        let outcome = Err(FaultKind::Timeout.into());
        Errand::Listed { walk, asked: Instant::now(), outcome }
    };
    let before = board.walk;
    board.broke(&"the test says so");
    while !matches!(board.channels[&Topic::All].stage, Stage::Looking { .. }) {
        board.step().await;
    }
    let last = board.walk;
    board.done(fails(before));
    assert_eq!(board.walk, last);
    board.done(fails(last));
    assert_eq!(board.walk, last + 1);
    board.run_for(2 * AGAIN).await;
    assert_eq!((board.channels[&Topic::All].stage, board.walk), (Stage::Heard, last + 1));
}

#[tokio::test(start_paused = true)]
async fn feed_that_breaks_again_and_again_is_opened_ever_more_slowly() {
    let mut board = board().await;
    let _watch = board.watch(Topic::All).await;
    let mut times = Vec::new();
    for _ in 0..8 {
        board.broke(&"the test says so");
        let broke = Instant::now();
        while board.channels[&Topic::All].stage != Stage::Heard {
            board.step().await;
        }
        times.push(broke.elapsed());
    }
    assert!(times[0] <= Duration::from_millis(60), "{times:?}");
    assert!(times[5..].iter().all(|time| *time >= Duration::from_millis(500)), "{times:?}");

    board.run_for(Pause::LASTING).await;
    board.broke(&"the test says so");
    board.run_for(Duration::from_millis(60)).await;
    assert!(board.is_open(), "a feed that lasted is replaced at once");
}

/// The answer comes over another connection. The lease between was then older than what had been told, and kept from those who
/// watch.
#[tokio::test(start_paused = true)]
async fn look_that_overtakes_the_news_hides_no_lease() {
    let mut board = board().await;
    let inner = board.inner.clone();
    let mut watch = board.watch(Topic::All).await;
    let one = acquire(&inner).await;
    board.run_for(SWEEP).await;
    release(&inner, &one).await;
    let two = acquire(&inner).await;
    release(&inner, &two).await;
    let three = acquire(&inner).await;
    board.look_first().await;
    board.run_for(SWEEP).await;
    let [one, two, three] = [one, two, three].map(|lease| lease.fence.get());
    let right = [("taken", one), ("released", one), ("taken", two), ("released", two), ("taken", three)];
    assert_eq!(told(&mut watch).await, right);
}

/// Granted while nobody heard, and extended before the first look had its answer.
#[tokio::test(start_paused = true)]
async fn lease_is_told_to_be_taken_before_it_is_extended() {
    for seen_before in [false, true] {
        let mut board = board().await;
        let inner = board.inner.clone();
        let mut watch = board.watch(Topic::All).await;
        if seen_before {
            let lease = acquire(&inner).await;
            release(&inner, &lease).await;
            board.run_for(SOON).await;
            told(&mut watch).await;
        }
        board.broke(&"the test says so");
        let lease = acquire(&inner).await;
        while !matches!(board.channels[&Topic::All].stage, Stage::Looking { .. }) {
            board.step().await;
        }
        extend(&inner, &lease).await;
        while let Some(news) = board.link.more() {
            board.hear(news);
        }
        board.run_for(SWEEP).await;
        assert_eq!(told(&mut watch).await, [("taken", lease.fence.get())]);
    }
}

#[tokio::test(start_paused = true)]
async fn look_that_overtakes_the_news_tells_nothing_twice() {
    let mut board = board().await;
    let inner = board.inner.clone();
    let mut all = board.watch(Topic::All).await;
    let lease = acquire(&inner).await;
    board.run_for(SWEEP).await;
    extend(&inner, &lease).await;
    board.look_first().await;
    board.run_for(SWEEP).await;
    attempt::force_release(&inner, &lease.tag, "ops", "stuck").await.unwrap();
    // Who begins to watch the tag looks too.
    board.look_first().await;
    let mut one = board.watch(Topic::Tag(tag())).await;
    board.run_for(SWEEP).await;
    let fence = lease.fence.get();
    let right = [("taken", fence), ("extended", fence), ("forced", fence), ("lost", fence)];
    assert_eq!(told(&mut all).await, right);
    assert!(told(&mut one).await.iter().all(|(name, _)| ["forced", "lost"].contains(name)));
}

#[tokio::test(start_paused = true)]
async fn look_that_no_news_explain_is_told_a_moment_later() {
    let mut board = board().await;
    let inner = board.inner.clone();
    let mut watch = board.watch(Topic::All).await;
    let lease = acquire(&inner).await;
    board.run_for(SWEEP).await;
    let Link::Open { feed, .. } = &board.link else { panic!("there is a feed") };
    feed.topics.unfollow(&Topic::All).await.unwrap();
    release(&inner, &lease).await;
    board.look_first().await;
    board.run_for(2 * SOON).await;
    let fence = lease.fence.get();
    assert_eq!(told(&mut watch).await, [("taken", fence), ("released", fence)]);
}

/// The answer to a release may be slower than the news, and then it is no loss.
#[tokio::test(start_paused = true)]
async fn lease_whose_release_was_asked_is_not_lost() {
    for given_back in [false, true] {
        let mut board = board().await;
        let mut watch = board.watch(Topic::Tag(tag())).await;
        let lease = acquire(&board.inner).await;
        if given_back {
            board.inner.known.giving_back(&Whose::of(&lease));
        }
        board.run_for(SWEEP).await;
        // Its key has gone, and the counter too.
        board.broke(&"the test says so");
        board.saw(tag(), Seen::Free { last: None }, Instant::now());
        board.run_for(SOON).await;
        assert_eq!(watch.next().await.unwrap().name(), "taken");
        assert_eq!(watch.next().await.unwrap().name(), "released");
        assert_eq!(board.inner.stats().locks.lost_total["expired"], u64::from(!given_back));
        if !given_back {
            let event = watch.next().await.unwrap();
            assert!(matches!(*event, Event::Lost { reason: LostReason::Expired, .. }), "{event:?}");
        }
    }
}
