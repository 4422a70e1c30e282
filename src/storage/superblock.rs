//! The superblock: what the file is, and where its parts are.
//!
//! A file with log segments of S bytes has these parts:
//!
#![doc = include_str!("../../docs/tables/file-layout.md")]
//!
//! The superblock is stored in two equal copies, at offsets 0 and 4096, so that one may be torn or
//! damaged. They are written once, when the file is created, and again only to repair a copy.
//!
#![doc = include_str!("../../docs/tables/superblock.md")]
//!
//! Integers are little-endian. The offsets of the magic, the version and the CRC never change
//! between versions, so that every version can tell a newer file from a damaged one.

use super::{Storage, UnreadableBlock};
use crate::error::{Error, Result};
use crate::limits::{BLOCK_SIZE, MAX_LOG_CAPACITY, MIN_LOG_CAPACITY};
use std::ops::RangeInclusive;
use std::path::Path;

const MAGIC: [u8; 8] = *b"CLOAKRM\0";

/// The format version that this build writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 2;

/// The oldest format version that this build can migrate. Tests have a made-up older one.
pub(crate) const OLDEST_VERSION: u32 =
    if cfg!(any(test, feature = "testing")) { FORMAT_VERSION - 1 } else { FORMAT_VERSION };

/// The block size as a superblock records it.
const RECORDED_BLOCK_SIZE: u32 = 4096;
const _: () = assert!(RECORDED_BLOCK_SIZE as usize == BLOCK_SIZE);

const COPIES: u64 = 2;
const SEGMENTS: u64 = 2;
const LOG_OFFSET: u64 = COPIES * BLOCK_SIZE as u64;
const RESERVED_AT: usize = 72;
const CRC_AT: usize = BLOCK_SIZE - 4;

/// The sizes that a segment may have: those of the capacities that a log may be created with.
const SEGMENT_SIZES: RangeInclusive<u64> =
    MIN_LOG_CAPACITY / SEGMENTS..=MAX_LOG_CAPACITY / SEGMENTS;

type Block = [u8; BLOCK_SIZE];

/// The identity and geometry of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// The format version of everything else in the file.
    pub(crate) version: u32,
    /// Identifies the file.
    pub(crate) file_id: [u8; 16],
    /// The offset of the first log segment.
    pub(crate) log_offset: u64,
    /// The size of each log segment in bytes.
    pub(crate) segment_size: u64,
    /// The offset of the B-tree, which extends to the end of the file.
    pub(crate) btree_offset: u64,
    /// When the file was created, in milliseconds since the Unix epoch.
    pub(crate) created_at_ms: u64,
}

/// The state of one copy.
#[derive(Debug, PartialEq, Eq)]
enum CopyState {
    /// It has no magic, or the file ends before it.
    Foreign,
    /// It has the magic, but the block is cut off or its checksum is wrong.
    Damaged(&'static str),
    /// Intact, and of a version newer than this build.
    Newer(u32),
    /// Intact, and of a version that this build can no longer migrate.
    TooOld(u32),
    /// Intact, but it contradicts itself.
    Invalid(String),
    /// Intact.
    Good(Superblock),
}

impl Superblock {
    /// The superblock of a new file. The segment size is a multiple of the block size and not zero.
    pub(crate) fn new(segment_size: u64, created_at_ms: u64, file_id: [u8; 16]) -> Self {
        Self {
            version: FORMAT_VERSION,
            file_id,
            log_offset: LOG_OFFSET,
            segment_size,
            btree_offset: LOG_OFFSET + SEGMENTS * segment_size,
            created_at_ms,
        }
    }

    /// Whether a segment may have so many bytes.
    pub(crate) fn is_segment_size(bytes: u64) -> bool {
        SEGMENT_SIZES.contains(&bytes) && bytes.is_multiple_of(BLOCK_SIZE as u64)
    }

