//! Rate limits that are shared between users and the background, by what users have been doing.

pub(crate) mod capacities;
pub(crate) mod capacity;
mod handle;
pub(crate) mod ops;
pub(crate) mod row;
pub(crate) mod schema;
pub(crate) mod sweep;
mod tx;

pub use capacity::AdaptiveConfig;
pub use handle::AdaptiveRateLimit;
pub use tx::AdaptiveRateLimitTx;

use crate::Pending;
use crate::stores::rate_limit::{RateLimitConfig, RateLimitStatus, span_ms};
use std::sync::Arc;
use std::time::Duration;

/// On whose behalf a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Priority {
    /// A user, who waits for the answer.
    User,
    /// Work in the background, for which no one waits. The default.
    #[default]
    Background,
}

/// A limiter that shares the limit of each resource between users and the background.
///
/// Requests count as those of a [`RateLimitStore`](crate::rate_limit::RateLimitStore) do, each for
/// its priority. With L the limit and A the user requests inside the monitoring window of the
/// [`AdaptiveConfig`]:
///
/// | case, in this order | reserved for users | the background is paused |
/// |---|---|---|
/// | A >= high | min(0.9 L, floor(0.5 L x max_user_scaling)) | when the config says so and the trend is increasing |
/// | A >= moderate | min(0.7 L, floor(0.4 L) x m) | no |
/// | A = 0, nothing ever recorded | max(floor(0.3 L), min_user_reserved) | no |
/// | A = 0, never a user request | min_user_reserved | no |
/// | A = 0, last user request longer ago than sustained_inactivity_threshold | 0 | no |
/// | A = 0 otherwise | min_user_reserved | no |
/// | else | max(floor(0.3 L), min_user_reserved) | no |
///
/// The reserved share is rounded down and never over L; the background may have the rest. m is
/// max(1, min(max_user_scaling, 1 + A/high) x (1.2 when user requests are increasing, 0.8 when they
/// are decreasing, else 1)). They increase when there were more than 1.5 times as many in the last
/// third of the monitoring window as in the third before, and decrease when there were less than
/// half as many.
///
/// The shares are computed at most once per recalculation interval and resource, by the first call
/// that needs them: `record` does not. A new limit and a reset compute them at once. They are kept
/// in memory, so a call that asks writes nothing, and a room that was opened again computes them
/// anew. Everything else is counted by every call.
///
/// A priority may go while its own count is below its share, the background never while it is
/// paused; and both together are never admitted by [`acquire`](Self::acquire) more often than the
/// limit within a window, also when shares have moved meanwhile. Where sustained inactivity leaves
/// users nothing, a user may go while fewer than L requests of both priorities count.
///
/// Every method has applied its change, in order, when it returns; the [`Pending`] waits for its
/// durability, and says what a call may wait for. Points in time are milliseconds since the Unix
/// epoch.
///
/// # Errors
/// Of every method: [`TooLarge`](crate::Error::TooLarge) when a string (the name of the limiter
/// too) is over [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN), and the errors of a write to the log.
/// Nothing was applied, unless the error is [`OutcomeUnknown`](crate::Error::OutcomeUnknown).
pub trait AdaptiveRateLimitStore: Send + Sync {
    /// Records a request if its priority may go, and says whether it may.
    fn acquire(&self, resource: &str, priority: Priority) -> Pending<bool>;

    /// Whether [`acquire`](Self::acquire) would admit a request.
    fn can_proceed(&self, resource: &str, priority: Priority) -> Pending<bool>;

    /// Records a request, whether or not its priority may go.
    fn record(&self, resource: &str, priority: Priority) -> Pending<()>;

    /// What is left of both shares, and why they are what they are.
    fn status(&self, resource: &str) -> Pending<AdaptiveRateLimitStatus>;

    /// Forgets the requests of a resource, and that there ever were any. Its configuration stays.
    fn reset(&self, resource: &str) -> Pending<()>;

    /// How long to wait: zero when the priority may go; the window when the limit is 0; the time
    /// until the shares are computed again for a paused background, and for a priority without a
    /// share; else the time until so many counted requests of that priority have left the window
    /// that one may go. If no request is made and the shares stay meanwhile, one is admitted then.
    fn wait_time(&self, resource: &str, priority: Priority) -> Pending<Duration>;

    /// Gives a resource a configuration of its own, which is kept with the store. The requests in
    /// its window stay. [`InvalidConfig`](crate::Error::InvalidConfig) for a window of zero:
    /// nothing changed.
    fn set_resource_config(&self, resource: &str, config: RateLimitConfig) -> Pending<()>;

    /// The configuration of a resource: its own, or else the limiter's.
    fn resource_config(&self, resource: &str) -> Pending<RateLimitConfig>;

    /// Notes that callers are to leave `origin` alone until `until_ms`, in milliseconds since the
    /// Unix epoch. The note that was set last holds. It is for callers, and does not change what
    /// [`acquire`](Self::acquire) answers.
    fn set_cooldown(&self, origin: &str, until_ms: u64) -> Pending<()>;

