//! Bars and spinners for long work, on standard error and only if that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// How often a spinner turns.
const TURN: Duration = Duration::from_millis(120);

/// Shows that something of unknown length goes on, and for how long already. Gone when it is
/// dropped.
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
            bar.enable_steady_tick(TURN);
        }
        Self { bar }
    }

    /// Says what it is at.
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
