//! The log against a disk that loses, tears and damages writes: what was acknowledged is recovered
//! in order, or the damage is reported.

use super::input::FuzzInput;
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::limits::BLOCK_SIZE;
use crate::log::plan::{RecoveryPlan, plan};
use crate::log::scan::scan_segment;
use crate::log::segment::{DATA_START, MARK_START, SegmentHeader};
use crate::log::{AppendError, Log, LogLayout, QueueShare, SEGMENTS};
use crate::storage::Storage;
use crate::storage::sim::SimStorage;
use std::collections::VecDeque;
use std::sync::Arc;

const SEGMENT_LEN: usize = DATA_START + 2 * BLOCK_SIZE;
const LAYOUT: LogLayout =
    LogLayout { file_id: *b"a log of a tape.", offset: 0, segment_size: SEGMENT_LEN as u64 };

/// The most steps of one tape.
const STEPS_MAX: usize = 200;

/// The bytes of an input that choose the crash and the damage at its end.
const DECAY_LEN: usize = 5;

/// `data` is a tape of operations: frames are appended, flushed and covered by a B-tree, which is
/// only an LSN here; the power fails, sometimes during a recovery; and at the end a byte of the log
/// is damaged.
pub fn log_recovery(data: &[u8]) {
    // The damage comes first, so that a tape of any length has it.
    let (decay, steps) = data.split_at(data.len().min(DECAY_LEN));
    let (mut decay, mut input) = (FuzzInput::new(decay), FuzzInput::new(steps));
    let mut tape = Tape::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        tape.step(&mut input);
    }
    tape.decay(&mut decay);
}

struct Tape {
    storage: SimStorage,
    log: Log,
    /// The LSN that the B-tree has durably reached.
    btree_lsn: u64,
    /// The last frame of the segment that is freed next.
    frozen_lsn: u64,
    /// The last frames of the uses that follow it, while frames are queued for later ones.
    full_lsns: VecDeque<u64>,
    /// The payload of every frame that was appended and may still exist, by LSN - 1.
    payloads: Vec<Vec<u8>>,
    acknowledged: u64,
}

impl Tape {
    fn new() -> Self {
        let storage = SimStorage::new(1);
        storage.set_len((SEGMENT_LEN * SEGMENTS) as u64).unwrap();
        storage.sync_data().unwrap();
        for index in 0..SEGMENTS {
            let header =
                SegmentHeader { generation: index as u64 + 1, index: index as u64, btree_lsn: 0 };
            header.write(&storage, LAYOUT.segment_offset(index), &LAYOUT.file_id).unwrap();
        }
        let plan = read_plan(&storage, 0).unwrap();
        let log = Log::new(Arc::new(storage.clone()), LAYOUT, &plan);
        let (btree_lsn, frozen_lsn, acknowledged) = (0, 0, 0);
        let (full_lsns, payloads) = (VecDeque::new(), Vec::new());
        Self { storage, log, btree_lsn, frozen_lsn, full_lsns, payloads, acknowledged }
    }

    fn step(&mut self, input: &mut FuzzInput<'_>) {
        match input.below(8) {
            0..3 => self.append(input),
            3 => self.wait(),
            4 => {
                // Durability `Os`: written, and not flushed.
                let _ = self.log.write_appended();
            }
            5 => {
                let _ = self.log.mark_idle();
            }
            6 => self.free_spare(),
            _ => self.crash(input),
        }
    }

