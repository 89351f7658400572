//! A mapping's entries, for a snapshot.

use super::Mapping;
use crate::objects::{Ref, hash};
use crate::snapshot::SnapshotSource;
use crate::store::Store;
use crate::store::key::{MappingKey, Search};
use crate::store::snapshot::Entry;
use hotset::raw::{EntryMeta, LoadSession};
use pyo3::prelude::*;

impl SnapshotSource for Mapping {
    fn store_to_save(&self) -> PyResult<&Store> {
        Ok(&self.store)
    }

    fn codec_key<'py>(&self, py: Python<'py>, key: Ref) -> PyResult<Bound<'py, PyAny>> {
        Ok(key.into_bound(py))
    }

    fn weigh_absent(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        let mapping_key = MappingKey(key.as_ptr());
        let is_there = self.store.contains(&search(&mapping_key)?)?;
        let weight = self.store.weigh(&[key.as_ptr(), value.as_ptr()])?;
        Ok((!is_there).then_some(weight))
    }

    fn restore(
        &self,
        key: &Bound<'_, PyAny>,
        value: Ref,
        weight: u64,
        meta: EntryMeta,
        session: &LoadSession,
    ) -> PyResult<bool> {
        let mapping_key = MappingKey(key.as_ptr());
        let search = search(&mapping_key)?;
        let key = key.clone().into();
        Ok(self
            .store
            .restore(&search, Entry { key, value, meta }, weight, session)?)
    }
}

/// Returns the search for a key.
fn search(key: &MappingKey) -> PyResult<Search<'_, MappingKey>> {
    // SAFETY: the caller, which made the `MappingKey`, holds the object.
    let hash = unsafe { hash(key.0) }?;
    Ok(Search::new(key, hash))
}
