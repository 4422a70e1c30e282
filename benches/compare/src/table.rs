//! The result as Markdown tables: medians over the rounds.

use crate::Load;
use crate::contest::Measured;
use crate::cost::Cost;
use crate::record::{Found, Record};
use crate::work::Work;
use std::fmt::Write as _;

pub fn render(record: &Record) -> String {
    let (unit, units) = (record.work.unit(), record.work.units());
    let what = match record.work {
        Work::Consume => String::new(),
        Work::Lifecycle => format!(
            " A life is an insert and then a consume, each durable before it is answered; it ends \
             after {} s.",
            record.life_seconds
        ),
    };
    let mut text = format!(
        "Durable {units} a second, {} tokens, medians of {} interleaved rounds; in brackets the ratio \
         to the best bare loop. Then, up to the last answer, microseconds of processor time and bytes \
         to the device, for each {unit}.{what}\n\n",
        record.tokens, record.rounds
    );
    header(&mut text, record);
    for row in &record.rows {
        line(&mut text, row, |column| {
            let speed = ratio(record, row, column, |cell| Some(cell.ops_per_second), thousands)?;
            Some(format!("{speed}, {}", cost(row, column, |cell| Some(cell.cost))?))
        });
    }
    if record.settle_seconds > 0.0 {
        let _ = writeln!(
            text,
            "\nThe same costs with {} s of rest after the last answer, in which engines do what they put \
             off.\n",
            record.settle_seconds
        );
        header(&mut text, record);
        for row in record.rows.iter().filter(|row| !row.is_raw()) {
            line(&mut text, row, |column| cost(row, column, |cell| cell.settled));
        }
    }
    let _ = writeln!(
        text,
        "\nThe {units} in the time of one raw flush (`RWF_DSYNC`), which was measured just before and after \
         each cell: what to compare when the disk drifts.\n"
    );
    header(&mut text, record);
    for row in record.rows.iter().filter(|row| !row.is_raw()) {
        line(&mut text, row, |column| {
            let show = |value| format!("{value:.2}");
            ratio(record, row, column, |cell| Some(cell.ops_per_raw_flush), show)
        });
    }
    text
}

fn header(text: &mut String, record: &Record) {
    let _ = write!(text, "| durable {} |", record.work.unit());
    for load in &record.loads {
        let _ = match load {
            Load::Blocking(1) => write!(text, " 1 thread |"),
            Load::Blocking(threads) => write!(text, " {threads} |"),
            Load::Pipelined { threads, depth } => write!(text, " pipelined {threads} x {depth} |"),
        };
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(record.loads.len()));
}

fn line(text: &mut String, row: &Found, cell: impl Fn(usize) -> Option<String>) {
    let _ = write!(text, "| {} |", row.title);
    for column in 0..row.cells.len() {
        let _ = match cell(column) {
            Some(cell) => write!(text, " {cell} |"),
            None => write!(text, " |"),
        };
    }
    text.push('\n');
}

/// A value and in brackets its ratio to the best bare loop.
fn ratio(
    record: &Record,
    row: &Found,
    column: usize,
    of: impl Fn(&Measured) -> Option<f64> + Copy,
    show: impl Fn(f64) -> String,
) -> Option<String> {
    let value = row.median(column, of)?;
    Some(match record.limit(column, of) {
        Some(limit) if !row.is_raw() => format!("{} ({:.2})", show(value), value / limit),
        _ => show(value),
    })
}

fn cost(
    row: &Found,
    column: usize,
    of: impl Fn(&Measured) -> Option<Cost> + Copy,
) -> Option<String> {
    let processor = row.median(column, |cell| Some(of(cell)?.processor_us))?;
    let bytes = row.median(column, |cell| of(cell)?.bytes);
    let bytes = bytes.map(|bytes| format!(", {} B", thousands(bytes))).unwrap_or_default();
    Some(format!("{processor:.1} µs{bytes}"))
}

/// A whole number with its thousands set apart.
pub fn thousands(value: f64) -> String {
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
