use super::super::{ListScope, scan};
use super::*;
use crate::engine::access::{PageSize, RowPage, RowRange};
use crate::stores::map_tx::MapTx;
use crate::stores::page::Cursor;

/// A transaction over a map that counts the rows it hands out.
struct CountingStateReads {
    rows: MapTx,
    read: usize,
}

impl CountingStateReads {
    fn new() -> Self {
        Self { rows: MapTx::at(1_000), read: 0 }
    }

    /// How many rows `operation` reads.
    fn reads<R>(&mut self, operation: impl FnOnce(&mut Self) -> R) -> (R, usize) {
        self.read = 0;
        let answer = operation(self);
        (answer, self.read)
    }
}

impl Reader for CountingStateReads {
    fn moment(&self) -> crate::engine::time_line::Moment {
        self.rows.moment()
    }

    fn get(&mut self, table: Table, key: &[u8]) -> crate::error::Result<Option<Value>> {
        self.read += 1;
        self.rows.get(table, key)
    }

    fn page(&mut self, range: RowRange<'_>, size: PageSize) -> crate::error::Result<RowPage> {
        let page = self.rows.page(range, size)?;
        self.read += page.rows.len().max(1);
        Ok(page)
    }
}

impl Writer for CountingStateReads {
    fn require(&mut self, _: crate::durability::Durability) {}

    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.rows.put(table, key, value);
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        self.rows.delete(table, key);
    }
}

const TABLES: [Table; 4] =
    [Table::STATE, Table::STATE_EVENT, Table::STATE_KIND, Table::STATE_TENANT_KIND];

fn of(user: &str, id: &str, kind: &str) -> StateRecord {
    StateRecord { id: id.into(), ..StateRecord::new(Identity::new("t", user, "s", ""), kind, id) }
}

fn counts(tx: &MapTx) -> [usize; 4] {
    TABLES.map(|table| tx.keys(table).len())
}

fn all() -> StepRange {
    StepRange::default()
}

#[test]
fn secondary_rows_come_and_go_with_their_primary() {
    let mut tx = MapTx::at(5);
    save(&mut tx, None, &of("u", "e1", "a")).unwrap();
    save(&mut tx, None, &of("u", "e2", "b")).unwrap();
    assert_eq!(counts(&tx), [2; 4]);
    save(&mut tx, None, &of("u", "e3", "a")).unwrap();
    assert_eq!(counts(&tx), [2; 4]);
    assert_eq!(tx.keys(Table::STATE_EVENT), [b"e2", b"e3"]);
    delete(&mut tx, None, &Identity::new("t", "u", "s", ""), "b").unwrap();
    assert_eq!(counts(&tx), [1; 4]);
    assert_eq!(
        delete_scope(&mut tx, None, ("t", "u", "s"), &mut all(), FrameBudget::UNBOUNDED).unwrap(),
        (1, true)
    );
    assert_eq!(counts(&tx), [0; 4]);
}

#[test]
fn replacing_a_state_leaves_the_index_by_kind_alone() {
    let mut tx = MapTx::at(5);
    save(&mut tx, None, &of("u", "e1", "a")).unwrap();
    let writes = tx.writes;
    save(&mut tx, None, &of("u", "e2", "a")).unwrap();
    assert_eq!(tx.writes - writes, 3);
    save(&mut tx, None, &of("u", "e2", "a")).unwrap();
    assert_eq!(tx.writes - writes, 3);
}

#[test]
fn a_refused_operation_stages_nothing() {
    let mut tx = MapTx::at(5);
    save(&mut tx, None, &of("u", "e1", "a")).unwrap();
    let before = tx.snapshot();
    let whose = Identity::new("t", "u", "s", "");
    let expectations = [
        SlotExpectation::absent(whose.clone(), "b"),
        SlotExpectation::current(whose.clone(), "a", "e1".into()),
    ];
    let conflicting = StateRecord { version: 7, ..of("u", "e1", "a") };
    assert!(
        save_batch_if(&mut tx, None, &expectations, &[of("u", "e2", "b"), conflicting]).is_err()
    );
    assert!(save(&mut tx, None, &of("u", "e1", "b")).is_err());
    assert!(!delete_if(&mut tx, None, &SlotExpectation::current(whose, "a", "e2".into())).unwrap());
    assert_eq!(tx.snapshot(), before);
}

