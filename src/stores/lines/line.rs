//! One line of an export: a JSON object, written and read field by field.
//!
//! Every kind of line has the same fields in every line: what a row does not have is `null`. A line
//! with a field less or more is refused, because it would be read as something that it is not.

use super::encoding::{embeddable, from_base64, to_base64};
use crate::engine::time_line::{Deadline, Moment};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// What is wrong with a line.
pub(crate) type Problem = String;

/// Writes one line after the other into the same buffer.
#[derive(Debug, Default)]
pub(crate) struct LineWriter {
    buf: Vec<u8>,
}

impl LineWriter {
    /// Begins a line of the kind `entry`.
    pub(crate) fn begin(&mut self, entry: &str) {
        self.buf.clear();
        self.buf.push(b'{');
        self.text("entry", entry);
    }

    /// Ends the line, and answers it with its newline.
    pub(crate) fn end(&mut self) -> &[u8] {
        self.buf.extend_from_slice(b"}\n");
        &self.buf
    }

    /// Begins a field that is an object of its own.
    pub(crate) fn open(&mut self, name: &str) {
        self.name(name);
        self.buf.push(b'{');
    }

    /// Ends the object that [`open`](Self::open) began.
    pub(crate) fn close(&mut self) {
        self.buf.push(b'}');
    }

    pub(crate) fn null(&mut self, name: &str) {
        self.raw(name, "null");
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        self.string(value);
    }

    pub(crate) fn optional_text(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.text(name, value),
            None => self.null(name),
        }
    }

    pub(crate) fn texts<'a>(&mut self, name: &str, values: impl IntoIterator<Item = &'a str>) {
        self.name(name);
        self.list(values, |line, value| line.string(value));
    }

    pub(crate) fn number(&mut self, name: &str, value: u64) {
        self.raw(name, &value.to_string());
    }

    pub(crate) fn optional_number(&mut self, name: &str, value: Option<u64>) {
        match value {
            Some(value) => self.number(name, value),
            None => self.null(name),
        }
    }

    pub(crate) fn signed(&mut self, name: &str, value: i64) {
        self.raw(name, &value.to_string());
    }

    pub(crate) fn pairs(&mut self, name: &str, values: impl IntoIterator<Item = (u64, u64)>) {
        self.name(name);
        self.list(values, |line, (first, second)| {
            line.buf.extend_from_slice(format!("[{first},{second}]").as_bytes());
        });
    }

    pub(crate) fn bytes(&mut self, name: &str, value: &[u8]) {
        self.text(name, &to_base64(value));
    }

    /// The JSON of a row as it is, or as the bytes of the field `base64_name` when it cannot stand
    /// in a line.
    pub(crate) fn json(&mut self, name: &str, base64_name: &str, json: &[u8]) {
        match embeddable(json) {
            Some(text) => self.raw(name, text),
            None => self.bytes(base64_name, json),
        }
    }

    fn name(&mut self, name: &str) {
        if self.buf.last() != Some(&b'{') {
            self.buf.push(b',');
        }
        self.string(name);
        self.buf.push(b':');
    }

    fn raw(&mut self, name: &str, json: &str) {
        self.name(name);
        self.buf.extend_from_slice(json.as_bytes());
    }

    fn string(&mut self, text: &str) {
        // A string is always JSON, and a vector takes all of it.
        let _ = serde_json::to_writer(&mut self.buf, text);
    }

    fn list<T>(
        &mut self,
        values: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.buf.push(b'[');
        for (index, value) in values.into_iter().enumerate() {
            if index > 0 {
                self.buf.push(b',');
            }
            write(self, value);
        }
        self.buf.push(b']');
    }
}

/// The fields of an object that were not taken yet.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    fields: Vec<(String, &'a RawValue)>,
    /// The time of the room that takes them.
    moment: &'a Moment,
}

