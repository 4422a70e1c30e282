//! The small formats: bytes that can be decoded encode to the same value again, and all others are
//! errors.

use super::input::FuzzInput;
use crate::codec::key;
use crate::engine::time_line::{Deadline, Moment};
use crate::form_token::LookupKey;
use crate::handoff::ClaimId;
use crate::log::batch::{Op, decode_batch, encode_batch};
use crate::log::frame::{FRAME_HEADER_LEN, begin_frame, frame_len, parse, stamp};
use crate::log::scan::scan_segment;
use crate::log::segment::{DATA_START, SegmentHeader};
use crate::page::Cursor;
use crate::stores::cache::row::{CacheRow, TagsRow};
use crate::stores::expiry;
use crate::stores::form_token::row::{self as token_row, TokenKey, TokenRow, UseRow};
use crate::stores::handoff::row::{ClaimRow, HandoffRow};
use crate::stores::registry::catalogue;

/// Log frames and segments: reads arbitrary bytes as frames; writes frames made of the input, scans
/// them, and checks that one flipped byte loses exactly what it must.
pub fn frame(data: &[u8]) {
    if let Ok(frame) = parse(data) {
        let mut again = Vec::new();
        begin_frame(&mut again, frame.lsn, frame.generation, frame.payload);
        stamp(&mut again, frame.durable_lsn);
        let len = FRAME_HEADER_LEN + frame.payload.len();
        assert_eq!(again[..len], data[..len], "a frame that parses has one encoding");
        assert_eq!(frame.len_on_disk, again.len());
    }
    scan_arbitrary(data);
    scan_own_frames(data);
}

/// Arbitrary bytes after a header.
fn scan_arbitrary(data: &[u8]) {
    let header = SegmentHeader { generation: 1, index: 0, btree_lsn: 0 };
    let mut segment = vec![0; DATA_START];
    segment.extend_from_slice(data);
    let scan = scan_segment(&segment, header);
    assert!(scan.end <= segment.len());
    for frame in scan.valid() {
        assert!(frame.payload_range().end <= segment.len());
    }
    if let Some(beyond) = scan.beyond {
        assert!(scan.end <= beyond.first_offset && beyond.last_end <= segment.len());
    }
    let mut slots = data.to_vec();
    slots.resize(DATA_START, 0);
    if let Some(header) = SegmentHeader::read_newest(&slots, &[0; 16], 0) {
        let offset = header.slot_offset();
        assert_eq!(header.encode(&[0; 16])[..52], slots[offset..offset + 52]);
    }
}

/// Frames made of the input, and one flipped byte.
fn scan_own_frames(data: &[u8]) {
    const GENERATION: u64 = 7;
    let mut input = FuzzInput::new(data);
    let (flip_at, mask) = (input.number::<2>() as usize, input.byte().max(1));
    let mut segment = vec![0; DATA_START];
    let mut payloads = Vec::new();
    while !input.is_empty() && payloads.len() < 32 {
        let payload = match input.bytes() {
            // Nothing writes a frame without a payload, except as a mark.
            [] => &[0],
            payload => payload,
        };
        let mut frame = Vec::new();
        let lsn = payloads.len() as u64 + 1;
        begin_frame(&mut frame, lsn, GENERATION, payload);
        stamp(&mut frame, lsn - 1);
        segment.extend_from_slice(&frame);
        payloads.push(payload.to_vec());
    }
    segment.extend_from_slice(&[0; 64]);
    let header = SegmentHeader { generation: GENERATION, index: 0, btree_lsn: 0 };
    let found = |segment: &[u8]| -> Vec<Vec<u8>> {
        let scan = scan_segment(segment, header);
        scan.frames.iter().map(|frame| segment[frame.payload_range()].to_vec()).collect()
    };
    assert_eq!(found(&segment), payloads);

    let flip_at = flip_at % (segment.len() - DATA_START);
    let mut end = 0;
    let hit = payloads.iter().position(|payload| {
        end += frame_len(payload.len());
        flip_at < end
    });
    segment[DATA_START + flip_at] ^= mask;
    let left = found(&segment);
    match hit {
        // A flipped padding byte has no effect. Any other ends the valid frames before the one that
        // it hit.
        Some(hit) => {
            assert!(left == payloads || left == payloads[..hit], "frame {hit}, byte {flip_at}")
        }
        None => assert_eq!(left, payloads),
    }
}

