//! How a limit is shared between users and the background: pure functions over numbers.

use crate::error::{Error, Result};
use std::time::Duration;

/// How the capacity of an adaptive limiter follows the activity of users.
///
/// A configuration that contradicts itself is refused where it is used.
///
/// ```
/// use cloakroom::adaptive_rate_limit::AdaptiveConfig;
/// use std::time::Duration;
/// let config = AdaptiveConfig::default()
///     .with_monitoring_window(Duration::from_secs(5 * 60))
///     .with_min_user_reserved(10);
/// assert_eq!(config.high_activity_threshold, 10);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdaptiveConfig {
    /// How far back user requests are looked at. Not zero. 15 minutes by default.
    pub monitoring_window: Duration,
    /// From how many user requests in the monitoring window on activity is high. 10 by default.
    pub high_activity_threshold: u64,
    /// From how many on it is moderate. Below the one for high; 3 by default.
    pub moderate_activity_threshold: u64,
    /// The capacity of a resource is recomputed at most once in this time. 30 seconds by default;
    /// zero recomputes it with every call.
    pub recalculation_interval: Duration,
    /// When the last user request is longer ago than this, nothing is reserved for users. 30
    /// minutes by default.
    pub sustained_inactivity_threshold: Duration,
    /// Whether the background pauses while user activity is high and increasing. `true` by default.
    pub background_pause_on_increasing_trend: bool,
    /// By how much at most the share of users is scaled. A finite number that is not negative; 2.0
    /// by default.
    pub max_user_scaling: f64,
    /// What is reserved for users when there is little to go by. 5 by default.
    pub min_user_reserved: u64,
}

impl Default for AdaptiveConfig {
    fn default() -> Self {
        Self {
            monitoring_window: Duration::from_secs(15 * 60),
            high_activity_threshold: 10,
            moderate_activity_threshold: 3,
            recalculation_interval: Duration::from_secs(30),
            sustained_inactivity_threshold: Duration::from_secs(30 * 60),
            background_pause_on_increasing_trend: true,
            max_user_scaling: 2.0,
            min_user_reserved: 5,
        }
    }
}

impl AdaptiveConfig {
    /// The same configuration, looking this far back at user requests.
    #[must_use]
    pub fn with_monitoring_window(self, monitoring_window: Duration) -> Self {
        Self { monitoring_window, ..self }
    }

    /// The same configuration, calling activity high from this many user requests on.
    #[must_use]
    pub fn with_high_activity_threshold(self, high_activity_threshold: u64) -> Self {
        Self { high_activity_threshold, ..self }
    }

    /// The same configuration, calling activity moderate from this many user requests on.
    #[must_use]
    pub fn with_moderate_activity_threshold(self, moderate_activity_threshold: u64) -> Self {
        Self { moderate_activity_threshold, ..self }
    }

    /// The same configuration, recomputing the shares of a resource at most once in this time.
    #[must_use]
    pub fn with_recalculation_interval(self, recalculation_interval: Duration) -> Self {
        Self { recalculation_interval, ..self }
    }

    /// The same configuration, reserving nothing for users when the last user request is longer ago
    /// than this.
    #[must_use]
    pub fn with_sustained_inactivity_threshold(
        self,
        sustained_inactivity_threshold: Duration,
    ) -> Self {
        Self { sustained_inactivity_threshold, ..self }
    }

    /// The same configuration, pausing the background, or not, while user activity is high and
    /// increasing.
    #[must_use]
    pub fn with_background_pause_on_increasing_trend(
        self,
        background_pause_on_increasing_trend: bool,
    ) -> Self {
        Self { background_pause_on_increasing_trend, ..self }
    }

    /// The same configuration, scaling the share of users by at most this factor.
    #[must_use]
    pub fn with_max_user_scaling(self, max_user_scaling: f64) -> Self {
        Self { max_user_scaling, ..self }
    }

    /// The same configuration, reserving this many requests for users when there is little to go
    /// by.
    #[must_use]
    pub fn with_min_user_reserved(self, min_user_reserved: u64) -> Self {
        Self { min_user_reserved, ..self }
    }

