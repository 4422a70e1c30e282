//! A value as a row holds it: JSON, or bytes as they are.

use super::bytes::Bytes;
use super::json;
use crate::error::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::borrow::Cow;

/// A value in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueContent<'a> {
    /// Of any type but [`Bytes`].
    Json(&'a [u8]),
    /// Of [`Bytes`].
    Bytes(&'a [u8]),
}

impl<'a> ValueContent<'a> {
    /// What a row holds of it.
    pub(crate) fn stored(self) -> &'a [u8] {
        match self {
            ValueContent::Json(stored) | ValueContent::Bytes(stored) => stored,
        }
    }

    /// How many bytes a row holds of it.
    pub(crate) fn len(self) -> usize {
        self.stored().len()
    }

    /// The value, or `None` when it is no `T` (any more).
    pub(crate) fn value<T: DeserializeOwned + 'static>(self) -> Option<T> {
        let mut value: Option<T> = None;
        let as_bytes = (&mut value as &mut dyn Any).downcast_mut::<Option<Bytes>>();
        match (self, as_bytes) {
            (ValueContent::Bytes(stored), Some(bytes)) => *bytes = Some(Bytes::from(stored)),
            (ValueContent::Json(stored), None) => return json::decode(stored),
            (ValueContent::Bytes(_), None) | (ValueContent::Json(_), Some(_)) => return None,
        }
        value
    }
}

/// A value that is to be stored.
#[derive(Debug)]
pub(crate) struct EncodedValue<'a> {
    stored: Cow<'a, [u8]>,
    is_json: bool,
}

impl<'a> EncodedValue<'a> {
    /// What is stored of `value`.
    ///
    /// # Errors
    /// [`Error::Encode`](crate::Error::Encode) when it has no JSON, or one that would be read back
    /// as another value.
    pub(crate) fn of<T: Serialize + DeserializeOwned + 'static>(value: &'a T) -> Result<Self> {
        match (value as &dyn Any).downcast_ref::<Bytes>() {
            Some(bytes) => Ok(Self { stored: Cow::Borrowed(bytes), is_json: false }),
            None => Ok(Self { stored: Cow::Owned(json::encode(value)?), is_json: true }),
        }
    }

    /// It as a row holds it.
    pub(crate) fn content(&self) -> ValueContent<'_> {
        match self.is_json {
            true => ValueContent::Json(&self.stored),
            false => ValueContent::Bytes(&self.stored),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn bytes_are_stored_as_they_are_and_read_as_nothing_else() {
        let bytes = Bytes::from(b"[1,2]");
        let encoded = EncodedValue::of(&bytes).unwrap();
        assert_eq!(encoded.content(), ValueContent::Bytes(b"[1,2]"));
        assert_eq!(encoded.content().value::<Bytes>().as_ref(), Some(&bytes));
        assert_eq!(encoded.content().value::<Value>(), None);
        assert_eq!(encoded.content().value::<Vec<u8>>(), None);
        let list = vec![1_u8, 2];
        let encoded = EncodedValue::of(&list).unwrap();
        assert_eq!(encoded.content(), ValueContent::Json(b"[1,2]"));
        assert_eq!(encoded.content().value::<Bytes>(), None);
        assert_eq!(encoded.content().value::<Vec<u8>>().as_ref(), Some(&list));
    }

    #[test]
    fn bytes_inside_another_value_are_a_list() {
        let list = vec![Bytes::from([0, 255]), Bytes::default()];
        let encoded = EncodedValue::of(&list).unwrap();
        assert_eq!(encoded.content(), ValueContent::Json(b"[[0,255],[]]"));
        assert_eq!(encoded.content().value::<Vec<Bytes>>().as_ref(), Some(&list));
    }
}
