//! The protocol against a disk that loses, tears and damages writes: a small model of the write
//! path writes to two segments, the disk crashes, and the plan must recover exactly what was
//! written.

use super::frame::{begin_frame, frame_len, stamp};
use super::plan::{RecoveryPlan, Spare, plan};
use super::scan::scan_segment;
use super::segment::{DATA_START, MARK_START, SegmentHeader};
use crate::error::Error;
use crate::limits::BLOCK_SIZE;
use fastrand::Rng;
use std::collections::BTreeMap;

const SEGMENT_LEN: usize = DATA_START + 3 * BLOCK_SIZE;
const SECTOR: usize = 512;
const FILE: [u8; 16] = *b"a file of a test";

/// Two segments on a disk with a write cache.
#[derive(Clone)]
struct ModelDisk {
    durable: Vec<u8>,
    cached: Vec<u8>,
    unflushed: Vec<(usize, Vec<u8>)>,
}

impl ModelDisk {
    fn write(&mut self, offset: usize, data: &[u8]) {
        self.cached[offset..offset + data.len()].copy_from_slice(data);
        self.unflushed.push((offset, data.to_vec()));
    }

    fn write_durable(&mut self, offset: usize, data: &[u8]) {
        self.cached[offset..offset + data.len()].copy_from_slice(data);
        self.durable[offset..offset + data.len()].copy_from_slice(data);
    }

    fn flush(&mut self) {
        self.durable.copy_from_slice(&self.cached);
        self.unflushed.clear();
    }

    /// Keeps or loses each sector of each unflushed write.
    fn crash(&mut self, random: &mut Rng) {
        let kept = [0.0, 0.3, 0.7, 0.95, 1.0][random.usize(..5)];
        for (offset, data) in std::mem::take(&mut self.unflushed) {
            let mut from = 0;
            while from < data.len() {
                let to = data.len().min(from + SECTOR - (offset + from) % SECTOR);
                if random.f64() < kept {
                    self.durable[offset + from..offset + to].copy_from_slice(&data[from..to]);
                }
                from = to;
            }
        }
        self.cached.copy_from_slice(&self.durable);
    }

    fn recover(&self, btree_lsn: u64) -> Result<RecoveryPlan, Error> {
        plan_of(&self.cached, btree_lsn)
    }
}

fn plan_of(image: &[u8], btree_lsn: u64) -> Result<RecoveryPlan, Error> {
    let scan = |index: usize| {
        let segment = &image[index * SEGMENT_LEN..][..SEGMENT_LEN];
        let header = SegmentHeader::read_newest(segment, &FILE, index as u64)?;
        Some(scan_segment(segment, header))
    };
    plan(btree_lsn, [scan(0), scan(1)])
}

/// The write path that the plan assumes, and a record of what it wrote.
#[derive(Clone)]
struct ModelLog {
    disk: ModelDisk,
    /// The LSN that the B-tree has durably reached.
    btree_lsn: u64,
    /// The payload of every frame that was written and not erased by a recovery, by LSN.
    written: BTreeMap<u64, Vec<u8>>,
    /// The last LSN that was flushed, and therefore acknowledged.
    durable_lsn: u64,
    /// The greatest durable LSN that any frame carries.
    known_durable: u64,
    active: usize,
    generation: u64,
    position: usize,
    spare: Spare,
    next_lsn: u64,
    /// With frames of one size, stale frames begin exactly where a new one ends.
    payload_len: Option<usize>,
}

impl ModelLog {
    fn create(random: &mut Rng) -> Self {
        let generation = random.u64(1..1 << 40);
        let image = vec![0; 2 * SEGMENT_LEN];
        let disk = ModelDisk { durable: image.clone(), cached: image, unflushed: Vec::new() };
        let mut log = ModelLog {
            disk,
            btree_lsn: 0,
            written: BTreeMap::new(),
            durable_lsn: 0,
            known_durable: 0,
            active: 0,
            generation,
            position: DATA_START,
            spare: Spare::Free { generation: generation + 1 },
            next_lsn: 1,
            payload_len: random.bool().then(|| random.usize(1..300)),
        };
        log.write_header(0, generation);
        log.write_header(1, generation + 1);
        log
    }

