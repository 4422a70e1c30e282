//! What a crash left in the log, decided and decoded, and how the file becomes what was decided.

use crate::engine::kernel::keys_per_segment;
use crate::error::{Error, Result};
use crate::log::batch::decode_batch;
use crate::log::plan::{RecoveryPlan, Spare, plan};
use crate::log::scan::scan_segment;
use crate::log::segment::SegmentHeader;
use crate::log::{LogLayout, SEGMENTS};
use crate::memtable::Memtable;
use crate::storage::Storage;
use crate::tables::{Catalogue, Value};

/// What the log says, decided and decoded; nothing is written yet.
pub(super) struct Recovered {
    pub(super) plan: RecoveryPlan,
    /// The newest header of each segment.
    headers: Vec<SegmentHeader>,
    pub(super) btree_lsn: u64,
    /// The rows of the segment that is appended to.
    pub(super) active: Memtable,
    /// The rows of the other one, when the B-tree does not have them yet.
    pub(super) frozen: Option<Memtable>,
}

/// Scans both segments, decides, and decodes the frames that the B-tree does not have.
pub(super) fn recover(
    storage: &dyn Storage,
    layout: &LogLayout,
    tables: Catalogue,
    btree_lsn: u64,
) -> Result<Recovered> {
    let segment_len = usize::try_from(layout.segment_size).map_err(|_| {
        Error::corrupted("superblock", "the segment size does not fit this machine")
    })?;
    let mut segments = Vec::with_capacity(SEGMENTS);
    for index in 0..SEGMENTS {
        let view = storage
            .view(layout.segment_offset(index), segment_len)
            .map_err(|error| Error::io(format!("reading log segment {index}"), error))?;
        segments.push(view);
    }
    let (mut scans, mut headers) = ([None, None], Vec::new());
    for (index, (scan, segment)) in scans.iter_mut().zip(&segments).enumerate() {
        let header = SegmentHeader::read_newest(segment, &layout.file_id, index as u64);
        headers.extend(header);
        *scan = header.map(|header| scan_segment(segment, header));
    }
    let plan = plan(btree_lsn, scans)?;

    let new_table = || Memtable::for_keys(keys_per_segment(layout.segment_size));
    let (active, frozen) = (new_table(), new_table());
    for (index, frame) in &plan.replay {
        let payload = segments.get(*index).and_then(|segment| segment.get(frame.payload_range()));
        let rows = decode_batch(tables, payload.unwrap_or_default()).map_err(|detail| {
            Error::corrupted(format!("log segment {index}, offset {}", frame.offset), detail)
        })?;
        let table = if *index == plan.active.segment { &active } else { &frozen };
        for row in rows {
            table.insert(row.table, row.key.into(), frame.lsn, row.value.map(Value::from));
        }
    }
    let frozen = matches!(plan.spare, Spare::Frozen { .. }).then_some(frozen);
    Ok(Recovered { plan, headers, btree_lsn, active, frozen })
}

impl Recovered {
    /// Makes the file what was decided. See [`super::open`] for the order.
    pub(super) fn settle(&self, storage: &dyn Storage, layout: &LogLayout) -> Result<()> {
        let failed = |error| Error::io("settling what a crash left in the log", error);
        for erase in &self.plan.erase {
            let offset = layout.segment_offset(erase.segment) + erase.from as u64;
            storage
                .write_at(offset, &vec![0; erase.to.saturating_sub(erase.from)])
                .map_err(failed)?;
        }
        self.write_again(storage, layout).map_err(failed)?;
        storage.sync_data().map_err(failed)?;
        for recycle in &self.plan.recycle {
            let (generation, index) = (recycle.generation, recycle.segment);
            let header =
                SegmentHeader { generation, index: index as u64, btree_lsn: self.btree_lsn };
            header.write(storage, layout.segment_offset(index), &layout.file_id)?;
        }
        Ok(())
    }

    /// Writes what was recovered and is not known to be durable over itself. After a failed flush
    /// the system shows what it could not write as if it were on the disk, and the next flush does
    /// not cover it.
    fn write_again(&self, storage: &dyn Storage, layout: &LogLayout) -> std::io::Result<()> {
        for header in &self.headers {
            let index = usize::try_from(header.index).map_err(std::io::Error::other)?;
            let offset = layout.segment_offset(index) + header.slot_offset() as u64;
            storage.write_at(offset, &header.encode(&layout.file_id))?;
        }
        let replay = &self.plan.replay;
        let promised = replay.iter().map(|(_, frame)| frame.durable_lsn).max().unwrap_or_default();
        for (index, frame) in replay.iter().filter(|(_, frame)| frame.lsn > promised) {
            let offset = layout.segment_offset(*index) + frame.offset as u64;
            let mut bytes = vec![0; frame.end().saturating_sub(frame.offset)];
            storage.read_at(offset, &mut bytes)?;
            storage.write_at(offset, &bytes)?;
        }
        Ok(())
    }
}
