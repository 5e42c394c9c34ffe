//! The lines of those who wait, tried in thousands of orders: shuttle decides after each lock who goes on.
//!
//! There is no time here: a keeper that waits for a timer waits for ever, so what is found is found without the net of the poll.

#![allow(clippy::unwrap_used, dead_code, unused_imports, reason = "a room of the library, seen alone")]

#[path = "../src/lines/mod.rs"]
mod lines;
#[path = "lines/steps.rs"]
mod steps;

/// What the room takes its locks from.
mod sync {
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};
}

use std::{sync::Arc, time::Duration};

use lines::{Errand, HandOverEnd, Lines, Settled, Step, Waiting};
use shuttle::{
    future::{block_on, spawn, yield_now},
    rand::{Rng as _, thread_rng},
};
use sync::Mutex;
use tokio::time::Instant;

#[derive(Debug)]
struct Model;

type Token = u32;

impl Waiting for Model {
    type Key = ();
    type Ask = Token;
    /// Granted, or nobody knows.
    type Answer = Option<Token>;
    type Sight = ();

    fn ambiguous(_: &Token) -> Option<Token> {
        None
    }
}

const LONG: Duration = Duration::from_secs(3600);

/// The store, as small as it can be: who holds the lock, and for whom the queue stands. Each call is one step.
#[derive(Default)]
struct Store {
    holder: Option<Token>,
    place: Option<Token>,
    grants: u32,
}

impl Store {
    fn grant(&mut self, token: Token) {
        self.holder = Some(token);
        self.grants += 1;
    }

    fn queue(&mut self, token: Token, before: Option<Token>) -> Found {
        if self.holder.is_none() {
            self.place = None;
            self.grant(token);
        }
        match self.holder {
            Some(holder) if holder == token => {
                self.place = None;
                Found::Granted
            }
            holder if holder == before => Found::Before,
            _ => {
                self.place = Some(token);
                Found::Waits
            }
        }
    }

    /// Whether the lock went to the queue.
    fn release(&mut self, token: Token) -> bool {
        assert_eq!(self.holder.take(), Some(token), "only the holder releases");
        match self.place.take() {
            Some(next) => {
                self.grant(next);
                true
            }
            None => false,
        }
    }

    fn hand_over(&mut self, token: Token, next: Token) {
        assert_eq!(self.holder, Some(token), "only the holder hands over");
        self.place = None;
        self.grant(next);
    }
}

enum Found {
    Granted,
    Before,
    Waits,
}

struct Process {
    lines: Lines<Model>,
    store: Mutex<Store>,
    /// Who was told that the store has never heard of them.
    withdrawn: Mutex<Vec<Token>>,
}

impl Process {
    /// As a release of the library: to the head of the line, if there is one to be had.
    async fn release(&self, token: Token) {
        let Some(head) = self.lines.take_head(&(), Instant::now() + LONG, Instant::now()) else {
            if self.store.lock().unwrap().release(token) {
                yield_now().await;
                self.lines.look_now(&());
            }
            return;
        };
        yield_now().await;
        let next = *head.ask;
        self.store.lock().unwrap().hand_over(token, next);
        match thread_rng().gen_range(0..3) {
            // The reply is lost, or its caller is.
            0 => drop(head),
            _ => head.settle(HandOverEnd::Granted { answer: Some(next), sight: (), again: LONG }),
        }
    }

    async fn look(&self, token: Token, before: Option<(Token, bool)>) -> Settled<Model> {
        yield_now().await;
        let found = self.store.lock().unwrap().queue(token, before.map(|(token, _)| token));
        yield_now().await;
        match (found, before) {
            _ if thread_rng().gen_range(0..8) == 0 => {
                Settled::Ambiguous { again: Duration::ZERO, until: Instant::now() + LONG }
            }
            (Found::Granted, _) => Settled::Granted { answer: Some(token), sight: (), again: LONG },
            (Found::Before, Some((before, _))) => Settled::BeforeGranted(Some(before)),
            (Found::Before, None) => unreachable!("nobody stood before"),
            (Found::Waits, _) => Settled::Waits { sight: (), again: LONG },
        }
    }