    /// Refuses what contradicts itself.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::InvalidConfig(what));
        if self.moderate_activity_threshold >= self.high_activity_threshold {
            return refuse(format!(
                "the threshold of moderate activity ({}) must be below the one of high activity ({})",
                self.moderate_activity_threshold, self.high_activity_threshold
            ));
        }
        if self.monitoring_window.is_zero() {
            return refuse("the monitoring window is zero; it must be longer".into());
        }
        if !self.max_user_scaling.is_finite() || self.max_user_scaling < 0.0 {
            return refuse(format!(
                "max_user_scaling is {}; it must be a finite number that is not negative",
                self.max_user_scaling
            ));
        }
        Ok(())
    }
}

/// Where the number of user requests is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trend {
    None,
    Increasing,
    Decreasing,
    Stable,
}

impl Trend {
    /// The trend of `recent` requests in the last third of the monitoring window after `previous`
    /// in the one before.
    pub(crate) fn of(recent: u64, previous: u64) -> Self {
        let (recent, previous) = (u128::from(recent), u128::from(previous));
        if recent == 0 && previous == 0 {
            Trend::None
        } else if 2 * recent > 3 * previous {
            Trend::Increasing
        } else if 2 * recent < previous {
            Trend::Decreasing
        } else {
            Trend::Stable
        }
    }

    fn factor(self) -> f64 {
        match self {
            Trend::Increasing => 1.2,
            Trend::Decreasing => 0.8,
            Trend::None | Trend::Stable => 1.0,
        }
    }
}

/// What the users of a resource did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Activity {
    /// User requests inside the monitoring window.
    pub(crate) recent: u64,
    pub(crate) trend: Trend,
    /// Whether any request was ever recorded, of either priority.
    pub(crate) ever: bool,
    /// How long ago the last user request was, if there ever was one.
    pub(crate) last_user_ago_ms: Option<u64>,
}

/// Which row of the decision table decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) enum Reason {
    High,
    HighIncreasing,
    Moderate,
    NothingRecorded,
    NoUserEver,
    SustainedInactivity,
    NoRecentUser,
    Low,
}

impl Reason {
    /// The reason in words.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Reason::High => "high user activity: users first",
            Reason::HighIncreasing => "high and increasing user activity: the background is paused",
            Reason::Moderate => "moderate user activity: shares are scaled to it",
            Reason::NothingRecorded => "no requests yet: default shares",
            Reason::NoUserEver => "no user activity yet: the background goes first",
            Reason::SustainedInactivity => {
                "sustained user inactivity: the background has everything"
            }
            Reason::NoRecentUser => "no recent user activity: the least is reserved",
            Reason::Low => "low user activity: the background goes first",
        }
    }
}

/// How a limit is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    pub(crate) user_reserved: u64,
    pub(crate) background_max: u64,
    pub(crate) background_paused: bool,
    pub(crate) reason: Reason,
}

/// Shares `limit` by what users did.
pub(crate) fn share(limit: u64, activity: &Activity, config: &AdaptiveConfig) -> Shares {
    let low = tenths(limit, 3).max(config.min_user_reserved);
    let (reserved, reason) = if activity.recent >= config.high_activity_threshold {
        let paused =
            config.background_pause_on_increasing_trend && activity.trend == Trend::Increasing;
        // Not half of the limit rounded down and then scaled, which would lose part of a request.
        let scaled = scale(limit, 0.5 * config.max_user_scaling);
        let reason = if paused { Reason::HighIncreasing } else { Reason::High };
        (scaled.min(tenths(limit, 9)), reason)
    } else if activity.recent >= config.moderate_activity_threshold {
        let scaled = scale(tenths(limit, 4), multiplier(activity, config));
        (scaled.min(tenths(limit, 7)), Reason::Moderate)
    } else if activity.recent > 0 {
        (low, Reason::Low)
    } else if !activity.ever {
        (low, Reason::NothingRecorded)
    } else {
        match activity.last_user_ago_ms {
            None => (config.min_user_reserved, Reason::NoUserEver),
            Some(ago_ms) if ago_ms > super::span_ms(config.sustained_inactivity_threshold) => {
                (0, Reason::SustainedInactivity)
            }
            Some(_) => (config.min_user_reserved, Reason::NoRecentUser),
        }
    };
    let user_reserved = reserved.min(limit);
    Shares {
        user_reserved,
        background_max: limit - user_reserved,
        background_paused: reason == Reason::HighIncreasing,
        reason,
    }
}

