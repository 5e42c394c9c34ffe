//! A [`Deferred`] as one line of text.

use std::{
    borrow::Cow,
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{Deferred, DeferredCall};
use crate::{
    Fence, Holder, LeaseKind, Tag,
    text::{Escaped, unescape},
};

/// The first field: what is written otherwise gets another number.
const VERSION: &str = "1";
/// Stands for the fence where none is named.
const NO_FENCE: &str = "-";

const NANOS: u128 = 1_000_000_000;

/// `1|REQUEST|KIND|FENCE|CALL|TAG|HOLDER ID|HOLDER NAME`, without an end of line.
///
/// `KIND` is `identity` or `guard`, `FENCE` a number or `-`, `CALL` `release` or `shorten@N` with the end in ns since 1970; an end
/// before 1970 is written as 1970. In the last three fields `%` is `%25` and `|` is `%7C`.
impl fmt::Display for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tag, holder, kind, fence, request, call } = self;
        write!(f, "{VERSION}|{request}|{}|", name(*kind))?;
        match fence {
            Some(fence) => fence.fmt(f)?,
            None => f.write_str(NO_FENCE)?,
        }
        match call {
            DeferredCall::Release => f.write_str("|release")?,
            DeferredCall::Shorten { ends_at } => {
                let since = ends_at.duration_since(UNIX_EPOCH).unwrap_or_default();
                write!(f, "|shorten@{}", since.as_nanos())?;
            }
        }
        [tag.as_str(), holder.id(), holder.name()]
            .into_iter()
            .try_for_each(|text| write!(f, "|{}", Escaped { text, special: b"%|" }))
    }
}

impl FromStr for Deferred {
    type Err = InvalidDeferred;

    fn from_str(text: &str) -> Result<Self, InvalidDeferred> {
        let mut fields = text.split('|');
        let mut field = |name: &'static str| fields.next().ok_or(InvalidDeferred(Wrong::Missing(name)));
        let version = field("version")?;
        if version != VERSION {
            return Err(InvalidDeferred(Wrong::Version(version.to_owned())));
        }
        let request = field("request")?.parse().map_err(|error| wrong("request", error))?;
        let kind = read_kind(field("kind")?)?;
        let fence = read_fence(field("fence")?)?;
        let call = read_call(field("call")?)?;
        let tag = Tag::new(plain("tag", field("tag")?)?).map_err(|error| wrong("tag", error))?;
        let (id, name) =
            (plain("holder id", field("holder id")?)?, plain("holder name", field("holder name")?)?);
        let holder = Holder::new(id, name).map_err(|error| wrong("holder", error))?;
        match fields.next() {
            Some(_) => Err(InvalidDeferred(Wrong::TooMany)),
            None => Ok(Self { tag, holder, kind, fence, request, call }),
        }
    }
}

fn name(kind: LeaseKind) -> &'static str {
    match kind {
        LeaseKind::Identity => "identity",
        LeaseKind::Guard => "guard",
    }
}

fn read_kind(text: &str) -> Result<LeaseKind, InvalidDeferred> {
    [LeaseKind::Identity, LeaseKind::Guard]
        .into_iter()
        .find(|kind| name(*kind) == text)
        .ok_or_else(|| wrong("kind", "identity or guard is right"))
}

fn read_fence(text: &str) -> Result<Option<Fence>, InvalidDeferred> {
    if text == NO_FENCE {
        return Ok(None);
    }
    let fence = text.parse().ok().and_then(Fence::new);
    fence
        .map(Some)
        .ok_or_else(|| wrong("fence", format_args!("a number up to {}, or -, is right", Fence::MAX)))
}

fn read_call(text: &str) -> Result<DeferredCall, InvalidDeferred> {
    if text == "release" {
        return Ok(DeferredCall::Release);
    }
    let nanos = text.strip_prefix("shorten@").and_then(|nanos| nanos.parse().ok());
    let ends_at = nanos.and_then(from_unix_nanos);
    ends_at
        .map(|ends_at| DeferredCall::Shorten { ends_at })
        .ok_or_else(|| wrong("call", "release, or shorten@N with ns since 1970, is right"))
}

/// None where no clock can show it.
fn from_unix_nanos(nanos: u128) -> Option<SystemTime> {
    let rest = u32::try_from(nanos % NANOS).ok()?;
    UNIX_EPOCH.checked_add(Duration::new((nanos / NANOS).try_into().ok()?, rest))
}

fn plain<'a>(field: &'static str, text: &'a str) -> Result<Cow<'a, str>, InvalidDeferred> {
    unescape(text)
        .ok_or_else(|| wrong(field, "two hexadecimal digits of an ASCII character come after each %"))
}

