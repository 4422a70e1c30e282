//! The result: medians over the rounds, as a Markdown table.

use crate::Load;
use std::fmt::Write as _;

#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub ops: f64,
    pub bytes: Option<f64>,
}

pub struct Table {
    rows: Vec<(&'static str, &'static str)>,
    loads: Vec<Load>,
    /// By row, by column, what each round found.
    cells: Vec<Vec<Vec<Cell>>>,
}

impl Table {
    pub fn new(rows: impl Iterator<Item = (&'static str, &'static str)>, loads: &[Load]) -> Self {
        let rows: Vec<_> = rows.collect();
        let cells = vec![vec![Vec::new(); loads.len()]; rows.len()];
        Self { rows, loads: loads.to_vec(), cells }
    }

    pub fn add(&mut self, row: usize, column: usize, cell: Cell) {
        self.cells[row][column].push(cell);
    }

    fn median(&self, row: usize, column: usize, of: impl Fn(&Cell) -> Option<f64>) -> Option<f64> {
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
    fn limit(&self, column: usize) -> Option<f64> {
        let bare = self.rows.iter().enumerate().filter(|(_, (name, _))| name.starts_with("bare"));
        bare.filter_map(|(row, _)| self.median(row, column, |cell| Some(cell.ops))).max_by(f64::total_cmp)
    }

    pub fn render(&self, rounds: usize, tokens: u32) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "Durable one-shot consumes a second, {tokens} tokens, medians of {rounds} interleaved rounds; in brackets \
             the ratio to the best bare loop.\n"
        );
        text += "| durable consume |";
        for load in &self.loads {
            let _ = match load {
                Load::Blocking(1) => write!(text, " 1 thread |"),
                Load::Blocking(threads) => write!(text, " {threads} |"),
                Load::Pipelined { threads, depth } => write!(text, " pipelined {threads} x {depth} |"),
            };
        }
        let bytes_column = self.loads.iter().position(|&load| load == Load::Blocking(64)).unwrap_or(0);
        let bytes_at = self.loads.get(bytes_column).map_or(0, |load| load.threads());
        let _ = writeln!(text, " bytes written per op at {bytes_at} |");
        let _ = writeln!(text, "|---|{}", "---:|".repeat(self.loads.len() + 1));
        for (row, (name, title)) in self.rows.iter().enumerate() {
            let _ = write!(text, "| {title} |");
            for column in 0..self.loads.len() {
                let _ = match (self.median(row, column, |cell| Some(cell.ops)), self.limit(column)) {
                    (None, _) => write!(text, " |"),
                    (Some(ops), Some(limit)) if !name.starts_with("raw") => {
                        write!(text, " {} ({:.2}) |", thousands(ops), ops / limit)
                    }
                    (Some(ops), _) => write!(text, " {} |", thousands(ops)),
                };
            }
            let _ = match self.median(row, bytes_column, |cell| cell.bytes) {
                Some(bytes) => writeln!(text, " {} |", thousands(bytes)),
                _ => writeln!(text, " |"),
            };
        }
        text
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
