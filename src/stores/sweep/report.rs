//! What a sweep did.

use crate::tables::Table;

/// What a sweep removed, by store, and what else it did to the rows that were due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SweepReport {
    /// Form tokens, with what is known of their use.
    pub form_tokens: u64,
    /// Claim-check states, with the claims on them.
    pub handoff: u64,
    /// Cached values, with their tags.
    pub cache: u64,
    /// Jobs that timed out, or that ended long enough ago.
    pub dedupe: u64,
    /// Windows of rate limits without requests, with the rows of their requests.
    pub rate_limit: u64,
    /// Resources of adaptive rate limits whose requests are gone. What else is remembered of them
    /// stays.
    pub adaptive_rate_limit: u64,
    /// Cooldowns, of both kinds of rate limits.
    pub cooldowns: u64,
    /// Codes, sessions and counted failures of the adapter for `codlet`.
    pub codlet: u64,
    /// Entries that go on and were filed under another time: consumed form tokens until the end of
    /// their grace, and windows that were used since.
    pub rescheduled: u64,
    /// Rows that were due and left alone, because they are damaged.
    pub stepped_over: u64,
}

impl SweepReport {
    /// How many entries were removed, over all stores.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self {
            form_tokens,
            handoff,
            cache,
            dedupe,
            rate_limit,
            adaptive_rate_limit,
            cooldowns,
            codlet,
            rescheduled: _,
            stepped_over: _,
        } = self;
        form_tokens
            + handoff
            + cache
            + dedupe
            + rate_limit
            + adaptive_rate_limit
            + cooldowns
            + codlet
    }

    /// Counts entries that were removed through an index row of `table`.
    pub(super) fn removed(&mut self, table: Table, entries: u64) {
        let count = match table {
            Table::FORM_TOKEN => &mut self.form_tokens,
            Table::HANDOFF => &mut self.handoff,
            Table::CACHE => &mut self.cache,
            Table::DEDUPE_JOB => &mut self.dedupe,
            Table::RATE_LIMIT => &mut self.rate_limit,
            Table::RATE_LIMIT_COOLDOWN => &mut self.cooldowns,
            Table::ADAPTIVE_RATE_LIMIT | Table::RATE_LIMIT_STORE => &mut self.adaptive_rate_limit,
            _ => &mut self.codlet,
        };
        *count += entries;
    }

    /// Adds what another slice did.
    pub(super) fn add(&mut self, other: &Self) {
        self.form_tokens += other.form_tokens;
        self.handoff += other.handoff;
        self.cache += other.cache;
        self.dedupe += other.dedupe;
        self.rate_limit += other.rate_limit;
        self.adaptive_rate_limit += other.adaptive_rate_limit;
        self.cooldowns += other.cooldowns;
        self.codlet += other.codlet;
        self.rescheduled += other.rescheduled;
        self.stepped_over += other.stepped_over;
    }
}
