//! Rows in a form that people can read: what the schemas of tables have in common.

use crate::codec::key;
use crate::engine::time_line::Deadline;
use crate::error::{Error, Result};
use crate::tables::Table;
use serde_json::{Value, json};

/// That a key does not decode.
pub(crate) fn no_key(detail: &str) -> Error {
    Error::corrupted("the key", detail)
}

/// The text that a key, or a part of one, is.
pub(crate) fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| no_key("it is not UTF-8"))
}

/// The string parts of a key, the last one as it stands.
pub(crate) fn parts<const N: usize>(mut key: &[u8], names: [&str; N]) -> Result<Value> {
    let mut parts = serde_json::Map::new();
    for (index, name) in names.into_iter().enumerate() {
        let part = match index + 1 == N {
            true => key.to_vec(),
            false => key::take_bytes(&mut key).ok_or_else(|| no_key("a part has no end"))?,
        };
        parts.insert(name.into(), text(&part)?.into());
    }
    Ok(Value::Object(parts))
}

/// The value of a row of `table`, which has none.
pub(crate) fn no_value(table: Table, value: &[u8]) -> Result<Value> {
    if value.is_empty() {
        return Ok(json!({}));
    }
    let location = format!("a row of table {}", table.name());
    Err(Error::corrupted(location, "a value where there is none"))
}

/// When a span ends, as it is in a row.
pub(crate) fn deadline(deadline: Deadline) -> Value {
    json!({ "epoch": deadline.epoch, "time_ms": deadline.at_ms })
}
