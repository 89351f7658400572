//! The fast part of `hotset._advise`: counts the calls of selected functions, and passes some of
//! them to Python.
//!
//! From Python 3.12 on the interpreter calls `on_start`, `on_return` and `on_unwind`, which
//! `sys.monitoring` has for callbacks; before, `profile`, set by `PyEval_SetProfile`. Each call of
//! a function that is not observed costs a lookup by its code and an addition.
//!
//! An observed call is found again, when it returns, by its depth among the calls of the same
//! function on the same thread. Where that is not possible (coroutines, greenlets) Python compares
//! frames.

#[cfg(not(Py_3_12))]
mod legacy;

use crate::ffi::ffi_guard;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyList};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;
use std::hash::{BuildHasherDefault, Hasher};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

type Object = *mut ffi::PyObject;

/// How a function's calls begin and end, as `decide` returns it.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Generator,
    Coroutine,
}

/// A function whose calls are counted. It is never freed: threads keep references to it.
struct Function {
    /// Keeps the code, by whose address the function is found.
    _code: Py<PyAny>,
    /// The bytes of the code, where suspensions are recognized by them (before Python 3.12).
    #[cfg_attr(Py_3_12, allow(dead_code))]
    bytecode: Vec<u8>,
    index: usize,
    kind: Kind,
    /// The calls that were planned, of which `left` have not begun.
    planned: AtomicI64,
    /// Calls until `plan` is called again.
    left: AtomicI64,
    observing: AtomicBool,
    /// Whether returns are reported.
    returns: AtomicBool,
    /// How often `returns` was turned on: depths of earlier periods are void.
    period: AtomicU64,
    in_progress: AtomicI64,
    /// The mean time of a call in nanoseconds, its callees excluded.
    own: AtomicU64,
}

/// The state of one recording. It is never freed: a callback may be in progress when it ends.
struct Recording {
    id: u64,
    decide: Py<PyAny>,
    plan: Py<PyAny>,
    begin: Py<PyAny>,
    end: Py<PyAny>,
    disable: Py<PyAny>,
    by_frame: AtomicBool,
    functions: Mutex<Vec<&'static Function>>,
}

static RECORDING: AtomicPtr<Recording> = AtomicPtr::new(ptr::null_mut());
static RECORDINGS: AtomicU64 = AtomicU64::new(0);

fn recording() -> Option<&'static Recording> {
    // Acquire: pairs with the swap of `CallSampler::start`. SAFETY: a recording is never freed.
    unsafe { RECORDING.load(Ordering::Acquire).as_ref() }
}

/// A hash of addresses, of which the low bits are always 0.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("addresses are hashed as usize");
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}

/// The calls of one function on one thread.
#[derive(Default)]
struct Depths {
    period: u64,
    depth: i64,
    /// The depths of the observed calls in progress.
    observed: Vec<i64>,
}

#[derive(Default)]
struct ThreadState {
    recording: u64,
    /// None for code that is not observed.
    functions: HashMap<usize, Option<&'static Function>, BuildHasherDefault<AddressHasher>>,
    depths: Vec<Depths>,
}

impl ThreadState {
    fn depths(&mut self, function: &Function) -> &mut Depths {
        if self.depths.len() <= function.index {
            self.depths.resize_with(function.index + 1, Depths::default);
        }
        let depths = &mut self.depths[function.index];
        let period = function.period.load(Ordering::Relaxed);
        if depths.period != period {
            *depths = Depths {
                period,
                ..Depths::default()
            };
        }
        depths
    }
}

const RECENT: usize = 128;

/// What a recording knows about the code at an address.
#[derive(Clone, Copy)]
struct Recent {
    address: usize,
    recording: u64,
    /// None for code that is not observed.
    function: Option<&'static Function>,
}

impl Recent {
    const NONE: Self = Self {
        address: 0,
        recording: 0,
        function: None,
    };
}

/// What the fast path uses of a thread's state, in one place: each access to a thread-local of a
/// shared library is a call.
struct Fast {
    /// The code that this thread called lately, by its address.
    code: [Cell<Recent>; RECENT],
    /// The nanoseconds of calls that were counted, but not observed.
    skipped: Cell<u64>,
}

thread_local! {
    static THREAD: RefCell<ThreadState> = RefCell::default();
    static FAST: Fast = const {
        Fast {
            code: [const { Cell::new(Recent::NONE) }; RECENT],
            skipped: Cell::new(0),
        }
    };
}

