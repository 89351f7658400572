//! Progress on standard error: one line rewritten in place on a terminal, a line every few seconds in a log.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// When the last line was written, in milliseconds since the first stage. It outlives the stages, so that many
/// short ones write no more lines than a long one.
static LAST: AtomicU64 = AtomicU64::new(0);
static START: OnceLock<Instant> = OnceLock::new();

const TERMINAL_MS: u64 = 100;
const LOG_MS: u64 = 3_000;

/// One stage of work, known by a label and a total; the line is wiped when it is dropped.
pub(crate) struct Progress {
    label: String,
    total: u64,
    done: AtomicU64,
    terminal: bool,
    shown: AtomicBool,
}

impl Progress {
    pub(crate) fn new(label: String, total: u64) -> Self {
        START.get_or_init(Instant::now);
        Self {
            label,
            total: total.max(1),
            done: AtomicU64::new(0),
            terminal: std::io::stderr().is_terminal(),
            shown: AtomicBool::new(false),
        }
    }

    /// Counts `amount` more as done and writes the line when it is due. Cheap enough for once in a thousand requests.
    pub(crate) fn add(&self, amount: u64) {
        let done = self.done.fetch_add(amount, Relaxed).saturating_add(amount);
        let now = START.get_or_init(Instant::now).elapsed().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let last = LAST.load(Relaxed);
        let pause = if self.terminal { TERMINAL_MS } else { LOG_MS };
        if now.saturating_sub(last) < pause {
            return;
        }
        // Of several threads that find the line due, the one that moves the clock writes it.
        if LAST.compare_exchange(last, now, Relaxed, Relaxed).is_err() {
            return;
        }
        let percent = (done.min(self.total) as f64 / self.total as f64 * 100.0) as u64;
        let mut err = std::io::stderr().lock();
        // Progress that cannot be written is no reason to stop the work.
        let _ = if self.terminal {
            self.shown.store(true, Relaxed);
            // Longer than the line, it would wrap, and a carriage return would no longer reach its start.
            let label: String = self.label.chars().take(70).collect();
            write!(err, "\r\x1b[K{label} {percent:3}%").and_then(|()| err.flush())
        } else {
            writeln!(err, "{} {percent}% ({} s)", self.label, now / 1_000)
        };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.load(Relaxed) {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\x1b[K").and_then(|()| err.flush());
        }
    }
}
