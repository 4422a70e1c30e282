//! Every tool handles the store of this folder.

use super::{NoteRow, put, remove, title_key};
use crate::durability::Durability;
use crate::engine::access::Writer;
use crate::engine::time_line::Deadline;
use crate::storage::tempdir;
use crate::stores::StoreKind;
use crate::stores::derived::tests::histories;
use crate::stores::map_tx::MapTx;
use crate::stores::sweep::sweep_all;
use crate::stores::watch::{ChangeKind, WatchFilter};
use crate::tables::Table;
use crate::tools::{salvage, verify};
use crate::{Cloakroom, Error, ManualClock, codec};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

const ENDS_AT_MS: u64 = 5_000;

fn note(ends_at_ms: u64, title: &str) -> NoteRow {
    NoteRow { ends_at: Deadline::at(ends_at_ms), title: title.into() }
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(1_000))
}

fn write(room: &Cloakroom, change: impl FnOnce(&mut dyn Writer)) {
    let written: Result<(), Error> = room
        .engine()
        .transact(Durability::Sync, &[], |tx| {
            change(tx);
            Ok(())
        })
        .wait();
    written.unwrap();
}

fn two_notes(room: &Cloakroom) {
    write(room, |tx| {
        put(tx, "a", &note(ENDS_AT_MS, "first")).unwrap();
        put(tx, "b", &note(ENDS_AT_MS + 1, "second")).unwrap();
    });
}

fn in_memory() -> (Cloakroom, Arc<ManualClock>) {
    let clock = clock();
    let room = Cloakroom::builder().clock(clock.clone()).sweep_interval(None);
    (room.open_in_memory().unwrap(), clock)
}

fn rows_of(room: &Cloakroom) -> Vec<(&'static str, u64)> {
    let tables = room.tables().unwrap().into_iter();
    let tables = tables.filter(|table| table.rows > 0 && table.name != "time_line");
    tables.map(|table| (table.name, table.rows)).collect()
}

fn in_file(path: &Path, change: impl FnOnce(&mut dyn Writer)) {
    let builder = Cloakroom::builder().clock(clock()).sweep_interval(None);
    let room = builder.open(path).unwrap();
    two_notes(&room);
    write(&room, change);
    room.close().unwrap();
}

#[test]
fn its_rows_are_those_that_are_derived() {
    histories(|tx, random| {
        let id = *random.choice(&["", "a", "b"]).unwrap();
        match random.u8(0..4) {
            0 => remove(tx, id.as_bytes()).unwrap(),
            1 => drop(sweep_all(tx)),
            _ => {
                let title = *random.choice(&["", "t", "t\0"]).unwrap();
                let ends_at_ms = tx.now_ms + random.u64(1..4_000);
                put(tx, id, &note(ends_at_ms, title)).unwrap();
            }
        }
    });
}

#[test]
fn it_is_swept() {
    let mut tx = MapTx::at(0);
    put(&mut tx, "a", &note(10, "first")).unwrap();
    put(&mut tx, "b", &note(20, "second")).unwrap();
    tx.now_ms = 10;
    let report = sweep_all(&mut tx);
    assert_eq!((report.removed(StoreKind::NOTES), report.total()), (1, 1));
    assert_eq!(tx.keys(Table::NOTE), [b"b"]);
    assert_eq!((tx.keys(Table::NOTE_BY_TITLE).len(), tx.keys(Table::EXPIRY).len()), (1, 1));
}

#[test]
fn its_room_is_swept_counted_and_watched() {
    let (room, clock) = in_memory();
    let mut watch = room.watch(WatchFilter::store(StoreKind::NOTES)).unwrap();
    two_notes(&room);
    clock.set(ENDS_AT_MS);
    let stats = room.stats().unwrap().stores;
    assert_eq!(stats.len(), 1);
    let notes = &stats[0];
    assert_eq!((notes.store, notes.name.as_deref()), (StoreKind::NOTES, None));
    assert_eq!((notes.live, notes.taken, notes.expired, notes.rows), (1, 0, 1, 6));
    assert_eq!(room.sweep().unwrap().removed(StoreKind::NOTES), 1);
    assert_eq!(rows_of(&room), [("expiry", 1), ("note", 1), ("note_by_title", 1)]);
    write(&room, |tx| remove(tx, b"b").unwrap());
    let seen: Vec<_> = (0..4)
        .map(|_| watch.recv().unwrap())
        .map(|change| (change.store, change.key, change.kind))
        .collect();
    let change = |key: &str, kind| (StoreKind::NOTES, key.to_owned(), kind);
    assert_eq!(
        seen,
        [
            change("a", ChangeKind::Put),
            change("b", ChangeKind::Put),
            change("a", ChangeKind::Expired),
            change("b", ChangeKind::Removed),
        ]
    );
}

