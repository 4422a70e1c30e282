use super::super::row::key_of;
use super::*;
use crate::engine::time_line::{Deadline, Moment};
use crate::stores::map_tx::MapTx;

const TERMS: Terms = Terms { opening_id: 1, timeout_ms: Some(100) };

fn registered(tx: &mut MapTx, hash: &str) -> Registration {
    let id = 7 + tx.writes as u128;
    register_or_join(tx, &key_of("s", hash).unwrap(), TERMS, id).unwrap()
}

fn complete(tx: &mut MapTx, hash: &str, job: Option<&JobId>) -> bool {
    end(tx, &key_of("s", hash).unwrap(), TERMS, job, Progress::Completed(b"5")).unwrap()
}

fn value(tx: &mut MapTx, hash: &str) -> Option<u64> {
    match look(tx, &key_of("s", hash).unwrap(), TERMS.opening_id).unwrap() {
        Found::Now(value) => value,
        Found::Later(..) => panic!("the job is pending"),
    }
}

/// Every row stands in the expiry index exactly once, at its end.
fn check_index(tx: &MapTx) {
    let rows = tx.snapshot();
    let filed: Vec<_> = rows
        .iter()
        .filter(|((table, _), _)| *table == TABLE)
        .filter_map(|((_, key), row)| {
            Some(expiry::encode_key(JobRow::decode(row).unwrap().ends_at?, TABLE, key))
        })
        .collect();
    let mut sorted = filed.clone();
    sorted.sort();
    assert_eq!(tx.keys(Table::EXPIRY), sorted);
}

#[test]
fn the_first_end_wins_and_is_kept_from_then_on() {
    let mut tx = MapTx::at(1_000);
    let job = registered(&mut tx, "h");
    assert!(job.is_owner);
    assert_eq!(registered(&mut tx, "h"), Registration { is_owner: false, ..job });
    tx.now_ms = 1_099;
    assert!(complete(&mut tx, "h", Some(&job.job_id)));
    assert!(!complete(&mut tx, "h", Some(&job.job_id)) && !complete(&mut tx, "h", None));
    check_index(&tx);
    tx.now_ms = 1_198;
    assert_eq!(value(&mut tx, "h"), Some(5));
    tx.now_ms = 1_199;
    assert_eq!(value(&mut tx, "h"), None);
}

#[test]
fn a_job_times_out_at_its_end_and_can_be_taken_over() {
    let mut tx = MapTx::at(0);
    let first = registered(&mut tx, "h");
    tx.now_ms = 100;
    assert!(!complete(&mut tx, "h", Some(&first.job_id)));
    let second = registered(&mut tx, "h");
    assert!(second.is_owner && second.job_id != first.job_id);
    assert!(!complete(&mut tx, "h", Some(&first.job_id)));
    assert!(complete(&mut tx, "h", Some(&second.job_id)));
    check_index(&tx);
}

#[test]
fn a_job_of_another_opening_has_failed() {
    let mut tx = MapTx::at(0);
    let key = key_of("s", "h").unwrap();
    let old =
        register_or_join(&mut tx, &key, Terms { opening_id: 9, timeout_ms: None }, 1).unwrap();
    assert!(!is_in_progress(&mut tx, &key, 1).unwrap());
    assert!(!complete(&mut tx, "h", Some(&old.job_id)));
    assert_eq!(value(&mut tx, "h"), None);
    let page = list(&mut tx, "s", 1, None, 10).unwrap();
    assert_eq!(page.items[0].state, JobState::Failed { error: LEFT_PENDING.into() });
    assert!(registered(&mut tx, "h").is_owner);
    check_index(&tx);
}

#[test]
fn a_timeout_of_zero_is_never_and_the_greatest_does_not_overflow() {
    assert_eq!(timeout_ms(Duration::ZERO), None);
    assert_eq!(timeout_ms(Duration::from_nanos(1)), Some(1));
    assert_eq!(timeout_ms(Duration::MAX), Some(u64::MAX));
    let terms = Terms { opening_id: 1, timeout_ms: Some(u64::MAX) };
    let now = Moment::manual(5);
    assert_eq!(terms.ends_at(&now), Some(Deadline::at(u64::MAX)));
    assert_eq!(Terms { timeout_ms: None, ..terms }.ends_at(&now), None);
}

fn clear_all(tx: &mut MapTx, prefix: &[u8]) {
    let mut all = StepRange::default();
    assert!(clear(tx, prefix, &mut all, FrameBudget::UNBOUNDED).unwrap());
}

