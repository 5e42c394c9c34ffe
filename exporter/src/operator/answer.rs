//! [`Answer`] and [`Refusal`]: what an order comes to, for people and for machines.

use std::{error::Error, iter};

use serde_json::{Value, json};
use spool_lock::{ConnectError, Fault, FaultKind, InvalidText, StoreUrl};

use super::advice::advice;

/// What was found or done.
#[derive(Debug)]
pub(super) struct Answer {
    /// For people, with a line feed at its end.
    pub(super) text: String,
    pub(super) json: Value,
    /// Nothing has to be done.
    pub(super) is_well: bool,
}

impl Answer {
    pub(super) fn well(text: String, json: Value) -> Self {
        Self { text, json, is_well: true }
    }
}

/// Why an order was not carried out.
#[derive(Debug, Clone)]
pub(super) enum Refusal {
    /// It was asked wrongly; what would be right.
    Usage(String),
    /// It was refused, or Redis could not be asked: in a word, and in a line that ends with what to do.
    Failed { kind: &'static str, message: String },
}

impl Refusal {
    pub(super) fn failed(kind: &'static str, message: impl Into<String>) -> Self {
        Self::Failed { kind, message: message.into() }
    }

    /// Of an error of the library: what it says and what it rests on, in one line, with what to do about it.
    pub(super) fn of(error: impl Error + 'static) -> Self {
        let (kind, message) = (fault_kind(&error), in_one_line(&error));
        match kind {
            Some(kind) => Self::failed(kind.as_str(), format!("{message}; {}", advice(kind))),
            None => Self::failed("refused", message),
        }
    }

    /// Of a connection that could not be opened to there.
    pub(super) fn of_connect(error: ConnectError, to: &StoreUrl) -> Self {
        match error {
            ConnectError::Config(wrong) => Self::Usage(wrong.to_string()),
            ConnectError::Fault(fault) => {
                let (kind, said) = (fault.kind(), in_one_line(&fault));
                Self::failed(kind.as_str(), format!("{said}, at {to}; {}", advice(kind)))
            }
            error => Self::of(error),
        }
    }

    /// In a word; of the list in the README.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Failed { kind, .. } => kind,
        }
    }

    pub(super) fn message(&self) -> &str {
        match self {
            Self::Usage(message) | Self::Failed { message, .. } => message,
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({ "kind": self.kind(), "message": self.message() })
    }
}

impl From<InvalidText> for Refusal {
    fn from(wrong: InvalidText) -> Self {
        Self::Usage(wrong.to_string())
    }
}

/// An error and all that it rests on.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| error.source())
}

fn fault_kind(error: &(dyn Error + 'static)) -> Option<FaultKind> {
    chain(error).find_map(|error| error.downcast_ref::<Fault>()).map(Fault::kind)
}

/// What an error and all that it rests on say.
pub(super) fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let said: Vec<_> = chain(error).map(ToString::to_string).collect();
    said.join(": ")
}

/// What the program prints, and with which code it ends.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// For standard output; may be empty.
    pub said: String,
    /// For standard error; may be empty.
    pub complaint: String,
    /// 0 when it was done or all is well, 1 when something must be done or was refused, 2 when it was asked wrongly.
    pub code: u8,
}

impl Outcome {
    pub(super) fn of(answer: Result<Answer, Refusal>, as_json: bool) -> Self {
        let code = match &answer {
            Ok(answer) => u8::from(!answer.is_well),
            Err(Refusal::Failed { .. }) => 1,
            Err(Refusal::Usage(_)) => 2,
        };
        let (said, complaint) = match answer {
            Ok(answer) if as_json => (format!("{}\n", answer.json), String::new()),
            Ok(answer) => (answer.text, String::new()),
            Err(refusal) if as_json => (format!("{}\n", json!({ "error": refusal.json() })), String::new()),
            Err(refusal) => (String::new(), refusal.message().to_owned()),
        };
        Self { said, complaint, code }
    }
}