/// By how much moderate activity scales the share of users.
#[expect(
    clippy::cast_precision_loss,
    reason = "below the threshold of high activity, which no one sets over 2^53"
)]
fn multiplier(activity: &Activity, config: &AdaptiveConfig) -> f64 {
    let busy = 1.0 + activity.recent as f64 / config.high_activity_threshold as f64;
    (busy.min(config.max_user_scaling) * activity.trend.factor()).max(1.0)
}

/// So many tenths of `limit`, rounded down.
fn tenths(limit: u64, tenths: u8) -> u64 {
    let share = u128::from(limit) * u128::from(tenths) / 10;
    u64::try_from(share).unwrap_or(limit)
}

/// `requests` times `factor`, rounded down.
///
/// Factors like 1.5 x 1.2 are not exact in binary. What falls short of a whole number by no more
/// than that error is that number.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the conversion saturates, and limits beyond 2^53 need not be shared to the last request"
)]
fn scale(requests: u64, factor: f64) -> u64 {
    (requests as f64 * factor * (1.0 + 1e-12)).floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    fn users(recent: u64, trend: Trend) -> Activity {
        Activity { recent, trend, ever: true, last_user_ago_ms: Some(0) }
    }

    fn quiet(ever: bool, last_user_ago_ms: Option<u64>) -> Activity {
        Activity { recent: 0, trend: Trend::None, ever, last_user_ago_ms }
    }

    fn shares(limit: u64, activity: Activity) -> (u64, u64, bool) {
        let shares = share(limit, &activity, &AdaptiveConfig::default());
        assert_eq!(shares.user_reserved + shares.background_max, limit);
        (shares.user_reserved, shares.background_max, shares.background_paused)
    }

    #[test]
    fn high_activity_gives_users_nine_tenths_and_pauses_when_it_increases() {
        assert_eq!(shares(100, users(10, Trend::Stable)), (90, 10, false));
        assert_eq!(shares(100, users(10, Trend::Increasing)), (90, 10, true));
        let config = AdaptiveConfig {
            max_user_scaling: 1.5,
            background_pause_on_increasing_trend: false,
            ..AdaptiveConfig::default()
        };
        let answer = share(100, &users(12, Trend::Increasing), &config);
        assert_eq!((answer.user_reserved, answer.background_paused), (75, false));
        // 5.5 x 1.5, and not 5 x 1.5.
        assert_eq!(share(11, &users(12, Trend::Stable), &config).user_reserved, 8);
    }

    #[test]
    fn moderate_activity_scales_with_users_and_trend() {
        assert_eq!(shares(100, users(3, Trend::Stable)), (52, 48, false));
        assert_eq!(shares(100, users(3, Trend::Increasing)), (62, 38, false));
        assert_eq!(shares(100, users(3, Trend::Decreasing)), (41, 59, false));
        assert_eq!(shares(100, users(9, Trend::Increasing)), (70, 30, false));
        assert_eq!(shares(10, users(5, Trend::Increasing)), (7, 3, false));
    }

    #[test]
    fn the_multiplier_is_never_below_one() {
        let config = AdaptiveConfig { max_user_scaling: 0.5, ..AdaptiveConfig::default() };
        assert_eq!(share(100, &users(9, Trend::Decreasing), &config).user_reserved, 40);
    }

    #[test]
    fn nothing_recorded_reserves_three_tenths() {
        assert_eq!(shares(100, quiet(false, None)), (30, 70, false));
        assert_eq!(shares(10, quiet(false, None)), (5, 5, false));
    }

    #[test]
    fn never_a_user_reserves_the_least() {
        assert_eq!(shares(100, quiet(true, None)), (5, 95, false));
    }

    #[test]
    fn sustained_inactivity_gives_the_background_everything() {
        assert_eq!(shares(100, quiet(true, Some(30 * MINUTE_MS + 1))), (0, 100, false));
    }

    #[test]
    fn a_lull_reserves_the_least() {
        assert_eq!(shares(100, quiet(true, Some(30 * MINUTE_MS))), (5, 95, false));
    }

    #[test]
    fn low_activity_reserves_three_tenths_or_the_least() {
        assert_eq!(shares(100, users(2, Trend::Increasing)), (30, 70, false));
        assert_eq!(shares(10, users(1, Trend::Stable)), (5, 5, false));
    }

    #[test]
    fn no_share_is_over_the_limit_however_great_or_small() {
        for limit in [0, 1, 2, 3, 4, u64::MAX] {
            for activity in [
                users(u64::MAX, Trend::Increasing),
                users(5, Trend::Increasing),
                users(1, Trend::Stable),
                quiet(false, None),
                quiet(true, None),
                quiet(true, Some(0)),
                quiet(true, Some(u64::MAX)),
            ] {
                shares(limit, activity);
            }
        }
        assert_eq!(shares(3, quiet(false, None)), (3, 0, false));
    }

    #[test]
    fn shares_are_rounded_down_and_never_by_an_error_of_binary_fractions() {
        assert_eq!(scale(40, 1.5 * 1.2), 72);
        assert_eq!(scale(40, 1.56), 62);
        assert_eq!(tenths(19, 9), 17);
    }

    #[test]
    fn trends_need_a_change_of_more_than_half() {
        for (recent, previous, trend) in [
            (0, 0, Trend::None),
            (1, 0, Trend::Increasing),
            (0, 1, Trend::Decreasing),
            (3, 2, Trend::Stable),
            (4, 2, Trend::Increasing),
            (1, 2, Trend::Stable),
            (1, 3, Trend::Decreasing),
            (u64::MAX, u64::MAX, Trend::Stable),
        ] {
            assert_eq!(Trend::of(recent, previous), trend, "{recent} after {previous}");
        }
    }

    #[test]
    fn each_setter_changes_its_own_setting_and_no_other() {
        let second = Duration::from_secs(1);
        let other = AdaptiveConfig {
            monitoring_window: second,
            high_activity_threshold: 101,
            moderate_activity_threshold: 102,
            recalculation_interval: 2 * second,
            sustained_inactivity_threshold: 3 * second,
            background_pause_on_increasing_trend: false,
            max_user_scaling: 103.0,
            min_user_reserved: 104,
        };
        let set = AdaptiveConfig::default()
            .with_monitoring_window(other.monitoring_window)
            .with_high_activity_threshold(other.high_activity_threshold)
            .with_moderate_activity_threshold(other.moderate_activity_threshold)
            .with_recalculation_interval(other.recalculation_interval)
            .with_sustained_inactivity_threshold(other.sustained_inactivity_threshold)
            .with_background_pause_on_increasing_trend(other.background_pause_on_increasing_trend)
            .with_max_user_scaling(other.max_user_scaling)
            .with_min_user_reserved(other.min_user_reserved);
        assert_eq!(set, other);
    }

    #[test]
    fn configurations_that_contradict_themselves_are_refused() {
        let good = AdaptiveConfig::default();
        assert!(good.check().is_ok());
        for bad in [
            AdaptiveConfig { moderate_activity_threshold: 10, ..good },
            AdaptiveConfig { moderate_activity_threshold: 11, ..good },
            AdaptiveConfig { monitoring_window: Duration::ZERO, ..good },
            AdaptiveConfig { max_user_scaling: f64::NAN, ..good },
            AdaptiveConfig { max_user_scaling: f64::INFINITY, ..good },
            AdaptiveConfig { max_user_scaling: -1.0, ..good },
        ] {
            assert!(matches!(bad.check(), Err(Error::InvalidConfig(_))), "{bad:?}");
        }
    }

    #[test]
    fn users_need_not_be_scaled_for_at_all() {
        AdaptiveConfig { max_user_scaling: 0.0, ..AdaptiveConfig::default() }.check().unwrap();
    }
}
