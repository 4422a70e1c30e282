//! Form tokens, each with what happened to it.

use crate::engine::access::Reader;
use crate::error::Result;
use crate::stores::form_token::row::{TokenKey, TokenRow, UseRow, decode_key};
use crate::stores::form_token::{FormTokenRecord, LookupKey, TokenSubject};
use crate::stores::length::check_len;
use crate::stores::lines::{
    EmitLine, Entry, Fields, LineReader, LineWriter, Problem, must_be, said, single,
};
use crate::stores::row_check::StoredRow;
use crate::tables::Table;

const ENTRY: &str = "form_token";

const SUBJECTS: &str = "\"anonymous\", \"authenticated\" or \"flow\"";

/// The kind of a subject, and its id if it has one.
pub(crate) fn subject_parts(subject: &TokenSubject) -> (&'static str, Option<&str>) {
    match subject {
        TokenSubject::Anonymous => ("anonymous", None),
        TokenSubject::Authenticated(id) => ("authenticated", Some(id)),
        TokenSubject::Flow(id) => ("flow", Some(id)),
    }
}

pub(crate) fn write(
    line: &mut LineWriter,
    _: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    let StoredRow { key, value: token, satellite: used } = row;
    let record = TokenRow::decode(token)?.to_record(decode_key(key)?);
    let (subject_kind, subject_id) = subject_parts(&record.subject);
    line.begin(ENTRY);
    line.text("lookup_key", record.lookup_key.as_str());
    line.text("key_version", &record.key_version);
    line.text("subject_kind", subject_kind);
    line.optional_text("subject_id", subject_id);
    line.text("purpose", &record.purpose);
    line.optional_text("bound_resource", record.bound_resource.as_deref());
    line.number("issued_at", record.issued_at);
    line.number("expires_at", record.expires_at);
    match used.map(UseRow::decode).transpose()? {
        Some(used) => {
            line.open("use");
            line.number("consumed_at", used.consumed_at);
            line.number("grace_ms", used.grace_ms);
            line.optional_text("result_ref", used.result_ref);
            line.close();
        }
        None => line.null("use"),
    }
    emit(ENTRY, line)
}

/// What reads these lines.
pub(crate) fn reader() -> Box<dyn LineReader> {
    single(&[ENTRY], read)
}

fn read(fields: &mut Fields<'_>) -> Result<Entry, Problem> {
    let lookup_key = LookupKey::new(fields.text("lookup_key")?);
    let key_version = fields.text("key_version")?;
    let subject_kind = fields.text("subject_kind")?;
    let subject = match (subject_kind.as_str(), fields.optional_text("subject_id")?) {
        ("anonymous", None) => TokenSubject::Anonymous,
        ("anonymous", Some(_)) => {
            return Err(must_be("subject_id", "null for an anonymous subject"));
        }
        ("authenticated", Some(id)) => TokenSubject::Authenticated(id),
        ("flow", Some(id)) => TokenSubject::Flow(id),
        ("authenticated" | "flow", None) => {
            return Err(must_be("subject_id", "a string for this kind of subject"));
        }
        _ => return Err(must_be("subject_kind", SUBJECTS)),
    };
    let record = FormTokenRecord {
        lookup_key,
        key_version,
        subject,
        purpose: fields.text("purpose")?,
        bound_resource: fields.optional_text("bound_resource")?,
        issued_at: fields.number("issued_at")?,
        expires_at: fields.number("expires_at")?,
    };
    let key = TokenKey::encode(&record.lookup_key).map_err(said)?.as_bytes().to_vec();
    let value =
        TokenRow::of(&record, fields.moment()).and_then(|row| row.encode()).map_err(said)?;
    let entry = Entry::new(Table::FORM_TOKEN, key.clone(), value);
    let Some(mut used) = fields.optional_object("use")? else { return Ok(entry) };
    let result_ref = used.optional_text("result_ref")?;
    check_len("the result", result_ref.as_deref().unwrap_or_default()).map_err(said)?;
    let row = UseRow {
        consumed_at: used.number("consumed_at")?,
        grace_ms: used.number("grace_ms")?,
        result_ref: result_ref.as_deref(),
    };
    let value = row.encode().map_err(said)?;
    used.finish()?;
    Ok(entry.and(Table::FORM_TOKEN_USE, key, value))
}
