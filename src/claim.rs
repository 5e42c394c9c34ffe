//! [`Claim`]: the right to what a call may have been granted of which no clear answer came.

use std::{fmt, mem, time::Duration};

use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{Fault, FaultKind, Lease, Token};

/// The right to a lock that an acquire may have been granted: it has failed as [`Ambiguous`](crate::AcquireError::Ambiguous).
///
/// In the background Redis is being asked by the token of the call, and once more when the call cannot arrive any more. What
/// becomes of the lock, should it have been granted, is for the owner of the claim to say:
///
/// - [`settled`](Self::settled) waits until it is known, and then it is the caller's, or it is nobody's.
/// - [`into_token`](Self::into_token) stops all that: the caller repeats the call.
/// - Dropped, the claim has the lock released, so a caller that does nothing leaves nothing behind. It is left alone where the
///   call had named its [`token`](crate::Acquire::token), because an earlier call may have been granted it; and where the same
///   holder has asked for the tag or extended the lease meanwhile, because whoever did relies on it.
///
/// If the process ends before that, or more than 10,000 calls are given up at once, a lock that was granted lasts its ttl.
#[must_use = "dropped, it has the lock released that may have been granted"]
pub struct Claim {
    token: Token,
    wish: oneshot::Sender<Wish>,
}

impl Claim {
    /// A claim and its owner, as the one sees them who finds out. `is_named`: the token is theirs, and what an earlier call was
    /// granted under it is left alone.
    pub(crate) fn new(token: Token, is_named: bool) -> (Self, Owner) {
        let (wish, wishes) = oneshot::channel();
        (Self { token, wish }, Owner::Silent { wishes, is_named })
    }

    /// Waits until it is known whether the lock was granted. It is then the caller's, with what is left of its ttl; `None`: it
    /// was not, and will not be, or has ended by now.
    ///
    /// While Redis answers that takes one round trip, or as long as the call might still arrive: at most its deadline and four
    /// polls of those who wait in line.
    ///
    /// # Errors
    /// [`FaultKind::Disconnected`] — the last clone of the locks is gone, or too many claims were open at once: nobody finds it
    /// out any more.
    ///
    /// # Cancel safety
    /// If dropped, so is the claim.
    pub async fn settled(self) -> Result<Option<Lease>, Fault> {
        let (tell, told) = oneshot::channel();
        let _ = self.wish.send(Wish::Tell(tell));
        match told.await.map_err(|_| Fault::from(FaultKind::Disconnected))? {
            // Whoever does not take it in time has lost it.
            Some(HandedOut { lease, taken }) => Ok(taken.send(()).is_ok().then_some(lease)),
            None => Ok(None),
        }
    }

    /// Leaves the lock alone, and hands the token out: repeat the call with [`Acquire::token`](crate::Acquire::token) to find
    /// out, and to be granted what was granted then.
    pub fn into_token(self) -> Token {
        let _ = self.wish.send(Wish::Leave);
        self.token
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").finish_non_exhaustive()
    }
}

/// What the owner of a claim wants.
#[derive(Debug)]
pub(crate) enum Wish {
    /// To hear what was granted, and to have it.
    Tell(oneshot::Sender<Option<HandedOut>>),
    /// That what was granted is left alone.
    Leave,
}

/// A lease on its way to the owner of a claim. It is theirs when they have said so: a future may be dropped with the lease in it.
#[derive(Debug)]
pub(crate) struct HandedOut {
    lease: Lease,
    taken: oneshot::Sender<()>,
}

/// Where the owner of a claim stands.
#[derive(Debug)]
pub(crate) enum Owner {
    /// They have the claim, and have not said what they want.
    Silent { wishes: oneshot::Receiver<Wish>, is_named: bool },
    /// They wait for what is found.
    Waits { tell: oneshot::Sender<Option<HandedOut>>, is_named: bool },
    /// What is found is left alone.
    LeavesIt,
    /// What is found is released.
    Gone,
}

impl Owner {
    /// Waits for `pause`, or until they say something.
    pub(crate) async fn listen(&mut self, pause: Duration) {
        let Self::Silent { wishes, is_named } = self else { return sleep(pause).await };
        let Ok(wish) = timeout(pause, wishes).await else { return };
        *self = match wish {
            Ok(Wish::Tell(tell)) => Self::Waits { tell, is_named: *is_named },
            Ok(Wish::Leave) => Self::LeavesIt,
            Err(_dropped) if *is_named => Self::LeavesIt,
            Err(_dropped) => Self::Gone,
        };
    }

