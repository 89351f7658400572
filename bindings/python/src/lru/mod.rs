//! `lru_cache` as functools has it: exact LRU, exact semantics, and nothing of the engine.

mod table;

use crate::call::{Call, Receiver};
use crate::ffi::{catch_panics, ffi_guard, methods};
use crate::hash_seed::mix_with_seed;
use crate::objects::{Equal, Object, Raised, Ref};
use crate::types::{NativeObject, ObjectHead, TypeSpec, bind, new_callable_like, slot, with_critical_section};
use pyo3::exceptions::{PyMemoryError, PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_void};
use std::ptr;
use table::Table;

/// How large a cache may be.
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
    /// Touched by one thread at a time (with the GIL, or else in a critical section), and never while other code runs.
    table: UnsafeCell<Option<Table>>,
}

// SAFETY: it begins with a `ObjectHead`.
unsafe impl NativeObject for LruFunction {
    fn visit(&self, visit: &mut dyn FnMut(Object) -> c_int) -> c_int {
        // SAFETY: the collector runs while nobody is at the table.
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
            // SAFETY: it was this one's, and is let go of once.
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
    /// Nothing else that comes from here is alive, and no other code runs meanwhile.
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

    /// The entry of this call. Other code may run, and change the table: what is found is there afterwards.
    #[inline(always)]
    fn find(&self, call: &Call<'_>, hash: u64) -> Result<Option<u32>, Raised> {
        'again: loop {
            // SAFETY: it ends before other code runs, and is taken anew after that.
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
                        // SAFETY: the key is held while other code runs.
                        let equal = unsafe {
                            ffi::Py_INCREF(key);
                            let equal = call.rich_compare(key);
                            ffi::Py_DECREF(key);
                            equal?
                        };
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

    /// A new reference to the value of this call, or the table's version.
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

    /// Keeps what the function returned, unless its own run brought that in. Takes a reference to neither.
    #[inline(never)]
    fn store_result(&self, call: &Call<'_>, hash: u64, version: u64, value: Object) -> Result<(), Raised> {
        let key = call.key()?.into_raw();
        let old = with_critical_section(self.object(), || self.insert(call, hash, version, key, value));
        let dropped = match &old {
            Ok(dropped) => *dropped,
            Err(Raised) => [key, ptr::null_mut()],
        };
        for object in dropped {
            // SAFETY: what left the table, or did not come in, is nobody's any more.
            unsafe { ffi::Py_XDECREF(object) };
        }
        old.map(drop)
    }

    /// Puts a key and a new reference to a value into the table; returns what is to be let go of.
    fn insert(
        &self,
        call: &Call<'_>,
        hash: u64,
        version: u64,
        key: Object,
        value: Object,
    ) -> Result<[Object; 2], Raised> {
        // SAFETY: nothing else is alive, and this ends at once.
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
            let text = "the garbage collector has taken this function apart";
            return Err(crate::ffi::raise(PyRuntimeError::new_err(text)));
        }
        crate::stack::check()?;
        // SAFETY: held while it runs, whatever happens to this cache meanwhile.
        unsafe {
            let function = Ref::borrowed(function);
            call.call(function.get(), nargsf).map(Ref::into_raw)
        }
    }

    /// Lets go of all entries.
    fn clear_entries(&self) {
        // SAFETY: nothing else is alive, and this ends at once.
        let table = with_critical_section(self.object(), || unsafe { self.table() }.map(Table::take));
        for (key, value) in table.iter().flat_map(Table::contents) {
            // SAFETY: the table held them, and nobody can find them there any more.
            unsafe {
                ffi::Py_DECREF(key);
                ffi::Py_DECREF(value);
            }
        }
    }

    fn cache_info(&self, _: &[Bound<'_, PyAny>], py: Python<'_>) -> PyResult<Py<PyAny>> {
        let numbers = with_critical_section(self.object(), || {
            // SAFETY: nothing else is alive, and this ends at once.
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
        let info =
            info.ok_or_else(|| PyRuntimeError::new_err("the garbage collector has taken this function apart"))?;
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

    fn itself(&self, _: &[Bound<'_, PyAny>], py: Python<'_>) -> PyResult<Py<PyAny>> {
        // SAFETY: it is alive, since it is being called.
        Ok(unsafe { Bound::from_borrowed_ptr(py, self.object()) }.unbind())
    }

    fn reduce(&self, _: &[Bound<'_, PyAny>], py: Python<'_>) -> PyResult<Py<PyAny>> {
        // SAFETY: as above.
        let this = unsafe { Bound::from_borrowed_ptr(py, self.object()) };
        this.getattr("__qualname__").map(Bound::unbind)
    }
}

unsafe extern "C" fn vectorcall(this: Object, args: *const Object, nargsf: usize, names: Object) -> Object {
    catch_panics(ptr::null_mut(), || {
        // SAFETY: Python calls with an object of the type, and arguments as vectorcall says.
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
        // SAFETY: Python calls with a tuple, and a dict or null.
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
        // Libraries that know functools' wrappers by their module (pydantic) take this for one.
        name: c"functools.LruFunction",
        doc: c"What functools.lru_cache makes of a function, and faster.",
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
            c"cache_info" => LruFunction::cache_info, 0..=0, c"cache_info($self, /)\n--\n\nReport cache statistics";
            c"cache_clear" => LruFunction::cache_clear, 0..=0, c"cache_clear($self, /)\n--\n\nClear the cache and cache statistics";
            c"__reduce__" => LruFunction::reduce, 0..=0, c"Pickled by its qualified name";
            c"__copy__" => LruFunction::itself, 0..=0, c"A function is its own copy";
            c"__deepcopy__" => LruFunction::itself, 0..=1, c"A function is its own copy";
        ],
        dict: true,
    }
    .create::<LruFunction>(module)
}