impl Fast {
    /// Returns what is known about a code object that this thread called lately, in this recording.
    #[inline(always)]
    fn recent(&self, recording: &Recording, code: Object) -> Known {
        let address = code.addr();
        let found = self.code[(address >> 4) % RECENT].get();
        if found.address == address && found.recording == recording.id {
            found.function.map_or(Known::Other, Known::Observed)
        } else {
            Known::Unknown
        }
    }
}

/// Returns what is known about a code object that this thread called lately, in this recording.
#[inline(always)]
fn recent(recording: &Recording, code: Object) -> Known {
    FAST.try_with(|fast| fast.recent(recording, code))
        .unwrap_or(Known::Unknown)
}

/// Runs `f` with the state of this thread; None in a thread that is being destroyed. No Python code
/// runs in `f`.
fn with_thread<R>(recording: &Recording, f: impl FnOnce(&mut ThreadState) -> R) -> Option<R> {
    let run = |thread: &RefCell<ThreadState>| {
        let mut thread = thread.borrow_mut();
        if thread.recording != recording.id {
            *thread = ThreadState {
                recording: recording.id,
                ..ThreadState::default()
            };
        }
        f(&mut thread)
    };
    THREAD.try_with(run).ok()
}

/// What is known about a code object.
enum Known {
    Observed(&'static Function),
    Other,
    Unknown,
}

impl Recording {
    fn known(&self, code: Object) -> Known {
        let found = with_thread(self, |thread| thread.functions.get(&code.addr()).copied());
        // (None for a thread that is being destroyed.)
        let Some(found) = found else {
            return Known::Other;
        };
        let Some(function) = found else {
            return Known::Unknown;
        };
        let recent = Recent {
            address: code.addr(),
            recording: self.id,
            function,
        };
        let _ = FAST.try_with(|fast| fast.code[(recent.address >> 4) % RECENT].set(recent));
        function.map_or(Known::Other, Known::Observed)
    }

    /// Returns the function of a code object that this thread sees for the first time.
    fn decide(&self, code: &Bound<'_, PyAny>) -> PyResult<Option<&'static Function>> {
        let address = code.as_ptr().addr();
        // Called without the lock: it is Python code. Two threads may both create the function.
        let (kind, bytecode, keep): (i32, Vec<u8>, bool) = self.decide.bind(code.py()).call1((code,))?.extract()?;
        let function = match kind {
            0 => Some(self.add(code, Kind::Plain, bytecode)),
            1 => Some(self.add(code, Kind::Generator, bytecode)),
            2 => Some(self.add(code, Kind::Coroutine, bytecode)),
            _ => None,
        };
        if keep {
            with_thread(self, |thread| thread.functions.insert(address, function));
        }
        Ok(function)
    }

    fn add(&self, code: &Bound<'_, PyAny>, kind: Kind, bytecode: Vec<u8>) -> &'static Function {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been first.
        let known = functions
            .iter()
            .find(|function| function._code.as_ptr() == code.as_ptr());
        if let Some(known) = known {
            return known;
        }
        let function: &'static Function = Box::leak(Box::new(Function {
            _code: code.clone().unbind(),
            bytecode,
            index: functions.len(),
            kind,
            planned: AtomicI64::new(0),
            left: AtomicI64::new(0),
            observing: AtomicBool::new(false),
            returns: AtomicBool::new(false),
            period: AtomicU64::new(0),
            in_progress: AtomicI64::new(0),
            own: AtomicU64::new(0),
        }));
        functions.push(function);
        function
    }