#[test]
fn a_derived_row_that_is_missing_is_found_and_so_is_one_of_nothing() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("sound.cloak");
    in_file(&path, |_| {});
    let report = verify(&path).unwrap();
    assert!(report.is_ok(), "{report}");

    let path = dir.path().join("damaged.cloak");
    in_file(&path, |tx| {
        tx.delete(Table::NOTE_BY_TITLE, &title_key("first", b"a"));
        tx.put(Table::NOTE_BY_TITLE, &title_key("third", b"b"), Vec::new());
    });
    let found = verify(&path).unwrap().findings;
    let problems: Vec<_> = found.iter().map(|found| found.problem.as_str()).collect();
    assert_eq!(
        problems,
        [
            "the row is missing, and belongs to a row of table note",
            "the row names a title that its note does not have",
        ]
    );
    assert!(found.iter().all(|found| found.location.starts_with("table note_by_title, key ")));
}

#[test]
fn a_salvage_derives_its_rows_anew_and_leaves_out_what_is_none() {
    let dir = tempdir().unwrap();
    let (path, whole) = (dir.path().join("edge.cloak"), dir.path().join("whole.cloak"));
    in_file(&path, |tx| {
        tx.delete(Table::NOTE_BY_TITLE, &title_key("first", b"a"));
        tx.put(Table::NOTE_BY_TITLE, &title_key("third", b"b"), Vec::new());
        tx.put(Table::NOTE, b"c", b"\xff".to_vec());
    });
    let report = salvage(&path, &whole).unwrap();
    assert_eq!((report.dropped, report.rows), (1, 7), "{report}");
    let report = verify(&whole).unwrap();
    assert!(report.is_ok(), "{report}");
    let room = Cloakroom::builder().clock(clock()).sweep_interval(None).open(&whole).unwrap();
    assert_eq!(rows_of(&room), [("expiry", 2), ("note", 2), ("note_by_title", 2)]);
}

#[test]
fn an_export_is_imported_as_the_same_rows() {
    let (room, _) = in_memory();
    two_notes(&room);
    let mut lines = Vec::new();
    assert_eq!(room.export(&mut lines).unwrap().by_kind["note"], 2);
    let line = br#"{"entry":"note","id":"a","ends_at_ms":5000,"title":"first"}"#;
    assert!(lines.split(|byte| *byte == b'\n').any(|found| found == line));

    let (copy, _) = in_memory();
    assert_eq!(copy.import(&mut lines.as_slice()).unwrap().entries, 2);
    let mut again = Vec::new();
    copy.export(&mut again).unwrap();
    assert_eq!(again, lines);
    assert_eq!(copy.raw_rows().unwrap(), room.raw_rows().unwrap());
}

#[test]
fn its_rows_are_shown() {
    let (room, _) = in_memory();
    two_notes(&room);
    let show = |table: &str| {
        let mut shown = Vec::new();
        room.dump(table, &mut |row| {
            shown.push(row.to_json());
            true
        })
        .unwrap();
        shown
    };
    let first = json!({ "key": { "id": "a" }, "value": { "ends_at": { "epoch": 0, "time_ms": 5_000 }, "title": "first" } });
    assert_eq!(show("note")[0], first);
    assert_eq!(show("note_by_title")[1]["key"], json!({ "title": "second", "id": "b" }));
    let key = json!({ "epoch": 0, "time_ms": 5_000, "table": "note", "key": { "id": "a" } });
    assert_eq!(show("expiry")[0]["key"], key);
}

#[test]
fn the_bytes_are_frozen() {
    assert_eq!(codec::encode(&note(7, "t")).unwrap(), b"\0\x07\x01t");
    assert_eq!(title_key("t", b"id"), b"t\0\0id");
}
