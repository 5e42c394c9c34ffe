//! [`Answer`]: what a script replied, taken apart.

use std::time::Duration;

use redis::Value;

use crate::{Fault, FaultKind, Fence};

/// The parts of a script's reply: a code, the server's time, and what the code brings.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: i64,
    pub(super) now_micros: u64,
    /// The number that a brief reply holds.
    brief: Option<i64>,
    rest: std::vec::IntoIter<Value>,
}

impl Answer {
    pub(super) fn read(value: Value) -> Result<Self, Fault> {
        let parts = match value {
            Value::Array(parts) => parts,
            Value::BulkString(digits) => return Self::read_brief(&digits),
            value => return Err(unexpected("an array or a string", &value)),
        };
        let mut rest = parts.into_iter();
        let mut number = || match rest.next() {
            Some(Value::Int(number)) => Ok(number),
            other => Err(unexpected("a number", &other.unwrap_or(Value::Nil))),
        };
        let (code, now) = (number()?, number()?);
        let now_micros = u64::try_from(now).map_err(|_| unexpected("a time", &Value::Int(now)))?;
        Ok(Self { code, now_micros, brief: None, rest })
    }

    /// What is usual comes as a string, which costs the server less than an array: the time in 16 digits, and a number after
    /// it; where there is none, the time is that number too. It means code 1.
    fn read_brief(digits: &[u8]) -> Result<Self, Fault> {
        let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<i64>().ok();
        let (now, after) = digits.split_at_checked(16).unwrap_or((digits, &[]));
        let now = number(now).filter(|&now| now >= 0);
        let brief = if after.is_empty() { now } else { number(after) };
        match (now.and_then(|now| u64::try_from(now).ok()), brief) {
            (Some(now_micros), Some(_)) => {
                Ok(Self { code: 1, now_micros, brief, rest: Vec::new().into_iter() })
            }
            _ => Err(Fault::new(FaultKind::Protocol, "a reply of digits was expected, another string came")),
        }
    }

    pub(super) fn number(&mut self) -> Result<i64, Fault> {
        if let Some(number) = self.brief.take() {
            return Ok(number);
        }
        match self.rest.next() {
            Some(Value::Int(number)) => Ok(number),
            other => Err(unexpected("a number", &other.unwrap_or(Value::Nil))),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, Fault> {
        match self.rest.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            other => Err(unexpected("a string", &other.unwrap_or(Value::Nil))),
        }
    }

    /// What is left of a ttl; a key without one is not a lock.
    pub(super) fn pttl(&mut self) -> Result<Duration, Fault> {
        let millis = self.number()?;
        let millis =
            u64::try_from(millis).map_err(|_| Fault::new(FaultKind::NotALock, "the key has no ttl"))?;
        Ok(Duration::from_millis(millis))
    }

    /// A time in ms that is not over.
    pub(super) fn millis(&mut self) -> Result<Duration, Fault> {
        let millis = self.number()?;
        let millis = u64::try_from(millis).map_err(|_| unexpected("a duration", &Value::Int(millis)))?;
        Ok(Duration::from_millis(millis))
    }

    pub(super) fn fence(&mut self) -> Result<Fence, Fault> {
        let number = self.number()?;
        let fence = u64::try_from(number).ok().and_then(Fence::new);
        fence.ok_or_else(|| unexpected("a fence", &Value::Int(number)))
    }

    /// The last fence that the server remembers; it says −1 for none.
    pub(super) fn last(&mut self) -> Result<Option<Fence>, Fault> {
        Ok(u64::try_from(self.number()?).ok().and_then(Fence::new))
    }
}

pub(super) fn unexpected(wanted: &str, got: &Value) -> Fault {
    // Never the value itself: it may hold a token.
    let got = match got {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) | Value::VerbatimString { .. } => "a string",
        Value::Array(_) => "an array",
        _ => "another type",
    };
    Fault::new(FaultKind::Protocol, format!("{wanted} was expected in the reply, {got} came"))
}

pub(super) fn unknown_code(code: i64) -> Fault {
    Fault::new(FaultKind::Protocol, format!("the reply has the unknown code {code}"))
}