    async fn leave(&self, token: Token) -> Settled<Model> {
        yield_now().await;
        let granted = {
            let mut store = self.store.lock().unwrap();
            store.place = None;
            store.holder == Some(token)
        };
        if granted { Settled::BeforeGranted(Some(token)) } else { Settled::Left }
    }

    async fn keep(&self) {
        loop {
            let bell = self.lines.bell(&());
            let settled = match self.lines.step(&(), Instant::now()) {
                Step::Close => return,
                Step::Rest(_) => {
                    bell.unwrap().notified().await;
                    continue;
                }
                Step::Look { ask, before } => {
                    self.look(*ask, before.map(|before| (*before.ask, before.is_here))).await
                }
                Step::Leave(before) => self.leave(*before.ask).await,
            };
            self.lines.settle(&(), settled, Instant::now());
        }
    }

    /// Waits for the lock, or gives up in one of the ways; holds it, and releases it.
    async fn worker(&self, token: Token) {
        let way = thread_rng().gen_range(0..4);
        let now = Instant::now();
        // One whose time is over before it came still stands in the line until it says so.
        let until = if way == 0 { now } else { now + LONG };
        let mut seat = self.lines.join(&(), Arc::new(token), false, Some(()), until, now).ok().unwrap();
        let answer = match way {
            0 => {
                yield_now().await;
                if seat.withdraw() {
                    self.withdrawn.lock().unwrap().push(token);
                    None
                } else {
                    seat.answer().await
                }
            }
            1 => {
                yield_now().await;
                None
            }
            _ => Some(seat.answer().await.expect("nobody is passed over")),
        };
        drop(seat);
        match answer {
            Some(Some(granted)) => {
                assert_eq!(granted, token, "an answer is for whom it is");
                yield_now().await;
                self.release(token).await;
            }
            Some(None) => self.clear_up(token).await,
            None => {}
        }
    }

    /// Releases what a token has, or gets from the queue.
    async fn clear_up(&self, token: Token) {
        loop {
            let (holder, place) = {
                let store = self.store.lock().unwrap();
                (store.holder, store.place)
            };
            if holder == Some(token) {
                return self.release(token).await;
            }
            if place != Some(token) {
                return;
            }
            yield_now().await;
        }
    }
}

fn run(workers: u32) {
    block_on(async move {
        let (lines, mut errands) = Lines::new(100);
        let process = Arc::new(Process { lines, store: Mutex::default(), withdrawn: Mutex::default() });
        // Somebody has it already.
        process.store.lock().unwrap().grant(0);
        let tasks: Vec<_> = (1..=workers)
            .map(|token| {
                let process = process.clone();
                spawn(async move { process.worker(token).await })
            })
            .collect();
        let keepers = process.clone();
        let keeping = spawn(async move {
            while let Some(errand) = errands.recv().await {
                if let Errand::Stray { ask, .. } | Errand::Abandoned { ask, .. } = &errand {
                    let withdrawn = keepers.withdrawn.lock().unwrap();
                    assert!(!withdrawn.contains(ask), "whoever could withdraw was granted nothing");
                }
                match errand {
                    Errand::Opened(()) => {
                        let process = keepers.clone();
                        spawn(async move { process.keep().await });
                    }
                    Errand::Stray { answer: Some(token), .. } => keepers.release(token).await,
                    Errand::Stray { ask, answer: None } | Errand::Abandoned { ask, .. } => {
                        keepers.clear_up(*ask).await;
                    }
                }
            }
        });
        process.release(0).await;
        for task in tasks {
            task.await.unwrap();
        }
        // Whatever is left to be cleared up is cleared up without anybody asking for it.
        while !process.lines.is_empty() || process.store.lock().unwrap().holder.is_some() {
            yield_now().await;
        }
        assert_eq!(process.store.lock().unwrap().place, None);
        keeping.abort();
    });
}

#[test]
fn nobody_who_waits_is_forgotten_in_any_order() {
    shuttle::check_random(|| run(3), 10_000);
    shuttle::check_pct(|| run(4), 10_000, 3);
}
