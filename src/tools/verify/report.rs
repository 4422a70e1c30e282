//! What a verification found.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

/// The most findings and the most notes that a report lists; what is beyond is counted.
pub(super) const MAX_LISTED: usize = 1_000;

/// Something in a file that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Where: a part of the file and its offset in bytes, or a table and a key.
    pub location: String,
    /// What is wrong there.
    pub problem: String,
    /// What to do about it.
    pub advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.location, self.problem, self.advice)
    }
}

/// What a verification looked at and found. See [`verify`](crate::tools::verify()).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Everything that is wrong, up to 1,000 of them.
    pub findings: Vec<Finding>,
    /// How many findings there were beyond those that are listed.
    pub more_findings: u64,
    /// What is worth knowing and is not wrong: what a crash left that the next opening settles,
    /// what is damaged and holds nothing, and what could not be looked at. Up to 1,000 of them.
    pub notes: Vec<String>,
    /// The rows of each table, by its name.
    pub tables: Vec<(&'static str, u64)>,
    /// The rows of all tables.
    pub rows: u64,
    /// How many blocks of the B-tree were compared with their checksums.
    pub blocks: u64,
    /// How many intact frames the log has.
    pub frames: u64,
    /// The parts of the file, in bytes, that hold nothing anything depends on. Damage there does no
    /// harm and is not looked for.
    pub unused: Vec<Range<u64>>,
    listed: BTreeSet<(String, String)>,
}

impl VerifyReport {
    /// Whether nothing is wrong. Notes do not count.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.findings.is_empty()
    }

    /// Adds a finding, once.
    pub(super) fn find(
        &mut self,
        location: impl Into<String>,
        problem: impl Into<String>,
        advice: &str,
    ) {
        let (location, problem) = (location.into(), problem.into());
        if self.listed.contains(&(location.clone(), problem.clone())) {
            return;
        }
        if self.findings.len() >= MAX_LISTED {
            self.more_findings += 1;
            return;
        }
        self.listed.insert((location.clone(), problem.clone()));
        self.findings.push(Finding { location, problem, advice: advice.to_owned() });
    }

    /// Adds a note, once.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if self.notes.len() < MAX_LISTED && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Counts a table.
    pub(super) fn count(&mut self, table: &'static str, rows: u64) {
        self.tables.push((table, rows));
        self.rows += rows;
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_ok() { "sound" } else { "damaged" };
        writeln!(
            f,
            "{verdict}: {} rows, {} blocks, {} frames looked at",
            self.rows, self.blocks, self.frames
        )?;
        for finding in &self.findings {
            writeln!(f, "- {}: {}", finding.location, finding.problem)?;
            writeln!(f, "  {}", finding.advice)?;
        }
        if self.more_findings > 0 {
            writeln!(f, "- and {} more", self.more_findings)?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_listed_once_and_too_many_are_counted() {
        let mut report = VerifyReport::default();
        assert!(report.is_ok());
        for _ in 0..3 {
            report.find("here", "broken", "mend it");
            report.note("by the way");
        }
        assert_eq!((report.findings.len(), report.notes.len(), report.is_ok()), (1, 1, false));
        for number in 0..MAX_LISTED + 5 {
            report.find(format!("place {number}"), "broken", "mend it");
        }
        assert_eq!((report.findings.len(), report.more_findings), (MAX_LISTED, 6));
        let text = report.to_string();
        assert!(
            text.starts_with("damaged: 0 rows") && text.contains("- here: broken\n  mend it\n")
        );
        assert!(text.contains("and 6 more") && text.ends_with("note: by the way\n"));
    }
}