    fn function(&self, index: usize) -> PyResult<&'static Function> {
        let functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let found = functions.get(index).copied();
        found.ok_or_else(|| PyRuntimeError::new_err("no such function"))
    }

    /// Counts a call that begins, if no more is due.
    fn count(&self, function: &'static Function) -> bool {
        FAST.try_with(|fast| self.count_with(fast, function)).unwrap_or(false)
    }

    #[inline(always)]
    fn count_with(&self, fast: &Fast, function: &'static Function) -> bool {
        let left = function.left.load(Ordering::Relaxed);
        if left <= 0 || function.observing.load(Ordering::Relaxed) {
            return false;
        }
        // Under the GIL no other thread is in between.
        #[cfg(not(Py_GIL_DISABLED))]
        function.left.store(left - 1, Ordering::Relaxed);
        #[cfg(Py_GIL_DISABLED)]
        function.left.fetch_sub(1, Ordering::Relaxed);
        if function.returns.load(Ordering::Relaxed) && function.kind == Kind::Plain {
            with_thread(self, |thread| thread.depths(function).depth += 1);
        }
        let own = function.own.load(Ordering::Relaxed);
        fast.skipped.set(fast.skipped.get() + own);
        true
    }

    /// Counts a call that begins, and observes it if it is due.
    fn start(&self, py: Python<'_>, function: &'static Function) -> PyResult<()> {
        if self.count(function) {
            return Ok(());
        }
        if function.left.load(Ordering::Relaxed) <= 0 {
            let planned: i64 = match function.kind {
                Kind::Generator => i64::MIN / 4,
                Kind::Plain | Kind::Coroutine => self.plan.bind(py).call1((function.index,))?.extract()?,
            };
            function.observing.store(planned > 0, Ordering::Relaxed);
            function.planned.fetch_add(planned.abs(), Ordering::Relaxed);
            function.left.fetch_add(planned.abs(), Ordering::Relaxed);
            if planned <= 0 {
                self.count(function);
                return Ok(());
            }
        }
        function.left.fetch_sub(1, Ordering::Relaxed);
        let mut depth = None;
        if function.returns.load(Ordering::Relaxed) && function.kind == Kind::Plain {
            depth = with_thread(self, |thread| {
                let depths = thread.depths(function);
                depths.depth += 1;
                depths.depth
            });
        }
        // What `begin` raises is of a signal's handler, and leaves the call that begins: its frame
        // is unwound, which undoes the depth.
        if self.begin.bind(py).call1((function.index,))?.is_truthy()? {
            function.in_progress.fetch_add(1, Ordering::Relaxed);
            if let Some(depth) = depth {
                with_thread(self, |thread| thread.depths(function).observed.push(depth));
            }
        }
        Ok(())
    }

    /// Notes that a call has ended; returns whether Python must be called for it.
    #[inline(always)]
    fn is_observed_end(&self, function: &'static Function) -> bool {
        if !function.returns.load(Ordering::Relaxed) || function.kind == Kind::Generator {
            return false;
        }
        let mut is_observed = function.kind == Kind::Coroutine;
        if !is_observed {
            is_observed = with_thread(self, |thread| {
                let depths = thread.depths(function);
                let top = depths.observed.last() == Some(&depths.depth);
                if top {
                    depths.observed.pop();
                }
                depths.depth -= 1;
                top
            })
            .unwrap_or(false);
        }
        (is_observed || self.by_frame.load(Ordering::Relaxed)) && function.in_progress.load(Ordering::Relaxed) > 0
    }

    /// Ends the observation of a call, if it is observed.
    fn stop(&self, py: Python<'_>, function: &'static Function, value: Option<Object>) -> PyResult<()> {
        if self.is_observed_end(function) {
            self.end(py, function, value)?;
        }
        Ok(())
    }

    fn end(&self, py: Python<'_>, function: &'static Function, value: Option<Object>) -> PyResult<()> {
        // SAFETY: the interpreter lends the value for the duration of the callback.
        let value = value.map(|value| unsafe { Bound::from_borrowed_ptr(py, value) });
        let raised = value.is_none();
        let ended = self.end.bind(py).call1((function.index, raised, value))?;
        if ended.is_truthy()? {
            function.in_progress.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A new reference to None, or to the object that turns an event off.
fn answer(py: Python<'_>, disable: Option<&Py<PyAny>>) -> Object {
    disable
        .map_or_else(|| py.None(), |disable| disable.clone_ref(py))
        .into_ptr()
}

/// Runs a callback of `sys.monitoring` with its arguments.
///
/// # Safety
/// As for METH_FASTCALL.
unsafe fn callback(
    args: *const Object,
    count: ffi::Py_ssize_t,
    f: impl FnOnce(Python<'_>, &'static Recording, &[Object]) -> PyResult<Object>,
) -> Object {
    ffi_guard(ptr::null_mut(), |py| {
        let Some(recording) = recording() else {
            return Ok(answer(py, None));
        };
        if count < 2 {
            return Err(PyRuntimeError::new_err(
                "a callback of sys.monitoring was called by another caller",
            ));
        }
        // SAFETY: the caller's promise.
        f(py, recording, unsafe { slice::from_raw_parts(args, count as usize) })
    })
}

/// A new reference to None.
fn none() -> Object {
    // SAFETY: called by the interpreter, so the thread is attached.
    unsafe { ffi::Py_NewRef(ffi::Py_None()) }
}

unsafe extern "C" fn on_start(_: Object, args: *mut Object, count: ffi::Py_ssize_t) -> Object {
    // The fast path, without the guard, in which nothing panics.
    if let Some(recording) = recording().filter(|_| count >= 2) {
        // SAFETY: the interpreter passes a code object and an offset.
        let code = unsafe { *args };
        let counted = FAST.try_with(|fast| match fast.recent(recording, code) {
            Known::Observed(function) => recording.count_with(fast, function),
            Known::Other | Known::Unknown => false,
        });
        if counted.unwrap_or(false) {
            return none();
        }
    }
    let run = |py: Python<'_>, recording: &'static Recording, args: &[Object]| {
        let function = match recording.known(args[0]) {
            Known::Observed(function) => Some(function),
            Known::Other => None,
            // SAFETY: the interpreter lends the code for the duration of the callback.
            Known::Unknown => recording.decide(&unsafe { Bound::from_borrowed_ptr(py, args[0]) })?,
        };
        let Some(function) = function else {
            return Ok(answer(py, Some(&recording.disable)));
        };
        recording.start(py, function)?;
        Ok(answer(py, None))
    };
    // SAFETY: the interpreter calls this as METH_FASTCALL.
    unsafe { callback(args, count, run) }
}

/// Handles the end of a call. It is unwound unless it `has_value`.
unsafe fn on_end(args: *const Object, count: ffi::Py_ssize_t, has_value: bool) -> Object {
    // The fast path, as in `on_start`.
    if let Some(recording) = recording().filter(|_| count >= 2) {
        // SAFETY: the interpreter passes a code object first.
        let code = unsafe { *args };
        if let Known::Observed(function) = recent(recording, code) {
            if !recording.is_observed_end(function) {
                return none();
            }
            let run = |py: Python<'_>, recording: &'static Recording, args: &[Object]| {
                recording.end(py, function, args.get(2).copied().filter(|_| has_value))?;
                Ok(answer(py, None))
            };
            // SAFETY: the caller's promise.
            return unsafe { callback(args, count, run) };
        }
    }
    let run = |py: Python<'_>, recording: &'static Recording, args: &[Object]| {
        if let Known::Observed(function) = recording.known(args[0]) {
            recording.stop(py, function, args.get(2).copied().filter(|_| has_value))?;
        }
        Ok(answer(py, None))
    };
    // SAFETY: the caller's promise.
    unsafe { callback(args, count, run) }
}

unsafe extern "C" fn on_return(_: Object, args: *mut Object, count: ffi::Py_ssize_t) -> Object {
    // SAFETY: the interpreter calls this as METH_FASTCALL.
    unsafe { on_end(args, count, true) }
}

unsafe extern "C" fn on_unwind(_: Object, args: *mut Object, count: ffi::Py_ssize_t) -> Object {
    // SAFETY: the interpreter calls this as METH_FASTCALL.
    unsafe { on_end(args, count, false) }
}

fn native_callback<'py>(
    py: Python<'py>,
    name: &'static CStr,
    function: ffi::PyCFunctionFast,
) -> PyResult<Bound<'py, PyCFunction>> {
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunctionFast: function,
        },
        ml_flags: ffi::METH_FASTCALL,
        ml_doc: ptr::null(),
    }));
    // SAFETY: the definition is never freed.
    let made = unsafe { ffi::PyCFunction_NewEx(definition, ptr::null_mut(), ptr::null_mut()) };
    // SAFETY: a new reference, or null with an exception set.
    Ok(unsafe { Bound::from_owned_ptr_or_err(py, made)?.cast_into_unchecked() })
}

