//! [`Register`]: the highest fence that a resource has accepted, kept beside its data.

use crate::{Fence, Token};

/// Remembers the newest grant that has written, and refuses the writes of older ones.
///
/// The check at the resource that makes a lock with a ttl safe: a holder that was paused, and lost its lock meanwhile, cannot
/// overwrite what a later one has written (fencing tokens: Kleppmann, "How to do distributed locking", 2016). A write is
/// admitted if its fence is newer than all before, or if it is the newest and comes from the same grant, which may write as
/// often as it likes. A new register admits any.
///
/// - **One register for each tag.** Fences order the grants of one tag only.
/// - **Check and write as one.** Keep the register with the data, under one lock or in one transaction; between a check and a
///   write that can be parted, a newer holder fits in.
/// - **Admit, then read.** Until a new holder is admitted, its predecessor still is. Who reads first, and writes what follows
///   from it, overwrites what the predecessor wrote in between.
///
/// # Without a token
/// A Redis that has split in two may grant a tag twice under one fence: each half counts on by itself. So an equal fence alone
/// does not show that two writes are of one grant; the [`Token`] does. A lease that was read instead of granted (by
/// [`inspect`](crate::SpoolLocks::inspect), from a ledger, in another process) has none. It is admitted once, under a fence
/// that is newer than all before; from then on nothing is admitted under this fence, not even with a token. Where the processes
/// of a holder take turns at writing, let one of them write, or acquire the lock in each.
///
/// # Serialised
/// With the feature `serde` a register is `null` or `{"fence":1795132800000000,"fingerprint":7151459313098731}`: the
/// [fingerprint](Token::fingerprint) of the token, never the token.
///
/// # In SQL
/// Where the data is a row, the row is the register: `fence BIGINT NOT NULL DEFAULT 0`, `fingerprint BIGINT` that may be null.
/// One statement checks and writes; `$2` is [`Fence::get`], `$3` is [`Token::fingerprint`], or null without a token (`=` is
/// never true of a null, so the rule above holds).
///
/// ```sql
/// UPDATE spools SET state = $4, fence = $2, fingerprint = $3
///  WHERE tag = $1 AND (fence < $2 OR (fence = $2 AND fingerprint = $3));
///
/// INSERT INTO spools (tag, fence, fingerprint, state) VALUES ($1, $2, $3, $4)
///     ON CONFLICT (tag) DO UPDATE
///    SET state = excluded.state, fence = excluded.fence, fingerprint = excluded.fingerprint
///  WHERE spools.fence < excluded.fence
///     OR (spools.fence = excluded.fence AND spools.fingerprint = excluded.fingerprint);
/// ```
///
/// 0 rows affected means refused (of the `UPDATE` also: no such row): roll back. What else belongs to the write comes after it in
/// the same transaction. PostgreSQL and SQLite count rows that matched; a MySQL client must be told to
/// (`CLIENT_FOUND_ROWS`), otherwise a repeated write that changes nothing counts as 0.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use spool_lock::{Config, Holder, SpoolLocks, Tag, Ttl, fence::{AdmitError, Register}};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let locks = SpoolLocks::connect(Config::new("memory://")?).await?;
/// let (tag, rosa, juan) = (Tag::new("TEST-02")?, Holder::new("93", "MR(93)")?, Holder::new("94", "JP(94)")?);
/// let mut register = Register::default();
///
/// let paused = locks.acquire(&tag, &rosa).ttl(Ttl::MIN).await?;
/// register.admit(paused.fence, paused.token)?;
/// let lease = locks.acquire(&tag, &juan).wait(Duration::from_secs(5)).await?;
/// register.admit(lease.fence, lease.token)?;
/// register.admit(lease.fence, lease.token)?;
///
/// let refused = register.admit(paused.fence, paused.token);
/// assert_eq!(refused, Err(AdmitError::Stale { came: paused.fence, stands: lease.fence }));
/// assert_eq!(register.fence(), Some(lease.fence));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// Not `Copy`: a copy that is admitted to by accident leaves the register at the data behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Register {
    newest: Option<Admitted>,
}

/// The grant that has written last, as far as a later write must be compared with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Admitted {
    fence: Fence,
    fingerprint: Option<u64>,
}

impl Register {
    /// Admits a write of the grant that has this fence and token, or says why it must not take place.
    ///
    /// Both are fields of the [`Lease`](crate::Lease): `register.admit(lease.fence, lease.token)`. What is refused changes
    /// nothing.
    ///
    /// # Errors
    /// [`AdmitError`]: `Stale` — a newer grant has written. `SharedFence` — another grant has written under this very fence.
    /// `NoToken` — the fence has been written under, and a token is missing to tell by whom.
    pub fn admit(&mut self, fence: Fence, token: Option<Token>) -> Result<(), AdmitError> {
        let fingerprint = token.map(Token::fingerprint);
        if let Some(newest) = &self.newest {
            if fence < newest.fence {
                return Err(AdmitError::Stale { came: fence, stands: newest.fence });
            }
            if fence == newest.fence {
                return match (fingerprint, newest.fingerprint) {
                    (Some(came), Some(stands)) if came == stands => Ok(()),
                    (Some(_), Some(_)) => Err(AdmitError::SharedFence { fence }),
                    _ => Err(AdmitError::NoToken { fence }),
                };
            }
        }
        self.newest = Some(Admitted { fence, fingerprint });
        Ok(())
    }

    /// The highest fence that was admitted; `None` before the first.
    pub fn fence(&self) -> Option<Fence> {
        self.newest.as_ref().map(|newest| newest.fence)
    }
}

