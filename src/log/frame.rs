//! Frames: the bytes of one atomic batch in a log segment.
//!
#![doc = include_str!("../../docs/tables/frame.md")]
//!
//! All integers are little-endian. The generation makes frames of an earlier use of the segment
//! invalid. The durable LSN of a later frame proves that an earlier frame was durable, and could
//! have been acknowledged. So recovery can tell a damaged frame from one that was never completely
//! written.
//!
//! A frame with an empty payload is a *mark*: it has no operations and only carries a durable LSN.
//! It is written when the log becomes idle, into a block of its own at the beginning of the
//! segment, over the mark before it. It has the LSN that the next frame will get.

use std::fmt;

/// The bytes of a frame before its payload.
pub(crate) const FRAME_HEADER_LEN: usize = 32;

/// Frames begin at multiples of this.
pub(crate) const FRAME_ALIGN: usize = 8;

/// The bytes that a frame with a payload of `payload_len` bytes takes up in a segment.
pub(crate) const fn frame_len(payload_len: usize) -> usize {
    (FRAME_HEADER_LEN + payload_len).next_multiple_of(FRAME_ALIGN)
}

/// Appends a frame to `buf` without its durable LSN and CRC, which [`stamp`] fills in.
///
/// There are two steps because a frame is stamped when its group is written, without the serial
/// lock. An empty payload makes a mark.
///
/// # Panics
/// When the length of the payload does not fit a `u32`. The limits of a batch are far below that.
pub(crate) fn begin_frame(buf: &mut Vec<u8>, lsn: u64, generation: u64, payload: &[u8]) {
    let payload_len =
        u32::try_from(payload.len()).expect("a payload fits a log segment, which is below 4 GiB");
    let end = buf.len() + frame_len(payload.len());
    buf.reserve(frame_len(payload.len()));
    buf.extend_from_slice(&payload_len.to_le_bytes());
    buf.extend_from_slice(&[0; 4]);
    buf.extend_from_slice(&lsn.to_le_bytes());
    buf.extend_from_slice(&generation.to_le_bytes());
    buf.extend_from_slice(&[0; 8]);
    buf.extend_from_slice(payload);
    buf.resize(end, 0);
}

/// Fills in the durable LSN and the CRC of every frame in `group`, which holds whole frames of
/// [`begin_frame`].
///
/// # Panics
/// When `group` is anything else.
pub(crate) fn stamp(group: &mut [u8], durable_lsn: u64) {
    let mut rest = group;
    while !rest.is_empty() {
        let payload_len = le_u32(rest, 0).expect("a group holds whole frames") as usize;
        let (frame, after) =
            rest.split_at_mut_checked(frame_len(payload_len)).expect("a group holds whole frames");
        let (length, tail) = frame.split_at_mut(4);
        let (crc, body) = tail.split_at_mut(4);
        let (fixed, payload) = body.split_at_mut(FRAME_HEADER_LEN - 8);
        let (_, durable) = fixed.split_at_mut(16);
        durable.copy_from_slice(&durable_lsn.to_le_bytes());
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(length);
        hasher.update(fixed);
        hasher.update(payload.get(..payload_len).unwrap_or_default());
        crc.copy_from_slice(&hasher.finalize().to_le_bytes());
        rest = after;
    }
}

/// A frame whose CRC is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// Its log sequence number.
    pub lsn: u64,
    /// The generation of the segment when it was written.
    pub generation: u64,
    /// Every frame up to this LSN was durable when this one was written.
    pub durable_lsn: u64,
    /// The encoded batch. Empty in a mark.
    pub payload: &'a [u8],
    /// Its length in the segment, with padding.
    pub len_on_disk: usize,
}

impl Frame<'_> {
    /// Whether it is a mark: it has no operations and only carries a durable LSN.
    pub(crate) fn is_mark(&self) -> bool {
        self.payload.is_empty()
    }
}

/// Why bytes are not the expected frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameFault {
    /// Fewer bytes remain than a header has.
    Truncated,
    /// The header is zero: nothing was ever written here.
    Empty,
    /// The payload would end after the end of the segment.
    LengthBeyondEnd {
        /// The length in the header.
        length: u32,
        /// The bytes that remain after the header.
        available: usize,
    },
    /// The CRC in the frame is not that of its bytes.
    Checksum {
        /// The CRC in the frame.
        stored: u32,
        /// The CRC of the bytes.
        computed: u32,
    },
    /// A valid frame of another use of the segment.
    Generation {
        /// The generation in the frame.
        found: u64,
    },
    /// A valid frame that is not the next one.
    Sequence {
        /// The LSN in the frame.
        found: u64,
    },
}

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameFault::Truncated => write!(f, "end of segment"),
            FrameFault::Empty => write!(f, "zeros"),
            FrameFault::LengthBeyondEnd { length, available } => {
                write!(
                    f,
                    "a frame length of {length} bytes, with {available} bytes left in the segment"
                )
            }
            FrameFault::Checksum { stored, computed } => {
                write!(f, "checksum mismatch (stored {stored:#010x}, computed {computed:#010x})")
            }
            FrameFault::Generation { found } => write!(f, "a frame of generation {found}"),
            FrameFault::Sequence { found } => write!(f, "the frame of LSN {found}"),
        }
    }
}

