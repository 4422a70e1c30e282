//! The private facts of redb that this folder depends on, checked byte by byte against a database
//! that the linked version writes to a plain buffer.
//!
//! Cargo.toml pins redb exactly, because we read its pages and write one field of its header. When
//! another version is linked and one of these tests fails, its format differs: read what changed in
//! redb's `docs/design.md` and `src/tree_store`, adapt the code that the message names, and raise
//! the pin only then. An exhaustive comparison of the rows is in `pages/tests.rs`.

use super::layout::{HEADER_LEN, REGION_BLOCKS};
use crate::limits::BLOCK_SIZE;
use crate::sync::plain::Mutex;
use redb::{BackendError, Database, ReadableDatabase, StorageBackend, TableDefinition};
use std::io;
use std::ops::Bound;
use std::sync::Arc;

/// The only version whose format is known to be the one that we read.
const PINNED: &str = "4.4.0";

const MANY_NAME: &str = "too many for a leaf";
const BYTES: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("bytes");
const NUMBERS: TableDefinition<'static, u64, u64> = TableDefinition::new("numbers");
const MANY: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new(MANY_NAME);

/// The size of a region that [`Plain`] puts into the header, as the window does.
const REGION: u32 = 512;

/// A buffer as redb's storage.
#[derive(Debug, Clone, Default)]
struct Plain {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Whether it sets the size of a region when redb writes its header, as the window does when it
    /// creates a database.
    sets_region: bool,
}

