//! A memoized function's results in snapshots, by the arguments of which their keys were made.

use super::methods::UnpackedArgs;
use super::{CallSearch, Memo};
use crate::call::{Call, Receiver};
use crate::objects::Ref;
use crate::snapshot::SnapshotSource;
use crate::store::Store;
use crate::store::key::Search;
use crate::store::snapshot::Entry;
use hotset::raw::{EntryMeta, LoadSession};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use std::ptr;

impl Memo {
    /// Runs `f` with the search for a key that the codec has decoded, and the key.
    fn with_codec_key<R>(
        &self,
        shown: &Bound<'_, PyAny>,
        f: impl FnOnce(&CallSearch<'_, '_>, Ref) -> PyResult<R>,
    ) -> PyResult<R> {
        let (args, kwargs): (Bound<'_, PyTuple>, Bound<'_, PyDict>) = shown
            .extract()
            .map_err(|_| PyTypeError::new_err("a key is a tuple of arguments and a dict of those by name"))?;
        let unpacked = UnpackedArgs::new(args.as_any(), kwargs.as_any())?;
        let mut named = unpacked.names.iter().flatten();
        if !named.all(|name| name.is_exact_instance_of::<PyString>()) {
            return Err(PyTypeError::new_err("the names of arguments are strings"));
        }
        let names = unpacked.names.as_ref().map_or(ptr::null_mut(), |names| names.as_ptr());
        // SAFETY: `unpacked` and `shown` hold all of these.
        let call = unsafe {
            Call::new(
                unpacked.args.as_ptr(),
                unpacked.positional,
                names,
                self.typed,
                Receiver::None,
            )
        };
        f(&Search::new(&call, call.hash()?), call.key()?)
    }
}

impl SnapshotSource for Memo {
    fn store_to_save(&self) -> PyResult<&Store> {
        if self.store.is_method() {
            return Err(PyTypeError::new_err(
                "a method's results belong to its instances, which a snapshot cannot keep: cache a function that the method calls",
            ));
        }
        Ok(&self.store)
    }

    /// Returns `(args, kwargs)`. The result of a key function is the only argument there.
    fn codec_key<'py>(&self, py: Python<'py>, key: Ref) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the key is held, and was made for this memo, which is no method's.
        let (args, kwargs) = unsafe { Call::arguments(py, key.get(), self.typed, false)? };
        Ok((args, kwargs).into_pyobject(py)?.into_any())
    }

    fn weigh_absent(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        let is_there = self.with_codec_key(key, |search, _| Ok(self.store.contains(search)?))?;
        let weight = self.store.weigh(&[value.as_ptr()])?;
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
        self.with_codec_key(key, |search, key| {
            Ok(self
                .store
                .restore(search, Entry { key, value, meta }, weight, session)?)
        })
    }
}
