//! The rows of jobs. Their key is the name of the store and the hash.

use crate::codec::{self, key};
use crate::engine::time_line::{Deadline, Moment};
use crate::error::Result;
use crate::stores::cache::content::ValueContent;
use crate::stores::length::check_len;
use crate::tables::Table;

/// What a row adds to the JSON of a value: the job (16 bytes), an option and two tags (3), and
/// four integers of at most nine bytes each.
pub(crate) const JOB_ROW_OVERHEAD: usize = 55;

/// A row of [`Table::DEDUPE_JOB`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::BorrowDecode)]
pub(crate) struct JobRow<'a> {
    /// The ULID of the job, in the byte order of ULIDs.
    pub(crate) job: [u8; 16],
    /// Which opening of the file registered it.
    pub(crate) opening_id: u64,
    /// When a pending job times out, or an ended one is forgotten. `None`: never.
    pub(crate) ends_at: Option<Deadline>,
    pub(crate) progress: Progress<'a>,
}

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::BorrowDecode)]
pub(crate) enum Progress<'a> {
    Pending,
    /// The JSON of its value.
    Completed(&'a [u8]),
    /// What its owner said.
    Failed(&'a str),
    /// Its value, which is bytes.
    CompletedBytes(&'a [u8]),
}

impl<'a> From<ValueContent<'a>> for Progress<'a> {
    fn from(value: ValueContent<'a>) -> Self {
        match value {
            ValueContent::Json(json) => Self::Completed(json),
            ValueContent::Bytes(bytes) => Self::CompletedBytes(bytes),
        }
    }
}

impl<'a> JobRow<'a> {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(self)
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self> {
        codec::decode_row(Table::DEDUPE_JOB.name(), bytes)
    }

    /// Whether the row counts: it has not ended.
    pub(crate) fn is_live(&self, now: &Moment) -> bool {
        self.ends_at.is_none_or(|ends_at| !now.has_passed(ends_at))
    }

    /// Whether the job is being worked on: its owner belongs to this opening of the file, and it
    /// has neither ended nor timed out.
    pub(crate) fn is_pending(&self, now: &Moment, opening_id: u64) -> bool {
        matches!(self.progress, Progress::Pending)
            && self.opening_id == opening_id
            && self.is_live(now)
    }
}

/// What the keys of all jobs of the store called `name` begin with, and no other.
pub(crate) fn prefix_of(name: &str) -> Result<Vec<u8>> {
    check_len("the name of the store", name)?;
    let mut prefix = Vec::with_capacity(name.len() + 2);
    key::push_bytes(&mut prefix, name.as_bytes());
    Ok(prefix)
}

/// The key of the job under `hash`, or what the keys of the jobs begin with whose hash begins so.
pub(crate) fn key_of(name: &str, hash: &str) -> Result<Vec<u8>> {
    check_len("the hash", hash)?;
    let mut key = prefix_of(name)?;
    key.extend_from_slice(hash.as_bytes());
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::limits::MAX_KEY_LEN;

    const ROW: JobRow<'_> = JobRow {
        job: [7; 16],
        opening_id: 300,
        ends_at: Some(Deadline::at(2)),
        progress: Progress::Pending,
    };

    fn encoded(progress: Progress<'_>) -> Vec<u8> {
        JobRow { progress, ..ROW }.encode().unwrap()
    }

    #[test]
    fn the_bytes_are_frozen() {
        let head = [&[7; 16][..], &[251, 44, 1, 1, 0, 2]].concat();
        assert_eq!(encoded(Progress::Pending), [&head[..], &[0]].concat());
        assert_eq!(encoded(Progress::Completed(b"[]")), [&head[..], &[1, 2, b'[', b']']].concat());
        assert_eq!(encoded(Progress::Failed("e")), [&head[..], &[2, 1, b'e']].concat());
        assert_eq!(encoded(Progress::CompletedBytes(b"\0")), [&head[..], &[3, 1, 0]].concat());
        let never = JobRow { ends_at: None, ..ROW };
        assert_eq!(never.encode().unwrap(), [&[7; 16][..], &[251, 44, 1, 0, 0]].concat());
        assert_eq!(key_of("a\0", "h\0").unwrap(), b"a\0\xff\0\0h\0");
        assert_eq!(Table::DEDUPE_JOB.number(), 10);
    }

    #[test]
    fn rows_round_trip_and_damaged_ones_are_errors() {
        for progress in [
            Progress::Pending,
            Progress::Completed(b"1"),
            Progress::Failed(""),
            Progress::CompletedBytes(b"\xff"),
        ] {
            let bytes = encoded(progress);
            assert_eq!(JobRow::decode(&bytes).unwrap(), JobRow { progress, ..ROW });
            for cut in 0..bytes.len() {
                assert!(matches!(JobRow::decode(&bytes[..cut]), Err(Error::Corrupted { .. })));
            }
        }
        let mut unknown = encoded(Progress::Pending);
        *unknown.last_mut().unwrap() = 9;
        assert!(matches!(JobRow::decode(&unknown), Err(Error::Corrupted { .. })));
    }

    #[test]
    fn the_overhead_is_the_greatest() {
        let greatest = JobRow {
            job: [255; 16],
            opening_id: u64::MAX,
            ends_at: Some(Deadline { epoch: u32::MAX, at_ms: u64::MAX }),
            progress: Progress::Completed(&[]),
        };
        assert!(greatest.encode().unwrap().len() + 8 <= JOB_ROW_OVERHEAD);
    }

    #[test]
    fn a_job_is_pending_in_its_own_opening_until_its_time_has_come() {
        let at = Moment::manual;
        assert!(ROW.is_pending(&at(1), 300));
        assert!(!ROW.is_pending(&at(2), 300));
        assert!(!ROW.is_pending(&at(1), 301));
        assert!(!JobRow { progress: Progress::Failed(""), ..ROW }.is_pending(&at(1), 300));
        assert!(JobRow { ends_at: None, ..ROW }.is_pending(&at(u64::MAX), 300));
    }

    #[test]
    fn long_names_and_hashes_are_refused() {
        let (fits, long) = ("x".repeat(MAX_KEY_LEN), "x".repeat(MAX_KEY_LEN + 1));
        assert!(key_of(&fits, &fits).is_ok());
        assert!(matches!(key_of(&long, ""), Err(Error::TooLarge { .. })));
        assert!(matches!(key_of("", &long), Err(Error::TooLarge { .. })));
    }
}
