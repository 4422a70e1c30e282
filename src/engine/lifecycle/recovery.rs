//! What a crash left in the log, decided and decoded, and how the file becomes what was decided.

use crate::btree::Btree;
use crate::engine::kernel::{View, keys_per_segment};
use crate::error::{Error, Result};
use crate::log::batch::decode_batch;
use crate::log::growth::LEAST_SPACE;
use crate::log::plan::{RecoveryPlan, Spare, plan};
use crate::log::scan::{scan_segment, scan_written};
use crate::log::segment::SegmentHeader;
use crate::log::{LogLayout, SEGMENTS};
use crate::memtable::Memtable;
use crate::storage::{Storage, StorageView};
use crate::tables::{Catalogue, Value};
use std::sync::Arc;

/// What the log says, decided and decoded; nothing is written yet.
pub(super) struct Recovered {
    pub(super) plan: RecoveryPlan,
    /// The newest header of each segment.
    headers: Vec<SegmentHeader>,
    pub(super) btree_lsn: u64,
    /// The rows of the segment that is appended to.
    active: Arc<Memtable>,
    /// The rows of the other one, when the B-tree does not have them yet.
    frozen: Option<Arc<Memtable>>,
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
    let (mut scans, mut headers) = ([None, None], Vec::new());
    let mut segments = Vec::with_capacity(SEGMENTS);
    for (index, scan) in scans.iter_mut().enumerate() {
        let offset = layout.segment_offset(index);
        // The rest is a hole, which is not mapped: it may have more bytes than this machine has
        // memory, and on a full tmpfs a look at it through a map would end the process.
        let written = storage.data_len(offset, segment_len);
        let mut segment = storage
            .view(offset, written)
            .map_err(|error| Error::reading(format!("log segment {index}"), error))?;
        let header = SegmentHeader::read_newest(&segment, &layout.file_id, index as u64);
        headers.extend(header);
        *scan = header.map(|header| scan_written(&segment, segment_len, header));
        if scan.as_ref().is_some_and(|scan| scan.needs_zeros) {
            let mut whole = segment.to_vec();
            whole.resize(segment_len, 0);
            segment = StorageView::Owned(whole);
            *scan = header.map(|header| scan_segment(&segment, header));
        }
        segments.push(segment);
    }
    let plan = plan(btree_lsn, scans)?;

    let new_table = |is_of: fn(usize, usize) -> bool| {
        let of_table = plan.replay.iter().filter(|(index, _)| is_of(*index, plan.active.segment));
        let bytes = of_table.map(|(_, frame)| frame.payload_range().len() as u64).sum::<u64>();
        Memtable::for_keys(keys_per_segment(bytes.max(LEAST_SPACE.min(layout.segment_size))))
    };
    let (active, frozen) = (new_table(|a, b| a == b), new_table(|a, b| a != b));
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
    let frozen = matches!(plan.spare, Spare::Frozen { .. }).then(|| Arc::new(frozen));
    Ok(Recovered { plan, headers, btree_lsn, active: Arc::new(active), frozen })
}

impl Recovered {
    /// The rows, as readers see them.
    pub(super) fn view(&self, btree: &Btree) -> View {
        let (active, frozen) = (Arc::clone(&self.active), self.frozen.clone());
        View { active, full: Vec::new(), frozen, btree: btree.view() }
    }

    /// Makes the file what was decided. See [`super::open`] for the order.
    pub(super) fn settle(&self, storage: &dyn Storage, layout: &LogLayout) -> Result<()> {
        let failed = |error| Error::io("settling what a crash left in the log", error);
        self.take_space(storage, layout)?;
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

    /// Gives each segment the space that it begins with, because a log with holes would find a full
    /// disk in the middle of a group; and gives back what an earlier opening left beyond.
    fn take_space(&self, storage: &dyn Storage, layout: &LogLayout) -> Result<()> {
        for index in 0..SEGMENTS {
            let used =
                if index == self.plan.active.segment { self.plan.active.position } else { 0 };
            let space = layout.first_space(used as u64);
            let offset = layout.segment_offset(index);
            storage
                .fill_holes(offset, space)
                .map_err(|error| Error::io("reserving the space of the log", error))?;
            let has_frozen_frames = index != self.plan.active.segment
                && matches!(self.plan.spare, Spare::Frozen { .. });
            if space < layout.segment_size && !has_frozen_frames {
                // Where this fails, the file takes more space than it needs.
                let _ = storage.release(offset + space, layout.segment_size - space);
            }
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
        let carried = replay.iter().map(|(_, frame)| frame.durable_lsn);
        let promised = carried.fold(self.plan.marked, u64::max);
        for (index, frame) in replay.iter().filter(|(_, frame)| frame.lsn > promised) {
            let offset = layout.segment_offset(*index) + frame.offset as u64;
            let mut bytes = vec![0; frame.end().saturating_sub(frame.offset)];
            storage.read_at(offset, &mut bytes)?;
            storage.write_at(offset, &bytes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
