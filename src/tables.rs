//! The tables of a file: their numbers in the log, their names in the B-tree, and the direction of
//! their order.
//!
//! Numbers and names are part of the file format and are never reused.

use std::sync::Arc;

/// The bytes of a row.
pub(crate) type Value = Arc<[u8]>;

/// A row of a scan: its key and its bytes.
pub(crate) type Row = (Vec<u8>, Value);

/// Declares the tables: number, variant, name.
macro_rules! tables {
    ($($(#[$doc:meta])* $number:literal $variant:ident $name:literal;)*) => {
        /// A table of the engine. Secondary tables change in the same frame as their primary.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub(crate) enum Table {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Table {
            /// Every table, in the order of their numbers.
            pub(crate) const ALL: &[Table] = &[$(Table::$variant,)*];

            /// The name of the table in the B-tree.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Table::$variant => $name,)*
                }
            }
        }
    };
}

tables! {
    /// Form tokens by lookup key.
    1 FormToken "form_token";
    /// What became of a consumed form token, by the same key. Apart from the token, so that a
    /// consume writes a few bytes into a dense table instead of rewriting the token's row.
    2 FormTokenUse "form_token_use";
    /// Claim-check states by state id.
    3 Handoff "handoff";
    /// The claim, live or stale, on a claim-check state, by the same key.
    4 HandoffClaim "handoff_claim";
    /// What expires when, over all stores: (time in ms, table number, primary key) with empty
    /// values.
    5 Expiry "expiry";

    // 6 to 9: the cache.
    /// Cached values by (name of the cache, hash).
    6 Cache "cache";
    /// The tags of a cached value, by the same key. Apart from the value, so that a plain `set`
    /// leaves them alone.
    7 CacheTags "cache_tags";
    /// Which cached values have a tag: (name of the cache, tag, hash) with empty values.
    8 CacheByTag "cache_by_tag";

    // 10 and 11: deduplication.
    /// Jobs of the deduplicating stores by (name, hash).
    10 DedupeJob "dedupe_job";

    // 12 to 19: rate limits.
    /// The windows of plain limiters by (limiter, resource).
    12 RateLimit "rate_limit";
    /// When the requests of a window were made, and how many came before.
    13 RateLimitRequest "rate_limit_request";
    /// What a whole limiter has: how often it was cleared; and the last number that was given to a
    /// window.
    14 RateLimitStore "rate_limit_store";
    /// The configurations that resources have of their own, by (limiter, resource).
    15 RateLimitConfig "rate_limit_config";
    /// Cooldowns by (limiter, origin).
    16 RateLimitCooldown "rate_limit_cooldown";
    /// The windows and the capacity of adaptive limiters by (limiter, resource).
    17 AdaptiveRateLimit "adaptive_rate_limit";

    // 20 to 25: agent state.
    /// Agent states by slot: (tenant, user, session, run, kind).
    20 State "state";
    /// The slot of an agent state by its event id.
    21 StateEvent "state_event";
    /// Which slots there are, by (kind, tenant, user, session, run).
    22 StateKind "state_kind";
    /// Which slots there are, by (tenant, kind, user, session, run).
    23 StateTenantKind "state_tenant_kind";

    // 26 to 30: other backends.
    /// What the crate `codlet` stores: one-time codes by their id.
    26 CodletCode "codlet_code";
    /// Ids of one-time codes by lookup key.
    27 CodletCodeKey "codlet_code_key";
    /// Sessions by their id.
    28 CodletSession "codlet_session";
    /// Ids of sessions by lookup key.
    29 CodletSessionKey "codlet_session_key";
    /// Counted failures by the caller's key.
    30 CodletFailures "codlet_failures";
}

impl Table {
    /// Whether somebody may wait for a row of it to change.
    pub(crate) fn is_waited_for(self) -> bool {
        self == Table::DedupeJob
    }

    /// The number that stands for the table in keys and frames.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    /// The table with this number.
    pub(crate) fn from_number(number: u8) -> Option<Table> {
        Self::ALL.iter().copied().find(|table| table.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_come_back_and_names_differ() {
        assert!(Table::ALL.is_sorted_by(|a, b| a.number() < b.number()));
        for &table in Table::ALL {
            assert_eq!(Table::from_number(table.number()), Some(table));
            assert_eq!(Table::ALL.iter().filter(|other| other.name() == table.name()).count(), 1);
        }
        assert_eq!(Table::from_number(0), None);
        assert_eq!(Table::from_number(200), None);
    }
}
