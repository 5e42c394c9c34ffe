//! [`Strangers`]: a service that has just been started, knows of no ledger, and wants what is being worked on.

use std::{
    error::Error,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use spool_lock::{AcquireError, Config, ConnectError, Holder, InvalidText, SpoolLocks, Tag, Ttl};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use crate::{WORK, dice::Dice, ledger::Ledger, outage::Outage, say};

const STRANGERS: usize = 10;

/// They come as soon as the server is back.
pub(crate) struct Strangers {
    all: JoinHandle<Result<Option<Answers>, ConnectError>>,
    is_over: Arc<AtomicBool>,
}

/// What strangers were told when they asked for what the ledger named.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// To wait: whoever held it before the server was started may have to put it back.
    warming: u64,
    /// That somebody has it.
    contended: u64,
    /// That they have it, although the ledger names it.
    intruded: u64,
}

/// One of them.
struct Stranger {
    locks: SpoolLocks,
    ledger: Ledger,
    holder: Holder,
    dice: Dice,
    answers: Answers,
}

impl Strangers {
    pub(crate) fn expected(
        config: Config,
        ledger: &Ledger,
        outage: &Arc<Outage>,
    ) -> Result<Self, InvalidText> {
        let names = (1..=STRANGERS).map(|number| format!("stranger {number}"));
        let holders = names.map(|name| Holder::new(&name, "")).collect::<Result<Vec<_>, _>>()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let all = tokio::spawn(come(holders, config, ledger.clone(), outage.clone(), is_over.clone()));
        Ok(Self { all, is_over })
    }

    /// Sends them away, and says what they were told; `None` if they have not come.
    pub(crate) async fn finish(self) -> Result<Option<Answers>, Box<dyn Error>> {
        self.is_over.store(true, Relaxed);
        Ok(self.all.await??)
    }
}

async fn come(
    holders: Vec<Holder>,
    config: Config,
    ledger: Ledger,
    outage: Arc<Outage>,
    is_over: Arc<AtomicBool>,
) -> Result<Option<Answers>, ConnectError> {
    while !outage.is_over() {
        if is_over.load(Relaxed) {
            return Ok(None);
        }
        sleep(WORK).await;
    }
    let locks = SpoolLocks::connect(config).await?;
    let mut strangers = JoinSet::new();
    for (number, holder) in holders.into_iter().enumerate() {
        let (locks, ledger, dice) = (locks.clone(), ledger.clone(), Dice::new(number));
        let stranger = Stranger { locks, ledger, holder, dice, answers: Answers::default() };
        strangers.spawn(stranger.ask_on(is_over.clone()));
    }
    Ok(Some(strangers.join_all().await.into_iter().fold(Answers::default(), Answers::and)))
}

impl Stranger {
    async fn ask_on(mut self, is_over: Arc<AtomicBool>) -> Answers {
        while !is_over.load(Relaxed) {
            if let Some(tag) = self.ledger.any(&mut self.dice) {
                self.ask(&tag).await;
            }
            sleep(WORK).await;
        }
        self.answers
    }

    async fn ask(&mut self, tag: &Tag) {
        match self.locks.acquire(tag, &self.holder).ttl(Ttl::HALF_MINUTE).await {
            Ok(lease) => {
                // While a stranger has it nobody else is granted it: what the ledger names now it named before.
                if self.ledger.is_open(tag) {
                    self.answers.intruded += 1;
                }
                // One that cannot be given back is found in the end.
                let _ = self.locks.release_lease(&lease).await;
            }
            Err(AcquireError::Warming { .. }) => self.answers.warming += 1,
            Err(AcquireError::Contended { .. }) => self.answers.contended += 1,
            // It has not been let in.
            Err(_) => {}
        }
    }
}

impl Answers {
    fn and(self, other: Self) -> Self {
        Self {
            warming: self.warming + other.warming,
            contended: self.contended + other.contended,
            intruded: self.intruded + other.intruded,
        }
    }

    /// Says what they were told.
    pub(crate) fn sum_up(&self) -> io::Result<()> {
        let Self { warming, contended, intruded } = self;
        say(format_args!(
            "         {STRANGERS} strangers were told {warming} times to wait (warming) and {contended} times who has it (contended), \
             {intruded} were granted what the ledger had open"
        ))
    }

    /// What did not go as it should.
    pub(crate) fn complaint(&self) -> Option<&'static str> {
        let Self { warming, contended, intruded } = *self;
        let complaints = [
            (intruded > 0, "strangers were granted what somebody worked on"),
            (warming + contended == 0, "no stranger was told anything"),
        ];
        complaints.into_iter().find_map(|(is_so, complaint)| is_so.then_some(complaint))
    }
}