impl StorageBackend for Plain {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = offset as usize;
        out.copy_from_slice(&self.bytes.lock()[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.lock().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = offset as usize;
        let mut bytes = self.bytes.lock();
        bytes[start..start + data.len()].copy_from_slice(data);
        if self.sets_region && start < BLOCK_SIZE {
            bytes[REGION_BLOCKS].copy_from_slice(&REGION.to_le_bytes());
        }
        Ok(())
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}

fn open(storage: &Plain) -> Database {
    Database::builder().create_with_backend(storage.clone()).unwrap()
}

/// Commits as the B-tree does.
fn commit(db: &Database, write: impl FnOnce(&redb::WriteTransaction)) {
    let mut transaction = db.begin_write().unwrap();
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    write(&transaction);
    transaction.commit().unwrap();
}

/// A database with a table of two byte strings, one of three numbers, and one with a branch.
fn written() -> (Plain, Database) {
    let storage = Plain { sets_region: true, ..Plain::default() };
    let db = open(&storage);
    commit(&db, |transaction| {
        let mut bytes = transaction.open_table(BYTES).unwrap();
        bytes.insert(&b"k1"[..], &b"first"[..]).unwrap();
        bytes.insert(&b"key2"[..], &b"2nd"[..]).unwrap();
        let mut numbers = transaction.open_table(NUMBERS).unwrap();
        (7..10).for_each(|number| drop(numbers.insert(number, 10 * number).unwrap()));
        let mut many = transaction.open_table(MANY).unwrap();
        for number in 0..1_000_u32 {
            many.insert(&number.to_be_bytes()[..], &[5; 3_000][..]).unwrap();
        }
    });
    (storage, db)
}

/// Fails with what to do unless `found` is what our code assumes.
#[track_caller]
fn fact<T: PartialEq + std::fmt::Debug>(what: &str, user: &str, found: T, assumed: T) {
    assert!(
        found == assumed,
        "the linked redb differs from {PINNED} in {what}: found {found:?}, but src/btree/{user} assumes {assumed:?}; \
         adapt that file to redb's new format, or pin redb to ={PINNED} again"
    );
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The commit slot that byte 9 of the header selects.
fn active_slot(file: &[u8]) -> &[u8] {
    &file[64 + 128 * usize::from(file[9] & 1)..][..128]
}

/// The offset of the page with this number.
fn offset_of(file: &[u8], number: u64) -> usize {
    let (index, region, order) = (number & 0xF_FFFF, (number >> 20) & 0xF_FFFF, number >> 59);
    let (header_pages, region_pages) = (u32_at(file, 16) as usize, u32_at(file, 20) as usize);
    let region_start = 1 + region as usize * (header_pages + region_pages);
    BLOCK_SIZE * (region_start + header_pages + ((index as usize) << order))
}

fn page(file: &[u8], number: u64) -> &[u8] {
    &file[offset_of(file, number)..][..BLOCK_SIZE << (number >> 59)]
}

/// The definitions of the tables, from a leaf of the user root.
fn definition_of<'a>(file: &'a [u8], name: &str) -> &'a [u8] {
    let leaf = page(file, u64_at(active_slot(file), 8));
    fact("the kind of a leaf page", "pages.rs (LEAF)", leaf[0], 1);
    let rows = usize::from(u16_at(leaf, 2));
    fact("the number of tables in the root leaf", "pages/node.rs (Node::of)", rows, 3);
    let (mut key_at, mut value_at) = (4 + 8 * rows, u32_at(leaf, 4 + 4 * (rows - 1)) as usize);
    for row in 0..rows {
        let key_end = u32_at(leaf, 4 + 4 * row) as usize;
        let value_end = u32_at(leaf, 4 + 4 * rows + 4 * row) as usize;
        if &leaf[key_at..key_end] == name.as_bytes() {
            return &leaf[value_at..value_end];
        }
        (key_at, value_at) = (key_end, value_end);
    }
    panic!("the root leaf has no table {name:?}; src/btree/pages.rs (Leaf::rows) cannot find it")
}

/// The page number of the root of a table.
fn root_of(file: &[u8], name: &str) -> u64 {
    u64_at(definition_of(file, name), 10)
}

#[test]
fn the_header_has_the_bytes_that_the_window_and_the_pages_assume() {
    let (storage, db) = written();
    let file = storage.bytes.lock().clone();
    let magic = b"redb\x1A\x0A\xA9\x0D\x0A";
    fact("the magic number, which byte 9 follows", "pages.rs (GOD_BYTE)", &file[..9], magic);
    fact("the page size", "layout.rs (BLOCK)", u32_at(&file, 12) as usize, BLOCK_SIZE);
    fact("the field of the region size", "layout.rs (REGION_BLOCKS)", REGION_BLOCKS, 20..24);
    fact("the pages of a region", "layout.rs (REGION_BLOCKS)", u32_at(&file, 20), REGION);
    let used = file[..BLOCK_SIZE].iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    fact("the length of the header", "layout.rs (HEADER_LEN)", used, 320);
    fact("the space for the header", "layout.rs (HEADER_LEN)", used <= HEADER_LEN, true);

    let (active, other) = (file[9] & 1, 1 - (file[9] & 1));
    let slot = |number: u8| &file[64 + 128 * usize::from(number)..][..128];
    fact("the file format", "pages.rs (FILE_FORMAT)", [slot(0)[0], slot(1)[0]], [3, 3]);
    let newer = u64_at(slot(active), 104) > u64_at(slot(other), 104);
    fact("the bit that selects the newer commit", "pages.rs (GOD_BYTE)", newer, true);
    fact("the flags of the roots", "pages.rs (Roots::of)", &slot(active)[1..3], &[1, 1]);
    let system = page(&file, u64_at(slot(active), 40));
    fact("the system root", "pages.rs (Roots::of)", [1, 2].contains(&system[0]), true);

    // The size of a region comes from the header when the database is opened again.
    drop(db);
    let reopened = Plain { sets_region: false, ..storage.clone() };
    commit(&open(&reopened), |transaction| {
        let mut many = transaction.open_table(MANY).unwrap();
        many.insert(&b"later"[..], &[6; 3_000][..]).unwrap();
    });
    let file = storage.bytes.lock().clone();
    fact("the region size after reopening", "window.rs (Mode)", u32_at(&file, 20), REGION);
}

#[test]
fn tables_and_leaves_have_the_bytes_that_the_pages_assume() {
    let (storage, _db) = written();
    let file = storage.bytes.lock().clone();
    let bytes = definition_of(&file, "bytes");
    fact("the kind of a table", "pages.rs (NORMAL_TABLE)", bytes[0], 3);
    fact("the number of rows", "pages.rs (table_root)", u64_at(bytes, 1), 2);
    fact("the flag of a root", "pages.rs (table_root)", bytes[9], 1);
    fact("the rows below a root", "pages.rs (table_root)", u64_at(bytes, 10 + 24), 2);
    fact("keys and values without a width", "pages.rs (table_root)", &bytes[42..52], &[0; 10]);
    let numbers = definition_of(&file, "numbers");
    let widths = &[1, 8, 0, 0, 0, 1, 8, 0, 0, 0];
    fact("keys and values with a width", "pages.rs (table_root)", &numbers[42..52], widths);

    let leaf = page(&file, root_of(&file, "bytes"));
    let mut expected = vec![1, 0, 2, 0];
    for end in [22_u32, 26, 31, 34] {
        expected.extend(end.to_le_bytes());
    }
    expected.extend(b"k1key2first2nd");
    fact("a leaf of byte strings", "pages.rs (Leaf)", &leaf[..34], &expected[..]);
    let leaf = page(&file, root_of(&file, "numbers"));
    let mut expected = vec![1, 0, 3, 0];
    for number in [7_u64, 8, 9, 70, 80, 90] {
        expected.extend(number.to_le_bytes());
    }
    fact("a leaf of numbers", "pages.rs (Leaf)", &leaf[..52], &expected[..]);
}

#[test]
fn branches_and_page_numbers_have_the_bytes_that_the_pages_assume() {
    let (storage, _db) = written();
    let file = storage.bytes.lock().clone();
    let (mut pending, mut leaves, mut regions) = (vec![root_of(&file, MANY_NAME)], 0, 0);
    let first = page(&file, pending[0]);
    fact("the kind of a branch page", "pages.rs (BRANCH)", first[0], 2);
    let mut seen = Vec::new();
    while let Some(number) = pending.pop() {
        regions = regions.max((number >> 20) & 0xF_FFFF);
        let page = page(&file, number);
        if page[0] == 1 {
            leaves += 1;
            let (rows, first_key) =
                (usize::from(u16_at(page, 2)), 4 + 8 * usize::from(u16_at(page, 2)));
            for row in 0..rows {
                seen.push(u32::from_be_bytes(page[first_key + 4 * row..][..4].try_into().unwrap()));
            }
            continue;
        }
        let keys = usize::from(u16_at(page, 2));
        let ends_at = 8 + 24 * (keys + 1);
        for child in (0..=keys).rev() {
            pending.push(u64_at(page, 8 + 16 * (keys + 1) + 8 * child));
        }
        // Each key is the greatest one below its child, or at least separates it from the next.
        let mut at = ends_at + 4 * keys;
        for key in 0..keys {
            let end = u32_at(page, ends_at + 4 * key) as usize;
            let child = u64_at(page, 8 + 16 * (keys + 1) + 8 * key);
            let below = self::page(&file, child);
            if below[0] == 1 {
                let rows = usize::from(u16_at(below, 2));
                let last = &below[4 + 8 * rows + 4 * (rows - 1)..][..4];
                fact("the bound of a child", "pages.rs (Branch)", last <= &page[at..end], true);
            }
            at = end;
        }
    }
    fact("the rows below a branch", "pages.rs (Branch)", seen, (0..1_000).collect());
    fact("page numbers of several regions", "pages.rs (Roots::place)", regions >= 1, true);
    assert!(leaves > 100, "{leaves}");
}

#[test]
fn a_page_that_stands_for_a_damaged_one_fails_only_those_who_read_it() {
    let (storage, db) = written();
    drop(db);
    {
        let mut file = storage.bytes.lock();
        let at = offset_of(&file, root_of(&file, "bytes"));
        file[at..at + BLOCK_SIZE].fill(0);
        super::window::write_damaged_page(&mut file[at..at + BLOCK_SIZE]);
    }
    let db = open(&storage);
    let transaction = db.begin_read().unwrap();
    let read = transaction.open_table(BYTES).map_err(redb::Error::from).and_then(|bytes| {
        bytes.get(&b"k1"[..]).map(|row| row.is_some()).map_err(redb::Error::from)
    });
    let is_corrupted = matches!(read, Err(redb::Error::Corrupted(_)));
    fact("the error of a child of order 31", "window/blocks.rs", is_corrupted, true);
    let numbers = transaction.open_table(NUMBERS).unwrap();
    let other = numbers.get(8).unwrap().map(|value| value.value());
    fact("reads after such an error", "window/blocks.rs", other, Some(80));
}
