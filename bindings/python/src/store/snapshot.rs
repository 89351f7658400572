//! What saving and loading ask of a store. Keys and values become bytes elsewhere, by Python code, which never runs in here but to compare.

use super::key::{Found, Key, KeyQuery, MatchesKey, Search, Value};
use super::{Store, WEIGHT};
use crate::objects::{Object, Raised, Ref};
use hotset::raw::{EntryMeta, LoadSession, SaveSession};
use hotset::snapshot::SnapshotError;
use std::path::Path;
use std::ptr;

/// An entry, with a reference to each.
pub(crate) struct Entry {
    pub(crate) key: Ref,
    pub(crate) value: Ref,
    pub(crate) meta: EntryMeta,
}

impl Store {
    pub(crate) fn begin_save(&self, path: &Path, schema: u64) -> Result<SaveSession, SnapshotError> {
        SaveSession::begin(&self.cache, path, schema)
    }

    /// The next entries to be saved, without remembered exceptions; none at the end.
    pub(crate) fn next_to_save(&self, session: &mut SaveSession) -> Vec<Entry> {
        let batch = session.batch(&self.cache, |key, value| {
            let key = key.object();
            if key.is_null() {
                return None;
            }
            match value.found() {
                // SAFETY: the entry, which is kept while this runs, holds its key.
                Found::Value(value) => Some((unsafe { Ref::borrowed(key) }, value)),
                Found::Error(_) => None,
            }
        });
        let entry = |((key, value), meta)| Entry { key, value, meta };
        batch.into_iter().map(entry).collect()
    }

    /// Opens and checks a file, which may take long. Looks at nothing of the store but its clock.
    pub(crate) fn begin_load(&self, path: &Path, schema: u64) -> Result<LoadSession, SnapshotError> {
        LoadSession::open(&self.cache, path, schema)
    }

    /// How much weight there is room for.
    pub(crate) fn room(&self) -> u64 {
        self.cache.run_pending();
        LoadSession::room(&self.cache)
    }

    pub(crate) fn begin_restoring(&self, session: &LoadSession) {
        self.cache.run_pending();
        session.begin_restoring(&self.cache);
    }

    /// Inserts an entry of a snapshot, if its key is absent and its time is not over; whether it came in.
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
        // Without the GIL it may have passed over an equal key that came in meanwhile, of which only Python can tell that it is: that
        // one is newer.
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

/// A search for this very key.
pub(super) struct IdentityQuery(pub(super) u64, pub(super) Object);

impl KeyQuery for IdentityQuery {
    fn object(&self) -> Object {
        ptr::null_mut()
    }

    fn hash(&self) -> u64 {
        self.0
    }

    fn matches(&self, key: Object) -> bool {
        key == self.1
    }
}
