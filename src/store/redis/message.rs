//! What the scripts say of a tag, read: its events.
//!
//! A message is one record or several, joined by `\n`: a letter, the server's time in µs (16 digits), what was left of the ttl
//! in ms, and `|fence|since ms|kind|holder id|holder name|note`. The letters are `t` taken, `e` extended, `r` released and `f`
//! forced; the last is followed by `|by|why`.

use super::wire::{digits, read_occupant, server_time};
use crate::{Event, Tag, text::unescape, time::from_unix_millis};

/// The events of a message, in their order. A record that is not understood is left out: a later version may say more.
pub(super) fn read_message(tag: &Tag, message: &[u8]) -> Vec<Event> {
    message.split(|&byte| byte == b'\n').filter_map(|record| read_record(tag, record)).collect()
}

fn read_record(tag: &Tag, record: &[u8]) -> Option<Event> {
    let record = std::str::from_utf8(record).ok()?;
    let mut fields = record.split('|');
    let head = fields.next()?;
    let letter = head.get(..1)?;
    let micros = digits(head.get(1..17)?, 16)?;
    let pttl = head.get(17..)?;
    let pttl = digits(pttl, pttl.len())?;
    let at = server_time(micros);
    let expires_at = from_unix_millis((micros / 1000).saturating_add(pttl));
    let occupant = read_occupant(tag, &mut fields, expires_at)?;
    let mut text = || Some(unescape(fields.next()?)?.into_owned());
    let event = match letter {
        "t" => Event::Taken { occupant, at },
        "e" => Event::Extended { occupant, at },
        "r" => Event::Released { occupant, at },
        "f" => Event::Forced { occupant, by: text()?, why: text()?, at },
        _ => return None,
    };
    fields.next().is_none().then_some(event)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{Fence, Holder, LeaseKind, Occupant};

    const AT: &str = "1763700000000000";

    fn tag() -> Tag {
        Tag::new("TEST-02").unwrap()
    }

    fn occupant(left: Duration) -> Occupant {
        Occupant {
            tag: tag(),
            holder: Holder::new("93", "MR(93)").unwrap(),
            kind: LeaseKind::Identity,
            fence: Fence::new(1_763_690_000_000_001).unwrap(),
            since: from_unix_millis(1_763_690_000_000),
            expires_at: from_unix_millis(1_763_700_000_000) + left,
            note: "ARM|50%".to_owned(),
        }
    }

    const LEASE: &str = "|1763690000000001|1763690000000|i|93|MR(93)|ARM%7C50%25";

    #[test]
    fn each_letter_is_its_event() {
        let at = server_time(1_763_700_000_000_000);
        let hour = Duration::from_secs(3600);
        for (record, event) in [
            (format!("t{AT}3600000{LEASE}"), Event::Taken { occupant: occupant(hour), at }),
            (format!("e{AT}3600000{LEASE}"), Event::Extended { occupant: occupant(hour), at }),
            (format!("r{AT}0{LEASE}"), Event::Released { occupant: occupant(Duration::ZERO), at }),
            (
                format!("f{AT}0{LEASE}|ops|stuck%7C"),
                Event::Forced {
                    occupant: occupant(Duration::ZERO),
                    by: "ops".to_owned(),
                    why: "stuck|".to_owned(),
                    at,
                },
            ),
        ] {
            assert_eq!(read_message(&tag(), record.as_bytes()), [event]);
        }
    }

    #[test]
    fn a_hand_over_is_two_events() {
        let message = format!("r{AT}0{LEASE}\nt{AT}5000{LEASE}");
        let names: Vec<_> = read_message(&tag(), message.as_bytes()).iter().map(Event::name).collect();
        assert_eq!(names, ["released", "taken"]);
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        for strange in [
            String::new(),
            format!("x{AT}0{LEASE}"),
            format!("t{AT}{LEASE}"),
            format!("t{AT}+5{LEASE}"),
            format!("t{AT}5{LEASE}|more"),
            format!("f{AT}0{LEASE}|ops"),
            format!("é{AT}5{LEASE}"),
        ] {
            let message = format!("{strange}\nr{AT}0{LEASE}");
            assert_eq!(read_message(&tag(), message.as_bytes()).len(), 1, "{strange}");
        }
    }

    proptest! {
        #[test]
        fn no_message_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..120),
            text in "([terf][0-9]{16,40}(\\|[%0-9a-zé]{0,17}){0,8}\n?){0,3}",
        ) {
            let _ = read_message(&tag(), &bytes);
            let _ = read_message(&tag(), text.as_bytes());
            let _ = read_message(&tag(), format!("t9999999999999999{}{LEASE}", u64::MAX).as_bytes());
        }
    }
}
