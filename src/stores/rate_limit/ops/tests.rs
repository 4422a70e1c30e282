use super::*;
use crate::engine::access::{PageSize, RowPage, RowRange, Value};
use crate::engine::time_line::Deadline;
use crate::stores::map_tx::MapTx;
use crate::stores::rate_limit::RateLimitTx;
use crate::stores::rate_limit::longest_window::LongestWindows;
use std::collections::VecDeque;

const START_MS: u64 = 1_000_000;

fn config(limit: u64, window_ms: u64) -> RateLimitConfig {
    RateLimitConfig { limit, window: Duration::from_millis(window_ms) }
}

fn api(tx: &mut dyn Writer, limit: u64, window_ms: u64) -> RateLimitTx<'_> {
    RateLimitTx::new(tx, &LongestWindows::default(), "api", config(limit, window_ms)).unwrap()
}

#[test]
fn garbage_is_removed_as_fast_as_it_is_made() {
    let mut tx = MapTx::at(START_MS);
    for _ in 0..500 {
        tx.now_ms += 10;
        assert!(api(&mut tx, 1_000, 100).acquire("r").unwrap());
        assert!(tx.keys(Table::RATE_LIMIT_REQUEST).len() <= 11);
        assert_eq!(tx.keys(Table::EXPIRY).len(), 1);
    }
    api(&mut tx, 1_000, 100).reset("r").unwrap();
    for _ in 0..20 {
        tx.now_ms += 10;
        api(&mut tx, 1_000, 100).record("r").unwrap();
    }
    assert!(tx.keys(Table::RATE_LIMIT_REQUEST).len() <= 11);
}

#[test]
fn requests_of_one_millisecond_share_a_row() {
    let mut tx = MapTx::at(START_MS);
    for _ in 0..50 {
        api(&mut tx, 1_000, 100).record("r").unwrap();
    }
    assert_eq!(tx.keys(Table::RATE_LIMIT_REQUEST).len(), 1);
    assert_eq!(api(&mut tx, 1_000, 100).status("r").unwrap().remaining, 950);
}

#[test]
fn the_index_row_follows_only_now_and_then_and_never_falls_far_behind() {
    let mut tx = MapTx::at(START_MS);
    let mut moves = 0;
    let mut last = Vec::new();
    for _ in 0..1_000 {
        tx.now_ms += 1;
        api(&mut tx, 5_000, 1_000).record("r").unwrap();
        let filed = tx.keys(Table::EXPIRY);
        moves += usize::from(filed != last);
        let (indexed_at, table, _) = expiry::decode::decode_key(&filed[0]).unwrap();
        let indexed_at_ms = indexed_at.at_ms;
        assert_eq!(table, Table::RATE_LIMIT);
        assert!(indexed_at_ms + 250 >= tx.now_ms + 1_000 && indexed_at_ms <= tx.now_ms + 1_000);
        last = filed;
    }
    assert!(moves <= 5, "{moves}");
}

/// Counts the rows that an operation touches.
struct CountingLimiterRows {
    inner: MapTx,
    touched: usize,
}

impl Reader for CountingLimiterRows {
    fn moment(&self) -> crate::engine::time_line::Moment {
        self.inner.moment()
    }

    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Value>> {
        self.touched += 1;
        self.inner.get(table, key)
    }

    fn page(&mut self, range: RowRange<'_>, size: PageSize) -> Result<RowPage> {
        let page = self.inner.page(range, size)?;
        self.touched += 1 + page.rows.len();
        Ok(page)
    }
}

impl Writer for CountingLimiterRows {
    fn require(&mut self, _: crate::durability::Durability) {}

    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.touched += 1;
        self.inner.put(table, key, value);
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        self.touched += 1;
        self.inner.delete(table, key);
    }
}

/// The most rows that one acquire touches while a window of `limit` fills, is full, and slides.
fn most_touched(limit: u64) -> usize {
    let mut tx = CountingLimiterRows { inner: MapTx::at(START_MS), touched: 0 };
    let mut most = 0;
    // As many milliseconds as requests fit, so that each has a row of its own.
    let mut acquire = |tx: &mut CountingLimiterRows| {
        tx.touched = 0;
        tx.inner.now_ms += 1;
        let admitted = api(tx, limit, 2 * limit).acquire("r").unwrap();
        most = most.max(tx.touched);
        admitted
    };
    for _ in 0..limit {
        assert!(acquire(&mut tx));
    }
    assert!(!acquire(&mut tx));
    tx.inner.now_ms += limit - 1;
    for _ in 0..10 {
        assert!(acquire(&mut tx));
    }
    most
}

