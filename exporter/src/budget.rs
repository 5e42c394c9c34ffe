//! How long one scrape may take.

use std::time::Duration;

use hyper::{HeaderMap, header::HeaderName};

/// Where Prometheus says how long it waits.
const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");
/// Kept back for the way there and back: the offset that other exporters use, too.
const OFFSET: Duration = Duration::from_millis(250);

/// The smaller of our own limit and what the scraper leaves us.
///
/// A header that is no positive number is ignored: it comes from the network. A scraper with less than twice the offset
/// gets half of its time instead of nothing.
pub(crate) fn of(headers: &HeaderMap, own: Duration) -> Duration {
    let asked = headers.get(SCRAPE_TIMEOUT).and_then(|value| value.to_str().ok());
    let asked = asked.and_then(|text| text.trim().parse::<f64>().ok()).filter(|seconds| *seconds > 0.0);
    match asked.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(theirs) => own.min(theirs.saturating_sub(OFFSET).max(theirs / 2)),
        None => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_budget(header: &'static str, millis: u64) {
        let mut headers = HeaderMap::new();
        headers.insert(SCRAPE_TIMEOUT, header.parse().unwrap());
        assert_eq!(of(&headers, Duration::from_secs(1)), Duration::from_millis(millis), "{header:?}");
    }

    #[test]
    fn the_smaller_of_both_limits_counts() {
        assert_eq!(of(&HeaderMap::new(), Duration::from_secs(1)), Duration::from_secs(1));
        assert_budget("10", 1000);
        assert_budget("10.000000", 1000);
        assert_budget("1", 750);
        assert_budget("0.3", 150);
    }

    #[test]
    fn a_header_that_is_no_positive_number_is_ignored() {
        for header in ["", "soon", "NaN", "inf", "-1", "0", "-0", "1e999", "1e300", "0x10"] {
            assert_budget(header, 1000);
        }
    }
}