    /// Until when callers are to leave `origin` alone, in milliseconds since the Unix epoch. `None`
    /// from that time on.
    fn cooldown(&self, origin: &str) -> Pending<Option<u64>>;

    /// Ends the cooldown of `origin`.
    fn clear_cooldown(&self, origin: &str) -> Pending<()>;

    /// Forgets the requests of every resource, and every cooldown, of this limiter. Configurations
    /// stay.
    fn clear(&self) -> Pending<()>;
}

/// What is left of a shared limit. A driver makes one with [`new`](Self::new) and the `with_`
/// methods.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdaptiveRateLimitStatus {
    /// What is left of both shares together.
    pub remaining: u64,
    /// When a request that is made now leaves the window, in milliseconds since the Unix epoch.
    pub reset_time: u64,
    /// How many requests may be made within one window.
    pub limit: u64,
    /// How many of them are reserved for users.
    pub user_reserved: u64,
    /// How many of them the background may make.
    pub background_max: u64,
    /// Whether the background has to wait.
    pub background_paused: bool,
    /// User requests inside the monitoring window now.
    pub recent_user_activity: u64,
    /// Why the shares are what they are, in words.
    pub reason: String,
}

impl AdaptiveRateLimitStatus {
    /// The status of a limit that no user has a share of: `status` says what is left of it, and the
    /// background may have all of it.
    #[must_use]
    pub fn new(status: RateLimitStatus) -> Self {
        let RateLimitStatus { remaining, reset_time, limit } = status;
        Self {
            remaining,
            reset_time,
            limit,
            user_reserved: 0,
            background_max: limit,
            background_paused: false,
            recent_user_activity: 0,
            reason: String::new(),
        }
    }

    /// The same status; `user_reserved` requests are reserved for users, and the background may
    /// have the rest of the limit.
    #[must_use]
    pub fn with_user_reserved(self, user_reserved: u64) -> Self {
        let background_max = self.limit.saturating_sub(user_reserved);
        Self { user_reserved, background_max, ..self }
    }

    /// The same status; the background has to wait, or not.
    #[must_use]
    pub fn with_background_paused(self, background_paused: bool) -> Self {
        Self { background_paused, ..self }
    }

    /// The same status, with this many user requests inside the monitoring window.
    #[must_use]
    pub fn with_recent_user_activity(self, recent_user_activity: u64) -> Self {
        Self { recent_user_activity, ..self }
    }

    /// The same status, with the reason of the shares in words.
    #[must_use]
    pub fn with_reason(self, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..self }
    }
}

/// A resource in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdaptiveRateLimitEntry {
    /// What is limited.
    pub resource: String,
    /// How many requests of users count now.
    pub user_requests: u64,
    /// How many requests of the background count now.
    pub background_requests: u64,
    /// The limit that they count against.
    pub config: RateLimitConfig,
}

/// What an adaptive limiter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AdaptiveRateLimitStats {
    /// Resources with counted requests.
    pub live: u64,
    /// Resources without counted requests that are still known: whether and when there was a
    /// request is remembered.
    pub idle: u64,
    /// Requests of users that count, over all resources.
    pub user_requests: u64,
    /// Requests of the background that count, over all resources.
    pub background_requests: u64,
    /// Bytes of keys and values of the resources; rows of single requests and index rows are not
    /// counted.
    pub bytes: u64,
}

/// A shared store is a store.
impl<S: AdaptiveRateLimitStore + ?Sized> AdaptiveRateLimitStore for Arc<S> {
    fn acquire(&self, resource: &str, priority: Priority) -> Pending<bool> {
        (**self).acquire(resource, priority)
    }

    fn can_proceed(&self, resource: &str, priority: Priority) -> Pending<bool> {
        (**self).can_proceed(resource, priority)
    }

    fn record(&self, resource: &str, priority: Priority) -> Pending<()> {
        (**self).record(resource, priority)
    }

    fn status(&self, resource: &str) -> Pending<AdaptiveRateLimitStatus> {
        (**self).status(resource)
    }

    fn reset(&self, resource: &str) -> Pending<()> {
        (**self).reset(resource)
    }

    fn wait_time(&self, resource: &str, priority: Priority) -> Pending<Duration> {
        (**self).wait_time(resource, priority)
    }

    fn set_resource_config(&self, resource: &str, config: RateLimitConfig) -> Pending<()> {
        (**self).set_resource_config(resource, config)
    }

    fn resource_config(&self, resource: &str) -> Pending<RateLimitConfig> {
        (**self).resource_config(resource)
    }

    fn set_cooldown(&self, origin: &str, until_ms: u64) -> Pending<()> {
        (**self).set_cooldown(origin, until_ms)
    }

    fn cooldown(&self, origin: &str) -> Pending<Option<u64>> {
        (**self).cooldown(origin)
    }

    fn clear_cooldown(&self, origin: &str) -> Pending<()> {
        (**self).clear_cooldown(origin)
    }

    fn clear(&self) -> Pending<()> {
        (**self).clear()
    }
}