    fn write_header(&mut self, segment: usize, generation: u64) {
        let header = SegmentHeader { generation, index: segment as u64, btree_lsn: self.btree_lsn };
        self.disk
            .write_durable(segment * SEGMENT_LEN + header.slot_offset(), &header.encode(&FILE));
    }

    /// Writes a group of up to `frames` frames, or fewer when the segment is full.
    fn group(&mut self, frames: usize, random: &mut Rng) {
        let mut group = Vec::new();
        for _ in 0..frames {
            let len_max = [20, 100, 2000][random.usize(..3)];
            let len = self.payload_len.unwrap_or_else(|| random.usize(1..len_max));
            let mut payload = vec![0; len];
            random.fill(&mut payload);
            if self.position + group.len() + frame_len(payload.len()) > SEGMENT_LEN {
                self.write(group);
                self.flush();
                self.rotate();
                group = Vec::new();
            }
            begin_frame(&mut group, self.next_lsn, self.generation, &payload);
            self.written.insert(self.next_lsn, payload);
            self.next_lsn += 1;
        }
        self.write(group);
    }

    fn write(&mut self, mut group: Vec<u8>) {
        if group.is_empty() {
            return;
        }
        stamp(&mut group, self.durable_lsn);
        self.known_durable = self.known_durable.max(self.durable_lsn);
        self.disk.write(self.active * SEGMENT_LEN + self.position, &group);
        self.position += group.len();
    }

    /// Writes a mark if the log is idle.
    fn mark(&mut self) {
        if self.durable_lsn + 1 == self.next_lsn {
            let mut mark = Vec::new();
            begin_frame(&mut mark, self.next_lsn, self.generation, &[]);
            stamp(&mut mark, self.durable_lsn);
            self.known_durable = self.known_durable.max(self.durable_lsn);
            self.disk.write(self.active * SEGMENT_LEN + MARK_START, &mark);
        }
    }

    fn flush(&mut self) {
        self.disk.flush();
        self.durable_lsn = self.next_lsn - 1;
    }

    fn rotate(&mut self) {
        self.checkpoint_frozen();
        self.recycle_covered();
        let Spare::Free { generation } = self.spare else {
            panic!("the spare segment was recycled")
        };
        self.spare = Spare::Frozen { last_lsn: self.next_lsn - 1 };
        self.active = 1 - self.active;
        self.generation = generation;
        self.position = DATA_START;
    }

    fn checkpoint_frozen(&mut self) {
        if let Spare::Frozen { last_lsn } = self.spare {
            self.btree_lsn = self.btree_lsn.max(last_lsn);
        }
    }

    /// The second half of a checkpoint. A crash may come before it.
    fn recycle_covered(&mut self) {
        if matches!(self.spare, Spare::Frozen { last_lsn } if last_lsn <= self.btree_lsn) {
            self.write_header(1 - self.active, self.generation + 1);
            self.spare = Spare::Free { generation: self.generation + 1 };
        }
    }

    fn step(&mut self, random: &mut Rng) {
        match random.u8(..20) {
            0..8 => self.group(random.usize(1..8), random),
            8..14 => self.flush(),
            14..17 => self.mark(),
            17 => self.checkpoint_frozen(),
            18 => self.recycle_covered(),
            _ => {
                // A checkpoint of everything.
                self.flush();
                self.btree_lsn = self.durable_lsn;
            }
        }
    }

    /// The frames that a plan replays must be those that were written, from the B-tree's LSN on,
    /// without a gap.
    fn check_prefix(&self, image: &[u8], plan: &RecoveryPlan, context: &str) {
        let mut expected = self.btree_lsn + 1;
        for (segment, frame) in &plan.replay {
            assert_eq!(frame.lsn, expected, "{context}");
            let payload = &image[segment * SEGMENT_LEN..][frame.payload_range()];
            assert!(
                self.written.get(&frame.lsn).is_some_and(|written| written == payload),
                "{context}"
            );
            expected += 1;
        }
        assert_eq!(plan.next_lsn, expected, "{context}");
    }