    fn append(&mut self, input: &mut FuzzInput<'_>) {
        // With payloads of one size, stale frames begin exactly where a new one ends.
        let len = [8, 40, 40, 40, 500, 3_000][input.below(6)];
        let lsn = self.payloads.len() as u64 + 1;
        let mut payload = lsn.to_le_bytes().to_vec();
        payload.resize(len, input.byte());
        loop {
            match self.log.append(&payload, Durability::Sync, QueueShare::Callers) {
                Ok(given) => {
                    assert_eq!(given, lsn);
                    return self.payloads.push(payload);
                }
                Err(AppendError::SegmentFull) => {
                    let last_lsn = self.payloads.len() as u64;
                    if self.log.spare_is_free() {
                        self.frozen_lsn = last_lsn;
                        self.log.rotate(0);
                    } else if self.log.active_is_empty() || input.byte().is_multiple_of(2) {
                        self.free_spare();
                    } else {
                        self.full_lsns.push_back(last_lsn);
                        self.log.begin_queue(2 * SEGMENT_LEN as u64, 0);
                    }
                }
                Err(AppendError::Poisoned(_) | AppendError::DiskFull(_)) => {
                    panic!("nothing failed")
                }
            }
        }
    }

    fn wait(&mut self) {
        let writable = self.log.last_writable();
        self.log.wait(writable, Durability::Sync).unwrap();
        self.acknowledged = writable;
    }

    /// The B-tree durably reaches the end of the frozen segment, which is then recycled.
    fn free_spare(&mut self) {
        if self.log.spare_is_free() {
            return;
        }
        self.log.wait(self.frozen_lsn, Durability::Sync).unwrap();
        self.acknowledged = self.acknowledged.max(self.frozen_lsn);
        self.btree_lsn = self.btree_lsn.max(self.frozen_lsn);
        self.log.recycle_spare(self.btree_lsn).unwrap();
        if let Some(full_lsn) = self.full_lsns.pop_front() {
            self.frozen_lsn = full_lsn;
        }
    }

    /// The power fails, perhaps during the next writes, and perhaps again during the recovery.
    fn crash(&mut self, input: &mut FuzzInput<'_>) {
        let in_flight = input.byte();
        if in_flight.is_multiple_of(2) {
            self.storage.stop_after(self.storage.events() + u64::from(in_flight / 64));
            for _ in 0..2 {
                if self.log.wait(self.log.last_writable(), Durability::Sync).is_ok() {
                    self.acknowledged = self.log.last_writable();
                }
            }
        }
        self.acknowledged = self.acknowledged.max(self.log.durable());
        self.storage.power_off();
        let mut image = self.storage.crash_image(input.byte().into());
        let interrupted = input.byte();
        if interrupted < 64 {
            let storage = SimStorage::from_image(image, 1);
            let plan = read_plan(&storage, self.btree_lsn).unwrap();
            storage.stop_after(u64::from(interrupted % 4));
            let _ = settle(&storage, &plan, self.btree_lsn);
            storage.power_off();
            image = storage.crash_image(input.byte().into());
        }
        self.storage = SimStorage::from_image(image, 1);
        let plan = read_plan(&self.storage, self.btree_lsn).unwrap();
        let recovered = self.check(&plan, &self.storage);
        assert!(
            recovered >= self.acknowledged,
            "{recovered} of {} acknowledged",
            self.acknowledged
        );
        settle(&self.storage, &plan, self.btree_lsn).unwrap();
        self.log = Log::new(Arc::new(self.storage.clone()), LAYOUT, &plan);
        self.payloads.truncate(recovered as usize);
        self.acknowledged = recovered;
        let in_other = plan.replay.iter().filter(|(segment, _)| *segment != plan.active.segment);
        self.full_lsns.clear();
        self.frozen_lsn = in_other.map(|(_, frame)| frame.lsn).max().unwrap_or(self.btree_lsn);
    }

    /// Checks that the replayed frames are the appended ones, from the B-tree's LSN on, and returns
    /// the last LSN.
    fn check(&self, plan: &RecoveryPlan, storage: &SimStorage) -> u64 {
        let mut lsn = self.btree_lsn;
        for (segment, frame) in &plan.replay {
            lsn += 1;
            assert_eq!(frame.lsn, lsn);
            let offset = LAYOUT.segment_offset(*segment) + frame.payload_range().start as u64;
            let payload = storage.view(offset, frame.payload_len).unwrap();
            assert_eq!(payload[..], self.payloads[lsn as usize - 1], "the frame of LSN {lsn}");
        }
        assert_eq!(plan.next_lsn, lsn + 1);
        lsn
    }

