//! What a salvage brought out, and what is lost.

use std::fmt;
use std::ops::RangeInclusive;

/// The most losses of each kind that a report lists; what is beyond is counted.
const MAX_LISTED: usize = 1_000;

/// Something that did not come out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// Where: a part of the file, or a table and a key or a range of keys.
    pub location: String,
    /// What is lost, and what that means.
    pub what: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.what)
    }
}

/// What a salvage brought out of a file, and what is lost. See
/// [`salvage`](crate::tools::salvage()).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// The rows of each table of the new file, by its name.
    pub tables: Vec<(&'static str, u64)>,
    /// The rows of all tables of the new file.
    pub rows: u64,
    /// The length of the new file in bytes.
    pub bytes: u64,
    /// What is known to be lost, up to 1,000 of them: ranges of keys behind damaged pages, rows
    /// that were none or whose other half is lost, parts of the file that could not be used.
    pub losses: Vec<Loss>,
    /// How many losses there were beyond those that are listed.
    pub more_losses: u64,
    /// The operations that are lost from the log, as ranges of their positions (LSNs). What they
    /// did is as if it had not been done: a token consumed in one of them is unconsumed, and a
    /// state taken is there again.
    pub lost_frames: Vec<RangeInclusive<u64>>,
    /// How many rows of the damaged file were left out, because they made no sense or what they
    /// belong to is lost.
    pub dropped: u64,
    /// The blocks of the B-tree that are damaged, up to 1,000 of them.
    pub damaged_blocks: Vec<u64>,
    /// What is worth knowing about how it was done.
    pub notes: Vec<String>,
}

impl SalvageReport {
    /// Whether everything came out: nothing is known to be lost.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.losses.is_empty() && self.lost_frames.is_empty()
    }

    pub(super) fn lose(&mut self, location: impl Into<String>, what: impl Into<String>) {
        let loss = Loss { location: location.into(), what: what.into() };
        if self.losses.contains(&loss) {
            return;
        }
        if self.losses.len() < MAX_LISTED { self.losses.push(loss) } else { self.more_losses += 1 }
    }

    /// A row that is left out.
    pub(super) fn drop_row(&mut self, location: String, why: impl Into<String>) {
        self.dropped += 1;
        self.lose(location, why);
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if self.notes.len() < MAX_LISTED && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(super) fn damaged(&mut self, block: u64) {
        if self.damaged_blocks.len() < MAX_LISTED {
            self.damaged_blocks.push(block);
        }
    }
}

impl fmt::Display for SalvageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_complete() { "everything came out" } else { "something is lost" };
        writeln!(f, "{verdict}: {} rows in the new file", self.rows)?;
        for frames in &self.lost_frames {
            writeln!(
                f,
                "- operations {} to {} of the log are lost: what they did is as if it had not been done (a token \
                 consumed there is unconsumed again)",
                frames.start(),
                frames.end()
            )?;
        }
        for loss in &self.losses {
            writeln!(f, "- {loss}")?;
        }
        if self.more_losses > 0 {
            writeln!(f, "- and {} more", self.more_losses)?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}