/// Batches of row operations.
pub fn batch(data: &[u8]) {
    if let Ok(ops) = decode_batch(catalogue(), data) {
        let again = encode(&ops);
        assert_eq!(decode_batch(catalogue(), &again).unwrap(), ops);
        assert!(again.len() <= data.len(), "the encoding is the shortest");
    }
    let mut input = FuzzInput::new(data);
    let mut ops = Vec::new();
    while !input.is_empty() {
        let table = catalogue().all()[input.below(catalogue().all().len())];
        let put = input.byte().is_multiple_of(2);
        let key = input.bytes();
        ops.push(Op { table, key, value: put.then(|| input.bytes()) });
    }
    assert_eq!(decode_batch(catalogue(), &encode(&ops)).unwrap(), ops);
}

fn encode(ops: &[Op<'_>]) -> Vec<u8> {
    encode_batch(ops.iter().map(|op| (op.table, op.key, op.value))).unwrap()
}

/// Rows of every table, and the strings that callers pass back, such as cursors.
pub fn rows(data: &[u8]) {
    if let Ok(row) = TokenRow::decode(data) {
        let again = row.encode().unwrap();
        assert_eq!(TokenRow::decode(&again).unwrap(), row);
        let record = row.to_record(LookupKey::new("00"));
        assert_eq!(
            TokenRow { ends_at: row.ends_at, ..TokenRow::of(&record, &Moment::manual(0)).unwrap() },
            row
        );
        let _ = (row.ends_at, row.phase(None, u128::MAX));
    }
    if let Ok(row) = CacheRow::decode(data) {
        assert_eq!(CacheRow::decode(&row.encode().unwrap()).unwrap(), row);
    }
    if let Ok(row) = TagsRow::decode(data) {
        assert_eq!(TagsRow::decode(&row.encode().unwrap()).unwrap(), row);
    }
    if let Ok(row) = UseRow::decode(data) {
        let again = row.encode().unwrap();
        assert_eq!(UseRow::decode(&again).unwrap(), row);
    }
    if let Ok(row) = HandoffRow::decode(data) {
        let again = row.encode().unwrap();
        assert_eq!(HandoffRow::decode(&again).unwrap(), row);
        state(row.json);
    }
    state(data);
    if let Ok(row) = ClaimRow::decode(data) {
        assert_eq!(ClaimRow::decode(&row.encode().unwrap()).unwrap(), row);
    }
    if let Ok(key) = token_row::decode_key(data) {
        let again = TokenKey::encode(&key).unwrap();
        assert_eq!(token_row::decode_key(again.as_bytes()).unwrap(), key);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string(), text);
    }
    if let Ok(claim) = text.parse::<ClaimId>() {
        assert_eq!(claim.to_string(), text);
    }
}

/// JSON that a row may hold.
fn state(json: &[u8]) {
    let Ok(state) = (HandoffRow { expires_at: Deadline::NEVER, json }).state() else { return };
    let again = serde_json::to_vec(&state).unwrap();
    let row = HandoffRow { expires_at: Deadline::NEVER, json: &again };
    assert_eq!(row.state().unwrap(), state, "a state decodes to an equal one");
}

