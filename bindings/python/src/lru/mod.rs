//! `lru_cache` as functools defines it: exact LRU with exact semantics, independent of the engine.

mod table;

use crate::call::{Call, Receiver};
use crate::ffi::{catch_panics, ffi_guard, methods};
use crate::hash_seed::mix_with_seed;
use crate::objects::{Equal, Object, Raised, Ref};
use crate::types::{self, NativeObject, ObjectHead, TypeSpec, bind, new_callable_like, slot, with_critical_section};
use pyo3::exceptions::{PyMemoryError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_void};
use std::ptr;
use table::Table;

/// The maximum size of a cache.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    Unbounded,
    Zero,
    AtMost(usize),
}

#[repr(C)]
pub(crate) struct LruFunction {
    head: ObjectHead,
    function: Cell<Object>,
    info: Cell<Object>,
    size: Size,
    typed: bool,
    hits: Cell<u64>,
    misses: Cell<u64>,
    /// Used by one thread at a time (with the GIL, or in a critical section), and never while other
    /// code runs.
    table: UnsafeCell<Option<Table>>,
}

// SAFETY: it begins with an `ObjectHead`.
unsafe impl NativeObject for LruFunction {
    fn visit(&self, visit: &mut dyn FnMut(Object) -> c_int) -> c_int {
        // SAFETY: the collector runs while no thread uses the table.
        let table = unsafe { &*self.table.get() };
        let contents = table
            .iter()
            .flat_map(Table::contents)
            .flat_map(|(key, value)| [key, value]);
        [self.function.get(), self.info.get()]
            .into_iter()
            .chain(contents)
            .map(visit)
            .find(|stop| *stop != 0)
            .unwrap_or(0)
    }

    fn clear(&self) {
        self.clear_entries();
        for held in [&self.function, &self.info] {
            // SAFETY: the reference was the object's, and is dropped once.
            unsafe { ffi::Py_XDECREF(held.replace(ptr::null_mut())) };
        }
    }

    unsafe fn drop_native(this: *mut Self) {
        // SAFETY: the caller's promise.
        unsafe { ptr::drop_in_place(&raw mut (*this).table) };
    }
}

impl LruFunction {
    /// # Safety
    /// No other reference from this function is alive, and no other code runs while the returned
    /// one is.
    #[expect(clippy::mut_from_ref, reason = "the promise is the caller's")]
    #[inline(always)]
    unsafe fn table(&self) -> Option<&mut Table> {
        // SAFETY: the caller's promise.
        unsafe { (*self.table.get()).as_mut() }
    }

    fn object(&self) -> Object {
        ptr::from_ref(self).cast_mut().cast()
    }

    fn count(counter: &Cell<u64>) {
        counter.set(counter.get() + 1);
    }

