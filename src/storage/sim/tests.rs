use super::*;
use std::collections::BTreeSet;

const SEEDS: std::ops::Range<u64> = 0..300;

fn sim(len: usize) -> SimStorage {
    SimStorage::from_image(vec![b'.'; len], 7)
}

fn read(storage: &SimStorage, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut buf = vec![0; len];
    storage.read_at(offset, &mut buf).map(|()| buf)
}

/// Every image that a seed yields.
fn images(storage: &SimStorage) -> BTreeSet<Vec<u8>> {
    SEEDS.map(|seed| storage.crash_image(seed)).collect()
}

fn set(images: &[&[u8]]) -> BTreeSet<Vec<u8>> {
    images.iter().map(|image| image.to_vec()).collect()
}

#[test]
fn a_simulated_storage_satisfies_the_contract_of_a_storage() {
    crate::storage::contract::check(&SimStorage::new(1));
}

#[test]
fn an_unflushed_write_may_be_lost_and_a_flushed_one_may_not() {
    let storage = sim(4);
    storage.write_at(0, b"ab").unwrap();
    assert_eq!(images(&storage), set(&[b"....", b"ab.."]));
    assert_eq!(storage.crash_image(0), b"....");
    assert_eq!(storage.crash_image(1), b"ab..");
    assert_eq!(storage.process_crash_image(), b"ab..");
    storage.sync_data().unwrap();
    assert_eq!(images(&storage), set(&[b"ab.."]));
}

#[test]
fn unflushed_writes_are_lost_independently() {
    let storage = sim(2);
    storage.write_at(0, b"a").unwrap();
    storage.write_at(1, b"b").unwrap();
    assert_eq!(images(&storage), set(&[b"..", b"a.", b".b", b"ab"]));
}

#[test]
fn a_lost_overwrite_leaves_earlier_content_and_never_reorders() {
    let storage = sim(1);
    storage.write_at(0, b"a").unwrap();
    storage.write_at(0, b"b").unwrap();
    assert_eq!(images(&storage), set(&[b".", b"a", b"b"]));
    storage.sync_data().unwrap();
    storage.write_at(0, b"c").unwrap();
    assert_eq!(images(&storage), set(&[b"b", b"c"]));
}

#[test]
fn writes_are_torn_only_between_sectors() {
    let storage = sim(2048);
    storage.write_at(500, &[b'x'; 1000]).unwrap();
    let mut kept = BTreeSet::new();
    for image in images(&storage) {
        let sectors: Vec<bool> =
            [500..512, 512..1024, 1024..1500].map(|range| image[range.start] == b'x').to_vec();
        let mut expected = vec![b'.'; 2048];
        for (range, is_kept) in [500..512, 512..1024, 1024..1500].into_iter().zip(&sectors) {
            expected[range].fill(if *is_kept { b'x' } else { b'.' });
        }
        assert!(image == expected, "torn inside a sector");
        kept.insert(sectors);
    }
    assert_eq!(kept.len(), 8, "every subset of three sectors occurs");
}

#[test]
fn a_durable_write_makes_its_own_bytes_durable_and_no_others() {
    let storage = sim(4);
    storage.write_at(0, b"a").unwrap();
    storage.write_at_durable(2, b"d").unwrap();
    assert_eq!(images(&storage), set(&[b"..d.", b"a.d."]));
}

#[test]
fn an_earlier_unflushed_write_never_undoes_a_durable_one() {
    let storage = sim(6);
    storage.write_at(0, b"oooooo").unwrap();
    storage.write_at_durable(2, b"DD").unwrap();
    for image in images(&storage) {
        assert_eq!(&image[2..4], b"DD");
    }
    assert_eq!(storage.crash_image(0), b"..DD..");
    assert_eq!(storage.crash_image(1), b"ooDDoo");
    storage.sync_data().unwrap();
    assert_eq!(images(&storage), set(&[b"ooDDoo"]));
}

#[test]
fn a_later_unflushed_write_may_replace_a_durable_one() {
    let storage = sim(1);
    storage.write_at_durable(0, b"D").unwrap();
    storage.write_at(0, b"n").unwrap();
    assert_eq!(images(&storage), set(&[b"D", b"n"]));
}

