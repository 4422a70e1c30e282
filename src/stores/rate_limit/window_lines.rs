//! The windows of limiters: one line for the window, then lines with its requests.
//!
//! A line says what a window answers and not how its rows say it: how often its limiter was
//! cleared, the numbers of windows and requests, epochs and garbage are left out, and are counted
//! anew by an import.

use super::lines::LimiterKey;
use crate::codec;
use crate::engine::access::Reader;
use crate::error::Result;
use crate::stores::adaptive_rate_limit::row::{ADMITTED, BACKGROUND, ResourceRow, USER};
use crate::stores::lines::{
    EmitLine, Entry, Fields, LineReader, LineWriter, Problem, must_be, said,
};
use crate::stores::rate_limit::history::{self, History, Requests};
use crate::stores::rate_limit::limiter::{Kind, LAST_ID_KEY};
use crate::stores::rate_limit::ops::{LANE, WindowRow};
use crate::stores::row_check::StoredRow;
use crate::tables::Table;

const PLAIN: &str = "rate_limit";
const PLAIN_REQUESTS: &str = "rate_limit_requests";
const ADAPTIVE: &str = "adaptive_rate_limit";
const ADAPTIVE_REQUESTS: &str = "adaptive_rate_limit_requests";

/// The most pairs in one line of requests.
const PAIRS_PER_LINE: usize = 1_024;

/// The lanes of an adaptive window, and where a line has them.
const LANES: [(u8, &str, &str); 3] = [
    (USER, "user", "user_idle_since_ms"),
    (BACKGROUND, "background", "background_idle_since_ms"),
    (ADMITTED, "admitted", "admitted_idle_since_ms"),
];

/// Writes the lines of a plain window.
pub(crate) fn write_plain(
    line: &mut LineWriter,
    rows: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    let StoredRow { key, value, .. } = row;
    let place = LimiterKey::decode(Table::RATE_LIMIT, key)?;
    let row = WindowRow::decode(value)?;
    if row.clears != place.limiter().clears(rows)? {
        // It was forgotten, and is to every call as one that is not there.
        return Ok(());
    }
    let history = row.history;
    line.begin(PLAIN);
    let now = rows.moment();
    let wall = |event_ms| now.wall_of_event(event_ms);
    write_window(line, &place, row.keep_ms, row.indexed_at.map(|at| now.wall_of(at)));
    line.optional_number("idle_since_ms", history.idle_since_ms().map(wall));
    emit(PLAIN, line)?;
    write_requests(
        line,
        rows,
        &place,
        (&history, history::HistoryId { id: row.id, lane: LANE }),
        emit,
    )
}

/// Writes the lines of an adaptive window.
pub(crate) fn write_adaptive(
    line: &mut LineWriter,
    rows: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    let StoredRow { key, value, .. } = row;
    let place = LimiterKey::decode(Table::ADAPTIVE_RATE_LIMIT, key)?;
    let row = ResourceRow::decode(value)?;
    if row.clears != place.limiter().clears(rows)? {
        return Ok(());
    }
    line.begin(ADAPTIVE);
    let now = rows.moment();
    let wall = |event_ms| now.wall_of_event(event_ms);
    write_window(line, &place, row.keep_ms, row.indexed_at.map(|at| now.wall_of(at)));
    for (lane, _, idle_since) in LANES {
        line.optional_number(idle_since, lane_of(&row, lane).idle_since_ms().map(wall));
    }
    emit(ADAPTIVE, line)?;
    for (lane, ..) in LANES {
        let history = lane_of(&row, lane);
        write_requests(
            line,
            rows,
            &place,
            (history, history::HistoryId { id: row.id, lane }),
            emit,
        )?;
    }
    Ok(())
}

fn lane_of(row: &ResourceRow, lane: u8) -> &History {
    match lane {
        USER => &row.user,
        BACKGROUND => &row.background,
        _ => &row.admitted,
    }
}

fn write_window(
    line: &mut LineWriter,
    place: &LimiterKey,
    keep_ms: u64,
    indexed_at_ms: Option<u64>,
) {
    line.text("limiter", &place.limiter);
    line.text("resource", &place.of);
    line.number("keep_ms", keep_ms);
    line.optional_number("indexed_at_ms", indexed_at_ms);
}

/// Writes the lines with the requests of one history.
fn write_requests(
    line: &mut LineWriter,
    rows: &mut dyn Reader,
    place: &LimiterKey,
    (history, at): (&History, history::HistoryId),
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    let mut after_ms = None;
    loop {
        let page = history.requests(rows, at, after_ms, PAIRS_PER_LINE)?;
        let Some(last) = page.last() else { return Ok(()) };
        after_ms = Some(last.at_ms);
        let kind = match place.kind {
            Kind::Plain => PLAIN_REQUESTS,
            Kind::Adaptive => ADAPTIVE_REQUESTS,
        };
        line.begin(kind);
        line.text("limiter", &place.limiter);
        line.text("resource", &place.of);
        if place.kind == Kind::Adaptive {
            let lane = LANES.iter().find(|(lane, ..)| *lane == at.lane);
            line.text("lane", lane.map_or("", |(_, name, _)| name));
        }
        let now = rows.moment();
        let wall = |at_ms| now.wall_of_event(at_ms);
        line.pairs("requests", page.iter().map(|requests| (wall(requests.at_ms), requests.count)));
        emit(kind, line)?;
        if page.len() < PAIRS_PER_LINE {
            return Ok(());
        }
    }
}

/// What reads the lines of windows of both kinds, which share their numbers.
pub(crate) fn reader() -> Box<dyn LineReader> {
    Box::new(Windows::default())
}

