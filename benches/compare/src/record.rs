//! What a run found. It can be written to a file and drawn from it later.

use crate::Load;
use crate::contest::Measured;
use crate::work::Work;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A run and the conditions it was made under.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// In Unix seconds.
    pub began_at: u64,
    pub processors: usize,
    pub work: Work,
    pub tokens: u32,
    /// Rounds that were completed.
    pub rounds: usize,
    pub seconds: f64,
    pub settle_seconds: f64,
    /// How long a token of [`Work::Lifecycle`] is good.
    pub life_seconds: u64,
    pub flush_delay_us: u64,
    pub loads: Vec<Load>,
    pub rows: Vec<Found>,
}

/// What was found of one contender.
#[derive(Debug, Serialize, Deserialize)]
pub struct Found {
    pub name: String,
    pub title: String,
    /// By load, what each round found.
    pub cells: Vec<Vec<Measured>>,
}

impl Found {
    pub fn is_raw(&self) -> bool {
        self.name.starts_with("raw")
    }

    pub fn is_bare(&self) -> bool {
        self.name.starts_with("bare")
    }

    /// What the rounds found, ascending.
    pub fn sorted(&self, column: usize, of: impl Fn(&Measured) -> Option<f64>) -> Vec<f64> {
        let mut values: Vec<f64> = self.cells[column].iter().filter_map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        values
    }

    pub fn median(&self, column: usize, of: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        let values = self.sorted(column, of);
        let middle = values.len() / 2;
        if values.len() % 2 == 1 {
            values.get(middle).copied()
        } else {
            Some(f64::midpoint(*values.get(middle.checked_sub(1)?)?, *values.get(middle)?))
        }
    }
}

impl Record {
    /// The best of the bare loops in this column.
    pub fn limit(
        &self,
        column: usize,
        of: impl Fn(&Measured) -> Option<f64> + Copy,
    ) -> Option<f64> {
        let bare = self.rows.iter().filter(|row| row.is_bare());
        bare.filter_map(|row| row.median(column, of)).max_by(f64::total_cmp)
    }

    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).context("reading the record of a run")?;
        serde_json::from_str(&text).context("this is not the record of a run")
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(path, text).context("writing the record of the run")
    }
}
