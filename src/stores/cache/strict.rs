//! JSON without its silent changes.
//!
//! `serde_json` writes a float that is not finite as `null`, and so it does with `Some` of anything
//! that is `null` itself (`Some(None)`, `Some(())`): what is read back is another value, or none.
//! The serializer here refuses both. It also notes what only some types can read back, which the
//! caller then tries.

use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;

/// JSON, and whether it has to be tried.
#[derive(Debug, PartialEq)]
pub(super) struct StrictJson {
    pub(super) json: Vec<u8>,
    /// Whether there is something in it that not every type reads back: keys that are no strings
    /// and numbers of more than 64 bits (not through an enum with a tag, or a flattened field),
    /// bytes, and a map of unknown length (a flattened field may repeat the name of another).
    pub(super) is_doubtful: bool,
}

/// The JSON of `value`.
pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<StrictJson, serde_json::Error> {
    let context = Context::default();
    let mut serializer = serde_json::Serializer::new(Output(&context.json));
    value.serialize(context.part(&mut serializer))?;
    Ok(StrictJson { is_doubtful: context.is_doubtful.get(), json: context.json.into_inner() })
}

/// What all serializers of one value share.
#[derive(Default)]
struct Context {
    json: RefCell<Vec<u8>>,
    is_doubtful: Cell<bool>,
}

impl Context {
    /// What takes the parts of a value.
    fn part<Inner>(&self, inner: Inner) -> Strict<'_, Inner> {
        Strict { inner, context: self, is_key: false }
    }
}

/// Where `serde_json` writes.
struct Output<'a>(&'a RefCell<Vec<u8>>);

impl io::Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A serializer, a part of one, or a value, with the rules of this module.
struct Strict<'a, Inner> {
    inner: Inner,
    context: &'a Context,
    /// Whether it is a key of a map, or of one.
    is_key: bool,
}

impl<'a, Inner> Strict<'a, Inner> {
    fn of<Other>(&self, inner: Other) -> Strict<'a, Other> {
        Strict { inner, context: self.context, is_key: self.is_key }
    }

    fn doubt(&self) {
        self.context.is_doubtful.set(true);
    }
}

impl<T: Serialize + ?Sized> Serialize for Strict<'_, &T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.inner.serialize(self.of(serializer))
    }
}

/// Methods that take a value as it is. As a key it becomes a string, which not every type takes
/// back.
macro_rules! plain {
    ($($method:ident($type:ty);)*) => {
        $(fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            if self.is_key {
                self.doubt();
            }
            self.inner.$method(value)
        })*
    };
}

impl<'a, S: Serializer> Serializer for Strict<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Strict<'a, S::SerializeSeq>;
    type SerializeTuple = Strict<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Strict<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Strict<'a, S::SerializeTupleVariant>;
    type SerializeMap = Strict<'a, S::SerializeMap>;
    type SerializeStruct = Strict<'a, S::SerializeStruct>;
    type SerializeStructVariant = Strict<'a, S::SerializeStructVariant>;

    plain! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
    }

    fn serialize_char(self, value: char) -> Result<S::Ok, S::Error> {
        self.inner.serialize_char(value)
    }

    fn serialize_str(self, value: &str) -> Result<S::Ok, S::Error> {
        self.inner.serialize_str(value)
    }

    fn serialize_i128(self, value: i128) -> Result<S::Ok, S::Error> {
        if self.is_key || i64::try_from(value).is_err() {
            self.doubt();
        }
        self.inner.serialize_i128(value)
    }

    fn serialize_u128(self, value: u128) -> Result<S::Ok, S::Error> {
        if self.is_key || u64::try_from(value).is_err() {
            self.doubt();
        }
        self.inner.serialize_u128(value)
    }

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        if self.is_key {
            self.doubt();
        }
        match value.is_finite() {
            true => self.inner.serialize_f32(value),
            false => Err(not_finite(value)),
        }
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        if self.is_key {
            self.doubt();
        }
        match value.is_finite() {
            true => self.inner.serialize_f64(value),
            false => Err(not_finite(value)),
        }
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<S::Ok, S::Error> {
        self.doubt();
        self.inner.serialize_bytes(value)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let context = self.context;
        let at = context.json.borrow().len();
        let value = self.of(value);
        let ok = self.inner.serialize_some(&value)?;
        if context.json.borrow().get(at..) == Some(b"null") {
            return Err(S::Error::custom(
                "a `Some` of a value that is `null` in JSON, such as `Some(None)` or `Some(())`, would be read back \
                 as `None`",
            ));
        }
        Ok(ok)
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_struct(name)
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let value = self.of(value);
        self.inner.serialize_newtype_struct(name, &value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let value = self.of(value);
        self.inner.serialize_newtype_variant(name, index, variant, &value)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        let context = self.context;
        Ok(context.part(self.inner.serialize_seq(len)?))
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        let context = self.context;
        Ok(context.part(self.inner.serialize_tuple(len)?))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        let context = self.context;
        Ok(context.part(self.inner.serialize_tuple_struct(name, len)?))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        let context = self.context;
        let inner = self.inner.serialize_tuple_variant(name, index, variant, len)?;
        Ok(context.part(inner))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        if len.is_none() {
            self.doubt();
        }
        let context = self.context;
        Ok(context.part(self.inner.serialize_map(len)?))
    }

    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        let context = self.context;
        Ok(context.part(self.inner.serialize_struct(name, len)?))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        let context = self.context;
        let inner = self.inner.serialize_struct_variant(name, index, variant, len)?;
        Ok(context.part(inner))
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

fn not_finite<E: serde::ser::Error>(value: impl fmt::Display) -> E {
    E::custom(format!("JSON has no {value}: a float must be finite"))
}

/// The parts of a value whose elements have no name.
macro_rules! elements {
    ($($part:ident::$method:ident;)*) => {
        $(impl<S: $part> $part for Strict<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                let value = self.of(value);
                self.inner.$method(&value)
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        })*
    };
}

elements! {
    SerializeSeq::serialize_element;
    SerializeTuple::serialize_element;
    SerializeTupleStruct::serialize_field;
    SerializeTupleVariant::serialize_field;
}

/// The parts of a value whose elements have names.
macro_rules! fields {
    ($($part:ident)*) => {
        $(impl<S: $part> $part for Strict<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), S::Error> {
                let value = self.of(value);
                self.inner.serialize_field(key, &value)
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), S::Error> {
                self.inner.skip_field(key)
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        })*
    };
}

fields! { SerializeStruct SerializeStructVariant }

impl<S: SerializeMap> SerializeMap for Strict<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        let key = Strict { inner: key, context: self.context, is_key: true };
        self.inner.serialize_key(&key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        let value = self.of(value);
        self.inner.serialize_value(&value)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.inner.end()
    }
}

#[cfg(test)]
mod tests;
