//! Where the parts of a file lie: from its superblock, or else from what can be recognized without
//! it.

use super::report::SalvageReport;
use super::sectors::read_what_is_there;
use crate::btree::pages::header_at;
use crate::error::{Error, Result};
use crate::limits::{BLOCK_SIZE, MAX_LOG_CAPACITY};
use crate::log::SEGMENTS;
use crate::log::segment::SegmentHeader;
use crate::storage::{Storage, Superblock};
use std::path::Path;

const BLOCK: u64 = BLOCK_SIZE as u64;

/// How much is read at a time while the parts are looked for.
const CHUNK: usize = 1 << 20;

/// The superblock, or one that says what the parts themselves say.
pub(super) fn find(
    storage: &dyn Storage,
    path: &Path,
    report: &mut SalvageReport,
) -> Result<Superblock> {
    let refused = match Superblock::read(storage, path) {
        Ok(superblock) => {
            for (copy, name) in Superblock::read_copies(storage).into_iter().zip(["A", "B"]) {
                if let Err(detail) = copy {
                    report.note(format!(
                        "copy {name} of the superblock is damaged ({detail}); the other one was used"
                    ));
                }
            }
            return Ok(superblock);
        }
        Err(error @ (Error::Corrupted { .. } | Error::NotCloakroom { .. })) => error,
        Err(other) => return Err(other),
    };
    // A copy may be intact although the file ends early, or although the other one contradicts it.
    if let Some(intact) =
        Superblock::read_copies(storage).into_iter().find_map(std::result::Result::ok)
    {
        report.lose("superblock", refused.cause());
        return Ok(intact);
    }
    match recognize(storage)? {
        Some(superblock) => {
            report.note(format!(
                "the superblock is lost ({}); where the parts of the file lie was told from the parts",
                refused.cause()
            ));
            Ok(superblock)
        }
        None => Err(refused),
    }
}

/// What of the file was recognized.
#[derive(Default)]
struct Evidence {
    file_id: Option<[u8; 16]>,
    segment_size: Option<u64>,
}

/// Looks for the headers of the segments and of the B-tree, each of which has a magic number and a
/// checksum.
fn recognize(storage: &dyn Storage) -> Result<Option<Superblock>> {
    let len =
        storage.len().map_err(|error| Error::io("asking for the length of the file", error))?;
    let log_offset = Superblock::new(BLOCK, 0, [0; 16]).log_offset;
    let end = len.min(log_offset + MAX_LOG_CAPACITY + 4 * BLOCK);
    let mut evidence = Evidence::default();
    let mut offset = log_offset;
    while offset < end {
        let chunk = read_what_is_there(storage, offset, CHUNK);
        for (block, at) in chunk.chunks(BLOCK_SIZE).zip((offset..).step_by(BLOCK_SIZE)) {
            look_at(block, at - log_offset, &mut evidence);
        }
        if evidence.file_id.is_some() && evidence.segment_size.is_some() {
            break;
        }
        offset += CHUNK as u64;
    }
    let Some(segment_size) = evidence.segment_size else { return Ok(None) };
    Ok(Some(Superblock::new(segment_size, 0, evidence.file_id.unwrap_or_default())))
}

/// Takes from a block what it tells. `at` counts from the beginning of the log.
fn look_at(block: &[u8], at: u64, evidence: &mut Evidence) {
    if let Some((header, file_id)) = SegmentHeader::recognize(block) {
        evidence.file_id.get_or_insert(file_id);
        let start = at.checked_sub(header.slot_offset() as u64);
        if header.index == 1
            && let Some(start) = start.filter(|start| Superblock::is_segment_size(*start))
        {
            evidence.segment_size.get_or_insert(start);
        }
    } else if header_at(block) {
        // The first copy lies at an even block, because the log has two segments of whole blocks;
        // the second follows it.
        let start = at - at % (SEGMENTS as u64 * BLOCK);
        let segment_size = start / SEGMENTS as u64;
        if Superblock::is_segment_size(segment_size) {
            evidence.segment_size.get_or_insert(segment_size);
        }
    }
}
