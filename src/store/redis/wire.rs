//! How tags and leases are written in Redis, and read back.

use std::{
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use redis::{RedisWrite, ToRedisArgs, ToSingleRedisArg};

use crate::{
    Fence, Holder, Lease, LeaseKind, Occupant, Tag, Token,
    text::{Escaped, unescape},
    time::from_unix_millis,
};

/// `PREFIX:{TAG}:PART`. The braces make one hash slot of all keys of a tag; `%`, `{` and `}` in the tag are escaped, so that
/// no tag can look like another tag's key, nor end the hash tag early.
pub(super) struct Key<'a> {
    pub(super) prefix: &'a str,
    pub(super) tag: &'a str,
    pub(super) part: &'static str,
}

impl ToRedisArgs for Key<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let mut arg = out.writer_for_next_arg();
        // Writing to memory cannot fail.
        let _ = arg.write_all(self.prefix.as_bytes());
        let _ = arg.write_all(b":{");
        let _ = escape(&mut arg, self.tag, b"%{}");
        let _ = arg.write_all(b"}:");
        let _ = arg.write_all(self.part.as_bytes());
    }
}

impl ToSingleRedisArg for Key<'_> {}

/// `PREFIX:events:{TAG}`: the channel on which is said what happens to a tag, escaped as in its keys.
pub(super) struct Channel<'a> {
    pub(super) prefix: &'a str,
    pub(super) tag: &'a str,
}

impl ToRedisArgs for Channel<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let mut arg = out.writer_for_next_arg();
        let _ = arg.write_all(self.prefix.as_bytes());
        let _ = arg.write_all(b":events:{");
        let _ = escape(&mut arg, self.tag, b"%{}");
        let _ = arg.write_all(b"}");
    }
}

impl ToSingleRedisArg for Channel<'_> {}

/// An operator's name and reason: `|by|why`.
pub(super) struct Reason<'a> {
    pub(super) by: &'a str,
    pub(super) why: &'a str,
}

impl ToRedisArgs for Reason<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let mut arg = out.writer_for_next_arg();
        let _ = arg.write_all(b"|");
        let _ = escape(&mut arg, self.by, REASON);
        let _ = arg.write_all(b"|");
        let _ = escape(&mut arg, self.why, REASON);
    }
}

impl ToSingleRedisArg for Reason<'_> {}

/// The holder's part of a lease that is to be granted: `|kind|holder id|holder name|note`.
pub(super) struct Tail<'a> {
    pub(super) kind: LeaseKind,
    pub(super) holder: &'a Holder,
    pub(super) note: &'a str,
}

impl ToRedisArgs for Tail<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let mut arg = out.writer_for_next_arg();
        let _ = write!(arg, "|{}|", letter(self.kind));
        let _ = escape(&mut arg, self.holder.id(), FIELD);
        let _ = arg.write_all(b"|");
        let _ = escape(&mut arg, self.holder.name(), FIELD);
        let _ = arg.write_all(b"|");
        let _ = escape(&mut arg, self.note, FIELD);
    }
}

impl ToSingleRedisArg for Tail<'_> {}

/// How a lease began that is to be put back: `fence|since ms`.
pub(super) struct Origin {
    pub(super) fence: Fence,
    pub(super) since: SystemTime,
}

impl ToRedisArgs for Origin {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        // A time that no clock of ours has shown is cut to the 13 digits that there is room for.
        let since = (micros_of(self.since) / 1000).min(9_999_999_999_999);
        let _ = write!(out.writer_for_next_arg(), "{:016}|{since:013}", self.fence.get());
    }
}

impl ToSingleRedisArg for Origin {}

/// By what a lease is recognised as its holder's: `kind|holder id|`.
#[derive(Clone, Copy)]
pub(super) struct Badge<'a> {
    pub(super) kind: LeaseKind,
    pub(super) holder: &'a Holder,
}

impl ToRedisArgs for Badge<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let mut arg = out.writer_for_next_arg();
        let _ = write!(arg, "{}|", letter(self.kind));
        let _ = escape(&mut arg, self.holder.id(), FIELD);
        let _ = arg.write_all(b"|");
    }
}

impl ToSingleRedisArg for Badge<'_> {}

/// A time or a fence in 16 digits, so that the scripts can compare it as text.
pub(super) struct Digits(pub(super) u64);

impl ToRedisArgs for Digits {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let _ = write!(out.writer_for_next_arg(), "{:016}", self.0.min(Fence::MAX.get()));
    }
}

impl ToSingleRedisArg for Digits {}

/// What is escaped in a field of the lease.
const FIELD: &[u8] = b"%|";
/// What is escaped in an operator's words, which nobody has checked for a line's end.
const REASON: &[u8] = b"%|\n\r";

fn escape(out: &mut impl std::io::Write, text: &str, special: &'static [u8]) -> std::io::Result<()> {
    write!(out, "{}", Escaped { text, special })
}

fn letter(kind: LeaseKind) -> &'static str {
    match kind {
        LeaseKind::Identity => "i",
        LeaseKind::Guard => "g",
    }
}

/// Reads `1|token|fence|since ms|kind|holder id|holder name|note`, or the same with 2, where its holder relies on it;
/// `None` where it is not a lock of ours.
pub(super) fn read_lease(tag: &Tag, value: &[u8], now_micros: u64, pttl: Duration) -> Option<Lease> {
    let value = std::str::from_utf8(value).ok()?;
    let mut fields = value.split('|');
    if !["1", "2"].contains(&fields.next()?) {
        return None;
    }
    let token = Token::parse(fields.next()?)?;
    let occupant = read_occupant(tag, &mut fields, server_time(now_micros) + pttl)?;
    fields.next().is_none().then(|| Lease { token: Some(token), ..occupant.into() })
}

