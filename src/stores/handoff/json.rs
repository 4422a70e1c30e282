//! The bytes of a state: JSON, compact unless the caller has written it.

mod any_value;

use crate::error::{Error, Result};
use crate::limits::MAX_STATE_DEPTH;
use crate::tables::Table;
use any_value::AnyObject;
use serde::Deserialize;
use serde_json::Value;

/// A state: any JSON object. It comes back equal, its numbers bit for bit.
pub type JsonObject = serde_json::Map<String, Value>;

/// The JSON of `state`.
pub(crate) fn encode(state: &JsonObject) -> Result<Vec<u8>> {
    if state.values().any(|value| is_deeper_than(value, MAX_STATE_DEPTH - 1)) {
        return Err(too_deep());
    }
    serde_json::to_vec(state).map_err(|error| Error::Encode(error.to_string()))
}

/// The JSON of `state` as text.
pub(crate) fn encode_text(state: &JsonObject) -> Result<String> {
    String::from_utf8(encode(state)?).map_err(|error| Error::Encode(error.to_string()))
}

/// The state that [`encode`] wrote.
pub(crate) fn decode(json: &[u8]) -> Result<JsonObject> {
    // serde_json by itself reads 127 levels, which is nearly every state. Deeper ones have their
    // depth counted first, so that damaged bytes cannot ask for more stack than there is.
    serde_json::from_slice(json).or_else(|error| {
        if nesting(json) > MAX_STATE_DEPTH {
            return Err(damaged("nested deeper than a state can be"));
        }
        if !error.is_syntax() {
            return Err(damaged(&error.to_string()));
        }
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        deserializer.disable_recursion_limit();
        let state = JsonObject::deserialize(&mut deserializer);
        state
            .and_then(|state| deserializer.end().map(|()| state))
            .map_err(|error| damaged(&error.to_string()))
    })
}

