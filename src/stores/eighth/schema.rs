//! The tables of the store in tests.

use super::{NoteRow, remove, title_key};
use crate::codec;
use crate::codec::key::take_bytes;
use crate::engine::access::{Reader, Writer};
use crate::error::Result;
use crate::stores::dump;
use crate::stores::lines::{
    EmitLine, Entry, EntryLines, Fields, LineWriter, Problem, said, single, text_of,
};
use crate::stores::owner::{Owner, StoreKind};
use crate::stores::row_check::StoredRow;
use crate::stores::schema::EntryState;
use crate::stores::schema::{
    Constraints, Derived, Ends, EntryCounting, Lines, LossSchema, Numbers, Overwrite, Role,
    StoreSchema, TableSchema, text_key,
};
use crate::stores::sweep::{Due, Verdict};
use crate::tables::{Table, TableDef};
use serde_json::json;

impl Table {
    /// Notes by id.
    pub(crate) const NOTE: Table =
        Table::new(&TableDef { number: 240, name: "note", is_waited_for: false });

    /// Which notes have a title: (title, id) with empty values.
    pub(crate) const NOTE_BY_TITLE: Table =
        Table::new(&TableDef { number: 241, name: "note_by_title", is_waited_for: false });
}

impl StoreKind {
    /// Notes.
    pub(crate) const NOTES: StoreKind = StoreKind::new(240, "notes", "notes");
}

pub(crate) const STORE: StoreSchema =
    StoreSchema { kinds: &[StoreKind::NOTES], tables: &[&NOTES, &BY_TITLE] };

const NOTES: TableSchema = TableSchema {
    table: Table::NOTE,
    role: Role::Primary,
    owner: |key| Owner::unnamed(StoreKind::NOTES, key),
    check: |row| {
        row.text(row.key)?;
        row.short(&NoteRow::decode(row.value)?.title)
    },
    derived: Derived::Rows(|key, value, emit| {
        let title = NoteRow::decode(value)?.title;
        emit(Table::NOTE_BY_TITLE, title_key(&title, key), Vec::new());
        Ok(())
    }),
    constraints: Constraints::None,
    numbers: Numbers::None,
    ends: Ends::At {
        at: |value| Ok(Some(NoteRow::decode(value)?.ends_at)),
        sweep: |tx, due, _| sweep(tx, due),
    },
    change: |row| Some(row.of_entry()),
    shown_key: text_key,
    counted: EntryCounting::Entries(|| {
        Box::new(|rows, row| {
            let ends_at = NoteRow::decode(row.value)?.ends_at;
            Ok(EntryState::live_if(!rows.moment().has_passed(ends_at)))
        })
    }),
    lines: Lines::Entries(EntryLines {
        write,
        reader: Some(|| single(&["note"], read)),
        imported: None,
    }),
    dump_key: |key| Ok(json!({ "id": dump::text(key)? })),
    dump_value: |_, value| {
        let note = NoteRow::decode(value)?;
        Ok(json!({ "ends_at": dump::deadline(note.ends_at), "title": note.title }))
    },
    loss: LossSchema { meaning: "such notes are gone", unsure: None, left_out: None },
};

const BY_TITLE: TableSchema = TableSchema {
    table: Table::NOTE_BY_TITLE,
    role: Role::Derived,
    owner: |key| Owner::unnamed(StoreKind::NOTES, key),
    check: |row| {
        row.name_and("")?;
        row.empty()
    },
    derived: Derived::None,
    constraints: Constraints::Misplaced(|rows, key, _| without_note(rows, key)),
    numbers: Numbers::None,
    ends: Ends::Never,
    change: |_| None,
    shown_key: text_key,
    counted: EntryCounting::RowsOnly,
    lines: Lines::OfOthers(Overwrite::Fine),
    dump_key: |key| dump::parts(key, ["title", "id"]),
    dump_value: |_, value| dump::no_value(Table::NOTE_BY_TITLE, value),
    loss: LossSchema { meaning: "it is derived anew", unsure: None, left_out: None },
};

fn without_note(rows: &mut dyn Reader, key: &[u8]) -> Result<Option<String>> {
    let mut id = key;
    let title = take_bytes(&mut id);
    let note = rows.get(Table::NOTE, id)?.map(|note| NoteRow::decode(&note)).transpose()?;
    let has_it = note.is_some_and(|note| Some(note.title.into_bytes()) == title);
    Ok((!has_it).then(|| "names a title that its note does not have".to_owned()))
}

fn sweep(tx: &mut dyn Writer, due: &Due<'_>) -> Result<Verdict> {
    let Some(note) = tx.get(Table::NOTE, due.key)? else { return Ok(Verdict::Stale) };
    let ends_at = NoteRow::decode(&note)?.ends_at;
    if !tx.moment().has_surely_passed(ends_at) {
        return Ok(Verdict::Keep { until: ends_at });
    }
    remove(tx, due.key)?;
    Ok(Verdict::Removed)
}

fn write(
    line: &mut LineWriter,
    rows: &mut dyn Reader,
    row: StoredRow<'_>,
    emit: &mut EmitLine<'_>,
) -> Result<()> {
    let note = NoteRow::decode(row.value)?;
    line.begin("note");
    line.text("id", text_of(Table::NOTE, row.key)?);
    line.number("ends_at_ms", rows.moment().wall_of(note.ends_at));
    line.text("title", &note.title);
    emit("note", line)
}

fn read(fields: &mut Fields<'_>) -> Result<Entry, Problem> {
    let id = fields.text("id")?;
    let note = NoteRow { ends_at: fields.deadline("ends_at_ms")?, title: fields.text("title")? };
    Ok(Entry::new(Table::NOTE, id.into_bytes(), codec::encode(&note).map_err(said)?))
}
