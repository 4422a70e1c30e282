//! Exports: a room made by an import has an export with the same bytes.

use crate::Cloakroom;
use crate::limits::MIN_LOG_CAPACITY;

/// `data` is the lines between the first and the last line of an export.
pub fn import(data: &[u8]) {
    let lines = data.split_inclusive(|byte| *byte == b'\n').count();
    let mut text = b"{\"cloakroom_export\":1}\n".to_vec();
    text.extend_from_slice(data);
    if data.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(format!("{{\"cloakroom_export_end\":{lines}}}\n").as_bytes());

    let room = small_room();
    let read = room.import(&mut text.as_slice());
    let exported = export(&room);
    let entries = exported.iter().filter(|byte| **byte == b'\n').count() - 2;
    // There may be fewer lines of requests, because an export fills each.
    match read {
        Ok(report) => assert!(report.entries == lines as u64 && entries <= lines),
        Err(crate::Error::Import { line, .. }) => assert!(entries as u64 <= line - 2),
        Err(error) => panic!("{error}"),
    }
    let again = small_room();
    again.import(&mut exported.as_slice()).unwrap();
    assert_eq!(export(&again), exported);
    for table in again.tables().unwrap() {
        let shown = again.dump(table.name, &mut |row| {
            assert_eq!(row.note, None, "an imported row can be decoded");
            true
        });
        assert_eq!(shown.unwrap(), table.rows);
    }
}

fn small_room() -> Cloakroom {
    Cloakroom::builder().without_threads().log_capacity(MIN_LOG_CAPACITY).open_in_memory().unwrap()
}

fn export(room: &Cloakroom) -> Vec<u8> {
    let mut exported = Vec::new();
    room.export(&mut exported).unwrap();
    exported
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of every kind, slightly damaged.
    #[test]
    fn damaged_lines_are_refused_or_exported_again() {
        let golden = include_str!("../../tests/exports/golden.jsonl");
        let lines: Vec<_> = golden.split_inclusive('\n').collect();
        let lines = &lines[1..lines.len() - 1];
        import(lines.concat().as_bytes());
        let mut random = fastrand::Rng::with_seed(8);
        for _ in 0..200 {
            let first = random.usize(0..lines.len());
            let mut bytes = lines[first..lines.len().min(first + 4)].concat().into_bytes();
            for _ in 0..random.usize(1..3) {
                let at = random.usize(0..bytes.len());
                bytes[at] = *random.choice(b"019ab\"\\{}[],:\n\xff").unwrap();
            }
            import(&bytes);
        }
    }
}