/// Why a write must not take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// A newer grant has written: the lock was lost. Write nothing more under this lease; acquire again, and read anew.
    #[error("fence {came} is older than {stands}, which has written: the lock was lost, acquire it again")]
    Stale {
        /// The fence of the write.
        came: Fence,
        /// The highest fence that was admitted.
        stands: Fence,
    },
    /// Another grant has written under the same fence: Redis granted the tag twice, as it can when it has split in two. Acquire
    /// again, which gets a newer fence, and read anew; tell whoever runs that Redis.
    #[error("another grant has written under fence {fence}: redis granted it twice, acquire the lock again")]
    SharedFence {
        /// The fence of both.
        fence: Fence,
    },
    /// Something was written under this fence, and of that write or of this one the token is not known: nothing shows that they
    /// are of the same grant. Write where the lease was granted, or release it and acquire it again here.
    #[error(
        "fence {fence} has written, and a token is missing to tell by whose grant: \
         write where the lease was granted, or acquire the lock again here"
    )]
    NoToken {
        /// The fence of both.
        fence: Fence,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fence(number: u64) -> Fence {
        Fence::new(number).unwrap()
    }

    #[test]
    fn new_register_admits_any() {
        for number in [0, 1, Fence::MAX.get()] {
            assert_eq!(Register::default().admit(fence(number), Some(Token::random())), Ok(()));
            assert_eq!(Register::default().admit(fence(number), None), Ok(()));
        }
    }

    #[test]
    fn same_grant_writes_until_a_newer_one_has() {
        let (paused, next) = (Some(Token::random()), Some(Token::random()));
        let mut register = Register::default();
        assert_eq!(register.admit(fence(7), paused), Ok(()));
        assert_eq!(register.admit(fence(7), paused), Ok(()));
        assert_eq!(register.admit(fence(9), next), Ok(()));
        let stale = AdmitError::Stale { came: fence(7), stands: fence(9) };
        assert_eq!(register.admit(fence(7), paused), Err(stale));
        assert_eq!(register.admit(fence(7), None), Err(stale));
        assert_eq!(register.admit(fence(9), next), Ok(()), "who was refused took nothing away");
        assert_eq!(register.fence(), Some(fence(9)));
    }

    #[test]
    fn second_grant_of_a_fence_is_refused() {
        let mut register = Register::default();
        register.admit(fence(7), Some(Token::random())).unwrap();
        let refused = register.admit(fence(7), Some(Token::random()));
        assert_eq!(refused, Err(AdmitError::SharedFence { fence: fence(7) }));
    }

    #[test]
    fn without_a_token_a_fence_is_written_under_once() {
        let token = Some(Token::random());
        for (first, second) in [(None, None), (None, token), (token, None)] {
            let mut register = Register::default();
            assert_eq!(register.admit(fence(7), first), Ok(()));
            assert_eq!(register.admit(fence(7), second), Err(AdmitError::NoToken { fence: fence(7) }));
            assert_eq!(register.admit(fence(8), second), Ok(()));
        }
    }

    #[test]
    fn refusal_says_what_came_what_stands_and_what_to_do() {
        let (came, stands) = (fence(7), fence(9));
        for (refusal, text) in [
            (
                AdmitError::Stale { came, stands },
                "fence 7 is older than 9, which has written: the lock was lost, acquire it again",
            ),
            (
                AdmitError::SharedFence { fence: came },
                "another grant has written under fence 7: redis granted it twice, acquire the lock again",
            ),
            (
                AdmitError::NoToken { fence: came },
                "fence 7 has written, and a token is missing to tell by whose grant: \
                 write where the lease was granted, or acquire the lock again here",
            ),
        ] {
            assert_eq!(refusal.to_string(), text);
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn register_goes_on_where_it_was_kept() {
        let kept = |register: &Register| serde_json::to_value(register).unwrap();
        assert_eq!(kept(&Register::default()), serde_json::json!(null));

        let token = Token::random();
        let mut register = Register::default();
        register.admit(fence(7), Some(token)).unwrap();
        assert_eq!(kept(&register), serde_json::json!({ "fence": 7, "fingerprint": token.fingerprint() }));

        let mut read: Register = serde_json::from_value(kept(&register)).unwrap();
        assert_eq!(read, register);
        assert_eq!(read.admit(fence(7), Some(token)), Ok(()));
        assert!(read.admit(fence(6), Some(token)).is_err());
        assert!(read.admit(fence(7), Some(Token::random())).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Few fences and few tokens, so that they meet: also grants that share a fence, and leases that were read.
        #[test]
        fn in_any_order_of_writes_the_newest_grant_alone_is_admitted(
            writes in prop::collection::vec((0_u64..6, prop::option::of(0_usize..3)), 0..40),
        ) {
            let tokens = [Token::random(), Token::random(), Token::random()];
            let mut register = Register::default();
            let mut seen: Vec<(Fence, Option<usize>)> = Vec::new();
            let mut admitted: Vec<(Fence, Option<usize>)> = Vec::new();

            for (number, token) in writes {
                let write = (fence(number), token);
                let before = register.clone();
                let outcome = register.admit(write.0, token.map(|token| tokens[token]));

                let newest = seen.iter().map(|(fence, _)| *fence).max();
                let writer = admitted.last().copied();
                let right = newest < Some(write.0) || (writer == Some(write) && token.is_some());
                prop_assert_eq!(outcome.is_ok(), right, "{:?} after {:?}: {:?}", write, writer, outcome);

                seen.push(write);
                if outcome.is_ok() {
                    admitted.push(write);
                } else {
                    prop_assert_eq!(&register, &before, "what is refused changes nothing");
                }
                prop_assert_eq!(register.fence(), seen.iter().map(|(fence, _)| *fence).max());
            }
            prop_assert!(admitted.is_sorted_by_key(|(fence, _)| *fence), "{:?} went down", admitted);
        }
    }
}
