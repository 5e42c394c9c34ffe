//! [`Claim`]: the right to what a call may have been granted of which no clear answer came.

use std::fmt;

use tokio::sync::oneshot;

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
    pub(crate) fn new(token: Token) -> (Self, Claimant) {
        let (wish, wishes) = oneshot::channel();
        (Self { token, wish }, Claimant(wishes))
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
    pub(crate) lease: Lease,
    pub(crate) taken: oneshot::Sender<()>,
}

/// The other end of a [`Claim`], at the one who finds out. An error says that the claim was dropped.
#[derive(Debug)]
pub(crate) struct Claimant(pub(crate) oneshot::Receiver<Wish>);

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

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

    #[tokio::test]
    async fn what_is_taken_in_time_is_the_owners() {
        for in_time in [true, false] {
            let token = Token::random();
            let (claim, claimant) = Claim::new(token);
            let settling = tokio::spawn(claim.settled());
            let Ok(Wish::Tell(tell)) = claimant.0.await else { panic!("it wants to know") };
            let (taken, takes) = oneshot::channel();
            let takes = in_time.then_some(takes);
            tell.send(Some(HandedOut { lease: lease(token), taken })).unwrap();
            assert_eq!(settling.await.unwrap().unwrap(), in_time.then(|| lease(token)));
            if let Some(takes) = takes {
                takes.await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn its_end_says_what_became_of_it() {
        let (claim, claimant) = Claim::new(Token::random());
        drop(claim);
        assert!(claimant.0.await.is_err());
        let token = Token::random();
        let (claim, claimant) = Claim::new(token);
        assert_eq!(claim.into_token(), token);
        assert!(matches!(claimant.0.await, Ok(Wish::Leave)));
    }

    #[tokio::test]
    async fn a_claim_that_nobody_sees_to_says_so() {
        let (claim, claimant) = Claim::new(Token::random());
        drop(claimant);
        assert_eq!(claim.settled().await.unwrap_err().kind(), FaultKind::Disconnected);
    }
}
