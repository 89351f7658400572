//! A memoised function's results, for a snapshot: by the arguments that their keys were made of.

use super::Memo;
use super::load::CallSearch;
use super::methods::{Args, UnpackedArgs};
use crate::call::{Call, Receiver};
use crate::objects::Ref;
use crate::snapshot::{LoadSession, Of, SaveSession};
use crate::store::Store;
use crate::store::key::Search;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use std::ptr;

impl Memo {
    /// The store, if its keys can be in a snapshot.
    pub(crate) fn store_to_save(&self) -> PyResult<&Store> {
        if self.store.is_method() {
            return Err(PyTypeError::new_err(
                "a method's results belong to its instances, which a snapshot cannot keep: cache a function that the method calls",
            ));
        }
        Ok(&self.store)
    }

    /// What a snapshot keeps of a key: `(args, kwargs)`. What a key function made is the only argument there.
    pub(crate) fn shown<'py>(&self, py: Python<'py>, key: &Ref) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: the key is held, and was made for this memo, which is no method's.
        let (args, kwargs) = unsafe { Call::arguments(py, key.get(), self.typed, false)? };
        Ok((args, kwargs).into_pyobject(py)?.into_any())
    }

    /// Runs `f` with the search for a key that was shown so, and the key.
    pub(crate) fn with_shown<R>(
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
        // SAFETY: `spread` and `shown` hold all of these.
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

    pub(super) fn save_session(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<SaveSession>> {
        SaveSession::begin(py, self.of(py), args[0].extract()?, args[1].extract()?)
    }

    pub(super) fn load_session(&self, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<LoadSession>> {
        LoadSession::begin(py, self.of(py), args[0].extract()?, args[1].extract()?)
    }

    fn of(&self, py: Python<'_>) -> Of {
        // SAFETY: it is alive, since it is being called.
        Of::Memo(unsafe { Bound::from_borrowed_ptr(py, self.object()) }.unbind())
    }
}
