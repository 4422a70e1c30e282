//! What happens, told to whoever listens: spans and events for the crate `tracing` (feature
//! `tracing`), counters, gauges and histograms for the crate `metrics` (feature `metrics`).
//!
//! Each function tells of one thing that happens at one place of the library. Without the features
//! all of them are empty, and so is [`Span`]. The names, units and levels are part of the interface
//! and stand in tables in DESIGN.md.
#![cfg_attr(
    not(all(feature = "tracing", feature = "metrics")),
    expect(unused_variables, reason = "what only the other one tells")
)]

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

/// What every span and event of this crate is filtered by.
#[cfg(feature = "tracing")]
const TARGET: &str = "cloakroom";

macro_rules! event {
    ($level:ident, $($what:tt)*) => {
        #[cfg(feature = "tracing")]
        ::tracing::event!(target: TARGET, ::tracing::Level::$level, $($what)*);
    };
}

macro_rules! count {
    ($name:literal, $amount:expr) => {
        #[cfg(feature = "metrics")]
        ::metrics::counter!($name).increment($amount);
    };
}

macro_rules! distribute {
    ($name:literal, $value:expr) => {
        #[cfg(feature = "metrics")]
        ::metrics::histogram!($name).record($value);
    };
}

macro_rules! gauge {
    ($name:literal, $value:expr) => {
        #[cfg(feature = "metrics")]
        ::metrics::gauge!($name).set($value as f64);
    };
}

/// Something that takes a while and is under way as long as this is kept.
#[must_use]
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    _entered: ::tracing::span::EnteredSpan,
}

macro_rules! span {
    ($name:literal $($fields:tt)*) => {
        Span {
            #[cfg(feature = "tracing")]
            _entered: ::tracing::info_span!(target: TARGET, $name $($fields)*).entered(),
        }
    };
}

/// Opening the file at `path`.
pub(crate) fn opening(path: &Path) -> Span {
    span!("open", path = %path.display())
}

/// What opening found and did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    /// The position recovered.
    pub(crate) lsn: u64,
    /// The position the B-tree had reached.
    pub(crate) btree_lsn: u64,
    /// Transactions of the log that the B-tree did not have.
    pub(crate) replayed: u64,
    /// Bytes of a torn tail that were erased.
    pub(crate) torn_bytes: u64,
    pub(crate) took: Duration,
}

pub(crate) fn opened(opened: Opened) {
    let Opened { lsn, btree_lsn, replayed, torn_bytes, took } = opened;
    if torn_bytes > 0 {
        event!(WARN, bytes = torn_bytes, lsn, "cut off a torn tail of the log");
    }
    event!(INFO, lsn, btree_lsn, replayed, took_ms = millis(took), "opened");
    count!("cloakroom_opens_total", 1);
    count!("cloakroom_replayed_transactions_total", replayed);
    distribute!("cloakroom_open_seconds", took.as_secs_f64());
}

/// Opening answered an error.
pub(crate) fn not_opened(error: &crate::error::Error) {
    event!(ERROR, %error, "not opened");
    count!("cloakroom_open_failures_total", 1);
}

/// A group of transactions was written and flushed.
pub(crate) fn flushed(transactions: u64, durable_lsn: u64, took: Duration) {
    event!(TRACE, transactions, durable_lsn, took_us = micros(took), "flushed");
    count!("cloakroom_flushes_total", 1);
    distribute!("cloakroom_flush_seconds", took.as_secs_f64());
    if transactions > 0 {
        distribute!("cloakroom_group_transactions", transactions as f64);
    }
}

/// Bytes were handed to the storage of the log.
pub(crate) fn log_written(bytes: u64) {
    count!("cloakroom_log_bytes_total", bytes);
}

/// The log goes on in its other segment, behind `lsn`.
pub(crate) fn rotated(lsn: u64) {
    event!(DEBUG, lsn, "the log goes on in its other segment");
}

/// A checkpoint of everything up to `lsn`.
pub(crate) fn checkpointing(lsn: u64) -> Span {
    span!("checkpoint", lsn)
}

/// A checkpoint ended well; inside of its span.
pub(crate) fn checkpointed(lsn: u64, rows: u64, bytes: u64, btree_bytes: u64, took: Duration) {
    event!(INFO, lsn, rows, bytes, took_ms = millis(took), "checkpoint");
    count!("cloakroom_checkpoints_total", 1);
    count!("cloakroom_btree_written_bytes_total", bytes);
    gauge!("cloakroom_btree_bytes", btree_bytes);
    distribute!("cloakroom_checkpoint_seconds", took.as_secs_f64());
}