/// What reading windows needs to remember from line to line.
#[derive(Debug, Default)]
struct Windows {
    /// The last number that was given to a window.
    last_id: u64,
    /// The window that lines of requests may go on with.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    place: LimiterKey,
    row: OpenRow,
}

#[derive(Debug)]
enum OpenRow {
    Plain(WindowRow),
    Adaptive(Box<ResourceRow>),
}

impl Open {
    /// The entry with the window as it is now.
    fn entry(&self) -> Result<Entry, Problem> {
        let key = self.place.encode().map_err(said)?;
        let (table, value) = match &self.row {
            OpenRow::Plain(row) => (Table::RATE_LIMIT, row.encode()),
            OpenRow::Adaptive(row) => (Table::ADAPTIVE_RATE_LIMIT, row.encode()),
        };
        Ok(Entry::new(table, key, value.map_err(said)?))
    }
}

impl LineReader for Windows {
    fn kinds(&self) -> &'static [&'static str] {
        &[PLAIN, PLAIN_REQUESTS, ADAPTIVE, ADAPTIVE_REQUESTS]
    }

    fn read(&mut self, kind: &str, fields: &mut Fields<'_>) -> Result<Entry, Problem> {
        match kind {
            PLAIN => self.read_plain(fields),
            PLAIN_REQUESTS => self.read_requests(fields, Kind::Plain),
            ADAPTIVE => self.read_adaptive(fields),
            _ => self.read_requests(fields, Kind::Adaptive),
        }
    }

    fn interrupt(&mut self) {
        self.open = None;
    }
}

impl Windows {
    /// Begins a window.
    fn begin(
        &mut self,
        place: LimiterKey,
        row: impl FnOnce(u64) -> OpenRow,
    ) -> Result<Entry, Problem> {
        self.last_id += 1;
        let last_id = codec::encode(&self.last_id).map_err(said)?;
        let open = Open { place, row: row(self.last_id) };
        let entry = open.entry()?.and(Table::RATE_LIMIT_STORE, LAST_ID_KEY.to_vec(), last_id);
        self.open = Some(open);
        Ok(entry)
    }

    fn read_plain(&mut self, fields: &mut Fields<'_>) -> Result<Entry, Problem> {
        let place = read_place(fields, Kind::Plain)?;
        let keep_ms = fields.number("keep_ms")?;
        let indexed_at = fields.optional_deadline("indexed_at_ms")?;
        let history = History::idle(optional_event(fields, "idle_since_ms")?);
        self.begin(place, |id| {
            OpenRow::Plain(WindowRow { clears: 0, id, keep_ms, indexed_at, history })
        })
    }

    fn read_adaptive(&mut self, fields: &mut Fields<'_>) -> Result<Entry, Problem> {
        let place = read_place(fields, Kind::Adaptive)?;
        let keep_ms = fields.number("keep_ms")?;
        let indexed_at = fields.optional_deadline("indexed_at_ms")?;
        let mut lane = |name: &str| optional_event(fields, name).map(History::idle);
        let user = lane("user_idle_since_ms")?;
        let background = lane("background_idle_since_ms")?;
        let admitted = lane("admitted_idle_since_ms")?;
        self.begin(place, |id| {
            let row =
                ResourceRow { clears: 0, id, keep_ms, indexed_at, user, background, admitted };
            OpenRow::Adaptive(Box::new(row))
        })
    }

    /// Adds requests to the window that the lines before are about. A problem leaves nothing of the
    /// line.
    fn read_requests(&mut self, fields: &mut Fields<'_>, kind: Kind) -> Result<Entry, Problem> {
        let place = read_place(fields, kind)?;
        let lane = match kind {
            Kind::Plain => LANE,
            Kind::Adaptive => {
                let name = fields.text("lane")?;
                let lane = LANES.into_iter().find(|(_, lane, _)| *lane == name);
                lane.ok_or_else(|| must_be("lane", "\"user\", \"background\" or \"admitted\""))?.0
            }
        };
        let requests = fields.pairs("requests")?;
        if !(1..=PAIRS_PER_LINE).contains(&requests.len()) {
            return Err(must_be("requests", &format!("1 to {PAIRS_PER_LINE} pairs")));
        }
        let open = self.open.as_mut().filter(|open| open.place == place);
        let open = open.ok_or("requests stand right behind the window that they are of")?;
        let (id, history) = match &mut open.row {
            OpenRow::Plain(row) => (row.id, &mut row.history),
            OpenRow::Adaptive(row) => match lane {
                USER => (row.id, &mut row.user),
                BACKGROUND => (row.id, &mut row.background),
                _ => (row.id, &mut row.admitted),
            },
        };
        let at = history::HistoryId { id, lane };
        let mut added = Vec::with_capacity(requests.len());
        for (wall_ms, count) in requests {
            let at_ms = fields.moment().event_at_wall(wall_ms);
            let row = history.append(at, Requests { at_ms, count });
            let (key, value) = row.map_err(|what| format!("field \"requests\": {what}"))?;
            added.push((Table::RATE_LIMIT_REQUEST, key, value));
        }
        let goes_on = Some("the window that it is of has gone");
        let mut entry = Entry { goes_on, ..open.entry()? };
        entry.rows.extend(added);
        Ok(entry)
    }
}

fn read_place(fields: &mut Fields<'_>, kind: Kind) -> Result<LimiterKey, Problem> {
    Ok(LimiterKey { kind, limiter: fields.text("limiter")?, of: fields.text("resource")? })
}

/// A point in time that may not be there, as an event on the line of this room.
fn optional_event(fields: &mut Fields<'_>, name: &str) -> Result<Option<u64>, Problem> {
    Ok(fields.optional_deadline(name)?.map(|at| at.at_ms))
}