#[test]
fn the_length_after_a_crash_is_the_durable_one_or_one_set_since() {
    let storage = sim(2);
    storage.set_len(4).unwrap();
    storage.set_len(3).unwrap();
    assert_eq!(images(&storage), set(&[b"..", b"..\0\0", b"..\0"]));
    storage.sync_data().unwrap();
    assert_eq!(images(&storage), set(&[b"..\0"]));
}

#[test]
fn a_write_into_unflushed_growth_is_lost_with_it() {
    let storage = sim(1);
    storage.set_len(2).unwrap();
    storage.write_at(1, b"a").unwrap();
    assert_eq!(images(&storage), set(&[b".", b".\0", b".a"]));
}

#[test]
fn bytes_cut_off_do_not_return_when_the_length_is_durable() {
    let storage = sim(4);
    storage.write_at(2, b"ab").unwrap();
    storage.set_len(2).unwrap();
    storage.set_len(4).unwrap();
    assert_eq!(storage.crash_image(1), b"..\0\0");
    storage.sync_data().unwrap();
    assert_eq!(images(&storage), set(&[b"..\0\0"]));
}

#[test]
fn a_durable_write_makes_a_length_durable_that_it_needs() {
    let grown = sim(1);
    grown.set_len(3).unwrap();
    grown.write_at(1, b"a").unwrap();
    grown.write_at_durable(2, b"D").unwrap();
    assert_eq!(images(&grown), set(&[b".\0D", b".aD"]));

    // The cut and the growth are between the durable bytes and the durable end.
    let regrown = sim(3);
    regrown.set_len(1).unwrap();
    regrown.set_len(3).unwrap();
    regrown.write_at_durable(2, b"D").unwrap();
    assert_eq!(images(&regrown), set(&[b".\0D"]));

    let not_needed = sim(1);
    not_needed.set_len(2).unwrap();
    not_needed.write_at_durable(0, b"D").unwrap();
    assert_eq!(images(&not_needed), set(&[b"D", b"D\0"]));
}

#[test]
fn after_a_failed_flush_later_flushes_cover_only_later_writes() {
    let storage = sim(3);
    storage.write_at(0, b"aa").unwrap();
    storage.fail_call(CallKind::Sync, 0, Fault::Eio);
    assert!(storage.sync_data().is_err());
    assert_eq!(read(&storage, 0, 3).unwrap(), b"aa.", "reads see what is in limbo");
    storage.write_at(2, b"b").unwrap();
    storage.sync_data().unwrap();
    assert_eq!(images(&storage), set(&[b"..b", b"aab"]));
    assert_eq!(storage.syncs(), 1);

    // Written again, it is a write like any other, and the write in limbo below it cannot return.
    storage.write_at(0, b"c").unwrap();
    storage.sync_data().unwrap();
    assert_eq!(images(&storage), set(&[b"c.b", b"cab"]));
}

