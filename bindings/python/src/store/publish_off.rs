//! Names without a stats file, on platforms that have none.

use super::Store;
use hotset::stats_file;
use hotset::tier2::Namespace;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a store keeps of its name: nothing.
#[derive(Default)]
pub(super) struct Published;

/// The number of the next cache with a name.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
/// `HOTSET_STATS` is read when the first cache gets a name, as where it has an effect.
static READ: Once = Once::new();

impl Store {
    /// Does nothing: no file could show these counters.
    pub(crate) fn show_tier2(&self, _: Namespace) {}

    /// Numbers the store. Returns its number, and a warning if `HOTSET_STATS` is set, which has no
    /// effect.
    pub(crate) fn publish(&self, _: &str) -> (u64, Option<String>) {
        let mut warning = None;
        READ.call_once(|| {
            let directory = env::var_os("HOTSET_STATS").filter(|directory| !directory.is_empty());
            let enabled = directory.map(|directory| stats_file::enable(Path::new(&directory)));
            warning = enabled.and_then(Result::err).map(|error| error.to_string());
        });
        (NEXT_ID.fetch_add(1, Ordering::Relaxed), warning)
    }
}

/// Does nothing: there is no stats file to describe the process in.
#[pyfunction]
#[pyo3(signature = (program, clear, /))]
fn describe_process(program: String, clear: Py<PyAny>) {
    drop((program, clear));
}

/// Raises an OSError: this platform has no stats files.
#[pyfunction]
#[pyo3(signature = (directory, /))]
fn enable_stats_file(directory: PathBuf) -> PyResult<()> {
    stats_file::enable(&directory).map_err(|error| PyOSError::new_err(error.to_string()))
}

/// Returns None: this platform has no stats files.
#[pyfunction]
fn stats_file_path() -> Option<PathBuf> {
    stats_file::path()
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(describe_process, module)?)?;
    module.add_function(wrap_pyfunction!(enable_stats_file, module)?)?;
    module.add_function(wrap_pyfunction!(stats_file_path, module)?)
}