    /// Finds the entry of a call.
    ///
    /// Comparisons may run other code, which may change the table; the result is valid for the
    /// table as it is when this returns.
    #[inline(always)]
    fn find(&self, call: &Call<'_>, hash: u64) -> Result<Option<u32>, Raised> {
        'again: loop {
            // SAFETY: this reference ends before other code runs, and is taken anew after that.
            let Some(mut table) = (unsafe { self.table() }) else {
                return Ok(None);
            };
            let mut at = table.home(hash);
            while let Some(found) = table.candidate(hash, &mut at) {
                let key = table.entry(found).key;
                // SAFETY: the table holds the key.
                match unsafe { call.compare(key) } {
                    Equal::Yes => return Ok(Some(found)),
                    Equal::No => {}
                    Equal::Unknown => {
                        let version = table.version();
                        // SAFETY: the key is held while other code runs, which may remove its
                        // entry.
                        let equal = unsafe {
                            ffi::Py_INCREF(key);
                            let equal = call.rich_compare(key);
                            ffi::Py_DECREF(key);
                            equal?
                        };
                        // Other code may have changed the table, and with it the place of the
                        // search: start again then.
                        // SAFETY: as above.
                        table = match unsafe { self.table() } {
                            Some(table) if table.version() == version => table,
                            _ => continue 'again,
                        };
                        if equal {
                            return Ok(Some(found));
                        }
                    }
                }
            }
            return Ok(None);
        }
    }

    /// Returns a new reference to the call's value, or the table's version.
    #[inline(always)]
    fn lookup(&self, call: &Call<'_>, hash: u64) -> Result<Result<Object, u64>, Raised> {
        with_critical_section(self.object(), || {
            let found = self.find(call, hash)?;
            // SAFETY: no other code runs here.
            let Some(table) = (unsafe { self.table() }) else {
                return Ok(Err(0));
            };
            let Some(found) = found else {
                Self::count(&self.misses);
                return Ok(Err(table.version()));
            };
            if self.size != Size::Unbounded {
                table.touch(found);
            }
            Self::count(&self.hits);
            let value = table.entry(found).value;
            // SAFETY: the table holds it.
            unsafe { ffi::Py_INCREF(value) };
            Ok(Ok(value))
        })
    }

    /// Stores what the function returned, unless its own run stored a value.
    ///
    /// Takes ownership of neither.
    #[inline(never)]
    fn store_result(&self, call: &Call<'_>, hash: u64, version: u64, value: Object) -> Result<(), Raised> {
        let key = call.key()?.into_raw();
        let old = with_critical_section(self.object(), || self.insert(call, hash, version, key, value));
        let dropped = match &old {
            Ok(dropped) => *dropped,
            Err(Raised) => [key, ptr::null_mut()],
        };
        for object in dropped {
            // SAFETY: the table no longer holds these references, or never did.
            unsafe { ffi::Py_XDECREF(object) };
        }
        old.map(drop)
    }

    /// Puts a key and a new reference to a value into the table; returns the references to drop.
    ///
    /// They are dropped after the critical section: dropping may run Python code.
    fn insert(
        &self,
        call: &Call<'_>,
        hash: u64,
        version: u64,
        key: Object,
        value: Object,
    ) -> Result<[Object; 2], Raised> {
        // SAFETY: no other reference is alive, and this one ends within the expression.
        let unchanged = unsafe { self.table() }.is_some_and(|table| table.version() == version);
        let found = if unchanged { None } else { self.find(call, hash)? };
        // SAFETY: no other code runs from here on.
        let Some(table) = (unsafe { self.table() }) else {
            return Ok([key, ptr::null_mut()]);
        };
        if let Some(found) = found {
            if self.size != Size::Unbounded {
                return Ok([key, ptr::null_mut()]);
            }
            // SAFETY: the caller holds it.
            unsafe { ffi::Py_INCREF(value) };
            return Ok([key, table.replace(found, value)]);
        }
        let full = matches!(self.size, Size::AtMost(most) if table.len() >= most);
        let (old_key, old_value) = full
            .then(|| table.pop())
            .flatten()
            .unwrap_or((ptr::null_mut(), ptr::null_mut()));
        if !table.insert(hash, key, value) {
            return Err(crate::ffi::raise(PyMemoryError::new_err("too many entries")));
        }
        // SAFETY: as above.
        unsafe { ffi::Py_INCREF(value) };
        Ok([old_key, old_value])
    }

    #[inline(always)]
    fn call(&self, call: &Call<'_>, nargsf: usize) -> Result<Object, Raised> {
        if self.size == Size::Zero {
            with_critical_section(self.object(), || Self::count(&self.misses));
            // SAFETY: held below.
            return unsafe { self.run(call, nargsf) };
        }
        let hash = mix_with_seed(call.hash()?);
        match self.lookup(call, hash)? {
            Ok(value) => Ok(value),
            Err(version) => self.miss(call, nargsf, hash, version),
        }
    }

    #[inline(never)]
    fn miss(&self, call: &Call<'_>, nargsf: usize, hash: u64, version: u64) -> Result<Object, Raised> {
        // SAFETY: held below.
        let value = unsafe { self.run(call, nargsf) }?;
        if let Err(raised) = self.store_result(call, hash, version, value) {
            // SAFETY: the reference is ours.
            unsafe { ffi::Py_DECREF(value) };
            return Err(raised);
        }
        Ok(value)
    }

    /// # Safety
    /// As [`Call::call`].
    unsafe fn run(&self, call: &Call<'_>, nargsf: usize) -> Result<Object, Raised> {
        let function = self.function.get();
        if function.is_null() {
            return Err(crate::ffi::raise(types::cleared_by_gc("function")));
        }
        crate::stack::check()?;
        // SAFETY: the function is held while it runs, even if the cache drops its reference.
        unsafe {
            let function = Ref::borrowed(function);
            call.call(function.get(), nargsf).map(Ref::into_raw)
        }
    }

    /// Removes all entries.
    fn clear_entries(&self) {
        // SAFETY: no other reference is alive, and this one ends within the closure.
        let table = with_critical_section(self.object(), || unsafe { self.table() }.map(Table::take));
        for (key, value) in table.iter().flat_map(Table::contents) {
            // SAFETY: the table held these references, and is no longer reachable.
            unsafe {
                ffi::Py_DECREF(key);
                ffi::Py_DECREF(value);
            }
        }
    }

    fn cache_info(&self, _: &[Bound<'_, PyAny>], py: Python<'_>) -> PyResult<Py<PyAny>> {
        let numbers = with_critical_section(self.object(), || {
            // SAFETY: no other reference is alive, and this one ends within the expression.
            let len = unsafe { self.table() }.map_or(0, |table| table.len());
            (self.hits.get(), self.misses.get(), len)
        });
        let most = match self.size {
            Size::Unbounded => None,
            Size::Zero => Some(0),
            Size::AtMost(most) => Some(most),
        };
        // SAFETY: `__new__` stored it; null after the collector's `clear`.
        let info = unsafe { Bound::from_borrowed_ptr_or_opt(py, self.info.get()) };
        let info = info.ok_or_else(|| types::cleared_by_gc("function"))?;
        info.call1((numbers.0, numbers.1, most, numbers.2)).map(Bound::unbind)
    }

    fn cache_clear(&self, _: &[Bound<'_, PyAny>], _: Python<'_>) -> PyResult<()> {
        with_critical_section(self.object(), || {
            self.hits.set(0);
            self.misses.set(0);
        });
        self.clear_entries();
        Ok(())
    }
}

unsafe extern "C" fn vectorcall(this: Object, args: *const Object, nargsf: usize, names: Object) -> Object {
    catch_panics(ptr::null_mut(), || {
        // SAFETY: CPython calls with an object of the type, and arguments as vectorcall specifies.
        unsafe {
            let this = &*this.cast::<LruFunction>();
            let call = Call::new(
                args,
                ffi::PyVectorcall_NARGS(nargsf) as usize,
                names,
                this.typed,
                Receiver::None,
            );
            this.call(&call, nargsf)
        }
    })
}

unsafe extern "C" fn new(class: *mut ffi::PyTypeObject, args: Object, kwargs: Object) -> Object {
    ffi_guard(ptr::null_mut(), |py| {
        // SAFETY: CPython calls with a tuple, and a dict or null.
        let (args, named) = unsafe {
            let named = if kwargs.is_null() { 0 } else { ffi::PyDict_Size(kwargs) };
            (Bound::from_borrowed_ptr(py, args), named)
        };
        if named > 0 {
            return Err(PyTypeError::new_err("LruFunction takes its arguments by position"));
        }
        let [function, maxsize, typed, info]: [Bound<'_, PyAny>; 4] = args.extract()?;
        if !function.is_callable() {
            return Err(PyTypeError::new_err("the first argument must be callable"));
        }
        let size = if maxsize.is_none() {
            Size::Unbounded
        } else {
            match usize::try_from(maxsize.extract::<isize>()?) {
                Ok(0) | Err(_) => Size::Zero,
                Ok(most) => Size::AtMost(most),
            }
        };
        let typed = typed.is_truthy()?;
        let made = |head| LruFunction {
            head,
            function: Cell::new(function.clone().into_ptr()),
            info: Cell::new(info.into_ptr()),
            size,
            typed,
            hits: Cell::new(0),
            misses: Cell::new(0),
            table: UnsafeCell::new((size != Size::Zero).then(Table::new)),
        };
        // SAFETY: the type is this one or a subclass.
        unsafe { new_callable_like(&function, class, vectorcall, made) }
    })
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    TypeSpec {
        // Libraries that recognize functools' wrappers by their module (pydantic) accept this type.
        name: c"functools.LruFunction",
        doc: c"A function under `lru_cache`: exact LRU, with the semantics of functools' _lru_cache_wrapper.

Has __call__, __get__, __reduce__ (by __qualname__), __copy__, __deepcopy__, __dict__ and weak
references, and can be subclassed. Attributes such as `__wrapped__` are set by update_wrapper.
",
        flags: ffi::Py_TPFLAGS_BASETYPE
            | ffi::Py_TPFLAGS_HAVE_VECTORCALL
            | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR
            | ffi::Py_TPFLAGS_IMMUTABLETYPE,
        slots: vec![
            slot(ffi::Py_tp_new, new as *mut c_void),
            slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
            slot(ffi::Py_tp_descr_get, bind as *mut c_void),
        ],
        methods: methods![LruFunction;
            c"cache_info" => LruFunction::cache_info, 0..=0, c"cache_info($self, /)
--

Returns cache_info_type(hits, misses, maxsize, currsize).
";
            c"cache_clear" => LruFunction::cache_clear, 0..=0, c"cache_clear($self, /)
--

Removes all results, and resets hits and misses.
";
            c"__reduce__" => types::reduce::<LruFunction>, 0..=0, c"Pickled by its qualified name";
            c"__copy__" => types::copy::<LruFunction>, 0..=0, c"A function is its own copy";
            c"__deepcopy__" => types::copy::<LruFunction>, 0..=1, c"A function is its own copy";
        ],
        dict: true,
    }
    .create::<LruFunction>(module)
    .map(drop)
}
