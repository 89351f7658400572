//! A mapping's entries, for a snapshot.

use super::Mapping;
use super::methods::Args;
use crate::snapshot::{LoadSession, Of, SaveSession};
use crate::store::Store;
use pyo3::prelude::*;

impl Mapping {
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn save_session(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<SaveSession>> {
        SaveSession::begin(py, self.of(py), args[0].extract()?, args[1].extract()?)
    }

    pub(super) fn load_session(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<LoadSession>> {
        LoadSession::begin(py, self.of(py), args[0].extract()?, args[1].extract()?)
    }

    fn of(&self, py: Python<'_>) -> Of {
        // SAFETY: it is alive, since it is being called.
        Of::Mapping(unsafe { Bound::from_borrowed_ptr(py, self.object()) }.unbind())
    }
}
