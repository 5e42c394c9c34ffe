//! Wall-clock time as it leaves the process: RFC 3339 in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A wall-clock time from milliseconds since 1970; what no clock can show becomes the latest time that it can.
pub(crate) fn from_unix_millis(millis: u64) -> SystemTime {
    // Year 9999, the last one that RFC 3339 can write.
    const LAST: u64 = 253_402_300_799_999;
    UNIX_EPOCH + Duration::from_millis(millis.min(LAST))
}

/// Seconds since 1970; zero for earlier times.
#[cfg(feature = "prometheus")]
pub(crate) fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Serialises a time as RFC 3339 in UTC, with milliseconds only where there are any.
#[cfg(feature = "serde")]
pub(crate) mod rfc3339 {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let time = from_unix_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        if millis.is_multiple_of(1000) {
            serializer.collect_str(&humantime::format_rfc3339_seconds(time))
        } else {
            serializer.collect_str(&humantime::format_rfc3339_millis(time))
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map_err(D::Error::custom)
    }
}

/// The same of a time that may be missing: then `null`.
#[cfg(feature = "serde")]
pub(crate) mod rfc3339_option {
    use super::*;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Written(#[serde(with = "rfc3339")] SystemTime);

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(Written).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<Written>::deserialize(deserializer)?.map(|Written(time)| time))
    }
}
