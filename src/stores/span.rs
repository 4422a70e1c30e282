//! Spans as rows hold them.

use std::time::Duration;

/// A span in milliseconds, rounded up, so that only a span of zero is over at once.
pub(crate) fn span_ms(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_rounded_up_and_saturates() {
        for (span, ms) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_millis(7), 7),
            (Duration::MAX, u64::MAX),
        ] {
            assert_eq!(span_ms(span), ms, "{span:?}");
        }
    }
}
