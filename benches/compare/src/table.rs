//! The result: medians over the rounds, as a Markdown table.

use crate::Load;
use crate::contest::Measured;
use std::fmt::Write as _;

pub struct Table {
    rows: Vec<(&'static str, &'static str)>,
    loads: Vec<Load>,
    /// By row, by column, what each round found.
    cells: Vec<Vec<Vec<Measured>>>,
}

impl Table {
    pub fn new(rows: impl Iterator<Item = (&'static str, &'static str)>, loads: &[Load]) -> Self {
        let rows: Vec<_> = rows.collect();
        let cells = vec![vec![Vec::new(); loads.len()]; rows.len()];
        Self { rows, loads: loads.to_vec(), cells }
    }

    pub fn add(&mut self, row: usize, column: usize, cell: Measured) {
        self.cells[row][column].push(cell);
    }

    fn median(&self, row: usize, column: usize, of: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.cells[row][column].iter().filter_map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        if values.len() % 2 == 1 {
            values.get(middle).copied()
        } else {
            Some(f64::midpoint(*values.get(middle.checked_sub(1)?)?, *values.get(middle)?))
        }
    }

    /// The best of the bare loops in this column.
    fn limit(&self, column: usize, of: impl Fn(&Measured) -> Option<f64> + Copy) -> Option<f64> {
        let bare = self.rows.iter().enumerate().filter(|(_, (name, _))| name.starts_with("bare"));
        bare.filter_map(|(row, _)| self.median(row, column, of)).max_by(f64::total_cmp)
    }

    pub fn render(&self, rounds: usize, tokens: u32) -> String {
        let mut text = format!(
            "Durable one-shot consumes a second, {tokens} tokens, medians of {rounds} interleaved rounds; in \
             brackets the ratio to the best bare loop.\n\n"
        );
        let bytes_column = self.loads.iter().position(|&load| load == Load::Blocking(64)).unwrap_or(0);
        let bytes_at = self.loads.get(bytes_column).map_or(0, |load| load.threads());
        self.header(&mut text, &format!(" bytes written per op at {bytes_at} |"));
        for (row, (name, title)) in self.rows.iter().enumerate() {
            let _ = write!(text, "| {title} |");
            self.columns(&mut text, row, |cell| Some(cell.ops_per_second), thousands);
            let _ = match self.median(row, bytes_column, |cell| cell.bytes_per_op) {
                Some(bytes) if !name.starts_with("raw") => writeln!(text, " {} |", thousands(bytes)),
                _ => writeln!(text, " |"),
            };
        }
        text += "\nThe same in the time of one raw flush (`RWF_DSYNC`), which was measured just before and after each \
                 cell: what to compare when the disk drifts.\n\n";
        self.header(&mut text, "");
        for (row, (name, title)) in self.rows.iter().enumerate() {
            if !name.starts_with("raw") {
                let _ = write!(text, "| {title} |");
                self.columns(
                    &mut text,
                    row,
                    |cell| Some(cell.ops_per_raw_flush),
                    |value| format!("{value:.2}"),
                );
                text.push('\n');
            }
        }
        text
    }

    fn header(&self, text: &mut String, last: &str) {
        *text += "| durable consume |";
        for load in &self.loads {
            let _ = match load {
                Load::Blocking(1) => write!(text, " 1 thread |"),
                Load::Blocking(threads) => write!(text, " {threads} |"),
                Load::Pipelined { threads, depth } => write!(text, " pipelined {threads} x {depth} |"),
            };
        }
        let columns = self.loads.len() + usize::from(!last.is_empty());
        let _ = writeln!(text, "{last}\n|---|{}", "---:|".repeat(columns));
    }

    fn columns(
        &self,
        text: &mut String,
        row: usize,
        of: impl Fn(&Measured) -> Option<f64> + Copy,
        show: impl Fn(f64) -> String,
    ) {
        let raw = self.rows.get(row).is_some_and(|(name, _)| name.starts_with("raw"));
        for column in 0..self.loads.len() {
            let _ = match (self.median(row, column, of), self.limit(column, of)) {
                (None, _) => write!(text, " |"),
                (Some(value), Some(limit)) if !raw => {
                    write!(text, " {} ({:.2}) |", show(value), value / limit)
                }
                (Some(value), _) => write!(text, " {} |", show(value)),
            };
        }
    }
}

/// A whole number with its thousands set apart.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