#[test]
fn damage_is_corruption_and_stages_nothing() {
    let mut tx = MapTx::at(5);
    save(&mut tx, None, &of("u", "e1", "a")).unwrap();
    let key = tx.keys(Table::STATE).remove(0);
    tx.put(Table::STATE, &key, b"\xff".to_vec());
    let before = tx.snapshot();
    let whose = Identity::new("t", "u", "s", "");
    let corrupted = |answer: Result<(), StateError>| {
        assert!(matches!(answer, Err(StateError::Store(Error::Corrupted { .. }))), "{answer:?}");
    };
    corrupted(save(&mut tx, None, &of("u", "e2", "a")));
    corrupted(load(&mut tx, &whose, "a").map(drop));
    corrupted(load_by_event_id(&mut tx, &"e1".into()).map(drop));
    corrupted(delete(&mut tx, None, &whose, "a"));
    corrupted(
        delete_scope(&mut tx, None, ("t", "u", "s"), &mut all(), FrameBudget::UNBOUNDED).map(drop),
    );
    corrupted(scan::list_kind(&mut tx, ListScope::maintenance(), "a").map(drop));
    assert_eq!(tx.snapshot(), before);
    tx.delete(Table::STATE, &key);
    corrupted(load_by_event_id(&mut tx, &"e1".into()).map(drop));
    corrupted(scan::list_kind(&mut tx, ListScope::maintenance(), "a").map(drop));
}

#[test]
fn a_session_is_removed_by_pieces_that_fit() {
    let mut tx = MapTx::at(5);
    for number in 0..100 {
        save(&mut tx, None, &of("u", &format!("e{number}"), &format!("k{number}"))).unwrap();
    }
    save(&mut tx, None, &of("u2", "other", "k")).unwrap();
    let scope = ("t", "u", "s");
    let mut range = states_in(&mut tx, scope).unwrap().unwrap();
    // What is added behind the last one stays.
    save(&mut tx, None, &of("u", "later", "z")).unwrap();
    let mut delete_within = |bytes| {
        delete_scope(&mut tx, None, scope, &mut range, FrameBudget::of_bytes(bytes)).unwrap()
    };
    assert_eq!(delete_within(0), (1, false));
    let (some, is_last) = delete_within(2_000);
    assert!((2..99).contains(&some) && !is_last, "{some}");
    assert_eq!(delete_within(usize::MAX), (99 - some, true));
    assert_eq!(counts(&tx), [2; 4]);
    assert_eq!(states_in(&mut tx, ("t", "u", "none")).unwrap(), None);
}

/// A hundred states of the kind `hit`, and `others` of other kinds around them in the same tenant
/// and in another.
fn hundred_among(others: usize) -> CountingStateReads {
    let mut tx = CountingStateReads::new();
    for number in 0..100 {
        save(&mut tx, None, &of(&format!("{number:03}"), &format!("h{number}"), "hit")).unwrap();
    }
    for number in 0..others {
        let kind = ["h", "hi", "hj", "miss", "a"][number % 5];
        save(
            &mut tx,
            None,
            &of(&format!("{:03}x{number}", number % 100), &format!("o{number}"), kind),
        )
        .unwrap();
        let elsewhere = Identity::new("t2", format!("{number}"), "s", "");
        let other = StateRecord { identity: elsewhere, ..of("", &format!("p{number}"), kind) };
        save(&mut tx, None, &other).unwrap();
    }
    tx
}

#[test]
fn list_kind_reads_the_rows_it_answers_whatever_else_there_is() {
    let mut costs = Vec::new();
    for others in [0, 10, 1_000] {
        let (found, cost) = hundred_among(others)
            .reads(|tx| scan::list_kind(tx, ListScope::maintenance(), "hit").unwrap());
        assert_eq!(found.len(), 100);
        costs.push(cost);
    }
    assert_eq!(costs, [200; 3]);
}

#[test]
fn list_kind_for_identity_reads_the_rows_it_answers() {
    let mut tx = hundred_among(500);
    let whose = Identity::new("t", "007", "s", "");
    let (found, cost) = tx.reads(|tx| scan::list_kind_for_identity(tx, &whose, "h", None).unwrap());
    assert_eq!((found.len(), cost), (1, 1));
}

#[test]
fn a_page_of_a_tenants_scan_costs_its_size_whatever_else_there_is() {
    let mut costs = Vec::new();
    for others in [1_000, 4_000] {
        let mut tx = hundred_among(others);
        let mut cursor: Option<Cursor> = None;
        let (mut found, mut greatest) = (0, 0);
        loop {
            let (page, cost) = tx.reads(|tx| {
                let (scope, what) = (ListScope::maintenance(), ("t", "hit"));
                scan::scan_kind_for_tenant(tx, scope, what, 10, cursor.as_ref()).unwrap()
            });
            found += page.items.len();
            greatest = greatest.max(cost);
            let Some(next) = page.next else { break };
            cursor = Some(next);
        }
        assert_eq!(found, 100);
        costs.push(greatest);
    }
    assert!(costs.iter().all(|cost| *cost <= 330), "{costs:?}");
}