/// Reads `fence|since ms|kind|holder id|holder name|note`, which leases and messages have in common.
pub(super) fn read_occupant<'a>(
    tag: &Tag,
    fields: &mut impl Iterator<Item = &'a str>,
    expires_at: SystemTime,
) -> Option<Occupant> {
    let mut field = || fields.next();
    let fence = Fence::new(digits(field()?, 16)?)?;
    let since = from_unix_millis(digits(field()?, 13)?);
    let kind = match field()? {
        "i" => LeaseKind::Identity,
        "g" => LeaseKind::Guard,
        _ => return None,
    };
    let holder = Holder::new(unescape(field()?)?, unescape(field()?)?).ok()?;
    let note = unescape(field()?)?.into_owned();
    Some(Occupant { tag: tag.clone(), holder, kind, fence, since, expires_at, note })
}

/// A number of exactly so many digits: the scripts find fields by their place.
pub(super) fn digits(text: &str, width: usize) -> Option<u64> {
    let is_one = text.len() == width && text.bytes().all(|byte| byte.is_ascii_digit());
    is_one.then(|| text.parse().ok()).flatten()
}

/// The server's clock as a time.
pub(super) fn server_time(micros: u64) -> SystemTime {
    from_unix_millis(micros / 1000)
}

/// A time of the server's clock in µs.
pub(super) fn micros_of(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The tag of a lock key; `None` where it is not one of this prefix.
pub(super) fn read_key(prefix: &str, key: &[u8]) -> Option<Tag> {
    let key = std::str::from_utf8(key).ok()?;
    let tag = key.strip_prefix(prefix)?.strip_prefix(":{")?.strip_suffix("}:lock")?;
    Tag::new(unescape(tag)?).ok()
}

/// The tag of an event's channel; `None` where it is not one of this prefix.
pub(super) fn read_channel(prefix: &str, channel: &[u8]) -> Option<Tag> {
    let channel = std::str::from_utf8(channel).ok()?;
    let tag = channel.strip_prefix(prefix)?.strip_prefix(":events:{")?.strip_suffix('}')?;
    Tag::new(unescape(tag)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(arg: &impl ToRedisArgs) -> Vec<u8> {
        arg.to_redis_args().remove(0)
    }

    #[test]
    fn a_plain_tag_stands_in_its_channel_literally() {
        let channel = |tag| bytes(&Channel { prefix: "spool", tag });
        assert_eq!(channel("TEST-02"), b"spool:events:{TEST-02}");
        assert_eq!(channel("a{b}%c:d"), b"spool:events:{a%7Bb%7D%25c:d}");
    }

    fn key(tag: &str, part: &'static str) -> Vec<u8> {
        bytes(&Key { prefix: "spool", tag, part })
    }

    #[test]
    fn a_plain_tag_stands_in_its_key_literally() {
        assert_eq!(key("TEST-02", "lock"), b"spool:{TEST-02}:lock");
        assert_eq!(key("a{b}%c:d", "fence"), b"spool:{a%7Bb%7D%25c:d}:fence");
    }

    /// Text made of what could confuse keys, and of anything.
    fn nasty() -> impl Strategy<Value = String> {
        prop_oneof!["[{}%:|0-9A-F]{1,12}", "(lock|fence|\\}:lock|:\\{|%7B|%25|[a-c]){1,6}", "\\PC{1,40}"]
    }

    proptest! {
        #[test]
        fn two_tags_never_share_a_key(one in nasty(), other in nasty()) {
            for (a, b) in [("lock", "lock"), ("lock", "fence"), ("fence", "lock"), ("lock", "queue"), ("history", "fence")] {
                prop_assert_eq!(key(&one, a) == key(&other, b), one == other && a == b);
            }
        }

        #[test]
        fn a_tag_survives_its_key(tag in nasty()) {
            let tag = Tag::new(tag).unwrap();
            prop_assert_eq!(read_key("spool", &key(tag.as_str(), "lock")), Some(tag.clone()));
            prop_assert_eq!(read_key("spoo", &key(tag.as_str(), "lock")), None);
        }

        #[test]
        fn a_tag_survives_its_channel(tag in nasty()) {
            let channel = bytes(&Channel { prefix: "spool", tag: &tag });
            let tag = Tag::new(tag).unwrap();
            prop_assert_eq!(read_channel("spool", &channel), Some(tag));
            prop_assert_eq!(read_channel("spoo", &channel), None);
        }

        #[test]
        fn the_hash_tag_is_the_whole_tag(tag in nasty()) {
            let key = String::from_utf8(key(&tag, "lock")).unwrap();
            let open = key.find('{').unwrap();
            let close = key[open..].find('}').unwrap() + open;
            prop_assert_eq!(unescape(&key[open + 1..close]).unwrap(), tag);
        }

        #[test]
        fn a_field_survives(text in nasty()) {
            let mut written = Vec::new();
            escape(&mut written, &text, FIELD).unwrap();
            let written = String::from_utf8(written).unwrap();
            prop_assert!(!written.contains('|'));
            prop_assert_eq!(unescape(&written).unwrap(), text);
        }

        #[test]
        fn no_value_panics(value in prop::collection::vec(any::<u8>(), 0..80), text in "1\\|[|%0-9a-zA-Z]{0,60}") {
            let tag = Tag::new("T").unwrap();
            let _ = read_lease(&tag, &value, u64::MAX, Duration::from_secs(1));
            let _ = read_lease(&tag, text.as_bytes(), 0, Duration::MAX.min(Duration::from_secs(u32::MAX.into())));
        }
    }
}