    /// Writes both copies, one durably before the other, so that a crash can tear only one of them.
    /// Call it when the rest of a new file is durable, because it makes the file a valid room.
    pub(crate) fn write(&self, storage: &dyn Storage) -> Result<()> {
        let block = self.encode();
        // The first one is last: see `in_place`.
        for copy in (0..COPIES).rev() {
            write_copy(storage, copy, &block)?;
        }
        Ok(())
    }

    /// Reads the superblock of the file at `path`, which the errors name, if the file is of this
    /// version. Nothing is written.
    ///
    /// # Errors
    /// [`Error::OutdatedVersion`] when the version is older and opening the file for writing would
    /// migrate it, and those of [`read_any`](Self::read_any).
    pub(crate) fn read(storage: &dyn Storage, path: &Path) -> Result<Superblock> {
        let superblock = Self::read_any(storage, path)?;
        let (found, current) = (superblock.version, FORMAT_VERSION);
        if found != current {
            return Err(Error::OutdatedVersion { path: path.to_path_buf(), found, current });
        }
        Ok(superblock)
    }

    /// Reads the superblock of a file of any version from [`OLDEST_VERSION`] on.
    ///
    /// # Errors
    /// The first row that applies decides:
    ///
    #[doc = include_str!("../../docs/tables/superblock-decisions.md")]
    pub(crate) fn read_any(storage: &dyn Storage, path: &Path) -> Result<Superblock> {
        let failed = |error| Error::reading(format!("the superblock of {}", path.display()), error);
        let file_len = storage.len().map_err(failed)?;
        let mut copies = Vec::with_capacity(2);
        for copy in 0..COPIES {
            // If the file ends inside a copy, the rest of that copy decides.
            let offset = copy * BLOCK_SIZE as u64;
            let available = file_len.saturating_sub(offset).min(BLOCK_SIZE as u64);
            let mut bytes = vec![0; usize::try_from(available).unwrap_or(BLOCK_SIZE)];
            if !bytes.is_empty()
                && let Err(error) = storage.read_at(offset, &mut bytes)
            {
                if UnreadableBlock::of(&error).is_none() {
                    return Err(failed(error));
                }
                copies.push(CopyState::Damaged("the disk cannot read it"));
                continue;
            }
            copies.push(Self::decode(&bytes));
        }
        decide(file_len, copies, path)
    }

    /// Whether both copies are this superblock.
    pub(crate) fn is_whole_on(&self, storage: &dyn Storage) -> Result<bool> {
        let mut found = [0; 2 * BLOCK_SIZE];
        storage.read_at(0, &mut found).map_err(|error| Error::reading("the superblock", error))?;
        let block = self.encode();
        Ok(found.chunks(BLOCK_SIZE).all(|copy| copy == block))
    }

    /// Rewrites each copy that is not this superblock, and returns whether there was one. Call it
    /// when the file may be written to: a damaged copy protects no longer.
    pub(crate) fn repair(&self, storage: &dyn Storage) -> Result<bool> {
        let block = self.encode();
        let mut repaired = false;
        for copy in 0..COPIES {
            let mut found = [0; BLOCK_SIZE];
            let read = storage.read_at(copy * BLOCK_SIZE as u64, &mut found);
            let is_bad = read.as_ref().is_err_and(|error| UnreadableBlock::of(error).is_some());
            if !is_bad {
                read.map_err(|error| Error::reading("a superblock", error))?;
            }
            // Writing a sector that cannot be read has the disk put it elsewhere.
            if is_bad || found != block {
                write_copy(storage, copy, &block)?;
                repaired = true;
            }
        }
        Ok(repaired)
    }