impl<'a> Fields<'a> {
    /// The fields of the object that `text` is, for a room whose time is `moment`.
    pub(crate) fn parse(text: &'a str, moment: &'a Moment) -> Result<Self, Problem> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let fields = deserializer.deserialize_map(FieldsVisitor);
        fields
            .and_then(|fields| deserializer.end().map(|()| Self { fields, moment }))
            .map_err(|error| format!("not a JSON object: {}", without_place(&error)))
    }

    /// Whether there is a field with this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(field, _)| field == name)
    }

    /// Takes a field that must be there.
    fn raw(&mut self, name: &str) -> Result<&'a RawValue, Problem> {
        self.optional_raw(name).ok_or_else(|| missing(name))
    }

    fn optional_raw(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.fields.iter().position(|(field, _)| field == name)?;
        Some(self.fields.remove(at).1)
    }

    /// Takes a field and reads it as `T`, which `what` describes.
    fn read<T: de::Deserialize<'a>>(&mut self, name: &str, what: &str) -> Result<T, Problem> {
        let raw = self.raw(name)?;
        serde_json::from_str(raw.get()).map_err(|_| must_be(name, what))
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<String, Problem> {
        self.read(name, "a string")
    }

    pub(crate) fn optional_text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        self.read(name, "a string or null")
    }

    pub(crate) fn texts(&mut self, name: &str) -> Result<Vec<String>, Problem> {
        self.read(name, "a list of strings")
    }

    pub(crate) fn number(&mut self, name: &str) -> Result<u64, Problem> {
        self.read(name, "a whole number from 0 to 18446744073709551615")
    }

    pub(crate) fn optional_number(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        self.read(name, "a whole number from 0 to 18446744073709551615, or null")
    }

    /// A point in time, as when the line of this room comes to it.
    pub(crate) fn deadline(&mut self, name: &str) -> Result<Deadline, Problem> {
        Ok(self.moment.deadline_at_wall(self.number(name)?))
    }

    pub(crate) fn optional_deadline(&mut self, name: &str) -> Result<Option<Deadline>, Problem> {
        let at_ms = self.optional_number(name)?;
        Ok(at_ms.map(|at_ms| self.moment.deadline_at_wall(at_ms)))
    }

    /// The time of the room that takes the fields.
    pub(crate) fn moment(&self) -> &'a Moment {
        self.moment
    }

    pub(crate) fn signed(&mut self, name: &str) -> Result<i64, Problem> {
        self.read(name, "a whole number from -9223372036854775808 to 9223372036854775807")
    }

    pub(crate) fn pairs(&mut self, name: &str) -> Result<Vec<(u64, u64)>, Problem> {
        self.read(name, "a list of pairs of whole numbers")
    }

    pub(crate) fn bytes(&mut self, name: &str) -> Result<Vec<u8>, Problem> {
        from_base64(&self.text(name)?).ok_or_else(|| must_be(name, "base64 with padding"))
    }

    /// Takes a field that is an object or `null`.
    pub(crate) fn optional_object(&mut self, name: &str) -> Result<Option<Fields<'a>>, Problem> {
        let raw = self.raw(name)?;
        if raw.get() == "null" {
            return Ok(None);
        }
        let fields = Fields::parse(raw.get(), self.moment)
            .map_err(|problem| format!("field \"{name}\": {problem}"))?;
        Ok(Some(fields))
    }

    /// Takes the one of both fields that [`LineWriter::json`] wrote.
    pub(crate) fn json(&mut self, name: &str, base64_name: &str) -> Result<Vec<u8>, Problem> {
        if let Some(raw) = self.optional_raw(name) {
            return Ok(raw.get().as_bytes().to_vec());
        }
        if !self.has(base64_name) {
            return Err(missing(name));
        }
        let json = self.bytes(base64_name)?;
        if embeddable(&json).is_some() {
            return Err(format!(
                "field \"{base64_name}\" is for what is not JSON on one line; use \"{name}\""
            ));
        }
        Ok(json)
    }

    /// Refuses fields that were not taken.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        match self.fields.first() {
            Some((name, _)) => Err(format!("field {name:?} is not known")),
            None => Ok(()),
        }
    }
}

fn missing(name: &str) -> Problem {
    format!("field \"{name}\" is missing")
}

/// That the field `name` is not `what`.
pub(crate) fn must_be(name: &str, what: &str) -> Problem {
    format!("field \"{name}\" must be {what}")
}

/// What a parser said. Its line number is not that of the export, so only the column is kept.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) if error.column() > 0 => format!("{what} at column {}", error.column()),
        _ => text,
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields: Self::Value = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if fields.len() >= MAX_FIELDS {
                return Err(de::Error::custom(format!("more than {MAX_FIELDS} fields")));
            }
            if fields.iter().any(|(field, _)| *field == name) {
                return Err(de::Error::custom(format!("field {name:?} appears twice")));
            }
            fields.push((name, map.next_value()?));
        }
        Ok(fields)
    }
}

