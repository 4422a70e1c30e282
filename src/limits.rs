//! Every limit, with its reason.
//!
//! What an option sets, a number of bytes or of entries, is a `u64` on every machine, because a
//! file goes from one to another. What counts things in memory, such as the length of a string or
//! of a page of a listing, is a `usize`.

use std::time::Duration;

/// The size of a block: the unit of the file's geometry, of redb's pages and of the checksums over
/// them.
pub const BLOCK_SIZE: usize = 4096;

/// The longest key or name a caller may pass, in bytes. Any string up to this length is a key.
pub const MAX_KEY_LEN: usize = 64 * 1024;

/// The most that the log takes (both segments together) unless the builder says otherwise.
///
/// It begins with [`LEAST_LOG_SPACE`] and grows only while it fills quickly. Two segments of 32 MiB
/// hold about 380,000 token consumes each, so a checkpoint of a busy room writes each page of the
/// B-tree once for many rows; what they hold takes about two and a half times as much in memory.
pub const DEFAULT_LOG_CAPACITY: u64 = 64 << 20;

/// The space on the disk that the log begins with, if its capacity is not smaller, and to which it
/// returns when the room is quiet or closed. Each of its two segments has half of it.
pub const LEAST_LOG_SPACE: u64 = 1 << 20;

/// The most that the log of a room in memory takes unless the builder says otherwise: there are no
/// holes in memory.
pub const DEFAULT_IN_MEMORY_LOG_CAPACITY: u64 = 16 << 20;

/// The smallest log. A transaction that does not fit one of its two segments is
/// [`Error::TooLarge`](crate::Error::TooLarge). Limits of values that the caller did not set shrink
/// to what fits.
pub const MIN_LOG_CAPACITY: u64 = 64 << 10;

/// The smallest log in which every operation on one row works on keys of [`MAX_KEY_LEN`], whatever
/// their bytes.
///
/// The largest operation is the save of an agent state: its slot has five strings and is written
/// four times, and a zero byte takes two bytes in a key. That is 2.7 MiB, and leaves more than a
/// megabyte for the state itself.
pub const LONGEST_KEYS_LOG_CAPACITY: u64 = 8 << 20;

/// The largest log. A recovery replays at most this much, and holds its rows in memory.
pub const MAX_LOG_CAPACITY: u64 = 4 << 30;

/// The most bytes of changes that callers have queued in memory while both segments of the log are
/// full, unless there is one change only. Further changes are refused. Maintenance may queue a
/// quarter as much beside. Their rows take memory in addition.
pub const MAX_QUEUED_LOG_BYTES: u64 = 32 << 20;

/// Bytes of page cache for the B-tree unless the builder says otherwise.
pub const DEFAULT_CACHE_SIZE: u64 = 96 << 20;

/// The largest encoded claim-check state unless the store says otherwise, in bytes. It shrinks to
/// what a segment of the log can hold.
pub const DEFAULT_MAX_STATE_BYTES: u64 = 4 << 20;

/// The largest encoded value of a cache unless the store says otherwise, in bytes. It shrinks to
/// what a segment of the log can hold.
pub const DEFAULT_MAX_ENTRY_BYTES: u64 = 5 << 20;

/// How long a consumed form token still answers `Replay` after its expiry, unless the store says
/// otherwise.
pub const DEFAULT_REPLAY_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a deduplicated job may be pending, and how long a finished one is kept, unless the
/// store says otherwise.
pub const DEFAULT_JOB_TIMEOUT: Duration = Duration::from_secs(300);

/// The most rows one page of a listing holds.
pub const MAX_LIST_LIMIT: usize = 1_000;

/// The most records that
/// [`list_kind_for_identity`](crate::state::StateStore::list_kind_for_identity) may be limited to.
pub const MAX_IDENTITY_LIST_LIMIT: usize = 1_000;

/// The most records that [`list_kind_bounded`](crate::state::StateStore::list_kind_bounded) may be
/// limited to: ten thousand, and one more that tells that there are more.
pub const MAX_BOUNDED_LIST_LIMIT: usize = 10_001;

/// The most records in one page of
/// [`scan_kind_for_tenant`](crate::state::StateStore::scan_kind_for_tenant).
pub const MAX_SCAN_LIMIT: usize = 256;

/// How deep a claim-check state, a cached value or the value of a job may be nested, the outermost
/// object included.
///
/// Writing, reading and dropping a nested value recurse, and an overflow of the stack would end the
/// whole process. A level takes under 2 KiB of stack in the slowest build, so this many fit twice
/// into the 2 MiB of a Rust thread.
pub const MAX_STATE_DEPTH: usize = 512;

/// How many changes are kept for a watcher that does not take them in time, unless its filter says
/// otherwise: about a megabyte with short keys, and several commit groups of the busiest room.
pub const DEFAULT_WATCH_BUFFER: usize = 8_192;