    /// The content of each of the two copies, or what is wrong with it.
    pub(crate) fn read_copies(storage: &dyn Storage) -> [Result<Superblock, String>; 2] {
        [0, 1].map(|copy| {
            let mut block = [0; BLOCK_SIZE];
            storage
                .read_at(copy * BLOCK_SIZE as u64, &mut block)
                .map_err(|error| format!("it cannot be read: {error}"))?;
            match Self::decode(&block) {
                CopyState::Good(superblock) => Ok(superblock),
                CopyState::Foreign => {
                    Err("it does not begin with the magic number of a cloakroom file".to_owned())
                }
                CopyState::Damaged(detail) => Err(detail.to_owned()),
                CopyState::Invalid(detail) => Err(detail),
                CopyState::Newer(version) | CopyState::TooOld(version) => {
                    Err(format!("it has format version {version}"))
                }
            }
        })
    }

    fn encode(&self) -> Block {
        let mut block = [0; BLOCK_SIZE];
        let fields: [&[u8]; 9] = [
            &MAGIC,
            &self.version.to_le_bytes(),
            &RECORDED_BLOCK_SIZE.to_le_bytes(),
            &self.file_id,
            &self.log_offset.to_le_bytes(),
            &self.segment_size.to_le_bytes(),
            &SEGMENTS.to_le_bytes(),
            &self.btree_offset.to_le_bytes(),
            &self.created_at_ms.to_le_bytes(),
        ];
        let bytes = fields.concat();
        if let Some(head) = block.get_mut(..bytes.len()) {
            head.copy_from_slice(&bytes);
        }
        seal(&mut block);
        block
    }

    /// Decides the state of one copy.
    fn decode(bytes: &[u8]) -> CopyState {
        Self::decode_version(bytes, OLDEST_VERSION..=FORMAT_VERSION)
    }

    /// Decides the state of one copy, for a build that knows these versions.
    fn decode_version(bytes: &[u8], known: RangeInclusive<u32>) -> CopyState {
        if bytes.get(..MAGIC.len()) != Some(&MAGIC) {
            return CopyState::Foreign;
        }
        let Some(block) = bytes.first_chunk::<BLOCK_SIZE>() else {
            return CopyState::Damaged("the file ends inside it");
        };
        let (content, crc) = block.split_at(CRC_AT);
        if crc != crc32fast::hash(content).to_le_bytes() {
            return CopyState::Damaged("checksum mismatch");
        }
        let version = u32_at(block, 8);
        if version > *known.end() {
            return CopyState::Newer(version);
        }
        if version < *known.start() {
            return CopyState::TooOld(version);
        }
        match Self::decode_fields(version, block) {
            Ok(superblock) => CopyState::Good(superblock),
            Err(detail) => CopyState::Invalid(detail),
        }
    }