/// A checkpoint failed and is tried again.
pub(crate) fn checkpoint_failed(error: &crate::error::Error) {
    if matches!(error, crate::error::Error::DiskFull { .. }) {
        event!(ERROR, %error, "the disk is full");
        count!("cloakroom_disk_full_total", 1);
    }
    event!(WARN, %error, "a checkpoint failed and is tried again");
    count!("cloakroom_checkpoint_failures_total", 1);
}

/// A writer found both segments full.
pub(crate) fn stalls() {
    event!(WARN, "a writer waits because both segments of the log are full");
    count!("cloakroom_stalls_total", 1);
}

/// It waits no longer.
pub(crate) fn stalled(took: Duration) {
    event!(INFO, took_ms = millis(took), "a writer waits no longer");
    distribute!("cloakroom_stall_seconds", took.as_secs_f64());
}

/// A write or flush failed, and nothing is written any more.
pub(crate) fn poisoned(error: &std::io::Error) {
    event!(ERROR, %error, "the log failed: nothing is written until the file is opened again");
    count!("cloakroom_poisonings_total", 1);
}

/// The B-tree was opened afresh after a fault.
pub(crate) fn base_reopened(lsn: u64) {
    event!(WARN, lsn, "the B-tree was opened afresh after a fault");
    count!("cloakroom_btree_reopens_total", 1);
}

/// A step of the sweeper removed entries and filed others under another time.
pub(crate) fn swept(entries: u64, rescheduled: u64, changes: u64, took: Duration) {
    event!(DEBUG, entries, rescheduled, changes, took_us = micros(took), "swept");
    count!("cloakroom_swept_entries_total", entries);
    count!("cloakroom_swept_rescheduled_total", rescheduled);
    distribute!("cloakroom_sweep_slice_seconds", took.as_secs_f64());
}

/// A compaction that moves something.
pub(crate) fn compacting() -> Span {
    span!("compact")
}

/// A compaction ended well; inside of its span.
pub(crate) fn compacted(bytes_before: u64, bytes_after: u64, pages_moved: u64, took: Duration) {
    event!(INFO, bytes_before, bytes_after, pages_moved, took_ms = millis(took), "compacted");
    count!("cloakroom_compactions_total", 1);
    count!("cloakroom_compacted_bytes_total", bytes_before.saturating_sub(bytes_after));
    distribute!("cloakroom_compaction_seconds", took.as_secs_f64());
}

/// A compaction that nobody asked for failed; inside of its span, if it got so far.
pub(crate) fn compaction_failed(error: &crate::error::Error) {
    event!(WARN, %error, "a compaction failed and is tried again");
    count!("cloakroom_compaction_failures_total", 1);
}

/// A backup to `path`.
pub(crate) fn backing_up(path: &Path) -> Span {
    span!("backup", path = %path.display())
}

/// A backup is in place; inside of its span.
pub(crate) fn backed_up(lsn: u64, rows: u64, bytes: u64, took: Duration) {
    event!(INFO, lsn, rows, bytes, took_ms = millis(took), "backed up");
    count!("cloakroom_backups_total", 1);
    distribute!("cloakroom_backup_seconds", took.as_secs_f64());
}

/// Somebody met damage.
pub(crate) fn corruption(location: &dyn Display, detail: &dyn Display) {
    event!(ERROR, %location, %detail, "damage was met");
    count!("cloakroom_corruptions_total", 1);
}

/// A form token was presented. `outcome` is that of the decision, which its transaction may still
/// take back.
pub(crate) fn consumed(outcome: &'static str) {
    event!(TRACE, outcome, "a form token was presented");
    #[cfg(feature = "metrics")]
    ::metrics::counter!("cloakroom_consumes_total", "outcome" => outcome).increment(1);
}

/// A watcher was too slow and missed transactions.
pub(crate) fn overtaken(missed_from_lsn: u64, resumes_at_lsn: u64) {
    event!(WARN, missed_from_lsn, resumes_at_lsn, "a watcher was overtaken");
    count!("cloakroom_watch_overtaken_total", 1);
}

/// The room is being closed.
pub(crate) fn closing() -> Span {
    span!("close")
}

/// The room is closed, well or, with an error, not.
pub(crate) fn closed(lsn: u64, error: Option<&crate::error::Error>) {
    let Some(error) = error else {
        event!(INFO, lsn, "closed");
        return;
    };
    event!(ERROR, lsn, %error, "closed after a failure");
}

#[cfg(feature = "tracing")]
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(feature = "tracing")]
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Span").finish_non_exhaustive()
    }
}
