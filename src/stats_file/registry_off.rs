//! Names without a stats file, on platforms that have none.

use super::error::{Reason, StatsFileError};
use std::path::{Path, PathBuf};

pub(super) fn enable(directory: &Path) -> Result<(), StatsFileError> {
    Err(StatsFileError::new(directory, Reason::Unsupported))
}

pub(super) fn path() -> Option<PathBuf> {
    None
}