/// Refuses what is not the JSON of one state. It is read by the parser that [`decode`] uses, so
/// that what passes is decoded later, but nothing is built.
pub(crate) fn check(json: &str) -> Result<()> {
    if nesting(json.as_bytes()) > MAX_STATE_DEPTH {
        return Err(too_deep());
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    deserializer.disable_recursion_limit();
    AnyObject::deserialize(&mut deserializer)
        .and_then(|_| deserializer.end())
        .map_err(|error| Error::Encode(format!("the state is no JSON object: {error}")))
}

/// The JSON of a row as text.
pub(crate) fn text(json: &[u8]) -> Result<String> {
    std::str::from_utf8(json).map(str::to_owned).map_err(|_| damaged("bytes that are not UTF-8"))
}

fn too_deep() -> Error {
    Error::Encode(format!("the state is nested deeper than {MAX_STATE_DEPTH} levels"))
}

fn damaged(detail: &str) -> Error {
    Error::corrupted(format!("a row of table {}", Table::HANDOFF.name()), detail)
}

/// Whether `value` has more than `depth` levels. Looks no deeper than that.
fn is_deeper_than(value: &Value, depth: usize) -> bool {
    let Some(below) = depth.checked_sub(1) else {
        return matches!(value, Value::Array(_) | Value::Object(_));
    };
    match value {
        Value::Array(items) => items.iter().any(|item| is_deeper_than(item, below)),
        Value::Object(fields) => fields.values().any(|field| is_deeper_than(field, below)),
        _ => false,
    }
}

/// How deep the brackets of `json` go, those inside strings left out.
pub(crate) fn nesting(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for &byte in json {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> JsonObject {
        let Value::Object(object) = value else { panic!("not an object: {value}") };
        object
    }

    fn nested(levels: usize) -> JsonObject {
        let inner = (1..levels).fold(Value::Null, |inner, level| match (level, level % 2) {
            (1, _) => json!([]),
            (_, 0) => json!({ "[\"{": inner }),
            _ => json!([inner]),
        });
        object(json!({ "in": inner }))
    }

    #[test]
    fn raw_json_is_refused_exactly_when_it_is_not_decoded() {
        for (json, is_state) in [
            ("{}", true),
            (" {\"a\": [1, 2.50, -0], \"a\": null}\n", true),
            (r#"{"\u00e9": "\ud83d\ude00", "n": 123456789012345678901234567890}"#, true),
            ("", false),
            ("[]", false),
            ("null", false),
            ("\"{}\"", false),
            ("{", false),
            ("{}{}", false),
            ("{} x", false),
            ("{\"a\": 01}", false),
            ("{\"a\": 1e400}", false),
            ("{\"a\": NaN}", false),
            ("{\"a\": \"\\ud800\"}", false),
            ("{\"a\": \"\u{1}\"}", false),
            ("{a: 1}", false),
            ("{\"a\": 1,}", false),
        ] {
            assert_eq!(decode(json.as_bytes()).is_ok(), is_state, "decode {json}");
            assert_eq!(check(json).is_ok(), is_state, "check {json}");
            assert!(is_state || matches!(check(json), Err(Error::Encode(_))), "{json}");
        }
        let nested = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        assert!(check(&nested(MAX_STATE_DEPTH)).is_ok());
        assert!(decode(nested(MAX_STATE_DEPTH).as_bytes()).is_ok());
        assert!(matches!(check(&nested(MAX_STATE_DEPTH + 1)), Err(Error::Encode(_))));
        assert!(matches!(check(&nested(1_000_000)), Err(Error::Encode(_))));
    }

    #[test]
    fn numbers_come_back_bit_for_bit() {
        let numbers: Vec<Value> = vec![
            json!(u64::MAX),
            json!(i64::MIN),
            json!(0),
            json!(-0.0),
            json!(0.1 + 0.2),
            json!(f64::MAX),
            json!(f64::MIN_POSITIVE),
            json!(5e-324),
            json!(1e16),
            json!(9_007_199_254_740_993_u64),
            // Reads wrongly by one bit without exact parsing.
            json!(2.638_344_616_030_823_6e-256),
        ];
        let state = object(json!({ "n": numbers }));
        let back = decode(&encode(&state).unwrap()).unwrap();
        assert_eq!(back, state);
        for (was, is) in numbers.iter().zip(back["n"].as_array().unwrap()) {
            assert_eq!(was.is_f64(), is.is_f64(), "{was}");
            assert_eq!(was.as_f64().map(f64::to_bits), is.as_f64().map(f64::to_bits), "{was}");
        }
    }

    #[test]
    fn unicode_control_characters_and_odd_keys_come_back() {
        let state = object(json!({
            "": [], "\u{0}\u{1f}\"\\": "\u{10ffff}\u{fffd}é𝄞\u{2028}", "z": { "a": [null, true, [{}]] }, "a": "",
        }));
        assert_eq!(decode(&encode(&state).unwrap()).unwrap(), state);
    }

    #[test]
    fn the_bytes_are_frozen() {
        assert_eq!(
            encode(&object(json!({ "k": [1, -0.0, "é"] }))).unwrap(),
            r#"{"k":[1,-0.0,"é"]}"#.as_bytes()
        );
    }

    #[test]
    fn states_nest_to_the_limit_and_no_deeper() {
        for levels in [1, 127, 128, 200, MAX_STATE_DEPTH] {
            let state = nested(levels);
            let json = encode(&state).unwrap();
            assert_eq!(nesting(&json), levels);
            assert_eq!(decode(&json).unwrap(), state);
        }
        assert!(matches!(encode(&nested(MAX_STATE_DEPTH + 1)), Err(Error::Encode(_))));
    }

    #[test]
    fn damaged_bytes_are_corruption_and_never_overflow_the_stack() {
        let good = encode(&object(json!({ "k": "v" }))).unwrap();
        for cut in 0..good.len() {
            assert!(matches!(decode(&good[..cut]), Err(Error::Corrupted { .. })));
        }
        for bad in
            [&b"[]"[..], b"null", b"{} x", b"{\"k\":\"\xff\"}", b"{\"k\":1e999}", &[b'['; 1 << 20]]
        {
            assert!(matches!(decode(bad), Err(Error::Corrupted { .. })));
        }
        let deep =
            [b"{\"k\":".to_vec(), vec![b'['; 300], vec![b']'; 300], b"} x".to_vec()].concat();
        assert!(matches!(decode(&deep), Err(Error::Corrupted { .. })));
    }
}