/// More fields than any kind of line has; the names of the fields are compared one by one.
const MAX_FIELDS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    static MOMENT: Moment = Moment::manual(0);

    fn problem<T: fmt::Debug>(result: Result<T, Problem>) -> Problem {
        result.unwrap_err()
    }

    #[test]
    fn every_type_of_field_comes_back() {
        let mut line = LineWriter::default();
        line.begin("a \"kind\"");
        line.text("text", "\u{1}é\"\\\n");
        line.optional_text("no text", None);
        line.texts("texts", ["", "b"]);
        line.number("number", u64::MAX);
        line.optional_number("no number", None);
        line.signed("signed", i64::MIN);
        line.pairs("pairs", [(1, 2), (3, u64::MAX)]);
        line.bytes("bytes", &[0, 255]);
        line.json("json", "json_base64", b"[1.0,  2]");
        line.json("other", "other_base64", b"{");
        line.open("object");
        line.number("n", 1);
        line.close();
        line.null("no object");
        let text = std::str::from_utf8(line.end()).unwrap().to_owned();
        assert_eq!(
            text,
            "{\"entry\":\"a \\\"kind\\\"\",\"text\":\"\\u0001é\\\"\\\\\\n\",\"no text\":null,\"texts\":[\"\",\"b\"],\
             \"number\":18446744073709551615,\"no number\":null,\"signed\":-9223372036854775808,\
             \"pairs\":[[1,2],[3,18446744073709551615]],\"bytes\":\"AP8=\",\"json\":[1.0,  2],\
             \"other_base64\":\"ew==\",\"object\":{\"n\":1},\"no object\":null}\n"
        );
        let mut fields = Fields::parse(&text, &MOMENT).unwrap();
        assert_eq!(fields.text("entry").unwrap(), "a \"kind\"");
        assert_eq!(fields.text("text").unwrap(), "\u{1}é\"\\\n");
        assert_eq!(fields.optional_text("no text").unwrap(), None);
        assert_eq!(fields.texts("texts").unwrap(), ["", "b"]);
        assert_eq!(fields.number("number").unwrap(), u64::MAX);
        assert_eq!(fields.optional_number("no number").unwrap(), None);
        assert_eq!(fields.signed("signed").unwrap(), i64::MIN);
        assert_eq!(fields.pairs("pairs").unwrap(), [(1, 2), (3, u64::MAX)]);
        assert_eq!(fields.bytes("bytes").unwrap(), [0, 255]);
        assert_eq!(fields.json("json", "json_base64").unwrap(), b"[1.0,  2]");
        assert_eq!(fields.json("other", "other_base64").unwrap(), b"{");
        let mut object = fields.optional_object("object").unwrap().unwrap();
        assert_eq!(object.number("n").unwrap(), 1);
        object.finish().unwrap();
        assert!(fields.optional_object("no object").unwrap().is_none());
        fields.finish().unwrap();
    }

    #[test]
    fn what_is_wrong_with_a_field_is_said() {
        let mut fields = Fields::parse(
            r#"{"a":1.5,"b":-1,"c":"x","d":"A","e_base64":"e30=","f":3,"g":[1]}"#,
            &MOMENT,
        )
        .unwrap();
        assert_eq!(problem(fields.number("z")), "field \"z\" is missing");
        assert!(
            problem(fields.number("a")).starts_with("field \"a\" must be a whole number from 0")
        );
        assert!(
            problem(fields.number("b")).starts_with("field \"b\" must be a whole number from 0")
        );
        assert!(
            problem(fields.signed("c")).starts_with("field \"c\" must be a whole number from -9")
        );
        assert_eq!(problem(fields.bytes("d")), "field \"d\" must be base64 with padding");
        assert_eq!(
            problem(fields.json("e", "e_base64")),
            "field \"e_base64\" is for what is not JSON on one line; use \"e\""
        );
        assert_eq!(problem(fields.text("f")), "field \"f\" must be a string");
        assert_eq!(problem(fields.optional_object("y")), "field \"y\" is missing");
        assert_eq!(problem(fields.json("y", "y_base64")), "field \"y\" is missing");
        assert_eq!(problem(fields.finish()), "field \"g\" is not known");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for (text, expected) in [
            ("", "not a JSON object: EOF while parsing a value"),
            ("[]", "not a JSON object: invalid type: sequence, expected an object at column 0"),
            ("{\"a\":1} x", "not a JSON object: trailing characters at column 9"),
            ("{\"a\":1,\"a\":2}", "not a JSON object: field \"a\" appears twice at column 10"),
            ("{\"a\"", "not a JSON object: EOF while parsing an object at column 4"),
        ] {
            let said = problem(Fields::parse(text, &MOMENT));
            assert!(said.starts_with(expected.trim_end_matches(" at column 0")), "{text}: {said}");
        }
        let many: Vec<_> = (0..=MAX_FIELDS).map(|number| format!("\"{number}\":0")).collect();
        assert!(
            problem(Fields::parse(&format!("{{{}}}", many.join(",")), &MOMENT))
                .contains("more than 32 fields")
        );
    }
}