    /// Carries out a plan, and crashes after `steps` steps. Returns whether it was completed.
    fn carry_out(&mut self, plan: &RecoveryPlan, mut steps: usize, random: &mut Rng) -> bool {
        for erase in &plan.erase {
            self.disk
                .write(erase.segment * SEGMENT_LEN + erase.from, &vec![0; erase.to - erase.from]);
        }
        let mut crashes = |log: &mut ModelLog| {
            if steps == 0 {
                log.disk.crash(random);
            }
            steps = steps.wrapping_sub(1);
            steps == usize::MAX
        };
        if crashes(self) {
            return false;
        }
        self.written.retain(|&lsn, _| lsn < plan.next_lsn);
        self.next_lsn = plan.next_lsn;
        self.flush();
        if crashes(self) {
            return false;
        }
        for recycle in &plan.recycle {
            self.write_header(recycle.segment, recycle.generation);
            if crashes(self) {
                return false;
            }
        }
        self.active = plan.active.segment;
        self.generation = plan.active.generation;
        self.position = plan.active.position;
        self.spare = plan.spare;
        true
    }
}

#[test]
fn after_any_crash_everything_acknowledged_is_recovered_and_the_next_operation_works() {
    let mut torn = 0;
    for seed in 0..600 {
        let random = &mut Rng::with_seed(seed);
        let mut log = ModelLog::create(random);
        for round in 0..12 {
            for _ in 0..random.usize(1..30) {
                log.step(random);
            }
            let context = format!("seed {seed}, round {round}");
            // When only the process is killed, the system keeps every write.
            if random.bool() {
                log.disk.crash(random);
            }
            loop {
                let plan = log
                    .disk
                    .recover(log.btree_lsn)
                    .unwrap_or_else(|error| panic!("{context}: {error}"));
                log.check_prefix(&log.disk.cached, &plan, &context);
                assert!(plan.next_lsn > log.durable_lsn, "{context}");
                torn += usize::from(!plan.erase.is_empty());
                if log.carry_out(&plan, random.usize(..6), random) {
                    break;
                }
            }
        }
    }
    assert!(torn > 100, "too few crashes tear a tail: {torn}");
}

/// Checks that a damaged image gives an error, or everything up to the greatest durable LSN that
/// any frame carries. Returns whether it was an error.
fn check_damage(log: &ModelLog, image: &[u8], context: &str) -> bool {
    match plan_of(image, log.btree_lsn) {
        Ok(plan) => {
            log.check_prefix(image, &plan, context);
            assert!(
                plan.next_lsn > log.known_durable,
                "{context}: acknowledged frames were dropped"
            );
            false
        }
        Err(Error::Corrupted { .. }) => true,
        Err(error) => panic!("{context}: {error}"),
    }
}

#[test]
fn a_damaged_frame_covered_by_a_later_durable_lsn_is_never_silently_dropped() {
    let mut refused = 0;
    for seed in 0..150 {
        let random = &mut Rng::with_seed(seed);
        let mut log = ModelLog::create(random);
        for _ in 0..random.usize(5..120) {
            log.step(random);
        }
        log.flush();
        log.mark();
        log.disk.flush();
        for _ in 0..40 {
            let index = random.usize(..2 * SEGMENT_LEN);
            let mut image = log.disk.durable.clone();
            image[index] ^= random.u8(1..);
            refused +=
                usize::from(check_damage(&log, &image, &format!("seed {seed}, byte {index}")));
        }
    }
    assert!(refused > 200, "too few flips are detected: {refused}");
}

#[test]
fn any_single_byte_of_a_log_may_flip() {
    let random = &mut Rng::with_seed(7);
    let mut log = ModelLog::create(random);
    // Until one segment was recycled, and both hold frames.
    while log.btree_lsn == 0
        || log.position < DATA_START + 2000
        || matches!(log.spare, Spare::Free { .. })
    {
        log.group(5, random);
        log.flush();
    }
    log.mark();
    log.disk.flush();
    let mut refused = 0;
    for index in 0..2 * SEGMENT_LEN {
        let mut image = log.disk.durable.clone();
        image[index] ^= 0x20;
        refused += usize::from(check_damage(&log, &image, &format!("byte {index}")));
    }
    assert!(refused > SEGMENT_LEN / 2, "{refused}");
}

