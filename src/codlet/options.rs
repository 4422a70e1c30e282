//! The options of a store of `codlet`, as its views in a transaction have them.

use crate::durability::Durability;
use crate::error::Result;
use crate::limits::DEFAULT_REPLAY_GRACE;
use std::time::Duration;

/// How long codes and sessions are found after their expiry, unless the store says otherwise: long
/// enough that an audit says `expired` or `used` and not `unknown`.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// The options of a view.
pub(super) struct TxOptions {
    /// How durable the transaction becomes for form tokens, codes and sessions, or why they are
    /// refused.
    pub(super) records: Result<Durability>,
    /// The same for counted failures.
    pub(super) failures: Result<Durability>,
    pub(super) replay_grace: Duration,
    pub(super) retention: Duration,
}

impl Default for TxOptions {
    /// Those of a transaction, which is as durable as its room says.
    fn default() -> Self {
        Self {
            records: Ok(Durability::Os),
            failures: Ok(Durability::Os),
            replay_grace: DEFAULT_REPLAY_GRACE,
            retention: DEFAULT_RETENTION,
        }
    }
}

pub(super) fn retention_ms(retention: Duration) -> u64 {
    u64::try_from(retention.as_millis()).unwrap_or(u64::MAX)
}
