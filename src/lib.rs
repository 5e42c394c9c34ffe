//! Spool locks.
