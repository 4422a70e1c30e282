//! The bytes of a cached value: compact JSON, which outlives the version of the program that wrote
//! it.

use super::strict::{self, StrictJson};
use crate::error::{Error, Result};
use crate::limits::MAX_STATE_DEPTH;
use crate::stores::handoff::json::nesting;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The JSON of `value`. It is read back as a value that is equal in kind, or else it is an error.
pub(crate) fn encode<T: Serialize + DeserializeOwned>(value: &T) -> Result<Vec<u8>> {
    let StrictJson { json, is_doubtful } =
        strict::to_json(value).map_err(|error| Error::Encode(error.to_string()))?;
    if nesting(&json) > MAX_STATE_DEPTH {
        return Err(Error::Encode(format!(
            "the value is nested deeper than {MAX_STATE_DEPTH} levels"
        )));
    }
    if is_doubtful && decode::<T>(&json).is_none() {
        return Err(Error::Encode(
            "its type does not read its JSON back; keys that are no strings, numbers of more than 64 bits and fields \
             of one name do not go through an enum with a tag or a flattened field"
                .into(),
        ));
    }
    Ok(json)
}

/// The value that [`encode`] wrote, or `None` when it is not one of this type any more.
pub(crate) fn decode<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    if let Ok(value) = serde_json::from_slice(json) {
        return Some(value);
    }
    // serde_json by itself reads 127 levels, which is nearly every value. Only deeper ones are
    // tried again, and no deeper than `encode` lets them be, so that damaged bytes cannot ask for
    // more stack than there is.
    if !(127..=MAX_STATE_DEPTH).contains(&nesting(json)) {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    deserializer.disable_recursion_limit();
    let value = T::deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn nested(levels: usize) -> Value {
        (0..levels).fold(Value::Null, |inner, _| json!([inner]))
    }

    #[test]
    fn values_come_back_to_the_greatest_depth() {
        for value in
            [json!(null), json!({ "a": [1, 0.1, "é"] }), nested(130), nested(MAX_STATE_DEPTH)]
        {
            assert_eq!(decode::<Value>(&encode(&value).unwrap()), Some(value));
        }
        assert!(matches!(encode(&nested(MAX_STATE_DEPTH + 1)), Err(Error::Encode(_))));
    }

    #[test]
    fn what_json_cannot_hold_is_an_encode_error() {
        let map = BTreeMap::from([((1, 2), 3)]);
        assert!(matches!(encode(&map), Err(Error::Encode(_))));
    }

    #[test]
    fn another_type_and_damage_are_none() {
        assert_eq!(decode::<u8>(b"\"text\""), None);
        for json in [&b""[..], b"{", b"1 2", b"\xff"] {
            assert_eq!(decode::<Value>(json), None);
        }
        assert_eq!(decode::<Value>("[".repeat(100_000).as_bytes()), None);
    }
}
