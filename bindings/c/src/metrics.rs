//! Statistics as Prometheus' text exposition.

use crate::cache::hotset_cache;
use crate::ffi::{ffi_guard, result};
use crate::types::{Status, hotset_status};
use engine::raw::metrics::{Figures, Kind, LE, METRICS, Metric};
use libc::c_char;
use std::ffi::CStr;
use std::fmt::{self, Write};
use std::slice;

/// A cache and its name in metrics, for hotset_metrics.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct hotset_named_cache {
    /// Value of the label "cache": any text in UTF-8. Bytes that are not UTF-8 are replaced.
    pub name: *const c_char,
    /// The cache.
    pub cache: *mut hotset_cache,
}

/// Writes the statistics of `n` caches to `buffer`, as text in Prometheus' exposition format, and a
/// NUL. Each metric is described once, and has a series for each cache, with the label "cache".
///
/// An HTTP server answers a scrape with the text, as "text/plain; version=0.0.4". The metrics are
/// those of the Rust and Python packages: hotset_cache_requests_total, and so on. Allocates no
/// memory. Later texts may be longer, since counts grow: leave some room.
///
/// @param caches The caches, with names that differ.
/// @param buffer May be NULL if `capacity` is 0.
/// @param len Becomes the length of the text without the NUL, also if the buffer is too small.
/// @return HOTSET_OK; HOTSET_BUFFER_TOO_SMALL if `capacity` is not greater than `*len`: then the
/// buffer has an empty text; HOTSET_INVALID, also for a name that is NULL or occurs twice. After
/// other failures `*len` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_metrics(
    caches: *const hotset_named_cache,
    n: usize,
    buffer: *mut c_char,
    capacity: usize,
    len: *mut usize,
) -> Status {
    ffi_guard(|| {
        // SAFETY: the header's rules for callers.
        let out = unsafe { result(len, 0) }?;
        let most = isize::MAX as usize / size_of::<hotset_named_cache>();
        if buffer.is_null() && capacity != 0 || capacity > isize::MAX as usize || caches.is_null() && n != 0 || n > most
        {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        let mut text = Text {
            buffer: buffer.cast(),
            // Room for the NUL.
            room: capacity.saturating_sub(1),
            len: 0,
        };
        if capacity != 0 {
            // SAFETY: the header's rules for callers: `capacity` bytes can be written.
            unsafe { buffer.write(0) };
        }
        let caches = if n == 0 {
            &[]
        } else {
            // SAFETY: the header's rules for callers; the length was checked.
            unsafe { slice::from_raw_parts(caches, n) }
        };
        // SAFETY: the same.
        unsafe { check(caches) }?;
        if n != 0 {
            for metric in &METRICS {
                // SAFETY: checked above.
                unsafe { write_metric(&mut text, metric, caches) }.map_err(|Refused(status)| status)?;
            }
        }
        out.set(text.len);
        if text.len >= capacity {
            if capacity != 0 {
                // SAFETY: as above. It removes what has been written.
                unsafe { buffer.write(0) };
            }
            return Err(hotset_status::HOTSET_BUFFER_TOO_SMALL.into());
        }
        // SAFETY: as above; the length is less than the capacity.
        unsafe { buffer.add(text.len).write(0) };
        Ok(())
    })
}

/// Returns an error for a cache that cannot be used, and for a name that is missing or occurs
/// twice.
///
/// # Safety
/// As [`hotset_cache::get`] for each cache; names are NULL or end with a NUL.
unsafe fn check(caches: &[hotset_named_cache]) -> Result<(), Status> {
    for (at, one) in caches.iter().enumerate() {
        if one.name.is_null() {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
        // SAFETY: the caller's promise.
        unsafe { hotset_cache::get(one.cache) }?;
        // SAFETY: the caller's promise; the names before this one are not NULL.
        let same = |other: &hotset_named_cache| unsafe { CStr::from_ptr(other.name) == CStr::from_ptr(one.name) };
        // Prometheus refuses a text in which a series occurs twice.
        if caches[..at].iter().any(same) {
            return Err(hotset_status::HOTSET_INVALID.into());
        }
    }
    Ok(())
}

/// The status of a call that could not write a metric.
struct Refused(Status);

impl From<fmt::Error> for Refused {
    fn from(_: fmt::Error) -> Self {
        unreachable!("a text counts what has no room")
    }
}

/// Writes a metric, with a line for each value of each cache.
///
/// # Safety
/// As for [`check`], which has returned no error.
unsafe fn write_metric(text: &mut Text, metric: &Metric, caches: &[hotset_named_cache]) -> Result<(), Refused> {
    let (name, help) = (metric.name, metric.help);
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Loads => "histogram",
    };
    write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n")?;
    for one in caches {
        // SAFETY: the caller's promise.
        let (cache, label) = unsafe { (hotset_cache::get(one.cache).map_err(Refused)?, CStr::from_ptr(one.name)) };
        let label = Label(label.to_bytes());
        // Read for each metric, since there is no memory to keep the figures of all caches in.
        let figures = Figures::of(cache.engine());
        for series in metric.series {
            let Some(value) = (series.read)(&figures) else { continue };
            match series.label {
                Some((key, of)) => writeln!(text, "{name}{{cache=\"{label}\",{key}=\"{of}\"}} {value}")?,
                None => writeln!(text, "{name}{{cache=\"{label}\"}} {value}")?,
            }
        }
        if metric.kind == Kind::Loads {
            let stats = figures.stats;
            let mut total = 0;
            for (le, count) in LE.into_iter().zip(stats.load_buckets.counts()) {
                total += count;
                writeln!(text, "{name}_bucket{{cache=\"{label}\",le=\"{le}\"}} {total}")?;
            }
            let (seconds, nanos) = (stats.load_time.as_secs(), stats.load_time.subsec_nanos());
            writeln!(text, "{name}_sum{{cache=\"{label}\"}} {seconds}.{nanos:09}")?;
            writeln!(text, "{name}_count{{cache=\"{label}\"}} {total}")?;
        }
    }
    Ok(())
}

/// The value of a label, escaped when it is written.
struct Label<'n>(&'n [u8]);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    '"' => f.write_str("\\\"")?,
                    '\n' => f.write_str("\\n")?,
                    c => f.write_char(c)?,
                }
            }
            if !chunk.invalid().is_empty() {
                f.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        Ok(())
    }
}

/// A text in memory of the caller's. It counts all bytes, and writes those that have room.
struct Text {
    buffer: *mut u8,
    room: usize,
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let fits = more.len().min(self.room.saturating_sub(self.len));
        if fits != 0 {
            // SAFETY: `hotset_metrics` made it of a buffer with that room, which is not part of the
            // library's memory.
            unsafe { std::ptr::copy_nonoverlapping(more.as_ptr(), self.buffer.add(self.len), fits) };
        }
        self.len += more.len();
        Ok(())
    }
}
