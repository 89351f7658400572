//! Progress on standard error: a bar on a terminal, a line per long stage in a log.

use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// In a log, stages that took less than this are not worth a line.
const LOGGED: Duration = Duration::from_secs(3);

/// One stage of work, with a label and a total. Its bar is cleared when it is dropped.
pub(crate) struct Progress {
    label: String,
    bar: ProgressBar,
    start: Instant,
}

impl Progress {
    pub(crate) fn new(label: String, total: u64) -> Self {
        let bar = ProgressBar::new(total.max(1)).with_message(label.clone());
        // The template is a constant: if it does not parse, the default one remains.
        if let Ok(style) = ProgressStyle::with_template("{wide_msg} {bar:20} {percent:>3}% {eta:>4}") {
            bar.set_style(style);
        }
        Self {
            label,
            bar,
            start: Instant::now(),
        }
    }

    /// Counts `amount` more as done. Cheap enough for one call in a thousand requests.
    pub(crate) fn add(&self, amount: u64) {
        self.bar.inc(amount);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let time = self.start.elapsed();
        // A hidden bar: standard error is not a terminal.
        if self.bar.is_hidden() && time >= LOGGED {
            // Progress that cannot be written is no reason to stop the work.
            let _ = writeln!(std::io::stderr(), "{} ({} s)", self.label, time.as_secs());
        }
        self.bar.finish_and_clear();
    }
}
