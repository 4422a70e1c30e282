//! What limiters keep beside their windows: configurations and cooldowns.

use crate::codec;
use crate::engine::access::Reader;
use crate::error::Result;
use crate::stores::lines::{
    EmitLine, Entry, Fields, LineReader, LineWriter, Problem, damaged_key, must_be, name_and_text,
    said, single,
};
use crate::stores::rate_limit::RateLimitConfig;
use crate::stores::rate_limit::limiter::{ConfigRow, CooldownRow, Kind, Limiter};
use crate::stores::row_check::StoredRow;
use crate::tables::Table;
use std::time::Duration;

const CONFIG: &str = "rate_limit_config";
const COOLDOWN: &str = "rate_limit_cooldown";

/// A limiter and something of it, as the keys of several tables have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LimiterKey {
    pub(crate) kind: Kind,
    pub(crate) limiter: String,
    /// A resource or an origin.
    pub(crate) of: String,
}

impl LimiterKey {
    /// The place that a key of `table` names.
    pub(crate) fn decode(table: Table, key: &[u8]) -> Result<Self> {
        let (&number, rest) = key.split_first().ok_or_else(|| damaged_key(table))?;
        let kind = kind_of(number).ok_or_else(|| damaged_key(table))?;
        let (limiter, of) = name_and_text(table, rest)?;
        Ok(Self { kind, limiter, of })
    }

    pub(crate) fn limiter(&self) -> Limiter<'_> {
        // What a limiter is by default does not matter to its keys.
        let config = RateLimitConfig::default();
        Limiter { kind: self.kind, name: &self.limiter, config, longest_ms: 0 }
    }

    /// The key of a resource or origin, unless a part is too long.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        self.limiter().resource_key(&self.of)
    }
}

/// The kind of limiters with this number in keys.
pub(crate) fn kind_of(number: u8) -> Option<Kind> {
    [Kind::Plain, Kind::Adaptive].into_iter().find(|kind| *kind as u8 == number)
}

pub(crate) fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Plain => "plain",
        Kind::Adaptive => "adaptive",
    }
}

fn write_place(line: &mut LineWriter, place: &LimiterKey, of: &str) {
    line.text("limiter_kind", kind_text(place.kind));
    line.text("limiter", &place.limiter);
    line.text(of, &place.of);
}

fn read_place(fields: &mut Fields<'_>, of: &str) -> Result<LimiterKey, Problem> {
    let kind = match fields.text("limiter_kind")?.as_str() {
        "plain" => Kind::Plain,
        "adaptive" => Kind::Adaptive,
        _ => return Err(must_be("limiter_kind", "\"plain\" or \"adaptive\"")),
    };
    Ok(LimiterKey { kind, limiter: fields.text("limiter")?, of: fields.text(of)? })
}

pub(crate) fn write_config(
    line: &mut LineWriter,
    _: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    let StoredRow { key, value, .. } = row;
    let place = LimiterKey::decode(Table::RATE_LIMIT_CONFIG, key)?;
    let row: ConfigRow = codec::decode_row(Table::RATE_LIMIT_CONFIG.name(), value)?;
    line.begin(CONFIG);
    write_place(line, &place, "resource");
    line.number("limit", row.limit);
    line.number("window_seconds", row.window_seconds);
    line.number("window_nanos", row.window_nanos.into());
    emit(CONFIG, line)
}

/// What reads the lines of configurations.
pub(crate) fn config_reader() -> Box<dyn LineReader> {
    single(&[CONFIG], read_config)
}

fn read_config(fields: &mut Fields<'_>) -> Result<Entry, Problem> {
    let place = read_place(fields, "resource")?;
    let limit = fields.number("limit")?;
    let window_seconds = fields.number("window_seconds")?;
    let window_nanos = u32::try_from(fields.number("window_nanos")?).ok();
    let window_nanos = window_nanos
        .filter(|nanos| *nanos < 1_000_000_000)
        .ok_or_else(|| must_be("window_nanos", "from 0 to 999999999"))?;
    let window = Duration::new(window_seconds, window_nanos);
    RateLimitConfig { limit, window }.check().map_err(said)?;
    let value = codec::encode(&ConfigRow { limit, window_seconds, window_nanos }).map_err(said)?;
    Ok(Entry::new(Table::RATE_LIMIT_CONFIG, place.encode().map_err(said)?, value))
}

/// There is nothing to write when the limiter was cleared after the cooldown was set.
pub(crate) fn write_cooldown(
    line: &mut LineWriter,
    rows: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    let StoredRow { key, value, .. } = row;
    let place = LimiterKey::decode(Table::RATE_LIMIT_COOLDOWN, key)?;
    let row: CooldownRow = codec::decode_row(Table::RATE_LIMIT_COOLDOWN.name(), value)?;
    if row.clears != place.limiter().clears(rows)? {
        return Ok(());
    }
    line.begin(COOLDOWN);
    write_place(line, &place, "origin");
    line.number("until_ms", row.until_ms);
    emit(COOLDOWN, line)
}

/// What reads the lines of cooldowns.
pub(crate) fn cooldown_reader() -> Box<dyn LineReader> {
    single(&[COOLDOWN], read_cooldown)
}

fn read_cooldown(fields: &mut Fields<'_>) -> Result<Entry, Problem> {
    let place = read_place(fields, "origin")?;
    let until_ms = fields.number("until_ms")?;
    let row = CooldownRow {
        clears: 0,
        until_ms,
        ends_at: fields.moment().deadline_at_trusted_wall(until_ms),
    };
    let value = codec::encode(&row).map_err(said)?;
    Ok(Entry::new(Table::RATE_LIMIT_COOLDOWN, place.encode().map_err(said)?, value))
}