    /// Damages one byte of the log. Everything up to the durable LSNs of other frames is recovered,
    /// or the damage is reported.
    fn decay(self, input: &mut FuzzInput<'_>) {
        self.storage.power_off();
        let image = self.storage.crash_image(input.byte().into());
        let whole = SimStorage::from_image(image.clone(), 1);
        let before = self.check(&read_plan(&whole, self.btree_lsn).unwrap(), &whole);
        assert!(before >= self.acknowledged);

        let offset = self.interesting_offset(&image, input);
        let mut damaged = image.clone();
        damaged[offset] ^= input.byte().max(1);
        // The durable LSNs of frames that the damage does not touch.
        let promised = scans(&image)
            .iter()
            .enumerate()
            .flat_map(|(index, scan)| scan.valid().map(move |frame| (index, *frame)))
            .filter(|(index, frame)| {
                let start = index * SEGMENT_LEN;
                !(start + frame.offset..start + frame.end()).contains(&offset)
            })
            .map(|(_, frame)| frame.durable_lsn)
            .max();
        let damaged = SimStorage::from_image(damaged, 1);
        match read_plan(&damaged, self.btree_lsn) {
            Ok(plan) => {
                let recovered = self.check(&plan, &damaged);
                assert!(recovered >= promised.unwrap_or_default(), "{recovered} of {promised:?}");
            }
            Err(error) => assert!(matches!(error, Error::Corrupted { .. }), "{error}"),
        }
    }

    /// The offset of a byte of a header, of a frame or, sometimes, anywhere.
    fn interesting_offset(&self, image: &[u8], input: &mut FuzzInput<'_>) -> usize {
        let (choice, number) = (input.below(4), input.number::<2>() as usize);
        let segment = number % SEGMENTS;
        let within = match choice {
            0 => [0, BLOCK_SIZE][number / 2 % 2] + number / 4 % 52,
            1 => number / 2 % SEGMENT_LEN,
            _ => {
                let scan = &scans(image)[segment];
                MARK_START + number / 2 % (scan.end - MARK_START + 1)
            }
        };
        segment * SEGMENT_LEN + within.min(SEGMENT_LEN - 1)
    }
}

fn scans(image: &[u8]) -> Vec<crate::log::scan::SegmentScan> {
    let parts = image.chunks(SEGMENT_LEN).enumerate();
    parts
        .map(|(index, segment)| {
            let header =
                SegmentHeader::read_newest(segment, &LAYOUT.file_id, index as u64).unwrap();
            scan_segment(segment, header)
        })
        .collect()
}

fn read_plan(storage: &SimStorage, btree_lsn: u64) -> Result<RecoveryPlan> {
    let mut found = [None, None];
    for (index, scan) in found.iter_mut().enumerate() {
        let segment = storage.view(LAYOUT.segment_offset(index), SEGMENT_LEN).unwrap();
        *scan = SegmentHeader::read_newest(&segment, &LAYOUT.file_id, index as u64)
            .map(|header| scan_segment(&segment, header));
    }
    plan(btree_lsn, found)
}

/// What the engine does with a plan before it appends.
fn settle(storage: &SimStorage, plan: &RecoveryPlan, btree_lsn: u64) -> Result<()> {
    let failed = |error| Error::io("settling", error);
    for erase in &plan.erase {
        let offset = LAYOUT.segment_offset(erase.segment) + erase.from as u64;
        storage.write_at(offset, &vec![0; erase.to - erase.from]).map_err(failed)?;
    }
    storage.sync_data().map_err(failed)?;
    for recycle in &plan.recycle {
        let header = SegmentHeader {
            generation: recycle.generation,
            index: recycle.segment as u64,
            btree_lsn,
        };
        header.write(storage, LAYOUT.segment_offset(recycle.segment), &LAYOUT.file_id)?;
    }
    Ok(())
}