/// How long the answer of a change waits for a checkpoint when both log segments are full, before
/// it is [`Error::LogFull`](crate::Error::LogFull), unless the builder says otherwise; and how long
/// a caller waits for a disk that is too full for the log, before it gets
/// [`Error::OutcomeUnknown`](crate::Error::OutcomeUnknown).
pub const DEFAULT_LOG_STALL: Duration = Duration::from_secs(30);

/// The longest interval between two sweeps for expired rows, unless the builder says otherwise.
/// Long enough to cost nothing on an idle device, short enough that expired rows take up little
/// space.
pub const DEFAULT_SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Four copies of a slot of five strings, each at twice its length because every zero byte is
/// escaped; three event ids (the saved one as a key and in the state, and the one that it
/// replaces); and a megabyte of state.
/// So many bytes in memory, or as many as there are addresses.
pub(crate) fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

const _: () =
    assert!(LONGEST_KEYS_LOG_CAPACITY / 2 >= (4 * 5 * 2 + 3) * MAX_KEY_LEN as u64 + (1 << 20));
const _: () = assert!(DEFAULT_LOG_CAPACITY >= LONGEST_KEYS_LOG_CAPACITY);
const _: () = {
    let segment = DEFAULT_IN_MEMORY_LOG_CAPACITY / 2;
    assert!(DEFAULT_LOG_CAPACITY >= DEFAULT_IN_MEMORY_LOG_CAPACITY);
    assert!(segment > DEFAULT_MAX_STATE_BYTES + 4 * MAX_KEY_LEN as u64);
    assert!(segment > DEFAULT_MAX_ENTRY_BYTES + 9 * MAX_KEY_LEN as u64);
};
const _: () = assert!(MIN_LOG_CAPACITY.is_multiple_of(2 * BLOCK_SIZE as u64));

#[cfg(test)]
mod tests {
    use super::*;

    /// A limit as docs/tables/limits.md writes it.
    enum ShownLimit {
        Bytes(u64),
        Count(usize),
        Time(Duration),
    }

    impl std::fmt::Display for ShownLimit {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            match *self {
                ShownLimit::Bytes(bytes) => {
                    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
                    let fits = |unit: &&(&str, u32)| bytes.is_multiple_of(1 << unit.1);
                    let (unit, shift) = units.iter().find(fits).unwrap();
                    write!(f, "{} {unit}", bytes >> shift)
                }
                ShownLimit::Count(count) => f.write_str(&grouped(count as u64)),
                ShownLimit::Time(time) => write!(f, "{} s", grouped(time.as_secs())),
            }
        }
    }

    fn grouped(number: u64) -> String {
        match number {
            0..1_000 => number.to_string(),
            _ => format!("{},{:03}", number / 1_000, number % 1_000),
        }
    }

    #[test]
    fn the_table_of_limits_lists_every_constant_with_its_value() {
        macro_rules! limits {
            ($($kind:ident: $($name:ident)+;)+) => {
                vec![$($((stringify!($name), ShownLimit::$kind($name.try_into().unwrap()).to_string()),)+)+]
            };
        }
        let mut found = limits! {
            Bytes: BLOCK_SIZE MAX_KEY_LEN DEFAULT_LOG_CAPACITY LEAST_LOG_SPACE
                DEFAULT_IN_MEMORY_LOG_CAPACITY MIN_LOG_CAPACITY
                LONGEST_KEYS_LOG_CAPACITY MAX_LOG_CAPACITY MAX_QUEUED_LOG_BYTES
                DEFAULT_CACHE_SIZE DEFAULT_MAX_STATE_BYTES DEFAULT_MAX_ENTRY_BYTES;
            Count: MAX_LIST_LIMIT MAX_IDENTITY_LIST_LIMIT MAX_BOUNDED_LIST_LIMIT MAX_SCAN_LIMIT MAX_STATE_DEPTH
                DEFAULT_WATCH_BUFFER;
            Time: DEFAULT_REPLAY_GRACE DEFAULT_JOB_TIMEOUT DEFAULT_LOG_STALL DEFAULT_SWEEP_INTERVAL;
        };
        let declared =
            include_str!("limits.rs").lines().filter(|line| line.starts_with("pub const "));
        assert_eq!(declared.count(), found.len(), "a limit is missing from the list in this test");

        let rows = include_str!("../docs/tables/limits.md").lines().skip(2);
        let mut listed: Vec<_> = rows
            .map(|row| {
                let mut cells = row.trim_matches('|').split('|').map(str::trim);
                let mut cell = || cells.next().unwrap_or_default();
                (cell().trim_matches('`'), cell().to_owned())
            })
            .collect();
        found.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, found, "docs/tables/limits.md (left) and src/limits.rs (right) differ");
    }
}
