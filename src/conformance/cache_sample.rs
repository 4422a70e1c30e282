//! What the suite of caches stores.

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::Value;

/// What the checks store: any JSON, and the kinds of values that a cache must bear with. All that
/// can be read back is read back as [`CacheSample::Json`].
#[derive(Debug, Clone, PartialEq)]
pub enum CacheSample {
    /// A value as it should be.
    Json(Value),
    /// Floats, which JSON cannot hold when they are not finite.
    Floats(Vec<f64>),
    /// An option of an option, whose `Some(None)` JSON does not tell from `None`.
    Maybe(Option<Option<u8>>),
    /// Answers an error when it is encoded.
    Unencodable,
    /// Is encoded, but answers an error when it is decoded.
    Undecodable,
}

/// What stands for [`CacheSample::Undecodable`].
const UNDECODABLE: &str = "\u{10ffff} undecodable";

impl Serialize for CacheSample {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Json(value) => value.serialize(serializer),
            Self::Floats(floats) => floats.serialize(serializer),
            Self::Maybe(maybe) => maybe.serialize(serializer),
            Self::Unencodable => Err(S::Error::custom("this sample refuses to be encoded")),
            Self::Undecodable => serializer.serialize_str(UNDECODABLE),
        }
    }
}

impl<'de> Deserialize<'de> for CacheSample {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value == UNDECODABLE {
            return Err(D::Error::custom("this sample refuses to be decoded"));
        }
        Ok(Self::Json(value))
    }
}
