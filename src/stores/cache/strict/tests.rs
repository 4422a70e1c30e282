use super::*;
use crate::error::Error;
use crate::stores::cache::json::{decode, encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped<T>(T);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Named<T> {
    inner: T,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Kind<T> {
    Nothing,
    New(T),
    Two(T, T),
    Fields { inner: T },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged<T> {
    Inside { inner: T },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flattened {
    id: u32,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

use serde::Serialize;

fn is_refused<T: Serialize + DeserializeOwned + Debug>(value: T) {
    let answer = encode(&value);
    assert!(matches!(answer, Err(Error::Encode(_))), "{value:?} became {answer:?}");
}

/// What is stored comes back equal.
fn comes_back<T: Serialize + DeserializeOwned + Debug + PartialEq>(value: T) {
    let json = encode(&value).unwrap();
    assert_eq!(decode(&json), Some(value), "{}", String::from_utf8_lossy(&json));
}

#[test]
fn floats_that_are_not_finite_are_refused_wherever_they_are() {
    for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        is_refused(float);
        is_refused(Some(float));
        is_refused(vec![0.0, float]);
        is_refused((1, float));
        is_refused(Wrapped(float));
        is_refused(Named { inner: float });
        is_refused(Kind::New(float));
        is_refused(Kind::Two(0.0, float));
        is_refused(Kind::Fields { inner: float });
        is_refused(Tagged::Inside { inner: float });
        is_refused(HashMap::from([("key".to_owned(), vec![Some(Named { inner: float })])]));
    }
    [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().for_each(is_refused);
    for float in [0.0, -0.0, 5e-324, f64::MAX, f64::MIN_POSITIVE, 0.1 + 0.2] {
        comes_back(float);
        comes_back(vec![Kind::Fields { inner: float }]);
    }
    for float in [f32::MAX, f32::MIN_POSITIVE, 0.1_f32, 1e-45] {
        comes_back(float);
    }
}

#[test]
fn a_some_that_would_become_none_is_refused() {
    is_refused(Some(None::<u8>));
    is_refused(Some(()));
    is_refused(Some(Unit));
    is_refused(Some(Wrapped(None::<u8>)));
    is_refused(Some(Some(Some(()))));
    is_refused(Some(Value::Null));
    is_refused(vec![Some(1), None].into_iter().map(Some).collect::<Vec<_>>());
    is_refused(Named { inner: Some(None::<String>) });
    is_refused(Kind::New(Some(())));
    is_refused(BTreeMap::from([("key".to_owned(), Some(()))]));
    comes_back(None::<Option<u8>>);
    comes_back(Some(Some(1)));
    comes_back(());
    comes_back(Unit);
    comes_back(Wrapped(()));
    comes_back(Named { inner: None::<()> });
    comes_back(Some(Named { inner: None::<u8> }));
    comes_back(Some(vec![None, Some(1)]));
    comes_back(Some(String::from("null")));
    comes_back(Kind::<Option<u8>>::Nothing);
}

#[test]
fn keys_come_back_or_are_refused() {
    comes_back(BTreeMap::from([(1, 'a'), (-2, 'b')]));
    comes_back(BTreeMap::from([(true, 1), (false, 2)]));
    comes_back(BTreeMap::from([('x', 1)]));
    comes_back(BTreeMap::from([(u64::MAX, 1)]));
    comes_back(BTreeMap::from([(u128::MAX, 1)]));
    comes_back(BTreeMap::from([(Some(String::from("x")), 1)]));
    comes_back(BTreeMap::from([(Wrapped(7), 1)].map(|(key, value)| (key.0, value))));
    is_refused(BTreeMap::from([((1, 2), 3)]));
    is_refused(BTreeMap::from([(vec![1], 3)]));
    is_refused(BTreeMap::from([(None::<String>, 1)]));
    is_refused(BTreeMap::from([((), 1)]));
    // An enum with a tag reads keys as strings only.
    is_refused(Tagged::Inside { inner: BTreeMap::from([(1, 2)]) });
    is_refused(Tagged::Inside { inner: BTreeMap::from([(true, 2)]) });
    comes_back(Tagged::Inside { inner: BTreeMap::from([(String::from("1"), 2)]) });
}

#[test]
fn large_numbers_come_back_or_are_refused() {
    comes_back([u128::MAX, u128::from(u64::MAX) + 1, 0]);
    comes_back([i128::MIN, i128::MAX]);
    comes_back((u64::MAX, i64::MIN));
    is_refused(Tagged::Inside { inner: u128::MAX });
    comes_back(Tagged::Inside { inner: u64::MAX });
}

#[test]
fn a_flattened_field_does_not_hide_another() {
    let flattened = |key: &str| Flattened { id: 1, rest: BTreeMap::from([(key.into(), json!(2))]) };
    comes_back(flattened("other"));
    is_refused(flattened("id"));
}

#[test]
fn what_is_json_already_is_written_as_it_is() {
    let raw = RawValue::from_string("{\"a\": [1, 2.50, null]}".into()).unwrap();
    assert_eq!(encode(&raw).unwrap(), b"{\"a\": [1, 2.50, null]}");
    let null: Box<RawValue> = RawValue::from_string("null".into()).unwrap();
    assert!(matches!(encode(&Some(null)), Err(Error::Encode(_))));
    let value = json!({ "a": [1, -1, 0.5, "\u{1}é\"", null, true, {}], "": u64::MAX });
    assert_eq!(encode(&value).unwrap(), serde_json::to_vec(&value).unwrap());
    comes_back(value);
}

#[test]
fn only_what_is_doubtful_is_tried() {
    let is_doubtful = |value: &dyn Fn() -> StrictJson| value().is_doubtful;
    assert!(!is_doubtful(&|| to_json(&json!({ "1": [1, u64::MAX, -1, "2024"] })).unwrap()));
    assert!(!is_doubtful(&|| to_json(&HashMap::from([("1", 2)])).unwrap()));
    assert!(is_doubtful(&|| to_json(&HashMap::from([(1, 2)])).unwrap()));
    assert!(is_doubtful(&|| to_json(&u128::MAX).unwrap()));
    assert!(!is_doubtful(&|| to_json(&1_u128).unwrap()));
}