/// Counts the calls of functions, and passes some of them to Python. One at a time is active.
///
/// Args:
///     decide: Called with a code object; returns (kind, bytecode, keep): 0 for a plain function,
///         1 for a generator, 2 for a coroutine, -1 for code that is not counted; and whether to
///         keep that answer.
///     plan: Called with the index of a function; returns the number of calls to observe, or minus
///         the number of calls to count only.
///     begin: Called with the index of a function at the beginning of an observed call; returns
///         whether to call `end` for it.
///     end: Called with the index, whether the call raised, and its result; returns whether the
///         frame is that of an observed call.
///     disable: What a callback returns to turn off its event.
#[pyclass(frozen, module = "hotset._hotset")]
pub(crate) struct CallSampler {
    recording: &'static Recording,
}

#[pymethods]
impl CallSampler {
    #[new]
    fn new(decide: Py<PyAny>, plan: Py<PyAny>, begin: Py<PyAny>, end: Py<PyAny>, disable: Py<PyAny>) -> Self {
        let recording = Box::leak(Box::new(Recording {
            id: RECORDINGS.fetch_add(1, Ordering::Relaxed) + 1,
            decide,
            plan,
            begin,
            end,
            disable,
            by_frame: AtomicBool::new(false),
            functions: Mutex::default(),
        }));
        Self { recording }
    }

