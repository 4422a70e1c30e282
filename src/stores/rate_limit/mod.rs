//! Rate limits over an exact sliding window, at a cost that does not grow with the limit.

mod config;
mod handle;
pub(crate) mod history;
pub(crate) mod limiter;
pub(crate) mod limiter_handle;
mod lines;
pub(crate) mod longest_window;
pub(crate) mod ops;
pub(crate) mod schema;
pub(crate) mod sweep;
mod tx;
pub(crate) mod window_lines;

pub use config::RateLimitConfig;
pub(crate) use config::span_ms;
pub use handle::RateLimit;
pub use tx::RateLimitTx;

use crate::Pending;
use std::sync::Arc;
use std::time::Duration;

/// A limiter of how often each of many resources is used.
///
/// A request counts while its time is after `now - window`: an exact sliding window. Times are
/// those of the store's clock; while that is behind the last request of a resource, time stands
/// still for the resource. A request is kept for the longest window that a handle of the limiter
/// uses when it is recorded, or that its resource was configured with since it last had no request.
/// A longer window that comes later does not count again what is kept no longer.
///
/// Every method has applied its change, in order, when it returns; the [`Pending`] waits for its
/// durability, and says what a call may wait for. Points in time are milliseconds since the Unix
/// epoch.
///
/// # Errors
/// Of every method: [`TooLarge`](crate::Error::TooLarge) when a string (the name of the limiter
/// too) is over [`MAX_KEY_LEN`](crate::limits::MAX_KEY_LEN), and the errors of a write to the log.
/// Nothing was applied, unless the error is [`OutcomeUnknown`](crate::Error::OutcomeUnknown).
pub trait RateLimitStore: Send + Sync {
    /// Records a request if the limit allows it, and says whether it did. Of any number of
    /// concurrent callers no more than the limit are admitted within a window.
    fn acquire(&self, resource: &str) -> Pending<bool>;

    /// Whether [`acquire`](Self::acquire) would admit a request.
    fn can_proceed(&self, resource: &str) -> Pending<bool>;

    /// Records a request, whether or not the limit allows it.
    fn record(&self, resource: &str) -> Pending<()>;

    /// What is left of the limit.
    fn status(&self, resource: &str) -> Pending<RateLimitStatus>;

    /// Forgets the requests of a resource. Its configuration stays.
    fn reset(&self, resource: &str) -> Pending<()>;

    /// How long to wait: zero when a request may go, the window when the limit is 0, else the time
    /// until so many counted requests have left the window that one may go. If no request is made
    /// meanwhile, one is admitted then.
    fn wait_time(&self, resource: &str) -> Pending<Duration>;

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

/// What is left of a limit. A driver makes one with [`new`](Self::new).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitStatus {
    /// How many requests may go now.
    pub remaining: u64,
    /// When a request that is made now leaves the window, in milliseconds since the Unix epoch.
    pub reset_time: u64,
    /// How many requests may be made within one window.
    pub limit: u64,
}

impl RateLimitStatus {
    /// The status of a limit of `limit` requests of which `remaining` are left; a request that is
    /// made now leaves the window at `reset_time`, in milliseconds since the Unix epoch.
    #[must_use]
    pub const fn new(limit: u64, remaining: u64, reset_time: u64) -> Self {
        Self { remaining, reset_time, limit }
    }
}

/// A resource in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitEntry {
    /// What is limited.
    pub resource: String,
    /// How many requests count now.
    pub requests: u64,
    /// The limit that they count against.
    pub config: RateLimitConfig,
}

/// What a limiter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RateLimitStats {
    /// Resources with counted requests.
    pub live: u64,
    /// Requests that count, over all resources.
    pub requests: u64,
    /// Resources whose requests have all left the window, and which were not swept yet.
    pub expired: u64,
    /// Bytes of keys and values of the windows; rows of single requests and index rows are not
    /// counted.
    pub bytes: u64,
}

/// A shared store is a store.
impl<S: RateLimitStore + ?Sized> RateLimitStore for Arc<S> {
    fn acquire(&self, resource: &str) -> Pending<bool> {
        (**self).acquire(resource)
    }

    fn can_proceed(&self, resource: &str) -> Pending<bool> {
        (**self).can_proceed(resource)
    }

    fn record(&self, resource: &str) -> Pending<()> {
        (**self).record(resource)
    }

    fn status(&self, resource: &str) -> Pending<RateLimitStatus> {
        (**self).status(resource)
    }

    fn reset(&self, resource: &str) -> Pending<()> {
        (**self).reset(resource)
    }

    fn wait_time(&self, resource: &str) -> Pending<Duration> {
        (**self).wait_time(resource)
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