#[test]
fn clear_goes_step_by_step_and_takes_the_index_along() {
    let mut tx = MapTx::at(0);
    for number in 0..200 {
        registered(&mut tx, &format!("a{number}"));
    }
    registered(&mut tx, "b");
    register_or_join(&mut tx, &key_of("t", "a").unwrap(), TERMS, 1).unwrap();
    let prefix = key_of("s", "a").unwrap();
    let (mut range, mut steps) = (StepRange::of(&mut tx, TABLE, &prefix).unwrap().unwrap(), 1);
    // What is added behind the last one stays.
    registered(&mut tx, "az");
    while !clear(&mut tx, &prefix, &mut range, FrameBudget::of_bytes(1_000)).unwrap() {
        steps += 1;
        check_index(&tx);
    }
    assert!(steps > 5);
    let kept =
        [("s", "az"), ("s", "b"), ("t", "a")].map(|(name, hash)| key_of(name, hash).unwrap());
    assert_eq!(tx.keys(TABLE), kept);
    clear_all(&mut tx, &key_of("s", "").unwrap());
    assert_eq!(tx.keys(TABLE), [key_of("t", "a").unwrap()]);
}

#[test]
fn listings_go_on_behind_a_cursor_of_their_own_store_only() {
    let mut tx = MapTx::at(0);
    for number in 0..150 {
        registered(&mut tx, &format!("{number:03}"));
    }
    register_or_join(&mut tx, &key_of("s2", "x").unwrap(), TERMS, 1).unwrap();
    let (mut cursor, mut hashes) = (None, Vec::new());
    loop {
        let page = list(&mut tx, "s", 1, cursor.as_ref(), 40).unwrap();
        hashes.extend(page.items.into_iter().map(|entry| entry.hash));
        let Some(next) = page.next else { break };
        assert!(list(&mut tx, "s2", 1, Some(&next), 40).is_err());
        cursor = Some(next);
    }
    assert_eq!(hashes, (0..150).map(|number| format!("{number:03}")).collect::<Vec<_>>());
    let snapshot = tx.snapshot();
    let own = snapshot
        .iter()
        .filter(|((table, key), _)| *table == TABLE && key.starts_with(&prefix_of("s").unwrap()));
    let bytes: usize = own.map(|((_, key), row)| key.len() + row.len()).sum();
    assert_eq!(stats(&mut tx, "s", 1).unwrap().bytes, bytes as u64);
    // The jobs of another opening have failed.
    for (opening, pending) in [(1, 150), (2, 0)] {
        let stats = stats(&mut tx, "s", opening).unwrap();
        assert_eq!((stats.pending, stats.failed), (pending, 150 - pending));
        assert_eq!((stats.completed, stats.expired), (0, 0));
        let job = list(&mut tx, "s", opening, None, 1).unwrap().items.remove(0);
        assert_eq!(job.state == JobState::Pending, pending > 0);
    }
}

#[test]
fn the_judge_waits_for_the_end_of_its_own_job() {
    let mut tx = MapTx::at(0);
    registered(&mut tx, "h");
    let key = key_of("s", "h").unwrap();
    let judged = |tx: &mut MapTx, judge: &Judge| {
        let row = tx.get(TABLE, &key).unwrap();
        judge(row.as_ref()).map(|left| left.is_some())
    };
    let Ok(Found::<Option<u64>>::Later(judge, Some(Deadline { at_ms: 100, .. }))) =
        look(&mut tx, &key, 1)
    else {
        panic!()
    };
    assert_eq!(judged(&mut tx, &judge), None);
    let pending = tx.snapshot();
    complete(&mut tx, "h", None);
    assert_eq!(judged(&mut tx, &judge), Some(true));
    registered(&mut tx, "h");
    assert_eq!(judged(&mut tx, &judge), Some(false));
    assert_eq!(judge(None).map(|left| left.is_some()), Some(false));
    assert_eq!(judge(pending.get(&(TABLE, key.clone()))).map(|left| left.is_some()), None);
}

#[test]
fn a_long_error_is_cut_between_characters() {
    assert_eq!(kept_of("short"), "short");
    let long = "é".repeat(MAX_KEY_LEN);
    assert_eq!(kept_of(&format!("x{long}")).len(), MAX_KEY_LEN - 1);
}

#[test]
fn jobs_have_the_rows_that_are_derived() {
    crate::stores::derived::tests::histories(|tx, random| {
        let key =
            key_of(["", "s", "s\0"][random.usize(0..3)], ["", "h", "h\0"][random.usize(0..3)])
                .unwrap();
        let timeout_ms = random.bool().then(|| random.u64(0..5_000));
        let terms = Terms { opening_id: random.u64(0..2), timeout_ms };
        match random.u8(0..6) {
            0..=2 => drop(register_or_join(tx, &key, terms, random.u128(..)).unwrap()),
            3 => drop(end(tx, &key, terms, None, Progress::Completed(b"1")).unwrap()),
            4 => drop(end(tx, &key, terms, None, Progress::Failed("e")).unwrap()),
            _ => clear_all(tx, &prefix_of("s").unwrap()),
        }
    });
}

#[test]
fn a_value_may_have_as_many_bytes_as_it_says_and_no_more() {
    let value = "value".to_owned();
    let len = encode_value(&value, usize::MAX).unwrap().content().len();
    assert!(encode_value(&value, len + 1).is_ok() && encode_value(&value, len).is_ok());
    let refused = encode_value(&value, len - 1).map(drop);
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
}
