//! What an operator does about a fault. The pages of `docs/runbooks/faults/` say more.

use spool_lock::FaultKind;

/// What to do where Redis, or the way to it, fails like this; it follows a semicolon.
pub(super) fn advice(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Connect => "start Redis, or put its address into SPOOL_LOCK_URL",
        FaultKind::ClosedInHandshake | FaultKind::MaxClients => {
            "close clients that nobody needs, or raise the limit over a connection that is open: CONFIG SET maxclients N"
        }
        FaultKind::Tls => {
            "use rediss:// in SPOOL_LOCK_URL where the server speaks TLS and only there, and name its authority in SPOOL_LOCK_TLS_CA_FILE"
        }
        FaultKind::Auth => "put the right user and password into SPOOL_LOCK_URL",
        FaultKind::Permission => "grant what `spool-lock-exporter doctor` says is missing",
        FaultKind::Loading => "wait until Redis has loaded its data: INFO persistence says how far it is",
        FaultKind::Busy => "end the script that runs: SCRIPT KILL",
        FaultKind::ReadOnly => "put the address of the master into SPOOL_LOCK_URL",
        FaultKind::Misconf => "see why Redis cannot save: INFO persistence, its log and its disk",
        FaultKind::OutOfMemory => "free memory, or raise the limit: CONFIG SET maxmemory N",
        FaultKind::NoReplicas => "bring the replicas back, or do without: CONFIG SET min-replicas-to-write 0",
        FaultKind::NotALock => {
            "somebody else writes to keys of this prefix; `spool-lock-exporter force-release` removes what stands there"
        }
        FaultKind::Timeout | FaultKind::Disconnected | FaultKind::CheckoutTimeout => {
            "see whether Redis lives and has time to answer: SLOWLOG GET, redis-cli --latency"
        }
        _ => "try again, and see what `spool-lock-exporter doctor` says",
    }
}
