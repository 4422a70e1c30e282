//! Progress bars and spinners, on standard error and only if that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// The time between two steps of a spinner.
const SPINNER_STEP: Duration = Duration::from_millis(120);

/// Shows work of unknown length, with the time it has taken. It disappears when it is dropped.
pub struct Spinner {
    bar: ProgressBar,
}

impl Spinner {
    pub fn start(doing: String) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(doing);
        if !bar.is_hidden() {
            bar.enable_steady_tick(SPINNER_STEP);
        }
        Self { bar }
    }

    /// Changes the text.
    pub fn say(&self, doing: String) {
        self.bar.set_message(doing);
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A bar of `len` steps.
pub fn bar(len: u64, doing: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr());
    if let Ok(style) =
        ProgressStyle::with_template("{msg:>12} {wide_bar} {human_pos}/{human_len} {eta}")
    {
        bar.set_style(style);
    }
    bar.with_message(doing)
}
