//! Sectors that the disk cannot read: an error or a finding that says where, from every tool, and
//! never a signal.

use crate::scale::scaled;
use crate::whole_rooms::{image, tiny};
use cloakroom::testing::{SimStorage, Storage, salvage_on, verify_on};
use cloakroom::{Cloakroom, Error};
use std::sync::Arc;

const BLOCK: usize = 4_096;

/// The image with one bad sector.
fn with_bad_sector(image: &[u8], offset: usize) -> SimStorage {
    let sim = SimStorage::from_image(image.to_vec(), 1);
    sim.break_sector(offset as u64);
    sim
}

/// A sector of each block that anything depends on, and some others.
fn sectors(image: &[u8]) -> Vec<usize> {
    let log_end = u64::from_le_bytes(image[56..64].try_into().unwrap()) as usize;
    let segment = (log_end - 8_192) / 2;
    let mut random = fastrand::Rng::with_seed(3);
    let mut sectors = vec![0, BLOCK, 2 * BLOCK, 3 * BLOCK, 4 * BLOCK, 5 * BLOCK];
    sectors.extend([8_192 + segment, 8_192 + segment + BLOCK, 8_192 + segment + 2 * BLOCK]);
    sectors.extend((log_end..image.len()).step_by(BLOCK));
    sectors.extend((0..scaled(10, 100)).map(|_| random.usize(0..image.len())));
    sectors
}

#[test]
fn every_sector_that_cannot_be_read_is_a_finding_and_names_its_place() {
    let image = image();
    for sector in sectors(&image) {
        let storage: Arc<dyn Storage> = Arc::new(with_bad_sector(&image, sector));
        let report = verify_on(&storage).unwrap_or_else(|error| panic!("{sector}: {error}"));
        let is_noted = report.notes.iter().any(|note| note.contains("cannot be read"));
        assert!(!report.is_ok() || is_noted, "{sector}: {report}");
        let place = format!("file offset {}", sector / BLOCK * BLOCK);
        let is_superblock = sector < 2 * BLOCK;
        assert!(is_superblock || report.to_string().contains(&place), "{place}: {report}");
    }
}

#[test]
fn opening_reads_the_other_copy_or_says_which_block_cannot_be_read() {
    let image = image();
    let (mut opened, mut refused) = (0, 0);
    for sector in sectors(&image) {
        for read_only in [true, false] {
            let sim = with_bad_sector(&image, sector);
            let builder = tiny().read_only(read_only).without_threads();
            match builder.open_on(Arc::new(sim.clone())) {
                Ok(room) => {
                    opened += 1;
                    if sector < 2 * BLOCK && !read_only {
                        // The copy was written anew, and the sector with it.
                        let storage: Arc<dyn Storage> = Arc::new(sim.clone());
                        drop(room);
                        assert!(verify_on(&storage).unwrap().is_ok(), "{sector}");
                    }
                }
                Err(Error::Io { context, source }) => {
                    let place = format!("file offset {}", sector / BLOCK * BLOCK);
                    let text = format!("{context}: {source}");
                    assert!(text.contains(&place), "{place}: {text}");
                    refused += 1;
                }
                Err(Error::Corrupted { .. }) => refused += 1,
                Err(error) => panic!("{sector}: {error}"),
            }
        }
    }
    assert!(opened > 20 && refused > 5, "{opened} opened, {refused} refused");
}

#[test]
fn salvage_goes_on_behind_sectors_that_cannot_be_read() {
    let image = image();
    let log_end = u64::from_le_bytes(image[56..64].try_into().unwrap()) as usize;
    let dir = tempfile::tempdir().unwrap();
    for sector in [0, 8_192, 4 * BLOCK, log_end, log_end + BLOCK, log_end + 8 * BLOCK] {
        let storage: Arc<dyn Storage> = Arc::new(with_bad_sector(&image, sector));
        let to = dir.path().join(format!("{sector}.cloak"));
        salvage_on(&storage, &to).unwrap_or_else(|error| panic!("{sector}: {error}"));
        assert!(cloakroom::tools::verify(&to).unwrap().is_ok());
        drop(Cloakroom::open(&to).unwrap());
    }
}