    /// Hands a lease out if they wait for it, and says whether they have taken it before it ended.
    pub(crate) async fn takes(&mut self, lease: &Lease) -> bool {
        let (tell, is_named) = match mem::replace(self, Self::Gone) {
            Self::Waits { tell, is_named } => (tell, is_named),
            other => {
                *self = other;
                return false;
            }
        };
        let (taken, takes) = oneshot::channel();
        let lasts = lease.expires_at.duration_since(lease.since).unwrap_or_default();
        let is_taken = tell.send(Some(HandedOut { lease: lease.clone(), taken })).is_ok()
            && matches!(timeout(lasts, takes).await, Ok(Ok(())));
        if !is_taken && is_named {
            *self = Self::LeavesIt;
        }
        is_taken
    }

    /// Nothing was granted that they do not have, and nothing will be.
    pub(crate) fn hears_of_nothing(self) {
        if let Self::Waits { tell, .. } = self {
            let _ = tell.send(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{Fence, Holder, LeaseKind, Tag};

    fn lease(token: Token) -> Lease {
        Lease {
            tag: Tag::new("TEST-02").unwrap(),
            holder: Holder::new("93", "").unwrap(),
            kind: LeaseKind::Identity,
            token: Some(token),
            fence: Fence::new(5).unwrap(),
            since: SystemTime::UNIX_EPOCH,
            expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(60),
            note: String::new(),
        }
    }

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn what_is_waited_for_is_taken() {
        for is_named in [true, false] {
            let token = Token::random();
            let (claim, mut owner) = Claim::new(token, is_named);
            assert!(!owner.takes(&lease(token)).await, "they have not asked for it");
            let (settled, is_taken) = tokio::join!(claim.settled(), async {
                owner.listen(SOON).await;
                owner.takes(&lease(token)).await
            });
            assert_eq!(settled.unwrap(), Some(lease(token)));
            assert!(is_taken);
        }
    }

    #[tokio::test]
    async fn what_is_not_fetched_is_not_taken() {
        for is_named in [true, false] {
            let token = Token::random();
            let (claim, mut owner) = Claim::new(token, is_named);
            let mut settling = Box::pin(claim.settled());
            assert!(timeout(Duration::ZERO, &mut settling).await.is_err());
            owner.listen(SOON).await;
            let lease = lease(token);
            let (is_taken, ()) = tokio::join!(owner.takes(&lease), async { drop(settling) });
            assert!(!is_taken);
            assert_eq!(matches!(owner, Owner::LeavesIt), is_named);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_ended_by_then_is_nobodys() {
        let token = Token::random();
        let (claim, mut owner) = Claim::new(token, false);
        let mut settling = Box::pin(claim.settled());
        assert!(timeout(Duration::ZERO, &mut settling).await.is_err());
        owner.listen(SOON).await;
        assert!(!owner.takes(&lease(token)).await, "not in its 60 s");
        assert_eq!(settling.await.unwrap(), None);
    }

    #[tokio::test]
    async fn its_end_says_what_is_to_become_of_it() {
        for is_named in [true, false] {
            let token = Token::random();
            let (claim, mut owner) = Claim::new(token, is_named);
            drop(claim);
            owner.listen(SOON).await;
            assert_eq!(matches!(owner, Owner::LeavesIt), is_named);
            let (claim, mut owner) = Claim::new(token, is_named);
            assert_eq!(claim.into_token(), token);
            owner.listen(SOON).await;
            assert!(matches!(owner, Owner::LeavesIt));
        }
    }

    #[tokio::test]
    async fn nothing_is_told_too() {
        let (claim, mut owner) = Claim::new(Token::random(), false);
        let (settled, ()) = tokio::join!(claim.settled(), async {
            owner.listen(SOON).await;
            owner.hears_of_nothing();
        });
        assert_eq!(settled.unwrap(), None);
    }

    #[tokio::test]
    async fn a_claim_that_nobody_sees_to_says_so() {
        let (claim, owner) = Claim::new(Token::random(), false);
        drop(owner);
        assert_eq!(claim.settled().await.unwrap_err().kind(), FaultKind::Disconnected);
    }
}