    /// Reads the fields of an intact block, and checks that they are consistent.
    fn decode_fields(version: u32, block: &Block) -> Result<Superblock, String> {
        let expect = |what: &str, found: u64, expected: u64| {
            if found == expected {
                Ok(())
            } else {
                Err(format!("{what} is {found} instead of {expected}"))
            }
        };
        let superblock = Superblock {
            version,
            file_id: bytes_at(block, 16),
            log_offset: u64_at(block, 32),
            segment_size: u64_at(block, 40),
            btree_offset: u64_at(block, 56),
            created_at_ms: u64_at(block, 64),
        };
        expect("the block size", u32_at(block, 12).into(), RECORDED_BLOCK_SIZE.into())?;
        expect("the offset of the log", superblock.log_offset, LOG_OFFSET)?;
        expect("the number of log segments", u64_at(block, 48), SEGMENTS)?;
        let segment_size = superblock.segment_size;
        if !Self::is_segment_size(segment_size) {
            let (min, max) = SEGMENT_SIZES.into_inner();
            return Err(format!(
                "the segment size {segment_size} is not a multiple of {BLOCK_SIZE} from {min} to {max}"
            ));
        }
        let log_end = LOG_OFFSET + SEGMENTS * segment_size;
        expect("the offset of the B-tree", superblock.btree_offset, log_end)?;
        if block.get(RESERVED_AT..CRC_AT).is_none_or(|rest| rest.iter().any(|byte| *byte != 0)) {
            return Err("bytes are set that are zero in this format version".to_owned());
        }
        Ok(superblock)
    }
}

/// The decision table of [`Superblock::read`].
fn decide(file_len: u64, copies: Vec<CopyState>, path: &Path) -> Result<Superblock> {
    let refused =
        |reason: &str| Error::NotCloakroom { path: path.to_path_buf(), reason: reason.to_owned() };
    let corrupted =
        |detail: String| Error::corrupted(format!("{}: superblock", path.display()), detail);

    if file_len == 0 {
        return Err(refused("it is empty; open it for writing to make a room of it"));
    }
    let newest = copies
        .iter()
        .filter_map(|copy| if let CopyState::Newer(found) = copy { Some(*found) } else { None });
    if let Some(found) = newest.max() {
        return Err(Error::UnsupportedVersion {
            path: path.to_path_buf(),
            found,
            supported: FORMAT_VERSION,
        });
    }
    let oldest = copies
        .iter()
        .filter_map(|copy| if let CopyState::TooOld(found) = copy { Some(*found) } else { None });
    if let Some(found) = oldest.max() {
        return Err(Error::VersionTooOld {
            path: path.to_path_buf(),
            found,
            oldest: OLDEST_VERSION,
        });
    }
    if copies.iter().all(|copy| *copy == CopyState::Foreign) {
        return Err(refused("it does not begin with the magic number of a cloakroom file"));
    }
    let mut good: Option<Superblock> = None;
    let mut damage = Vec::new();
    for (name, copy) in ["A", "B"].into_iter().zip(copies) {
        match copy {
            CopyState::Invalid(detail) => return Err(corrupted(format!("copy {name}: {detail}"))),
            CopyState::Good(superblock) => match &good {
                Some(first) if *first != superblock => {
                    return Err(corrupted("both copies are intact, but they differ".to_owned()));
                }
                _ => good = Some(superblock),
            },
            CopyState::Damaged(detail) => damage.push(format!("copy {name}: {detail}")),
            CopyState::Foreign | CopyState::Newer(_) | CopyState::TooOld(_) => {
                damage.push(format!("copy {name}: not a superblock"))
            }
        }
    }
    let good = good.ok_or_else(|| corrupted(damage.join("; ")))?;
    if file_len < good.btree_offset {
        let btree_offset = good.btree_offset;
        return Err(corrupted(format!(
            "the file has {file_len} bytes, but its log ends at {btree_offset}: the file was cut off"
        )));
    }
    Ok(good)
}

fn write_copy(storage: &dyn Storage, copy: u64, block: &Block) -> Result<()> {
    storage
        .write_at_durable(copy * BLOCK_SIZE as u64, block)
        .map_err(|error| Error::io("writing a superblock", error))
}

fn seal(block: &mut Block) {
    let (content, crc) = block.split_at_mut(CRC_AT);
    crc.copy_from_slice(&crc32fast::hash(content).to_le_bytes());
}

/// The bytes of a field. Every field is within the block, so there is no other case.
fn bytes_at<const N: usize>(block: &Block, offset: usize) -> [u8; N] {
    block.get(offset..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

fn u32_at(block: &Block, offset: usize) -> u32 {
    u32::from_le_bytes(bytes_at(block, offset))
}

fn u64_at(block: &Block, offset: usize) -> u64 {
    u64::from_le_bytes(bytes_at(block, offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    const SEGMENT_SIZE: u64 = 9 * 4096;

    fn superblock() -> Superblock {
        Superblock::new(SEGMENT_SIZE, 1_700_000_000_123, *b"0123456789abcdef")
    }

    /// A file with these two copies and space for the log.
    fn file(copies: [Block; 2]) -> MemoryStorage {
        let mut bytes = copies.concat();
        bytes.resize(usize::try_from(superblock().btree_offset).unwrap(), 0);
        MemoryStorage::from(bytes)
    }

    fn read(copies: [Block; 2]) -> Result<Superblock> {
        Superblock::read(&file(copies), Path::new("edge.cloak"))
    }

    /// An intact copy with other content.
    fn sealed(change: impl FnOnce(&mut Block)) -> Block {
        let mut block = superblock().encode();
        change(&mut block);
        seal(&mut block);
        block
    }

    fn good() -> Block {
        superblock().encode()
    }

    fn damaged() -> Block {
        let mut block = good();
        block[100] ^= 1;
        block
    }

    fn newer() -> Block {
        sealed(|block| {
            block[8] = 3;
            // In a newer version the other bytes may have any meaning.
            block[12..CRC_AT].fill(0xEE);
        })
    }

    const FOREIGN: Block = [b'#'; BLOCK_SIZE];

    fn assert_corrupted(outcome: Result<Superblock>, part: &str) {
        match outcome {
            Err(Error::Corrupted { location, detail }) => {
                assert_eq!(location, "edge.cloak: superblock");
                assert!(detail.contains(part), "{detail}");
            }
            other => panic!("{other:?}"),
        }
    }

    fn assert_refused(outcome: Result<Superblock>, part: &str) {
        match outcome {
            Err(Error::NotCloakroom { path, reason }) => {
                assert_eq!(path, Path::new("edge.cloak"));
                assert!(reason.contains(part), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_bytes_are_frozen() {
        let block = superblock().encode();
        let mut expected = b"CLOAKRM\0\x02\0\0\0\0\x10\0\x000123456789abcdef".to_vec();
        expected.extend([0, 0x20, 0, 0, 0, 0, 0, 0]); // log at 8192
        expected.extend([0, 0x90, 0, 0, 0, 0, 0, 0]); // segments of 36864
        expected.extend([2, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0, 0x40, 1, 0, 0, 0, 0, 0]); // btree at 81920
        expected.extend([0x7B, 0x68, 0xE5, 0xCF, 0x8B, 0x01, 0, 0]);
        assert_eq!(&block[..RESERVED_AT], &expected[..]);
        assert!(block[RESERVED_AT..CRC_AT].iter().all(|byte| *byte == 0));
        assert_eq!(block[CRC_AT..], crc32fast::hash(&block[..CRC_AT]).to_le_bytes());
        assert_eq!(block[CRC_AT..], [240, 172, 214, 79]);
    }

    #[test]
    fn both_copies_are_written_and_read_back() {
        let storage = file([FOREIGN; 2]);
        superblock().write(&storage).unwrap();
        assert_eq!(Superblock::read(&storage, Path::new("edge.cloak")).unwrap(), superblock());
        let view = storage.view(0, 2 * BLOCK_SIZE).unwrap();
        assert_eq!(view[..BLOCK_SIZE], good());
        assert_eq!(view[BLOCK_SIZE..], good());
    }

    #[test]
    fn any_flipped_byte_in_one_copy_is_repaired_from_the_other() {
        for position in 0..2 * BLOCK_SIZE {
            let mut copies = [good(), good()];
            copies[position / BLOCK_SIZE][position % BLOCK_SIZE] ^= 0xFF;
            let storage = file(copies);
            let found = Superblock::read(&storage, Path::new("edge.cloak"));
            assert_eq!(found.unwrap(), superblock(), "byte {position}");
            assert!(superblock().repair(&storage).unwrap(), "byte {position}");
            let view = storage.view(0, 2 * BLOCK_SIZE).unwrap();
            assert_eq!(view[..], [good(), good()].concat(), "byte {position}");
        }
        assert!(!superblock().repair(&file([good(), good()])).unwrap());
    }

    #[test]
    fn any_flipped_byte_in_an_only_copy_is_detected() {
        for position in 0..BLOCK_SIZE {
            let mut block = good();
            block[position] ^= 0x10;
            assert!(read([block, FOREIGN]).is_err(), "byte {position}");
        }
    }

    #[test]
    fn an_empty_file_is_not_a_room_and_says_what_to_do() {
        let empty = MemoryStorage::new();
        assert_refused(
            Superblock::read(&empty, Path::new("edge.cloak")),
            "open it for writing to make a room of it",
        );
    }

    #[test]
    fn a_file_without_the_magic_is_not_a_room() {
        assert_refused(read([FOREIGN, FOREIGN]), "does not begin with the magic number");
        for len in [1, 8, 4096, 5000] {
            let foreign = MemoryStorage::from(vec![b'#'; len]);
            assert_refused(
                Superblock::read(&foreign, Path::new("edge.cloak")),
                "does not begin with the magic number",
            );
        }
    }

    #[test]
    fn a_newer_version_is_refused_whatever_the_other_copy_is() {
        for copies in [
            [newer(), newer()],
            [newer(), good()],
            [good(), newer()],
            [damaged(), newer()],
            [newer(), FOREIGN],
        ] {
            match read(copies) {
                Err(Error::UnsupportedVersion { path, found: 3, supported: 2 }) => {
                    assert_eq!(path, Path::new("edge.cloak"));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn an_older_version_is_an_error_unless_the_caller_reads_any_version() {
        let old = sealed(|block| block[8] = 1);
        match read([old, old]) {
            Err(Error::OutdatedVersion { path, found: 1, current: 2 }) => {
                assert_eq!(path, Path::new("edge.cloak"))
            }
            other => panic!("{other:?}"),
        }
        let found = Superblock::read_any(&file([old, damaged()]), Path::new("edge.cloak")).unwrap();
        assert_eq!(found, Superblock { version: 1, ..superblock() });
        assert_eq!(found.encode(), old);
        assert!(Superblock { version: 1, ..superblock() }.is_whole_on(&file([old, old])).unwrap());
        assert!(!found.is_whole_on(&file([old, good()])).unwrap());
    }

    #[test]
    fn a_version_too_old_to_migrate_is_refused_whatever_the_other_copy_is() {
        let old = || Superblock::decode_version(&sealed(|block| block[8] = 1), 2..=2);
        assert_eq!(old(), CopyState::TooOld(1));
        for other in [
            old(),
            CopyState::Foreign,
            CopyState::Damaged("checksum mismatch"),
            CopyState::Good(superblock()),
        ] {
            match decide(1 << 20, vec![other, old()], Path::new("edge.cloak")) {
                Err(Error::VersionTooOld { found: 1, .. }) => {}
                outcome => panic!("{outcome:?}"),
            }
        }
    }

    #[test]
    fn a_version_without_a_good_checksum_is_damage_and_not_a_newer_file() {
        let mut block = good();
        block[8] = 3;
        assert_corrupted(read([block, block]), "checksum mismatch");
        assert_eq!(read([block, good()]).unwrap(), superblock());
    }

    #[test]
    fn one_good_copy_is_enough() {
        for copies in
            [[good(), damaged()], [damaged(), good()], [good(), FOREIGN], [FOREIGN, good()]]
        {
            assert_eq!(read(copies).unwrap(), superblock());
        }
    }

    #[test]
    fn two_bad_copies_are_corruption_and_the_error_names_both() {
        assert_corrupted(
            read([damaged(), damaged()]),
            "copy A: checksum mismatch; copy B: checksum mismatch",
        );
        assert_corrupted(read([damaged(), FOREIGN]), "copy B: not a superblock");
        assert_corrupted(read([FOREIGN, damaged()]), "copy A: not a superblock");
    }

    #[test]
    fn two_good_copies_that_differ_are_corruption() {
        assert_corrupted(read([good(), sealed(|block| block[16] ^= 1)]), "differ");
    }

    #[test]
    fn a_geometry_that_contradicts_itself_is_corruption() {
        let set = |at: usize, value: u64| {
            sealed(|block| block[at..at + 8].copy_from_slice(&value.to_le_bytes()))
        };
        for (block, part) in [
            (sealed(|block| block[13] = 0x20), "block size is 8192"),
            (set(32, 4096), "offset of the log is 4096"),
            (set(32, LOG_OFFSET + 4096), "offset of the log is 12288"),
            (set(40, 0), "segment size 0"),
            (set(40, SEGMENT_SIZE + 1), "segment size 36865"),
            (set(40, 1 << 63), "segment size 9223372036854775808"),
            (set(40, SEGMENT_SIZE + 4096), "offset of the B-tree is 81920 instead of 90112"),
            (set(48, 1), "number of log segments is 1"),
            (set(48, 3), "number of log segments is 3"),
            (set(56, 8192), "offset of the B-tree is 8192"),
            (set(56, 81_920 - 4096), "offset of the B-tree is 77824"),
            (set(56, 81_920 + 4096), "offset of the B-tree is 86016"),
            (set(56, u64::MAX), "offset of the B-tree"),
            (set(RESERVED_AT, 1), "are zero in this"),
            (set(CRC_AT - 8, 1 << 63), "are zero in this"),
        ] {
            assert_corrupted(read([block, block]), part);
            assert_corrupted(read([good(), block]), part);
            assert_corrupted(read([block, damaged()]), part);
        }
    }

    #[test]
    fn a_segment_has_a_size_that_a_log_may_be_created_with() {
        let of_size = |segment_size: u64| {
            let block = Superblock { segment_size, ..Superblock::new(SEGMENT_SIZE, 7, [9; 16]) };
            let btree_offset = LOG_OFFSET.saturating_add(SEGMENTS.saturating_mul(segment_size));
            Superblock::decode(&Superblock { btree_offset, ..block }.encode())
        };
        let (min, max) = (MIN_LOG_CAPACITY / SEGMENTS, MAX_LOG_CAPACITY / SEGMENTS);
        for size in [min, min + 4096, SEGMENT_SIZE, max - 4096, max] {
            assert!(matches!(of_size(size), CopyState::Good(_)), "{size}: {:?}", of_size(size));
        }
        for size in [0, 4096, min - 4096, min + 512, max + 4096, 1 << 62, u64::MAX - 4095] {
            let found = of_size(size);
            let CopyState::Invalid(detail) = found else { panic!("{size}: {found:?}") };
            assert!(detail.contains(&format!("segment size {size} is not")), "{detail}");
            let refused =
                decide(u64::MAX, vec![of_size(size), of_size(size)], Path::new("edge.cloak"));
            assert_corrupted(refused, "copy A: the segment size");
        }
    }

    /// The time of creation and the file id may be anything: nothing is computed from them.
    #[test]
    fn fields_without_a_rule_are_kept_as_they_are() {
        for (created_at_ms, file_id) in [(0, [0; 16]), (u64::MAX, [0xFF; 16])] {
            let block = Superblock::new(SEGMENT_SIZE, created_at_ms, file_id);
            assert_eq!(read([block.encode(); 2]).unwrap(), block);
        }
    }

    #[test]
    fn a_file_that_is_cut_off_is_corruption() {
        let btree_offset = usize::try_from(superblock().btree_offset).unwrap();
        let mut whole = [good(), good()].concat();
        whole.resize(btree_offset, 0);
        let read = |len: usize| {
            Superblock::read(&MemoryStorage::from(whole[..len].to_vec()), Path::new("edge.cloak"))
        };
        assert_eq!(read(btree_offset).unwrap(), superblock());
        for len in [btree_offset - 1, 2 * BLOCK_SIZE, BLOCK_SIZE + 9, BLOCK_SIZE] {
            assert_corrupted(read(len), "the file was cut off");
        }
        assert_corrupted(
            read(BLOCK_SIZE - 1),
            "copy A: the file ends inside it; copy B: not a superblock",
        );
        assert_corrupted(read(8), "copy A: the file ends inside it");
        assert_refused(read(7), "does not begin with the magic number");
    }
}