/// Every single sector and every single block of an idle log, in turn, becomes zero, noise, or what
/// it was at an earlier time. The log tells it, or has every acknowledged frame.
#[test]
fn any_single_sector_or_block_of_an_idle_log_may_be_lost() {
    let (mut refused, mut whole) = (0, 0);
    for seed in 0..24 {
        let random = &mut Rng::with_seed(seed);
        let mut log = ModelLog::create(random);
        let mut earlier = vec![log.disk.cached.clone()];
        for _ in 0..random.usize(5..60) {
            log.step(random);
            if random.u8(..8) == 0 {
                earlier.push(log.disk.cached.clone());
            }
        }
        log.flush();
        earlier.push(log.disk.cached.clone());
        log.mark();
        let acknowledged = log.durable_lsn;
        let image = log.disk.cached.clone();
        for unit in [SECTOR, BLOCK_SIZE] {
            for from in (0..image.len()).step_by(unit) {
                let mut noise = vec![0; unit];
                random.fill(&mut noise);
                let old = earlier.iter().map(|old| old[from..from + unit].to_vec());
                for content in [vec![0; unit], noise].into_iter().chain(old) {
                    let mut damaged = image.clone();
                    damaged[from..from + unit].copy_from_slice(&content);
                    let context = format!("seed {seed}, {unit} bytes at {from}");
                    if check_damage(&log, &damaged, &context) {
                        refused += 1;
                        continue;
                    }
                    let plan = plan_of(&damaged, log.btree_lsn).unwrap();
                    assert!(plan.next_lsn > acknowledged, "{context}");
                    whole += 1;
                }
            }
        }
    }
    assert!(refused > 1_000 && whole > 1_000, "{refused} refused, {whole} whole");
}

#[test]
fn any_combination_of_damage_gives_a_prefix_or_an_error() {
    for seed in 0..300 {
        let random = &mut Rng::with_seed(seed);
        let mut log = ModelLog::create(random);
        for _ in 0..random.usize(5..120) {
            log.step(random);
        }
        let mut image = log.disk.cached.clone();
        for _ in 0..random.usize(1..6) {
            let from = random.usize(..image.len());
            let to = image.len().min(from + random.usize(1..3000));
            match random.u8(..3) {
                0 => image[from..to].fill(0),
                1 => random.fill(&mut image[from..to]),
                _ => image[from] ^= random.u8(1..),
            }
        }
        if let Ok(plan) = plan_of(&image, log.btree_lsn) {
            log.check_prefix(&image, &plan, &format!("seed {seed}"));
        }
    }
}

#[test]
fn a_log_older_than_the_btree_opens_without_replaying_anything() {
    // The log loses everything but its headers, after the B-tree covered it all.
    for seed in 0..100 {
        let random = &mut Rng::with_seed(seed);
        let mut log = ModelLog::create(random);
        for _ in 0..random.usize(5..120) {
            log.step(random);
        }
        log.flush();
        log.btree_lsn = log.durable_lsn;
        for segment in 0..2 {
            let from = random.usize(DATA_START..SEGMENT_LEN);
            log.disk.cached[segment * SEGMENT_LEN..][from..SEGMENT_LEN].fill(0);
        }
        log.flush();
        let plan =
            log.disk.recover(log.btree_lsn).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!((plan.replay.len(), plan.next_lsn), (0, log.btree_lsn + 1), "seed {seed}");
        assert!(log.carry_out(&plan, usize::MAX - 1, random));
        log.group(9, random);
        log.flush();
        let plan =
            log.disk.recover(log.btree_lsn).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        log.check_prefix(&log.disk.cached, &plan, &format!("seed {seed}"));
        assert_eq!(plan.next_lsn, log.next_lsn, "seed {seed}");
    }
}