#[test]
fn an_acquire_touches_as_many_rows_at_a_limit_of_2_000_as_at_10() {
    // A map is scanned whole to find a row, so the limit here is not greater; the rows touched are
    // what counts.
    assert!(
        most_touched(2_000) <= most_touched(10),
        "{} {}",
        most_touched(2_000),
        most_touched(10)
    );
    assert!(most_touched(10) <= 20, "{}", most_touched(10));
}

#[test]
fn rows_round_trip_in_frozen_bytes() {
    let mut tx = MapTx::at(300);
    api(&mut tx, 5, 1_000).record("r").unwrap();
    let rows: Vec<_> = tx
        .snapshot()
        .into_iter()
        .map(|((table, key), value)| (table, key, value.to_vec()))
        .collect();
    let key = b"\x01api\0\0r".to_vec();
    let request = [&[0_u8; 7][..], &[1, 0], &[0; 8], &[0; 6], &[1, 44]].concat();
    assert_eq!(
        rows,
        [
            (
                Table::EXPIRY,
                expiry::encode_key(Deadline::at(1_300), Table::RATE_LIMIT, &key),
                vec![]
            ),
            (
                Table::RATE_LIMIT,
                key,
                [
                    &[0, 1, 251, 232, 3, 1, 0, 251, 20, 5][..],
                    &[0, 1, 251, 44, 1, 1, 251, 44, 1, 0, 0, 0],
                ]
                .concat()
            ),
            (Table::RATE_LIMIT_REQUEST, request, vec![0]),
            (Table::RATE_LIMIT_STORE, vec![], vec![1]),
        ]
    );
}

#[test]
fn damaged_rows_are_corruption() {
    for bytes in [&[][..], &[1], &[0; 3], &[255; 20]] {
        let mut tx = MapTx::at(0);
        tx.put(Table::RATE_LIMIT, b"\x01api\0\0r", bytes.to_vec());
        assert!(matches!(api(&mut tx, 1, 1).acquire("r"), Err(crate::Error::Corrupted { .. })));
    }
}

/// What the store must do, as a list of times.
#[derive(Default)]
struct Reference {
    times: VecDeque<u64>,
    last_ms: u64,
}

impl Reference {
    fn acquire(&mut self, now_ms: u64, limit: usize, window_ms: u64) -> bool {
        let now_ms = now_ms.max(self.last_ms);
        self.times.retain(|&ms| ms + window_ms > now_ms);
        let admitted = self.times.len() < limit;
        if admitted {
            self.times.push_back(now_ms);
            self.last_ms = now_ms;
        }
        admitted
    }
}

proptest::proptest! {
    #[test]
    fn windows_are_exact(
        steps in proptest::collection::vec(0_u64..12, 1..200), limit in 0_usize..8,
    ) {
        let (mut tx, mut reference) = (MapTx::at(START_MS), Reference::default());
        for step in steps {
            tx.now_ms += step;
            let now_ms = tx.now_ms;
            let admitted = api(&mut tx, limit as u64, 20).acquire("r").unwrap();
            proptest::prop_assert_eq!(admitted, reference.acquire(now_ms, limit, 20));
        }
    }
}

#[test]
fn a_window_without_requests_remembers_as_long_as_one_that_was_swept() {
    for swept in [true, false] {
        let mut tx = MapTx::at(START_MS);
        api(&mut tx, 5, 1).set_resource_config("r", config(5, 60)).unwrap();
        api(&mut tx, 5, 1).record("r").unwrap();
        api(&mut tx, 5, 1).set_resource_config("r", config(5, 1)).unwrap();
        tx.now_ms += 100;
        if swept {
            for table in [Table::RATE_LIMIT, Table::RATE_LIMIT_REQUEST, Table::EXPIRY] {
                tx.keys(table).iter().for_each(|key| tx.delete(table, key));
            }
        }
        api(&mut tx, 5, 1).record("r").unwrap();
        tx.now_ms += 5;
        api(&mut tx, 5, 1).set_resource_config("r", config(5, 60)).unwrap();
        assert_eq!(api(&mut tx, 5, 1).status("r").unwrap().remaining, 5, "swept: {swept}");
    }
}