#[test]
fn a_failed_durable_write_is_in_limbo() {
    let storage = sim(2);
    storage.fail_call(CallKind::DurableWrite, 0, Fault::Eio);
    assert!(storage.write_at_durable(0, b"a").is_err());
    storage.sync_data().unwrap();
    assert_eq!(images(&storage), set(&[b"..", b"a."]));

    let full = sim(2);
    full.fail_call(CallKind::DurableWrite, 0, Fault::Enospc);
    assert_eq!(full.write_at_durable(0, b"a").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(full.process_crash_image(), b"..");
    assert_eq!((full.bytes_written(), full.durable_writes()), (0, 0));
}

#[test]
fn a_short_write_writes_a_prefix_and_never_everything() {
    let mut lengths = BTreeSet::new();
    for seed in SEEDS {
        let storage = SimStorage::from_image(vec![b'.'; 4], seed);
        storage.fail_call(CallKind::Write, 0, Fault::ShortWrite);
        assert!(storage.write_at(0, b"abcd").is_err());
        let image = storage.process_crash_image();
        let written = image.iter().take_while(|byte| **byte != b'.').count();
        assert_eq!(image[..written], b"abcd"[..written]);
        assert!(image[written..].iter().all(|byte| *byte == b'.'));
        lengths.insert(written);
    }
    assert_eq!(lengths, BTreeSet::from([0, 1, 2, 3]));
}

#[test]
fn a_fault_fails_the_call_for_which_it_is_scheduled() {
    let storage = sim(4);
    storage.fail_call(CallKind::Write, 1, Fault::Eio);
    storage.fail_call(CallKind::Write, 2, Fault::Enospc);
    storage.fail_call(CallKind::Read, 0, Fault::Eio);
    storage.fail_call(CallKind::SetLen, 0, Fault::Eio);
    assert!(read(&storage, 0, 1).is_err());
    read(&storage, 0, 1).unwrap();
    storage.write_at(0, b"a").unwrap();
    storage.sync_data().unwrap();
    assert_eq!(storage.write_at(1, b"b").unwrap_err().kind(), io::ErrorKind::Other);
    assert_eq!(storage.write_at(2, b"c").unwrap_err().kind(), io::ErrorKind::StorageFull);
    storage.write_at(3, b"d").unwrap();
    assert_eq!(storage.process_crash_image(), b"a..d");
    assert!(storage.set_len(9).is_err());
    assert_eq!(storage.len().unwrap(), 4);
    storage.set_len(9).unwrap();

    storage.fail_call(CallKind::Sync, 0, Fault::Eio);
    storage.clear_faults();
    storage.sync_data().unwrap();
}

#[test]
fn a_full_disk_can_be_written_again_after_space_is_freed() {
    let storage = sim(4);
    storage.set_capacity(Some(6));
    storage.set_len(6).unwrap();
    assert_eq!(storage.set_len(7).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(storage.len().unwrap(), 6);
    storage.set_capacity(Some(2));
    storage.write_at(5, b"x").unwrap();
    storage.set_len(3).unwrap();
    storage.set_capacity(None);
    storage.set_len(100).unwrap();
}

#[test]
fn events_count_the_calls_that_change_something() {
    let storage = sim(4);
    storage.write_at(0, b"ab").unwrap();
    storage.write_at_durable(0, b"abc").unwrap();
    storage.sync_data().unwrap();
    storage.set_len(8).unwrap();
    read(&storage, 0, 4).unwrap();
    storage.view(0, 4).unwrap();
    assert_eq!(storage.events(), 4);
    assert_eq!((storage.bytes_written(), storage.syncs(), storage.durable_writes()), (5, 1, 1));
    assert_eq!(storage.bytes_read(), 8);
    assert_eq!(storage.clone().events(), 4, "a clone is the same storage");
}

#[test]
fn after_the_stop_every_call_fails() {
    let storage = sim(4);
    storage.stop_after(1);
    storage.write_at(0, b"a").unwrap();
    read(&storage, 0, 4).unwrap();
    assert!(!storage.is_crashed());
    assert!(storage.sync_data().is_err());
    assert!(storage.is_crashed());
    assert!(read(&storage, 0, 4).is_err());
    assert!(storage.view(0, 4).is_err());
    assert!(storage.len().is_err());
    assert!(storage.write_at(0, b"b").is_err());
    assert!(storage.write_at_durable(0, b"b").is_err());
    assert!(storage.set_len(9).is_err());
    assert_eq!(storage.events(), 2, "calls after the crash have no effect");
    // The flush was in progress: what it covered may be durable or not.
    assert_eq!(images(&storage), set(&[b"....", b"a..."]));

    let off = sim(1);
    off.power_off();
    assert!(read(&off, 0, 1).is_err());
}

#[test]
fn the_call_during_the_stop_may_have_taken_effect_in_part() {
    let mut seen = BTreeSet::new();
    for seed in SEEDS {
        let storage = SimStorage::from_image(vec![b'.'; 3], seed);
        storage.stop_after(0);
        assert!(storage.write_at_durable(0, b"abc").is_err());
        seen.insert(storage.process_crash_image());
        assert_eq!(images(&storage), set(&[b"...", b"abc"]), "one sector is old or new");
    }
    assert_eq!(seen, set(&[b"...", b"a..", b"ab.", b"abc"]));

    let torn = sim(1024);
    torn.stop_after(0);
    assert!(torn.write_at_durable(0, &[b'x'; 1024]).is_err());
    assert!(
        images(&torn).iter().any(|image| image[0] != image[1023]),
        "a durable write in progress is torn"
    );

    let resized = sim(1);
    resized.stop_after(0);
    assert!(resized.set_len(2).is_err());
    assert_eq!(images(&resized), set(&[b".", b".\0"]));
}

#[test]
fn a_flipped_bit_is_in_every_image_and_in_reads() {
    let storage = sim(3);
    storage.write_at(1, b"a").unwrap();
    storage.flip_bit(0, 0);
    storage.flip_bit(1, 7);
    let image = |second: u8| [b'.' ^ 1, second, b'.'].to_vec();
    assert_eq!(images(&storage), BTreeSet::from([image(b'.' ^ 0x80), image(b'a' ^ 0x80)]));
    assert_eq!(read(&storage, 0, 3).unwrap(), image(b'a' ^ 0x80));
}

#[test]
fn the_same_calls_and_seeds_give_the_same_bytes() {
    let run = || {
        let storage = SimStorage::from_image(vec![0; 8192], 42);
        storage.stop_after(20);
        for round in 0..30_u8 {
            let _ = storage.write_at(u64::from(round) * 100, &[round; 700]);
        }
        let images: Vec<_> = SEEDS.map(|seed| storage.crash_image(seed)).collect();
        (images, storage.process_crash_image())
    };
    let (images, current) = run();
    assert!((images, current) == run());
}

/// A plain model of what each byte may be after a crash: first its durable value, then the values
/// written since, each with whether it is in limbo.
struct ByteModel(Vec<Vec<(u8, bool)>>);

impl ByteModel {
    fn write(&mut self, offset: usize, data: &[u8], in_limbo: bool) {
        for (byte, value) in self.0[offset..].iter_mut().zip(data) {
            byte.push((*value, in_limbo));
        }
    }

    fn write_durable(&mut self, offset: usize, data: &[u8]) {
        for (byte, value) in self.0[offset..].iter_mut().zip(data) {
            *byte = vec![(*value, false)];
        }
    }

    fn flush(&mut self) {
        for byte in &mut self.0 {
            let sure = byte.iter().rposition(|(_, in_limbo)| !in_limbo).unwrap();
            byte.drain(..sure);
        }
    }

    fn fail_flush(&mut self) {
        for byte in &mut self.0 {
            for value in &mut byte[1..] {
                value.1 = true;
            }
        }
    }
}

#[test]
fn every_image_of_random_operations_is_legal() {
    const LEN: usize = 3000;
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let storage = sim(LEN);
        let mut model = ByteModel(vec![vec![(b'.', false)]; LEN]);
        for round in 0..60 {
            let offset = rng.usize(0..LEN);
            let data = vec![rng.u8(..); rng.usize(0..=(LEN - offset).min(1500))];
            match rng.u8(0..10) {
                0 => {
                    storage.sync_data().unwrap();
                    model.flush();
                }
                1 => {
                    storage.fail_call(CallKind::Sync, 0, Fault::Eio);
                    storage.sync_data().unwrap_err();
                    model.fail_flush();
                }
                2 => {
                    storage.fail_call(CallKind::DurableWrite, 0, Fault::Eio);
                    storage.write_at_durable(offset as u64, &data).unwrap_err();
                    model.write(offset, &data, true);
                }
                3..6 => {
                    storage.write_at_durable(offset as u64, &data).unwrap();
                    model.write_durable(offset, &data);
                }
                _ => {
                    storage.write_at(offset as u64, &data).unwrap();
                    model.write(offset, &data, false);
                }
            }
            let at = format!("seed {seed}, round {round}");
            let sure: Vec<u8> = model.0.iter().map(|byte| byte[0].0).collect();
            let newest: Vec<u8> = model.0.iter().map(|byte| byte[byte.len() - 1].0).collect();
            assert!(storage.crash_image(0) == sure, "{at}");
            assert!(storage.crash_image(1) == newest, "{at}");
            assert!(storage.process_crash_image() == newest, "{at}");
            for image_seed in 2..6 {
                let image = storage.crash_image(image_seed);
                assert_eq!(image.len(), LEN);
                for (offset, (value, possible)) in image.iter().zip(&model.0).enumerate() {
                    let is_legal = possible.iter().any(|(written, _)| written == value);
                    assert!(is_legal, "{at}, image {image_seed}, byte {offset}");
                }
            }
        }
    }
}