/// What was given is not the text of a [`Deferred`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a deferred call: {0}")]
pub struct InvalidDeferred(Wrong);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Wrong {
    #[error("its version is {0:?}; this program reads {VERSION}, a newer one may read more")]
    Version(String),
    #[error("it ends before its {0}; it has 8 fields, divided by |")]
    Missing(&'static str),
    #[error("it goes on after the holder's name; it has 8 fields, divided by |")]
    TooMany,
    #[error("its {0}: {1}")]
    Field(&'static str, String),
}

fn wrong(field: &'static str, why: impl fmt::Display) -> InvalidDeferred {
    InvalidDeferred(Wrong::Field(field, why.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::RequestId;

    /// Text that could be taken for the end of a field, and anything else that may be in one.
    fn nasty() -> impl Strategy<Value = String> {
        prop_oneof!["[%|0-9A-F@\\-]{1,12}", "(%7C|%25|%|\\||release|1){1,6}", "[^\\p{Cc}]{1,40}"]
    }

    fn call() -> impl Strategy<Value = DeferredCall> {
        let shorten = (any::<u32>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| {
            let ends_at = UNIX_EPOCH + Duration::new(seconds.into(), nanos);
            DeferredCall::Shorten { ends_at }
        });
        prop_oneof![Just(DeferredCall::Release), shorten]
    }

    fn deferred() -> impl Strategy<Value = Deferred> {
        let kind = prop_oneof![Just(LeaseKind::Identity), Just(LeaseKind::Guard)];
        let fence = prop::option::of((0..=Fence::MAX.get()).prop_map(|fence| Fence::new(fence).unwrap()));
        let made = prop::option::of(any::<u64>());
        (nasty(), nasty(), prop_oneof![nasty(), Just(String::new())], kind, fence, made, call()).prop_map(
            |(tag, id, name, kind, fence, made, call)| Deferred {
                tag: Tag::new(tag).unwrap(),
                holder: Holder::new(id, name).unwrap(),
                kind,
                fence,
                request: made.into_iter().fold(RequestId::random(), RequestId::stamped),
                call,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(written in deferred()) {
            let text = written.to_string();
            prop_assert!(!text.contains(char::is_control), "one line: {text:?}");
            let read: Deferred = text.parse().unwrap();
            // Equal requests may differ in when they were made, and equal holders in their names.
            prop_assert_eq!(format!("{read:?}"), format!("{written:?}"));
        }

        #[test]
        fn no_text_panics(text in any::<String>(), like in "(1\\|)?[A-Za-z]{9}(@[0-9]{1,30})?\\|(guard|x)\\|[-0-9]{0,20}\\|(shorten@[0-9]{0,45}|release|)(\\|[%|0-9A-Fé]{0,9}){0,4}") {
            let _ = text.parse::<Deferred>();
            if let Ok(read) = like.parse::<Deferred>() {
                prop_assert_eq!(format!("{:?}", read.to_string().parse::<Deferred>().unwrap()), format!("{read:?}"));
            }
        }
    }

    #[test]
    fn a_text_that_is_wrong_is_told_where() {
        let right = "1|AAAAAAAAA@5|identity|7|release|TEST-02|93|MR(93)";
        assert_eq!(right.parse::<Deferred>().unwrap().to_string(), right);
        for (wrong, told) in [
            ("", "its version is \"\"; this program reads 1, a newer one may read more"),
            ("2|x", "its version is \"2\"; this program reads 1, a newer one may read more"),
            ("1|AAAAAAAAA", "it ends before its kind; it has 8 fields, divided by |"),
            (&format!("{right}|"), "it goes on after the holder's name; it has 8 fields, divided by |"),
            (&right.replace("identity", "owner"), "its kind: identity or guard is right"),
            (
                &right.replace("|7|", "|9007199254740992|"),
                "its fence: a number up to 9007199254740991, or -, is right",
            ),
            (
                &right.replace("release", "shorten@"),
                "its call: release, or shorten@N with ns since 1970, is right",
            ),
            (
                &right.replace("MR", "%4"),
                "its holder name: two hexadecimal digits of an ASCII character come after each %",
            ),
            (&right.replace("TEST-02", ""), "its tag: tag is empty; 1 to 200 bytes are allowed"),
        ] {
            let error = wrong.parse::<Deferred>().unwrap_err();
            assert_eq!(error.to_string(), format!("not a deferred call: {told}"), "{wrong:?}");
        }
    }
}
