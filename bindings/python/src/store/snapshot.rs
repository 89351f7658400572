//! What saving and loading need of a store.
//!
//! Keys and values are encoded by Python code elsewhere; the only Python code that runs here
//! compares keys.

use super::key::{Found, IdentityQuery, Key, KeyQuery, MatchesKey, Search, Value};
use super::{Store, WEIGHT};
use crate::objects::{Raised, Ref};
use hotset::raw::{EntryMeta, LoadSession, SaveSession};
use hotset::snapshot::SnapshotError;
use std::path::Path;

/// An entry, with owned references.
pub(crate) struct Entry {
    pub(crate) key: Ref,
    pub(crate) value: Ref,
    pub(crate) meta: EntryMeta,
}

impl Store {
    pub(crate) fn begin_save(&self, path: &Path, schema: u64) -> Result<SaveSession, SnapshotError> {
        SaveSession::begin(&self.cache, path, schema)
    }

    /// Returns the next entries to save, without cached failures; none at the end.
    pub(crate) fn next_to_save(&self, session: &mut SaveSession) -> Vec<Entry> {
        let batch = session.batch(&self.cache, |key, value| {
            let key = key.object();
            if key.is_null() {
                return None;
            }
            match value.found() {
                // SAFETY: the entry holds its key, and is pinned while this runs.
                Found::Value(value) => Some((unsafe { Ref::borrowed(key) }, value)),
                Found::Error(_) => None,
            }
        });
        let entry = |((key, value), meta)| Entry { key, value, meta };
        batch.into_iter().map(entry).collect()
    }

    /// Opens and checks a file, which may take long. Uses nothing of the store but its clock.
    pub(crate) fn begin_load(&self, path: &Path, schema: u64) -> Result<LoadSession, SnapshotError> {
        LoadSession::open(&self.cache, path, schema)
    }

    /// Returns the weight that can be inserted without an eviction.
    pub(crate) fn room(&self) -> u64 {
        self.cache.run_pending();
        LoadSession::room(&self.cache)
    }

    pub(crate) fn begin_restoring(&self, session: &LoadSession) {
        self.cache.run_pending();
        session.begin_restoring(&self.cache);
    }

    /// Inserts an entry of a snapshot unless its key is present or it has expired; returns whether
    /// it was inserted.
    pub(crate) fn restore<T: MatchesKey>(
        &self,
        search: &Search<'_, T>,
        entry: Entry,
        weight: u64,
        session: &LoadSession,
    ) -> Result<bool, Raised> {
        if self.contains(search)? {
            return Ok(false);
        }
        let Entry { key, value, meta } = entry;
        let new = key.clone();
        WEIGHT.set(weight);
        let contents = (Key::new(key), Value::new(value));
        if !session.restore(&self.cache, search as &dyn KeyQuery, contents, meta) {
            return Ok(false);
        }
        // Without the GIL, an equal key that needs Python's rich comparison may have been inserted
        // concurrently: that one is newer, and stays.
        while search.resolve()? {
            if self
                .cache
                .contains_key(&super::ExceptQuery(search, new.get()) as &dyn KeyQuery)
            {
                let own = IdentityQuery(KeyQuery::hash(search), new.get());
                self.cache.remove(&own as &dyn KeyQuery);
                return Ok(false);
            }
        }
        Ok(true)
    }
}
