//! A log over a simulated disk: what each call writes and flushes, and what callers are told.

use super::frame::FRAME_HEADER_LEN;
use super::growth::with_least_log_space;
use super::plan::{ActiveSegment, Spare};
use super::segment::DATA_START;
use super::*;
use crate::storage::recording::{Change, Recording};
use crate::storage::sim::{CallKind, Fault, SimStorage};
use std::sync::atomic::AtomicUsize;
use std::task::{Wake, Waker};
use std::thread;

const CALLERS: QueueShare = QueueShare::Callers;
const SYNC: Durability = Durability::Sync;
const OS: Durability = Durability::Os;
const SEGMENT: u64 = 128 << 10;

fn layout(segment_size: u64) -> LogLayout {
    LogLayout { file_id: [7; 16], offset: 2 * BLOCK_SIZE as u64, segment_size }
}

/// An empty log in whose segments frames may take so many bytes at first.
fn log_on(storage: Arc<dyn Storage>, segment_size: u64, least: u64) -> Log {
    let layout = layout(segment_size);
    storage.set_len(layout.segment_offset(SEGMENTS)).unwrap();
    storage.sync_data().unwrap();
    let plan = RecoveryPlan {
        replay: Vec::new(),
        next_lsn: 1,
        active: ActiveSegment { segment: 0, generation: 8, position: DATA_START },
        spare: Spare::Free { generation: 9 },
        erase: Vec::new(),
        recycle: Vec::new(),
        marked: 0,
    };
    with_least_log_space(least, || Log::new(storage, layout, &plan))
}

fn new_log() -> (SimStorage, Log) {
    let storage = SimStorage::new(1);
    let log = log_on(Arc::new(storage.clone()), SEGMENT, SEGMENT);
    (storage, log)
}

fn append(log: &Log, payload: &[u8], durability: Durability) -> u64 {
    log.append(payload, durability, CALLERS).unwrap()
}

fn write(log: &Log, durability: Durability) -> u64 {
    let lsn = append(log, b"payload", durability);
    log.wait(lsn, durability).unwrap();
    lsn
}

/// Durable writes and flushes so far.
fn flushes(storage: &SimStorage) -> (u64, u64) {
    (storage.durable_writes(), storage.syncs())
}

/// Whether the disk has these bytes after a power failure now.
fn survives(storage: &SimStorage, payload: &[u8]) -> bool {
    storage.crash_image(0).windows(payload.len()).any(|bytes| bytes == payload)
}

