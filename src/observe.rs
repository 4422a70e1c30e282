//! Spans and events for the crate `tracing` (feature `tracing`), and counters, gauges and
//! histograms for the crate `metrics` (feature `metrics`).
//!
//! Each function reports one thing, and is called from one place of the library. Without the
//! features all of them are empty, and so is [`Span`]. The names, units and levels are part of the
//! interface.
//!
//! # Events
//! All have the target `cloakroom`.
//!
#![doc = include_str!("../docs/tables/events.md")]
//!
//! # Metrics
//! No metric has a label for the file: a path is unbounded and may be private. Rooms of one process
//! add up, except in the gauge, which shows the room that set it last.
//!
#![doc = include_str!("../docs/tables/metrics.md")]
#![cfg_attr(
    not(all(feature = "tracing", feature = "metrics")),
    expect(unused_variables, reason = "used by the other feature only")
)]

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

/// The target of every span and event of this crate.
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

/// An operation that takes time. It ends when this is dropped.
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

/// The file at `path` is being opened.
pub(crate) fn opening(path: &Path) -> Span {
    span!("open", path = %path.display())
}

/// What an open found and did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    /// The recovered LSN.
    pub(crate) lsn: u64,
    /// The LSN that the B-tree had reached.
    pub(crate) btree_lsn: u64,
    /// Transactions replayed from the log, because the B-tree did not have them.
    pub(crate) replayed: u64,
    /// Bytes of a torn tail that were erased.
    pub(crate) torn_bytes: u64,
    pub(crate) took: Duration,
}

pub(crate) fn opened(opened: Opened) {
    let Opened { lsn, btree_lsn, replayed, torn_bytes, took } = opened;
    if torn_bytes > 0 {
        event!(WARN, bytes = torn_bytes, lsn, "erased a torn tail of the log");
    }
    event!(INFO, lsn, btree_lsn, replayed, took_ms = millis(took), "opened");
    count!("cloakroom_opens_total", 1);
    count!("cloakroom_replayed_transactions_total", replayed);
    distribute!("cloakroom_open_seconds", took.as_secs_f64());
}

