//! How a line writes values that JSON has no type for: bytes, and JSON that a row holds as text.

use crate::stores::cache::json;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

/// The base64 of `bytes`: the standard alphabet, padded.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes that [`to_base64`] wrote. Only the one spelling that it has is read.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// `json` as a part of a line, when it can stand there unchanged: it is JSON on one line, without
/// space around it.
pub(crate) fn embeddable(json: &[u8]) -> Option<&str> {
    let is_space = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_whitespace);
    if is_space(json.first())
        || is_space(json.last())
        || json.iter().any(|byte| b"\n\r".contains(byte))
    {
        return None;
    }
    let text = std::str::from_utf8(json).ok()?;
    serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get)
}

/// The hex of `bytes`, for what is only looked at.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// JSON as a row holds it, for what is only looked at, or a note of what it holds instead.
pub(crate) fn stored_json(bytes: &[u8]) -> serde_json::Value {
    json::decode(bytes).unwrap_or_else(|| serde_json::json!({ "not_json_hex": to_hex(bytes) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_stands_in_a_line_only_when_nothing_of_it_changes() {
        for json in ["{}", "[1, 2.50, -0]", r#"{"a":1,"a":2}"#, "\"\\u00e9\"", "null", "1e400"] {
            assert_eq!(embeddable(json.as_bytes()), Some(json));
        }
        let others: [&[u8]; 8] =
            [b"", b" {}", b"{} ", b"[1,\n2]", b"[1,\r2]", b"{", b"\"\xff\"", b"1 2"];
        for json in others {
            assert_eq!(embeddable(json), None, "{json:?}");
        }
    }

    #[test]
    fn deep_json_stands_in_a_line_without_deep_recursion() {
        let deep = ["[".repeat(1 << 20), "]".repeat(1 << 20)].concat();
        assert_eq!(embeddable(deep.as_bytes()), Some(deep.as_str()));
    }

    proptest! {
        #[test]
        fn base64_has_one_spelling(bytes in prop::collection::vec(any::<u8>(), 0..20), text in "[A-Za-z0-9+/=]{0,8}") {
            prop_assert_eq!(from_base64(&to_base64(&bytes)), Some(bytes));
            if let Some(bytes) = from_base64(&text) {
                prop_assert_eq!(to_base64(&bytes), text);
            }
        }
    }
}