    /// Starts the recording, and returns the callbacks for PY_START, PY_RETURN and PY_UNWIND.
    fn start<'py>(&self, py: Python<'py>) -> PyResult<[Bound<'py, PyCFunction>; 3]> {
        let callbacks = [
            native_callback(py, c"on_start", on_start)?,
            native_callback(py, c"on_return", on_return)?,
            native_callback(py, c"on_unwind", on_unwind)?,
        ];
        let this = ptr::from_ref(self.recording).cast_mut();
        // AcqRel: publishes the recording to `recording`.
        let replaced = RECORDING.compare_exchange(ptr::null_mut(), this, Ordering::AcqRel, Ordering::Acquire);
        replaced.map_err(|_| PyRuntimeError::new_err("another recording of calls is active"))?;
        Ok(callbacks)
    }

    /// Stops the recording.
    fn stop(&self) {
        let this = ptr::from_ref(self.recording).cast_mut();
        // AcqRel: as in `start`.
        let _ = RECORDING.compare_exchange(this, ptr::null_mut(), Ordering::AcqRel, Ordering::Acquire);
    }

    /// Sets the profile function of the calling thread (Python 3.11 only).
    fn attach(&self) -> PyResult<()> {
        #[cfg(not(Py_3_12))]
        {
            // SAFETY: the thread is attached.
            unsafe { ffi::PyEval_SetProfile(Some(legacy::profile), ptr::null_mut()) };
            Ok(())
        }
        #[cfg(Py_3_12)]
        Err(PyRuntimeError::new_err("this interpreter has sys.monitoring"))
    }

    /// Removes the profile function of the calling thread.
    fn detach(&self) {
        // SAFETY: the thread is attached.
        unsafe { ffi::PyEval_SetProfile(None, ptr::null_mut()) };
    }

    /// Returns the code objects of all counted functions, by index.
    fn codes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.all().iter().map(|function| function._code.bind(py)))
    }

    /// Returns the number of calls of each function, by index.
    fn calls(&self) -> Vec<u64> {
        let calls = |function: &&'static Function| {
            let left = function.left.load(Ordering::Relaxed);
            u64::try_from(function.planned.load(Ordering::Relaxed) - left).unwrap_or(0)
        };
        self.all().iter().map(calls).collect()
    }

    /// Returns how many observed calls of a function are in progress.
    ///
    /// Args:
    ///     index: The index of the function.
    fn in_progress(&self, index: usize) -> PyResult<i64> {
        Ok(self.recording.function(index)?.in_progress.load(Ordering::Relaxed))
    }

    /// Declares whether the interpreter reports returns of a function.
    ///
    /// Args:
    ///     index: The index of the function.
    ///     on: Whether it does.
    fn set_returns(&self, index: usize, on: bool) -> PyResult<()> {
        let function = self.recording.function(index)?;
        if on {
            function.period.fetch_add(1, Ordering::Relaxed);
            function.in_progress.store(0, Ordering::Relaxed);
        }
        function.returns.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// Sets the mean time of a call of a function without its callees.
    ///
    /// Args:
    ///     index: The index of the function.
    ///     nanoseconds: The time.
    fn set_own(&self, index: usize, nanoseconds: u64) -> PyResult<()> {
        self.recording
            .function(index)?
            .own
            .store(nanoseconds, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the nanoseconds of the calls on this thread that were counted only, estimated.
    fn skipped(&self) -> u64 {
        FAST.try_with(|fast| fast.skipped.get()).unwrap_or(0)
    }

    /// Has Python find observed calls by their frames, as greenlets require.
    fn find_by_frame(&self) {
        self.recording.by_frame.store(true, Ordering::Relaxed);
    }
}

impl CallSampler {
    fn all(&self) -> Vec<&'static Function> {
        self.recording
            .functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CallSampler>()
}