/// Reads the frame at the start of `bytes`, which reach to the end of the segment.
pub(crate) fn parse(bytes: &[u8]) -> Result<Frame<'_>, FrameFault> {
    let header = bytes.get(..FRAME_HEADER_LEN).ok_or(FrameFault::Truncated)?;
    let field = |offset| le_u64(header, offset).ok_or(FrameFault::Truncated);
    let length = le_u32(header, 0).ok_or(FrameFault::Truncated)?;
    let stored = le_u32(header, 4).ok_or(FrameFault::Truncated)?;
    // The CRC of a zero header is not zero, so this only gives the common case its own name.
    if header.iter().all(|&byte| byte == 0) {
        return Err(FrameFault::Empty);
    }
    let beyond_end =
        FrameFault::LengthBeyondEnd { length, available: bytes.len() - FRAME_HEADER_LEN };
    let payload_len = usize::try_from(length).map_err(|_| beyond_end)?;
    let len_on_disk = payload_len
        .checked_add(FRAME_HEADER_LEN)
        .and_then(|len| len.checked_next_multiple_of(FRAME_ALIGN))
        .ok_or(beyond_end)?;
    let frame = bytes.get(..len_on_disk).ok_or(beyond_end)?;
    let payload = frame.get(FRAME_HEADER_LEN..FRAME_HEADER_LEN + payload_len).ok_or(beyond_end)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header.get(..4).unwrap_or_default());
    hasher.update(header.get(8..).unwrap_or_default());
    hasher.update(payload);
    let computed = hasher.finalize();
    if stored != computed {
        return Err(FrameFault::Checksum { stored, computed });
    }
    Ok(Frame {
        lsn: field(8)?,
        generation: field(16)?,
        durable_lsn: field(24)?,
        payload,
        len_on_disk,
    })
}

/// The little-endian `u32` at `offset`.
pub(super) fn le_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// The little-endian `u64` at `offset`.
pub(super) fn le_u64(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(lsn: u64, generation: u64, durable_lsn: u64, payload: &[u8]) -> Vec<u8> {
        let mut buf = Vec::new();
        begin_frame(&mut buf, lsn, generation, payload);
        stamp(&mut buf, durable_lsn);
        buf
    }

    #[test]
    fn a_frame_has_these_bytes() {
        let bytes = stamped(0x0102, 7, 0x0101, b"pay it");
        let expected = [
            6, 0, 0, 0, // length
            0x18, 0x0C, 0xA7, 0xC6, // CRC-32
            2, 1, 0, 0, 0, 0, 0, 0, // LSN
            7, 0, 0, 0, 0, 0, 0, 0, // generation
            1, 1, 0, 0, 0, 0, 0, 0, // durable LSN
            b'p', b'a', b'y', b' ', b'i', b't', 0, 0,
        ];
        assert_eq!(bytes, expected, "{bytes:02x?}");
    }

    #[test]
    fn every_frame_of_a_group_is_stamped_and_can_be_read() {
        let mut group = Vec::new();
        for lsn in 10..20_u8 {
            begin_frame(&mut group, u64::from(lsn), 3, &vec![lsn; usize::from(lsn) - 10]);
        }
        stamp(&mut group, 9);
        let mut rest = &group[..];
        for lsn in 10..20_u8 {
            let frame = parse(rest).unwrap();
            assert_eq!((frame.lsn, frame.generation, frame.durable_lsn), (u64::from(lsn), 3, 9));
            assert_eq!(frame.payload, vec![lsn; usize::from(lsn) - 10]);
            assert_eq!(frame.is_mark(), lsn == 10);
            assert_eq!(frame.len_on_disk, frame_len(frame.payload.len()));
            rest = &rest[frame.len_on_disk..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn any_flipped_bit_outside_the_padding_is_detected() {
        let bytes = stamped(77, 2, 76, b"0123456789");
        for index in 0..FRAME_HEADER_LEN + 10 {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[index] ^= 1 << bit;
                assert!(parse(&damaged).is_err(), "byte {index}, bit {bit}");
            }
        }
    }

    #[test]
    fn every_truncation_is_detected() {
        let bytes = stamped(77, 2, 76, b"0123456789");
        for cut in 0..bytes.len() {
            let expected_truncated = cut < FRAME_HEADER_LEN;
            match parse(&bytes[..cut]) {
                Err(FrameFault::Truncated) => assert!(expected_truncated),
                Err(FrameFault::LengthBeyondEnd { length: 10, available }) => {
                    assert_eq!(available, cut - FRAME_HEADER_LEN);
                }
                other => panic!("cut at {cut}: {other:?}"),
            }
        }
    }

    #[test]
    fn zeros_are_not_a_frame() {
        assert_eq!(parse(&[0; 64]), Err(FrameFault::Empty));
    }

    #[test]
    fn an_absurd_length_is_refused_before_the_payload_is_read() {
        let mut bytes = stamped(1, 1, 0, b"x");
        bytes[..4].fill(0xFF);
        assert!(matches!(
            parse(&bytes),
            Err(FrameFault::LengthBeyondEnd { length: u32::MAX, available: 8 })
        ));
    }
}
