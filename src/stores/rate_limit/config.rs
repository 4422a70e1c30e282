//! How many requests in how long a time.

use crate::error::{Error, Result};
use std::time::Duration;

/// At most `limit` requests in any `window`.
///
/// The default is 60 requests in 60 seconds.
///
/// ```
/// use cloakroom::rate_limit::RateLimitConfig;
/// use std::time::Duration;
/// let config = RateLimitConfig::per(60, Duration::from_secs(60));
/// assert_eq!(config, RateLimitConfig::default());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RateLimitConfig {
    /// How many requests may be made within one window. A limit of 0 admits no request.
    pub limit: u64,
    /// How long a request counts. Not zero. Counted in whole milliseconds, rounded up.
    pub window: Duration,
}

impl RateLimitConfig {
    /// At most `limit` requests in any `window`. A window of zero is refused where the
    /// configuration is used.
    #[must_use]
    pub const fn per(limit: u64, window: Duration) -> Self {
        Self { limit, window }
    }

    /// What adaptive limiters begin with: 200 requests in an hour.
    #[must_use]
    pub fn adaptive_default() -> Self {
        Self { limit: 200, window: Duration::from_secs(60 * 60) }
    }

    /// Refuses a window of zero.
    pub(crate) fn check(&self) -> Result<()> {
        if self.window.is_zero() {
            return Err(Error::InvalidConfig(
                "the window of a rate limit is zero; it must be longer".into(),
            ));
        }
        Ok(())
    }

    pub(crate) fn window_ms(&self) -> u64 {
        span_ms(self.window)
    }
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self { limit: 60, window: Duration::from_secs(60) }
    }
}

/// A span in whole milliseconds. Rounded up, so that a short one does not vanish; one over 584
/// million years is one of that.
pub(crate) fn span_ms(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_rounded_up_and_saturate() {
        assert_eq!(span_ms(Duration::from_nanos(1)), 1);
        assert_eq!(span_ms(Duration::from_millis(7)), 7);
        assert_eq!(span_ms(Duration::MAX), u64::MAX);
        assert_eq!(span_ms(Duration::ZERO), 0);
    }

    #[test]
    fn a_window_of_zero_is_refused() {
        let config = RateLimitConfig { limit: 1, window: Duration::ZERO };
        assert!(matches!(config.check(), Err(Error::InvalidConfig(_))));
        assert!(RateLimitConfig::default().check().is_ok());
        assert!(RateLimitConfig::adaptive_default().check().is_ok());
    }
}