#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl CountingWaker {
    fn woken(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn waker() -> (Arc<CountingWaker>, Waker) {
    let woken = Arc::new(CountingWaker::default());
    (Arc::clone(&woken), Waker::from(woken))
}

#[test]
fn a_lone_caller_pays_for_one_durable_write_and_beside_relaxed_ones_for_a_write_and_a_flush() {
    let (storage, log) = new_log();
    let (durable_writes, syncs) = flushes(&storage);
    write(&log, SYNC);
    write(&log, SYNC);
    assert_eq!(flushes(&storage), (durable_writes + 2, syncs));
    let lsn = write(&log, OS);
    assert_eq!(flushes(&storage), (durable_writes + 2, syncs), "only a write");
    assert!(log.reached(lsn, OS) && !log.reached(lsn, SYNC) && !log.reached(lsn + 1, OS));
    // The first one finds it unflushed, and 32 more expect others like it.
    for group in 1..=33 {
        write(&log, SYNC);
        assert_eq!(flushes(&storage), (durable_writes + 2, syncs + group));
    }
    write(&log, SYNC);
    assert_eq!(flushes(&storage), (durable_writes + 3, syncs + 33));
    // What was written meanwhile is not durable by the write of another frame.
    append(&log, b"written only", OS);
    log.write_appended().unwrap();
    write(&log, SYNC);
    assert_eq!(flushes(&storage), (durable_writes + 3, syncs + 34));
    assert!(survives(&storage, b"written only"));
    write(&log, OS);
    write(&log, SYNC);
    log.drive();
    assert_eq!(flushes(&storage), (durable_writes + 3, syncs + 35), "nothing is left to flush");
}

#[test]
fn what_the_other_segment_has_is_flushed_before_the_first_frame_of_a_segment() {
    let (storage, log) = new_log();
    write(&log, SYNC);
    append(&log, b"in the first segment", OS);
    log.write_appended().unwrap();
    let before = flushes(&storage);
    log.rotate(0);
    append(&log, b"in the second segment", OS);
    log.write_appended().unwrap();
    assert_eq!(flushes(&storage), (before.0, before.1 + 1));
    assert!(survives(&storage, b"in the first segment"));
    assert!(!survives(&storage, b"in the second segment"));

    let lsn = write(&log, SYNC);
    log.recycle_spare(lsn).unwrap();
    log.rotate(0);
    let before = flushes(&storage);
    append(&log, b"in the third use", OS);
    log.write_appended().unwrap();
    assert_eq!(flushes(&storage), before, "everything is durable");
}

#[test]
fn what_a_full_disk_dropped_is_written_again_before_the_next_flush() {
    let (storage, log) = new_log();
    append(&log, b"before", OS);
    log.write_appended().unwrap();
    log.rotate(0);
    write(&log, SYNC);
    append(&log, b"only written", OS);
    log.write_appended().unwrap();
    storage.fail_call(CallKind::Sync, 0, Fault::EnospcDropped);
    let lsn = append(&log, b"flushed", SYNC);
    log.set_disk_full_patience(Duration::from_secs(5));
    log.wait(lsn, SYNC).unwrap();
    assert!(survives(&storage, b"only written") && survives(&storage, b"flushed"));
    assert_eq!((log.disk_full_stalls(), log.is_disk_full()), (1, false));
}

#[test]
fn callers_are_told_of_a_full_disk_when_their_patience_is_over_and_go_on_when_it_has_space() {
    let (storage, log) = new_log();
    let durable = write(&log, SYNC);
    assert_eq!((log.disk_full_stalls(), log.is_disk_full()), (0, false));
    log.set_disk_full_patience(Duration::from_millis(40));
    (0..10_000).for_each(|_| storage.fail_call(CallKind::DurableWrite, 0, Fault::Enospc));
    let lsn = append(&log, b"payload", SYNC);
    let started = Instant::now();
    assert!(matches!(log.wait(lsn, SYNC), Err(Error::OutcomeUnknown { .. })));
    assert!(started.elapsed() >= Duration::from_millis(40));
    assert!(matches!(log.flush_up_to(lsn), Err(Error::DiskFull { .. })));
    assert!(log.failure().is_none() && log.is_disk_full() && !log.try_again());
    assert_eq!(log.disk_full_stalls(), 1);
    let refused = log.append(b"payload", SYNC, CALLERS);
    assert!(matches!(refused, Err(AppendError::DiskFull(_))), "{refused:?}");
    let given_up = [durable, lsn, lsn + 1].map(|lsn| log.given_up(lsn).is_some());
    assert_eq!(given_up, [false, true, false]);

    storage.clear_faults();
    assert!(log.try_again());
    assert_eq!((log.durable(), log.is_disk_full()), (lsn, false));
    assert!(log.given_up(lsn).is_none());
    write(&log, SYNC);
    assert_eq!(log.disk_full_stalls(), 1);
}

#[test]
fn closing_waits_a_second_for_space_and_then_ends_the_log() {
    let (storage, log) = new_log();
    // A caller that did not notice that the log is closing would wait for a day.
    log.set_disk_full_patience(Duration::from_secs(86_400));
    (0..10_000).for_each(|_| storage.fail_call(CallKind::DurableWrite, 0, Fault::Enospc));
    let lsn = append(&log, b"payload", SYNC);
    let started = Instant::now();
    log.closing();
    log.wait(lsn, SYNC).unwrap_err();
    assert!(started.elapsed() >= Duration::from_millis(900), "it gave up too soon");
    log.end_unwritten();
    let failure = log.failure().map(|failure| failure.kind());
    assert_eq!(failure, Some(io::ErrorKind::StorageFull));
}

#[test]
fn an_idle_log_is_marked_once_when_everything_is_durable() {
    let (storage, log) = new_log();
    let writes = || {
        let before = storage.events();
        log.mark_idle().unwrap();
        storage.events() - before
    };
    assert_eq!(writes(), 0, "there is nothing to cover");
    let lsn = append(&log, b"payload", SYNC);
    assert_eq!(writes(), 0, "it is not durable");
    log.wait(lsn, SYNC).unwrap();
    assert_eq!((writes(), writes()), (1, 0));
    for segment in [1, 0] {
        log.rotate(0);
        let lsn = write(&log, SYNC);
        assert_eq!((writes(), writes()), (1, 0));
        let at = usize::try_from(layout(SEGMENT).segment_offset(segment)).unwrap();
        let image = storage.process_crash_image();
        let mark = scan::mark_in(&image[at..]).unwrap();
        assert_eq!((mark.durable_lsn, mark.lsn), (lsn, lsn + 1));
        log.recycle_spare(lsn).unwrap();
    }
    write(&log, SYNC);
    storage.fail_call(CallKind::Sync, 0, Fault::Eio);
    write(&log, OS);
    log.flush_up_to(log.appended()).unwrap_err();
    assert_eq!(writes(), 0, "the log has failed");
    assert!(log.reached(log.appended() + 1, SYNC), "no wait is left");
    let (_, waker) = waker();
    let polled = log.poll(log.appended(), SYNC, &mut None, &waker);
    assert!(matches!(polled, Some(Err(Error::OutcomeUnknown { .. }))), "{polled:?}");
    let polled = log.poll(log.appended() + 1, OS, &mut None, &waker);
    assert!(matches!(polled, Some(Err(Error::OutcomeUnknown { .. }))), "{polled:?}");
}

#[test]
fn the_largest_payload_fills_a_segment_but_for_a_mark() {
    let (_, log) = new_log();
    let space = usize::try_from(SEGMENT).unwrap() - DATA_START;
    assert_eq!(log.max_payload_len(), space - FRAME_HEADER_LEN - 8);
    assert!(log.active_is_empty());
    append(&log, &vec![1; log.max_payload_len()], SYNC);
    assert!(!log.active_is_empty());
}

/// Counts how often a segment is asked for.
struct Asked(Arc<AtomicUsize>);

impl SegmentCall for Asked {
    fn wait(&self, _: u64) -> Result<()> {
        Err(Error::Closed)
    }

    fn ask(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_task_waits_for_a_segment_and_goes_on_when_one_was_freed() {
    let (_storage, log) = new_log();
    let asked = Arc::new(AtomicUsize::new(0));
    log.set_segment_call(Box::new(Asked(Arc::clone(&asked))));
    let before = write(&log, SYNC);
    assert_eq!((log.queued_bytes(CALLERS), log.queued_for()), (0, None));
    log.rotate(0);
    let writable = write(&log, SYNC);
    log.begin_queue(100, 0);
    let queued = append(&log, &[1; 40], SYNC);
    assert!(log.is_queueing() && log.is_queued(queued) && !log.is_queued(writable));
    assert_eq!((log.last_writable(), log.durable()), (writable, writable));
    assert_eq!(log.queued_bytes(CALLERS), frame::frame_len(40) as u64);
    assert!(!log.may_queue(40, CALLERS) && log.may_queue(40, QueueShare::Maintenance));
    thread::sleep(Duration::from_millis(2));
    assert!(log.queued_for().unwrap() >= Duration::from_millis(2));

    let (woken, waker) = waker();
    let mut ticket = None;
    assert!(log.poll(queued, SYNC, &mut ticket, &waker).is_none());
    assert!(matches!(ticket, Some(WaitTicket::Other(_))), "{ticket:?}");
    assert!(log.poll(queued, SYNC, &mut ticket, &waker).is_none());
    assert_eq!((asked.load(Ordering::SeqCst), woken.woken()), (1, 0));
    assert!(!log.tasks_wait_for_write(), "it waits for a segment");
    let mut patient = None;
    assert!(log.poll_patiently(queued, &mut patient, &waker).is_none());
    assert!(matches!(patient, Some(WaitTicket::Other(_))), "{patient:?}");
    log.recycle_spare(before).unwrap();
    log.wake_queued();
    assert_eq!(woken.woken(), 2);
    assert!(!log.is_queueing() && log.queued_for().is_none());
    // Without a background thread the task leads.
    let mut polls = 0;
    while log.poll(queued, SYNC, &mut ticket, &waker).is_none() {
        polls += 1;
        assert!(polls < 10);
    }
    assert_eq!(log.durable(), queued);
}

#[test]
fn a_task_calls_the_thread_that_commits_and_leaves_nothing_behind() {
    let (storage, log) = new_log();
    let called = Arc::new(AtomicUsize::new(0));
    let calls = Arc::clone(&called);
    log.set_leader_call(Box::new(move || {
        calls.fetch_add(1, Ordering::SeqCst);
        true
    }));
    let (woken, waker) = waker();
    let lsn = append(&log, b"payload", SYNC);
    assert!(!log.tasks_wait() && !log.tasks_wait_for_write());
    let mut ticket = None;
    for _ in 0..2 {
        assert!(log.poll(lsn, SYNC, &mut ticket, &waker).is_none());
    }
    assert!(log.tasks_wait() && !log.tasks_wait_for_write());
    assert!(called.load(Ordering::SeqCst) >= 1);
    log.forget(ticket.take().unwrap());
    assert!(!log.tasks_wait(), "one registration, however often it was polled");
    assert!(log.poll(lsn, SYNC, &mut ticket, &waker).is_none());
    log.drive();
    assert_eq!((woken.woken(), log.tasks_wait()), (1, false));
    assert!(matches!(log.poll(lsn, SYNC, &mut ticket, &waker), Some(Ok(()))));

    let before = flushes(&storage);
    let lsn = append(&log, b"payload", OS);
    let mut ticket = None;
    for _ in 0..2 {
        assert!(log.poll(lsn, OS, &mut ticket, &waker).is_none());
    }
    assert!(log.tasks_wait_for_write() && !log.tasks_wait());
    log.forget(ticket.take().unwrap());
    assert!(!log.tasks_wait_for_write());
    assert!(log.poll(lsn, OS, &mut ticket, &waker).is_none());
    // It asks for more now, and waits for one thing only.
    assert!(log.poll(lsn, SYNC, &mut ticket, &waker).is_none());
    assert!(matches!(ticket, Some(WaitTicket::Flush(_))), "{ticket:?}");
    assert!(!log.tasks_wait_for_write() && log.tasks_wait());
    assert!(log.poll(lsn, OS, &mut ticket, &waker).is_none());
    assert!(log.tasks_wait_for_write() && !log.tasks_wait());
    log.write_appended().unwrap();
    assert_eq!((woken.woken(), log.tasks_wait_for_write()), (2, false));
    assert!(matches!(log.poll(lsn, OS, &mut ticket, &waker), Some(Ok(()))));
    assert_eq!(flushes(&storage), before);
}

#[test]
fn a_relaxed_task_writes_without_a_flush_where_no_thread_does() {
    let (storage, log) = new_log();
    let before = flushes(&storage);
    let lsn = append(&log, b"payload", OS);
    let (_, waker) = waker();
    assert!(matches!(log.poll(lsn, OS, &mut None, &waker), Some(Ok(()))));
    assert_eq!((flushes(&storage), log.written()), (before, lsn));
}

#[test]
fn a_segment_grows_and_shrinks_in_the_file() {
    const MIB: u64 = 1 << 20;
    let storage = Recording::new(SimStorage::new(1));
    let log = log_on(Arc::clone(&storage) as _, 16 * MIB, 4 * MIB);
    let (first, second) = (layout(16 * MIB).segment_offset(0), layout(16 * MIB).segment_offset(1));
    let space = |since: usize| -> Vec<Change> {
        let of_space = |change: &Change| !matches!(change, Change::Write(..));
        storage.changes().into_iter().skip(since).filter(of_space).collect()
    };
    let fill = |now_ms| {
        for _ in 0..3 {
            append(&log, &vec![1; 1 << 20], SYNC);
        }
        let lsn = log.appended();
        log.wait(lsn, SYNC).unwrap();
        log.rotate(now_ms);
        lsn
    };
    let lsn = fill(0);
    log.recycle_spare(lsn).unwrap();
    assert_eq!(space(0), [], "how long it took is not known");
    let lsn = fill(10);
    // It was filled soon, so it gets twice the space, beside a large B-tree.
    let flushes_before = storage.inner().syncs();
    let generation = log.renew_segment(lsn, 64 * MIB).unwrap();
    log.segment_freed(generation);
    let grown = [4, 5, 6, 7].map(|at| Change::FillHoles(second + at * MIB, MIB));
    assert_eq!(space(0), grown);
    assert_eq!(storage.inner().syncs(), flushes_before + 4);
    assert_eq!((log.space_of(0), log.space_of(1)), (4 * MIB, 8 * MIB));

    // A disk that becomes full gives it a part, and gets the rest back.
    let lsn = fill(20);
    let since = storage.changes().len();
    storage.inner().fail_call(CallKind::Write, 2, Fault::Enospc);
    let generation = log.renew_segment(lsn, 64 * MIB).unwrap();
    log.segment_freed(generation);
    let [a, b, c] = [4, 5, 6].map(|at| Change::FillHoles(first + at * MIB, MIB));
    assert_eq!(space(since), [a, b, c, Change::Release(first + 6 * MIB, MIB)]);
    assert_eq!((log.space_of(0), log.space()), (6 * MIB, 14 * MIB));

    for _ in 0..2 {
        append(&log, &vec![1; 1 << 20], SYNC);
    }
    let lsn = fill(20 + 11 * 60 * 1_000);
    let since = storage.changes().len();
    let generation = log.renew_segment(lsn, 64 * MIB).unwrap();
    log.segment_freed(generation);
    assert_eq!(space(since), [Change::Release(second + 4 * MIB, 4 * MIB)]);

    let since = storage.changes().len();
    log.give_back_space();
    assert_eq!(space(since), [Change::Release(first + 4 * MIB, 2 * MIB)]);
}

#[test]
fn the_name_of_the_file_is_looked_at_when_that_is_due_and_when_it_is_asked_for() {
    for asked in [false, true] {
        let storage = Recording::new(SimStorage::new(1));
        let log = log_on(Arc::clone(&storage) as _, SEGMENT, SEGMENT);
        thread::sleep(Duration::from_millis(20));
        let started = Instant::now();
        log.look_at_name_next();
        log.check_name().unwrap();
        storage.lose_name("edge.cloak");
        let early = log.check_name();
        if started.elapsed() < Duration::from_millis(400) {
            early.unwrap();
            assert!(log.failure().is_none(), "the next look is not due");
        }
        if asked {
            assert!(matches!(log.check_name_now(), Err(Error::Unlinked { .. })));
        } else {
            thread::sleep(Duration::from_millis(600));
            assert!(matches!(log.check_name(), Err(Error::Unlinked { .. })));
        }
        assert!(matches!(log.check_name(), Err(Error::Unlinked { .. })));
        assert!(log.check_lost().is_err());
    }
}