/// Order-preserving keys.
pub fn keys(data: &[u8]) {
    let mut input = FuzzInput::new(data);
    let mut tuples = Vec::new();
    for _ in 0..2 {
        tuples.push((
            input.bytes().to_vec(),
            input.bytes().to_vec(),
            input.number::<2>(),
            input.bytes().to_vec(),
        ));
    }
    let encoded: Vec<Vec<u8>> = tuples
        .iter()
        .map(|(first, second, number, last)| {
            let mut bytes = Vec::new();
            key::push_bytes(&mut bytes, first);
            key::push_bytes(&mut bytes, second);
            key::push_u64(&mut bytes, *number);
            bytes.extend_from_slice(last);
            bytes
        })
        .collect();
    assert_eq!(
        encoded[0].cmp(&encoded[1]),
        tuples[0].cmp(&tuples[1]),
        "keys sort as their tuples do"
    );
    for (bytes, (first, second, number, last)) in encoded.iter().zip(&tuples) {
        let mut rest = &bytes[..];
        assert_eq!(key::take_bytes(&mut rest).as_ref(), Some(first));
        assert_eq!(key::take_bytes(&mut rest).as_ref(), Some(second));
        assert_eq!(key::take_u64(&mut rest), Some(*number));
        assert_eq!(rest, last);
    }

    let mut rest = data;
    if let Some(part) = key::take_bytes(&mut rest) {
        let mut again = Vec::new();
        key::push_bytes(&mut again, &part);
        again.extend_from_slice(rest);
        assert_eq!(again, data, "a part has one encoding");
    }
    prefixes(&tuples[0].0, &tuples[1].0);
    expiry_keys(data);
    token_keys(&tuples[0].0, &tuples[1].0);
}

/// The range from a prefix to its end contains exactly the strings that begin with it.
fn prefixes(prefix: &[u8], other: &[u8]) {
    let end = key::prefix_end(prefix);
    let inside = |key: &[u8]| prefix <= key && end.as_deref().is_none_or(|end| key < end);
    assert_eq!(inside(other), other.starts_with(prefix));
    assert!(inside(&[prefix, other].concat()));
}

fn expiry_keys(data: &[u8]) {
    if let Some((at, table, primary)) = expiry::decode::decode_key(data) {
        assert_eq!(expiry::encode_key(at, table, primary), data);
    }
    let mut input = FuzzInput::new(data);
    let mut part = || {
        let table = catalogue().all()[input.below(catalogue().all().len())];
        let epoch = input.number::<8>().to_be_bytes();
        let epoch = epoch.first_chunk().map_or(0, |epoch| u32::from_be_bytes(*epoch));
        (Deadline { epoch, at_ms: input.number::<8>() }, table, input.bytes())
    };
    let (a, b) = (part(), part());
    let encode = |(at, table, primary)| expiry::encode_key(at, table, primary);
    assert_eq!(encode(a).cmp(&encode(b)), a.cmp(&b));
    assert_eq!(expiry::decode::decode_key(&encode(a)), Some(a));
}

/// Lookup keys: one to one, text before hex, each in byte order.
fn token_keys(a: &[u8], b: &[u8]) {
    fn hex(text: &str) -> bool {
        !text.is_empty()
            && text.len().is_multiple_of(2)
            && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }
    let texts = [a, b].map(|bytes| {
        // Every other text becomes hex, which random bytes rarely are.
        if bytes.first().is_some_and(|byte| byte.is_multiple_of(2)) {
            bytes
                .iter()
                .map(|byte| char::from(b"0123456789abcdef"[usize::from(byte % 16)]))
                .collect()
        } else {
            String::from_utf8_lossy(bytes).into_owned()
        }
    });
    let encoded =
        texts.each_ref().map(|text| TokenKey::encode(&LookupKey::new(text.as_str())).unwrap());
    for (text, key) in texts.iter().zip(&encoded) {
        assert_eq!(token_row::decode_key(key.as_bytes()).unwrap().as_str(), text);
    }
    let order = |text: &str| (hex(text), text.as_bytes().to_vec());
    let [a, b] = texts;
    assert_eq!(encoded[0].as_bytes().cmp(encoded[1].as_bytes()), order(&a).cmp(&order(&b)));
}
