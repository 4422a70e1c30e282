//! The result as a picture: operations a second over the callers, on a logarithmic axis, as an SVG
//! with a background of its own, so that it can be read on light and on dark pages.

use crate::Load;
use crate::contest::Measured;
use crate::record::{Found, Record};
use crate::table::thousands;
use crate::work::Work;
use anyhow::{Result, ensure};
use std::fmt::Write as _;

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 440.0;
/// The corners of the plot within the picture.
const LEFT: f64 = 76.0;
const RIGHT: f64 = 580.0;
const TOP: f64 = 76.0;
const BOTTOM: f64 = 386.0;
/// The least distance of two labels, each of two lines.
const LABEL: f64 = 38.0;

const STYLE: &str = "
  .page { fill: #ffffff; stroke: #d0d7de; }
  .grid { stroke: #d8dee4; }
  text { fill: #1f2328; font: 13px system-ui, -apple-system, 'Segoe UI', sans-serif; }
  .head { font-size: 16px; font-weight: 600; }
  .name { font-weight: 600; }
  .note { fill: #59636e; font-size: 12px; }
  .line, .span { fill: none; stroke-width: 2; }
  .span { opacity: 0.6; }
  .line.cloakroom { stroke-width: 3.5; }
  .line.bare { stroke-dasharray: 6 4; }
  .line.cloakroom, .span.cloakroom { stroke: #0b5cd5; }
  .line.group, .span.group { stroke: #b35900; }
  .line.used, .span.used { stroke: #8250df; }
  .line.bare, .span.bare { stroke: #59636e; }
  .dot.cloakroom { fill: #0b5cd5; }
  .dot.group { fill: #b35900; }
  .dot.used { fill: #8250df; }
  .dot.bare { fill: #59636e; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #30363d; }
    .grid { stroke: #262c34; }
    text { fill: #e6edf3; }
    .note { fill: #9198a1; }
    .line.cloakroom, .span.cloakroom { stroke: #58a6ff; }
    .line.group, .span.group { stroke: #e3a053; }
    .line.used, .span.used { stroke: #c297ff; }
    .line.bare, .span.bare { stroke: #9198a1; }
    .dot.cloakroom { fill: #58a6ff; }
    .dot.group { fill: #e3a053; }
    .dot.used { fill: #c297ff; }
    .dot.bare { fill: #9198a1; }
  }
";

/// What was found with so many callers.
struct Point {
    callers: f64,
    median: f64,
    worst: f64,
    best: f64,
}

struct Series {
    class: &'static str,
    name: String,
    note: &'static str,
    points: Vec<Point>,
}

pub fn draw(record: &Record) -> Result<String> {
    let series = series(record);
    let points = || series.iter().flat_map(|series| &series.points);
    ensure!(points().next().is_some(), "there is nothing to draw: no load of waiting callers");
    let most = points().map(|point| point.best).fold(0.0, f64::max);
    let step = step(most / 5.0);
    let top = (most / step).ceil().max(1.0) * step;
    let callers = points().map(|point| point.callers);
    let (fewest, many) = callers
        .fold((f64::MAX, 1.0_f64), |(low, high), callers| (low.min(callers), high.max(callers)));
    let x = |callers: f64| {
        let part = if many > fewest { (callers / fewest).ln() / (many / fewest).ln() } else { 0.5 };
        LEFT + part * (RIGHT - LEFT)
    };
    let y = |value: f64| BOTTOM - value / top * (BOTTOM - TOP);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
         <title>Durable {} a second over callers</title>\n<style>{STYLE}</style>\n\
         <rect class=\"page\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n",
        record.work.units(),
        WIDTH - 1.0,
        HEIGHT - 1.0
    );
    heading(&mut svg, record);
    for tick in (0..).map(|number| f64::from(number) * step).take_while(|&tick| tick <= top) {
        let y = y(tick);
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>{}",
            text(LEFT - 10.0, y + 4.0, "note", "end", &thousands(tick))
        );
    }
    for callers in blocking(record).map(|(_, callers)| callers) {
        svg += &text(x(callers), BOTTOM + 20.0, "note", "middle", &thousands(callers));
    }
    let axis = "callers at once, each waiting for its answer";
    svg += &text(f64::midpoint(LEFT, RIGHT), BOTTOM + 40.0, "note", "middle", axis);
    for series in &series {
        lines(&mut svg, series, x, y);
    }
    labels(&mut svg, &series, y);
    svg += "</svg>\n";
    Ok(svg)
}

fn heading(svg: &mut String, record: &Record) {
    let what = match record.work {
        Work::Consume => "Durable one-shot consumes a second",
        Work::Lifecycle => "Durable lives a second: insert, then consume",
    };
    *svg += &text(20.0, 30.0, "head", "start", what);
    let raw = record.rows.iter().find(|row| row.name == "raw-dsync");
    let flush = raw.and_then(|row| row.median(0, |cell| Some(1e3 / cell.ops_per_second)));
    let flush = flush.map(|ms| format!(", a flush of {ms:.3} ms")).unwrap_or_default();
    let (rounds, cores) = (record.rounds, record.processors);
    let note = format!(
        "Medians of {rounds} interleaved rounds, bars from the worst to the best; {cores} processors{flush}"
    );
    *svg += &text(20.0, 50.0, "note", "start", &note);
}

/// The columns with waiting callers, and how many these are.
fn blocking(record: &Record) -> impl Iterator<Item = (usize, f64)> {
    record.loads.iter().enumerate().filter_map(|(column, load)| match load {
        Load::Blocking(callers) => Some((column, *callers as f64)),
        Load::Pipelined { .. } => None,
    })
}

/// The limit, cloakroom, and of each kind of peer the best.
fn series(record: &Record) -> Vec<Series> {
    let is_grouped = |row: &Found| row.name.starts_with("group-");
    let is_room = |row: &Found| row.name == "cloakroom";
    let is_peer =
        |row: &Found| !row.is_raw() && !row.is_bare() && !is_room(row) && !is_grouped(row);
    let one = |class, note, is_one: &dyn Fn(&Found) -> bool| {
        let row = best(record, is_one)?;
        let title = row.title.replace(['*', '`'], "");
        let name = title.trim_end_matches(" behind a group-commit thread").to_owned();
        Some(Series { class, name, note, points: points(record, |_| Some(row)) })
    };
    let limit = |column| {
        let bare = record.rows.iter().filter(|row| row.is_bare());
        bare.max_by(|one, other| speed(one, column).total_cmp(&speed(other, column)))
    };
    let limit = Series {
        class: "bare",
        name: "Bare loop".into(),
        note: "shares flushes, stores nothing",
        points: points(record, limit),
    };
    let found = [
        Some(limit).filter(|series| !series.points.is_empty()),
        one("used", "best engine as it is used", &is_peer),
        one("group", "best with group commit by hand", &is_grouped),
        one("cloakroom", "with its defaults", &is_room),
    ];
    found.into_iter().flatten().collect()
}

fn ops(cell: &Measured) -> Option<f64> {
    Some(cell.ops_per_second)
}

fn speed(row: &Found, column: usize) -> f64 {
    row.median(column, ops).unwrap_or(0.0)
}

/// The row with the highest geometric mean over all numbers of callers.
fn best<'a>(record: &'a Record, is_one: &dyn Fn(&Found) -> bool) -> Option<&'a Found> {
    let mean = |row: &Found| -> f64 {
        blocking(record).map(|(column, _)| speed(row, column).max(1e-9).ln()).sum()
    };
    let rows = record.rows.iter().filter(|row| is_one(row));
    rows.max_by(|one, other| mean(one).total_cmp(&mean(other)))
}

/// What the row of each column found.
fn points<'a>(record: &'a Record, row: impl Fn(usize) -> Option<&'a Found>) -> Vec<Point> {
    let mut points: Vec<Point> = blocking(record)
        .filter_map(|(column, callers)| {
            let row = row(column)?;
            let values = row.sorted(column, ops);
            let (worst, best) = (*values.first()?, *values.last()?);
            Some(Point { callers, median: row.median(column, ops)?, worst, best })
        })
        .collect();
    points.sort_by(|one, other| one.callers.total_cmp(&other.callers));
    points
}

/// The smallest of 1, 2, 5, 10, 20, .. that is at least this.
fn step(least: f64) -> f64 {
    let unit = 10_f64.powf(least.max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|part| part * unit)
        .into_iter()
        .find(|&step| step >= least)
        .unwrap_or(unit)
}

fn text(x: f64, y: f64, class: &str, anchor: &str, text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n"
    )
}

fn lines(svg: &mut String, series: &Series, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) {
    let class = series.class;
    let mut path = String::new();
    for (index, point) in series.points.iter().enumerate() {
        let (x, median) = (x(point.callers), y(point.median));
        let _ = write!(path, "{}{x:.1} {median:.1}", if index == 0 { 'M' } else { 'L' });
        let _ = writeln!(
            svg,
            "<path class=\"span {class}\" d=\"M{x:.1} {:.1}V{:.1}\"/>\
             <circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{median:.1}\" r=\"4\"/>",
            y(point.worst),
            y(point.best)
        );
    }
    let _ = writeln!(svg, "<path class=\"line {class}\" d=\"{path}\"/>");
}

/// The names at the right ends of the lines, moved apart where they would overlap.
fn labels(svg: &mut String, series: &[Series], y: impl Fn(f64) -> f64) {
    let end = |series: &Series| series.points.last().map_or(BOTTOM, |point| y(point.median));
    let mut labels: Vec<(f64, &Series)> =
        series.iter().map(|series| (end(series), series)).collect();
    labels.sort_by(|one, other| one.0.total_cmp(&other.0));
    // From below upwards, so that none leaves the picture.
    let mut lowest = BOTTOM;
    for (at, _) in labels.iter_mut().rev() {
        *at = at.min(lowest);
        lowest = *at - LABEL;
    }
    for (at, series) in labels {
        let x = RIGHT + 16.0;
        let _ = write!(
            svg,
            "<circle class=\"dot {}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"/>{}{}",
            series.class,
            x,
            at - 1.0,
            text(x + 12.0, at + 4.0, "name", "start", &series.name),
            text(x + 12.0, at + 19.0, "note", "start", series.note)
        );
    }
}