/// An open returned an error.
pub(crate) fn not_opened(error: &crate::error::Error) {
    event!(ERROR, %error, "open failed");
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

/// The log switched to its other segment after `lsn`.
pub(crate) fn rotated(lsn: u64) {
    event!(DEBUG, lsn, "log switched to its other segment");
}

/// A checkpoint of everything up to `lsn` runs.
pub(crate) fn checkpointing(lsn: u64) -> Span {
    span!("checkpoint", lsn)
}

/// A checkpoint succeeded. Called inside its span.
pub(crate) fn checkpointed(lsn: u64, rows: u64, bytes: u64, btree_bytes: u64, took: Duration) {
    event!(INFO, lsn, rows, bytes, took_ms = millis(took), "checkpoint");
    count!("cloakroom_checkpoints_total", 1);
    count!("cloakroom_btree_written_bytes_total", bytes);
    gauge!("cloakroom_btree_bytes", btree_bytes);
    distribute!("cloakroom_checkpoint_seconds", took.as_secs_f64());
}

/// A checkpoint failed and will be retried.
pub(crate) fn checkpoint_failed(error: &crate::error::Error) {
    if matches!(error, crate::error::Error::DiskFull { .. }) {
        event!(ERROR, %error, "disk full");
        count!("cloakroom_disk_full_total", 1);
    }
    event!(WARN, %error, "checkpoint failed, will be retried");
    count!("cloakroom_checkpoint_failures_total", 1);
}

/// A writer found both log segments full and waits.
pub(crate) fn stalls() {
    event!(WARN, "writer waits: both log segments are full");
    count!("cloakroom_stalls_total", 1);
}

/// A writer found both log segments full and was refused.
pub(crate) fn refused() {
    count!("cloakroom_stalls_total", 1);
}

/// The writer of [`stalls`] stopped waiting.
pub(crate) fn stalled(took: Duration) {
    event!(INFO, took_ms = millis(took), "writer stopped waiting for a log segment");
    distribute!("cloakroom_stall_seconds", took.as_secs_f64());
}

/// A write or flush of the log failed. Nothing is written any more.
pub(crate) fn poisoned(error: &std::io::Error) {
    event!(ERROR, %error, "log failed: nothing is written until the file is reopened");
    count!("cloakroom_poisonings_total", 1);
}

/// A write or flush of the log found the disk full. It is tried again until there is space.
pub(crate) fn log_without_space(error: &std::io::Error) {
    event!(ERROR, %error, "log waits for space: the disk is full");
    count!("cloakroom_log_disk_full_total", 1);
}

/// The log is written and flushed again, after it waited for space.
pub(crate) fn log_has_space(waited: Duration) {
    event!(INFO, waited_ms = millis(waited), "log has space again");
}

/// The B-tree was reopened after a fault.
pub(crate) fn btree_reopened(lsn: u64) {
    event!(WARN, lsn, "B-tree reopened after a fault");
    count!("cloakroom_btree_reopens_total", 1);
}

/// A step of the sweeper removed entries and rescheduled others.
pub(crate) fn swept(entries: u64, rescheduled: u64, changes: u64, took: Duration) {
    event!(DEBUG, entries, rescheduled, changes, took_us = micros(took), "swept");
    count!("cloakroom_swept_entries_total", entries);
    count!("cloakroom_swept_rescheduled_total", rescheduled);
    distribute!("cloakroom_sweep_slice_seconds", took.as_secs_f64());
}

/// A compaction that moves pages runs.
pub(crate) fn compacting() -> Span {
    span!("compact")
}

/// A compaction succeeded. Called inside its span.
pub(crate) fn compacted(bytes_before: u64, bytes_after: u64, pages_moved: u64, took: Duration) {
    event!(INFO, bytes_before, bytes_after, pages_moved, took_ms = millis(took), "compacted");
    count!("cloakroom_compactions_total", 1);
    count!("cloakroom_compacted_bytes_total", bytes_before.saturating_sub(bytes_after));
    distribute!("cloakroom_compaction_seconds", took.as_secs_f64());
}

/// A compaction that the engine started itself failed. Called inside its span, if it got that far.
pub(crate) fn compaction_failed(error: &crate::error::Error) {
    event!(WARN, %error, "compaction failed, will be retried");
    count!("cloakroom_compaction_failures_total", 1);
}

/// A backup to `path` runs.
pub(crate) fn backing_up(path: &Path) -> Span {
    span!("backup", path = %path.display())
}

/// A backup is complete. Called inside its span.
pub(crate) fn backed_up(lsn: u64, rows: u64, bytes: u64, took: Duration) {
    event!(INFO, lsn, rows, bytes, took_ms = millis(took), "backed up");
    count!("cloakroom_backups_total", 1);
    distribute!("cloakroom_backup_seconds", took.as_secs_f64());
}

/// A call found damage.
pub(crate) fn corruption(location: &dyn Display, detail: &dyn Display) {
    event!(ERROR, %location, %detail, "damage found");
    count!("cloakroom_corruptions_total", 1);
}

/// A form token was presented. `outcome` is the decision; the transaction that contains it may
/// still be aborted.
pub(crate) fn consumed(outcome: &'static str) {
    event!(TRACE, outcome, "form token presented");
    #[cfg(feature = "metrics")]
    ::metrics::counter!("cloakroom_consumes_total", "outcome" => outcome).increment(1);
}

/// A watcher was too slow and missed transactions.
pub(crate) fn overtaken(missed_from_lsn: u64, resumes_at_lsn: u64) {
    event!(WARN, missed_from_lsn, resumes_at_lsn, "watcher overtaken");
    count!("cloakroom_watch_overtaken_total", 1);
}

/// The room is being closed.
pub(crate) fn closing() -> Span {
    span!("close")
}

/// The room is closed, after `error` if closing failed.
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

#[cfg(test)]
mod tests {
    /// This file's production code: what comes before this module.
    fn source() -> &'static str {
        include_str!("observe.rs").split("#[cfg(test)]").next().unwrap()
    }

    /// The cells of each row of a Markdown table, without its two head rows.
    fn rows(table: &str) -> Vec<Vec<&str>> {
        let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect();
        let table: &'static str = table.to_owned().leak();
        table.lines().skip(2).map(cells).collect()
    }

    #[test]
    fn the_table_of_metrics_lists_every_metric_with_its_kind() {
        let macros = [("count!(", "counter"), ("distribute!(", "histogram"), ("gauge!(", "gauge")];
        let direct = [("metrics::counter!(", "counter")];
        let mut found = Vec::new();
        for line in source().lines() {
            for (call, kind) in macros.iter().chain(&direct) {
                let name = line.split_once(call).and_then(|(_, rest)| rest.split('"').nth(1));
                if let Some(name) = name.filter(|name| name.starts_with("cloakroom_")) {
                    found.push((name, *kind));
                }
            }
        }
        let rows = rows(include_str!("../docs/tables/metrics.md"));
        let mut listed: Vec<_> =
            rows.iter().map(|row| (row[0].trim_matches('`'), row[1])).collect();
        found.sort_unstable();
        found.dedup();
        listed.sort_unstable();
        assert_eq!(
            listed, found,
            "docs/tables/metrics.md (left) and src/observe.rs (right) differ"
        );
    }

    #[test]
    fn the_table_of_events_lists_every_event_with_its_level_and_fields() {
        let mut found = Vec::new();
        let name =
            |text: &str| text.trim_start_matches(['%', ' ']).split(' ').next().map(str::to_owned);
        for line in source().lines().map(str::trim) {
            if let Some(call) =
                line.strip_prefix("event!(").and_then(|call| call.strip_suffix(");"))
            {
                let (arguments, text) = call.split_once('"').unwrap();
                let mut words = arguments.trim().trim_end_matches(',').split(", ");
                let level = words.next().unwrap().to_owned();
                let fields: Vec<_> = words.filter_map(name).collect();
                found.push((level, text.trim_end_matches('"').to_owned(), fields.join(", ")));
            }
            if let Some(call) = line.strip_prefix("span!(").and_then(|call| call.strip_suffix(')'))
            {
                let mut words = call.split(", ");
                let span = words.next().unwrap().trim_matches('"');
                let fields: Vec<_> = words.filter_map(name).collect();
                found.push(("INFO span".to_owned(), format!("`{span}`"), fields.join(", ")));
            }
        }
        let rows = rows(include_str!("../docs/tables/events.md"));
        let mut listed: Vec<_> = rows
            .iter()
            .map(|row| (row[0].to_owned(), row[1].to_owned(), row[2].to_owned()))
            .collect();
        found.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, found, "docs/tables/events.md (left) and src/observe.rs (right) differ");
    }
}
