//! States as raw JSON.

use super::calls::*;
use crate::clock::ManualClock;
use crate::error::Error;
use crate::limits::{DEFAULT_MAX_STATE_BYTES, in_memory};
use serde_json::{Value, json};
use std::time::Duration;

const TTL_SPAN: Duration = Duration::from_secs(TTL);

fn set_raw(store: &HandoffDriver, id: &str, json: &str) {
    store.set_raw(id, json, TTL_SPAN).wait().unwrap();
}

/// A driver may keep the meaning and not the bytes.
fn assert_means(raw: Option<String>, state: &Value) {
    let raw = raw.expect("the state is there");
    assert_eq!(serde_json::from_str::<Value>(&raw).unwrap(), *state, "{raw}");
}

pub(super) fn comes_back(store: &HandoffDriver, clock: &ManualClock) {
    let text =
        "{ \"b\": [1, 2.50, -0.0, 1e3, \"\\u00e9\\ud83d\\ude00\"],\n \"a\": {}, \"\": null }\n";
    let value = json!({ "b": [1, 2.5, -0.0, 1e3, "é😀"], "a": {}, "": null });
    set_raw(store, "id", text);
    assert_means(store.get_raw("id").wait().unwrap(), &value);
    assert_eq!(get(store, "id").map(Value::Object), Some(value.clone()));
    assert_means(store.get_and_delete_raw("id").wait().unwrap(), &value);
    assert_absent(store, "id");
    assert_eq!(store.get_raw("id").wait().unwrap(), None);
    assert_eq!(store.get_and_delete_raw("id").wait().unwrap(), None);

    set_raw(store, "id", text);
    assert_eq!(take(store, "id").map(Value::Object), Some(value.clone()));
    // What was set as a value is read raw, too.
    store.set("id", &object(value.clone()), TTL).wait().unwrap();
    assert_means(store.get_raw("id").wait().unwrap(), &value);
    store.set_raw("id", "{}", Duration::from_millis(1_500)).wait().unwrap();
    clock.advance(Duration::from_millis(1_499));
    assert_means(store.get_raw("id").wait().unwrap(), &json!({}));
    clock.advance(ONE_MS);
    assert_eq!(store.get_raw("id").wait().unwrap(), None);
    set(store, "id", 1);
    store.set_raw("id", "{}", Duration::ZERO).wait().unwrap();
    assert_absent(store, "id");
}

pub(super) fn malformed(store: &HandoffDriver, _: &ManualClock) {
    set(store, "id", 1);
    let deep = ["{\"a\":".repeat(100_000), "1".into(), "}".repeat(100_000)].concat();
    for json in [
        "",
        " ",
        "null",
        "[]",
        "1",
        "\"text\"",
        "{",
        "{}{}",
        "{} {}",
        "{},",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":NaN}",
        "{\"a\":01}",
        "{\"a\":1e999}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\n\"}",
        "\u{feff}{}",
        &deep,
    ] {
        for id in ["id", "new"] {
            let answer = store.set_raw(id, json, TTL_SPAN).wait();
            let shown = json.get(..40).unwrap_or(json);
            assert!(matches!(answer, Err(Error::Encode(_))), "{shown:?}: {answer:?}");
        }
    }
    assert_eq!(get(store, "id"), Some(state(1)));
    assert_absent(store, "new");
}

pub(super) fn claim(store: &HandoffDriver, clock: &ManualClock) {
    set_raw(store, "id", "{\"number\": 1}");
    let claim = store.claim_raw("id", LEASE).wait().unwrap().expect("it is there");
    assert_means(Some(claim.state), &json!({ "number": 1 }));
    assert_eq!(claim.id.state_id(), "id");
    assert_absent(store, "id");
    assert_eq!(store.get_raw("id").wait().unwrap(), None);
    assert_eq!(store.get_and_delete_raw("id").wait().unwrap(), None);
    assert_eq!(store.claim_raw("id", LEASE).wait().unwrap(), None);
    clock.advance(LEASE);
    assert!(!ack(store, &claim.id));
    let claim = store.claim_raw("id", LEASE).wait().unwrap().expect("it came back");
    assert!(ack(store, &claim.id));
    assert_absent(store, "id");
    set(store, "id", 1);
    let zero = store.claim_raw("id", Duration::ZERO).wait();
    assert!(matches!(zero, Err(Error::InvalidConfig(_))), "{zero:?}");
}

pub(super) fn too_large(store: &HandoffDriver, _: &ManualClock) {
    set(store, "id", 1);
    let json = format!("{{\"a\":\"{}\"}}", "x".repeat(in_memory(DEFAULT_MAX_STATE_BYTES)));
    let answer = store.set_raw("id", &json, TTL_SPAN).wait();
    assert!(matches!(answer, Err(Error::TooLarge { .. })), "{answer:?}");
    assert_eq!(get(store, "id"), Some(state(1)));
}
