//! The functions of the fuzz targets: they take arbitrary bytes and assert what must hold for all
//! of them.
//!
//! They are ordinary functions, so that `cargo test` runs them over a small corpus of seeded
//! inputs, with the same assertions, without a fuzzer. Not part of the stable interface.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "assertions about the crate: a panic is how they report"
)]

mod exports;
mod formats;
mod images;
mod input;
mod log_recovery;
pub mod model;
mod tools;

pub use exports::import;
pub use formats::{batch, frame, keys, rows};
pub use images::open;
pub use log_recovery::log_recovery;
pub use tools::tools;

/// `data` is a tape of operations: a room is compared with the [model](mod@model), with reopenings,
/// crashes and checkpoints.
pub fn model(data: &[u8]) {
    let (ops, threads) = model::decode(data);
    model::ModelRun::in_memory(threads).check(&ops);
}

/// Runs a fuzz target over inputs that depend only on `seed`: random bytes, and bytes with few
/// distinct values, which are valid more often.
#[cfg(test)]
fn over_seeded_inputs(seed: u64, inputs: usize, max_len: usize, target: impl Fn(&[u8])) {
    let mut random = fastrand::Rng::with_seed(seed);
    target(&[]);
    for _ in 0..inputs {
        let len = random.usize(0..=max_len);
        let values = [4, 32, 256][random.usize(..3)];
        let input: Vec<u8> = (0..len).map(|_| random.u16(0..values) as u8).collect();
        target(&input);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_refused_or_encode_again() {
        over_seeded_inputs(1, 2_000, 400, frame);
    }

    #[test]
    fn batches_are_refused_or_encode_again() {
        over_seeded_inputs(2, 5_000, 200, batch);
    }

    #[test]
    fn rows_are_refused_or_encode_again() {
        over_seeded_inputs(3, 5_000, 120, rows);
    }

    #[test]
    fn keys_keep_their_order_and_decode_again() {
        over_seeded_inputs(4, 5_000, 80, keys);
    }

    #[test]
    fn damaged_files_return_their_content_or_an_error() {
        over_seeded_inputs(5, 120, 60, open);
    }

    #[test]
    fn damaged_files_are_verified_and_salvaged() {
        over_seeded_inputs(8, 60, 80, tools);
    }

    #[test]
    fn a_log_recovers_what_was_acknowledged_or_reports_damage() {
        over_seeded_inputs(6, 400, 300, log_recovery);
    }

    #[test]
    fn exports_are_refused_or_exported_again() {
        over_seeded_inputs(8, 100, 200, import);
    }

    #[test]
    fn a_room_answers_as_the_model_does() {
        over_seeded_inputs(7, 60, 400, model);
    }
}
