//! Exceptions of a load that several callers raise.
//!
//! Raising an exception writes a traceback and a context into it, and its handlers may add notes. One object that several callers raise
//! carries all that from one to the next, keeps the frames of each alive, and on a free-threaded CPython 3.13 ends the process. So
//! the caller that leads a load raises what the load raised, and every other raise is of a copy of its own, made by a [`Failure`].
//!
//! A copy has the frames of the load in its traceback, and nothing of another caller. A failure that is kept in a cache holds no frame:
//! it remembers file, function, and line, and makes frames of these for each copy. All exceptions that an exception refers to are
//! copied with it: cause, context, the members of a group, those among its arguments and its attributes.

use crate::ffi::raise;
use crate::objects::{Object, Raised, Ref};
use pyo3::exceptions::{PyBaseException, PyException, PyTypeError};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCode, PyDict, PyList, PyString, PyTraceback, PyTuple, PyType};
use std::ffi::CString;
use std::ptr;

unsafe extern "C" {
    // Since 3.11, not declared by PyO3. The exception that the running code handles, a new reference; null for none.
    fn PyErr_GetHandledException() -> Object;
}

/// The most exceptions that one copy consists of; a longer chain of contexts is cut off.
const MAX_EXCEPTIONS: usize = 64;
/// The most lines of a traceback that are remembered: as many of its beginning as of its end.
const MAX_LINES: usize = 64;

/// Makes copies of an exception.
#[pyclass(frozen, module = "hotset._hotset")]
pub(crate) struct Failure {
    /// The exceptions that a copy consists of, without tracebacks; the first is the one to be raised.
    exceptions: Vec<(Py<PyAny>, Trace)>,
}

/// Where an exception came from.
enum Trace {
    Nowhere,
    /// A traceback, which holds its frames.
    Frames(Py<PyTraceback>),
    /// Code objects without any code, which have a file and a name, with a line each; outermost first.
    Lines(Vec<(Py<PyCode>, i32)>),
}

#[pymethods]
impl Failure {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for (exception, trace) in &self.exceptions {
            visit.call(exception)?;
            if let Trace::Frames(traceback) = trace {
                visit.call(traceback)?;
            }
        }
        Ok(())
    }
}

impl Failure {
    /// Returns a failure that makes copies of `error`, or `None` if it cannot be copied. Holds the frames of the load if `frames`, else
    /// remembers the lines. May run Python code.
    pub(crate) fn new<'py>(error: &Bound<'py, PyAny>, frames: bool) -> PyResult<Option<Bound<'py, Self>>> {
        let py = error.py();
        // What the caller of the load handles is none of the load's doing, though Python has made it a context.
        let mut copies = Copies::new(handled(py).filter(|handled| !handled.is(error)));
        if copies.copy(error)?.is_none() {
            return Ok(None);
        }
        let node = |(exception, copy): (Bound<'py, PyAny>, Option<Bound<'py, PyAny>>)| {
            let trace = Trace::of(&exception, frames);
            copy.map(|copy| Ok((copy.unbind(), trace?)))
        };
        let exceptions = copies.pairs.into_iter().filter_map(node).collect::<PyResult<_>>()?;
        Bound::new(py, Self { exceptions }).map(Some)
    }

    /// Returns a copy. May run Python code.
    pub(crate) fn exception<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let mut copies = Copies::new(None);
        let first = self.exceptions.first().map(|(first, _)| first.bind(py));
        let copied = first.map_or(Ok(None), |first| copies.copy(first))?;
        let copied = copied.ok_or_else(|| PyTypeError::new_err("an exception to be raised again cannot be copied"))?;
        for (exception, copy) in &copies.pairs {
            let found = self.exceptions.iter().find(|(known, _)| known.is(exception));
            if let (Some((_, trace)), Some(copy)) = (found, copy)
                && let Some(traceback) = trace.traceback(py)?
            {
                // SAFETY: an exception, and a traceback.
                unsafe { ffi::PyException_SetTraceback(copy.as_ptr(), traceback.as_ptr()) };
            }
        }
        if let Some(handled) = handled(py) {
            // As when the load itself raises in the middle of that.
            let last = last_context(&copied);
            if !last.is(&handled) {
                // SAFETY: both are exceptions; the reference is given away.
                unsafe { ffi::PyException_SetContext(last.as_ptr(), handled.into_ptr()) };
            }
        }
        Ok(copied)
    }
}

/// Raises a copy of the exception that a [`Failure`] stands for.
pub(crate) fn raise_copy(failure: Ref) -> Raised {
    Python::attach(|py| {
        let failure = failure.into_bound(py);
        let copied = failure
            .cast::<Failure>()
            .map_err(PyErr::from)
            .and_then(|failure| failure.get().exception(py));
        raise(copied.map_or_else(|error| error, PyErr::from_value))
    })
}

fn handled(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    // SAFETY: the thread is attached; a new reference.
    unsafe { Bound::from_owned_ptr_or_opt(py, PyErr_GetHandledException()) }.filter(|handled| !handled.is_none())
}

/// The last exception of a chain of contexts that was just made, so it has no cycle but one through itself.
fn last_context<'py>(exception: &Bound<'py, PyAny>) -> Bound<'py, PyAny> {
    let mut last = exception.clone();
    for _ in 0..MAX_EXCEPTIONS {
        match related(&last, ffi::PyException_GetContext) {
            Some(context) if !context.is(exception) => last = context,
            _ => break,
        }
    }
    last
}

fn related<'py>(
    exception: &Bound<'py, PyAny>,
    get: unsafe extern "C" fn(Object) -> Object,
) -> Option<Bound<'py, PyAny>> {
    // SAFETY: of an exception, these return a new reference, or null.
    // (Before 3.12 a traceback that was set to None is None.)
    unsafe { Bound::from_owned_ptr_or_opt(exception.py(), get(exception.as_ptr())) }.filter(|found| !found.is_none())
}

/// Copies of exceptions that refer to each other.
struct Copies<'py> {
    /// Not copied: where a chain of contexts ends.
    end: Option<Bound<'py, PyAny>>,
    /// Each with its copy; without one if that cannot be made, or is being made.
    pairs: Vec<(Bound<'py, PyAny>, Option<Bound<'py, PyAny>>)>,
}

impl<'py> Copies<'py> {
    fn new(end: Option<Bound<'py, PyAny>>) -> Self {
        Self { end, pairs: Vec::new() }
    }

    /// Returns the exception's copy, without a traceback; `None` if there cannot be any.
    fn copy(&mut self, exception: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some((_, copy)) = self.pairs.iter().find(|(known, _)| known.is(exception)) {
            return Ok(copy.clone());
        }
        if self.pairs.len() >= MAX_EXCEPTIONS {
            return Ok(None);
        }
        let at = self.pairs.len();
        self.pairs.push((exception.clone(), None));
        let copy = match self.without_relatives(exception) {
            Ok(copy) if copy.get_type().is(exception.get_type()) && !copy.is(exception) => copy,
            Err(error) if !error.is_instance_of::<PyException>(exception.py()) => return Err(error),
            _ => return Ok(None),
        };
        self.pairs[at].1 = Some(copy.clone());
        let cause = self.relative(related(exception, ffi::PyException_GetCause))?;
        let context = self.relative(related(exception, ffi::PyException_GetContext))?;
        let suppressed = exception.getattr(intern!(exception.py(), "__suppress_context__"))?;
        let raw = |relative: Option<Bound<'py, PyAny>>| relative.map_or(ptr::null_mut(), Bound::into_ptr);
        // SAFETY: all are exceptions or null, and the references are given away. (A copy may come with the traceback.)
        unsafe {
            ffi::PyException_SetCause(copy.as_ptr(), raw(cause));
            ffi::PyException_SetContext(copy.as_ptr(), raw(context));
            ffi::PyException_SetTraceback(copy.as_ptr(), ffi::Py_None());
        }
        copy.setattr(intern!(copy.py(), "__suppress_context__"), suppressed)?;
        Ok(Some(copy))
    }

    fn relative(&mut self, exception: Option<Bound<'py, PyAny>>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match exception {
            Some(exception) if !self.end.as_ref().is_some_and(|end| end.is(&exception)) => self.copy(&exception),
            _ => Ok(None),
        }
    }

    /// A copy with attributes and arguments, which may be exceptions themselves.
    fn without_relatives(&mut self, exception: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let (py, class) = (exception.py(), exception.get_type());
        let Some(base) = plain_base(&class)? else {
            let copy = py
                .import(intern!(py, "copy"))?
                .call_method1(intern!(py, "copy"), (exception,))?;
            if copy.is(exception) || !copy.is_instance_of::<PyBaseException>() {
                return Err(PyTypeError::new_err("not copied"));
            }
            let attributes = copy.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>()?;
            for (name, value) in attributes.copy()? {
                attributes.set_item(&name, self.part(&name, value)?)?;
            }
            return Ok(copy);
        };
        // Not by the class's own `__init__`, whose arguments need not be what the exception has as `args`.
        let reduced = base
            .call_method1(intern!(py, "__reduce__"), (exception,))?
            .cast_into::<PyTuple>()?;
        let args = self.parts(&reduced.get_item(1)?.cast_into::<PyTuple>()?)?;
        let all = std::iter::once(class.clone().into_any())
            .chain(args.iter())
            .collect::<Vec<_>>();
        let copy = base.call_method1(intern!(py, "__new__"), PyTuple::new(py, all)?)?;
        let all = std::iter::once(copy.clone()).chain(args.iter()).collect::<Vec<_>>();
        base.call_method1(intern!(py, "__init__"), PyTuple::new(py, all)?)?;
        if let Ok(state) = reduced.get_item(2)
            && let Ok(state) = state.cast_into::<PyDict>()
        {
            for (name, value) in state.copy()? {
                set(&copy, &name, &self.part(&name, value)?)?;
            }
        }
        // What the built-in class has, and (before 3.12) does not say of itself. `obj` may be anything, and is left out as Python does.
        for class in base.mro().iter() {
            let members = class.getattr(intern!(py, "__dict__"))?;
            for name in members.try_iter()? {
                let name = name?.cast_into::<PyString>()?;
                let is_member = members.get_item(&name)?.get_type().name()? == "member_descriptor";
                if is_member
                    && !name.to_string_lossy().starts_with("__")
                    && name != "obj"
                    && let Ok(value) = exception.getattr(&name)
                    && !copy.getattr(&name).is_ok_and(|there| there.is(&value))
                {
                    let value = self.part(name.as_any(), value)?;
                    // (Some cannot be set. They were set when the copy was made.)
                    let _ = set(&copy, name.as_any(), &value);
                }
            }
        }
        for class in class.mro().iter() {
            let Ok(slots) = class
                .cast::<PyType>()?
                .as_any()
                .getattr(intern!(py, "__dict__"))?
                .get_item("__slots__")
            else {
                continue;
            };
            let names = if slots.is_instance_of::<PyString>() {
                vec![slots]
            } else {
                slots.try_iter()?.collect::<PyResult<Vec<_>>>()?
            };
            for name in names {
                if let Ok(value) = exception.getattr(name.cast::<PyString>()?) {
                    set(&copy, &name, &self.part(&name, value)?)?;
                }
            }
        }
        let args = exception.getattr(intern!(py, "args"))?.cast_into::<PyTuple>()?;
        set(&copy, intern!(py, "args").as_any(), self.parts(&args)?.as_any())?;
        Ok(copy)
    }

    fn parts(&mut self, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyTuple>> {
        let py = args.py();
        let args = args.iter().map(|arg| match arg.cast_exact::<PyList>() {
            // (A group was made with a list, or a tuple.)
            Ok(list) => {
                let items = list.iter().map(|item| self.part(&item, item.clone()));
                Ok(PyList::new(py, items.collect::<PyResult<Vec<_>>>()?)?.into_any())
            }
            Err(_) => match arg.cast_exact::<PyTuple>() {
                Ok(tuple) => {
                    let items = tuple.iter().map(|item| self.part(&item, item.clone()));
                    Ok(PyTuple::new(py, items.collect::<PyResult<Vec<_>>>()?)?.into_any())
                }
                Err(_) => self.part(&arg, arg.clone()),
            },
        });
        PyTuple::new(py, args.collect::<PyResult<Vec<_>>>()?)
    }

    /// What a copy has where its original has `value`: another copy, if that is an exception.
    fn part(&mut self, name: &Bound<'py, PyAny>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if value.is_instance_of::<PyBaseException>() {
            return Ok(self.copy(&value)?.unwrap_or(value));
        }
        // Handlers add to the list that is there.
        match value.cast_exact::<PyList>() {
            Ok(notes) if name.eq(intern!(name.py(), "__notes__"))? => {
                Ok(PyList::new(name.py(), notes.iter())?.into_any())
            }
            _ => Ok(value),
        }
    }
}

/// Sets an attribute, whatever the class does with assignments.
fn set(object: &Bound<'_, PyAny>, name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: all are alive.
    if unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value.as_ptr()) } == 0 {
        return Ok(());
    }
    Err(PyErr::fetch(object.py()))
}

/// The nearest base class that is built in, if the class leaves it to that how it is copied.
fn plain_base<'py>(class: &Bound<'py, PyType>) -> PyResult<Option<Bound<'py, PyType>>> {
    let py = class.py();
    for base in class.mro().iter() {
        let base = base.cast_into::<PyType>()?;
        // SAFETY: a type is alive while it is borrowed.
        if unsafe { ffi::PyType_HasFeature(base.as_type_ptr(), ffi::Py_TPFLAGS_HEAPTYPE) } != 0 {
            continue;
        }
        for name in [intern!(py, "__reduce__"), intern!(py, "__reduce_ex__")] {
            if !class.getattr(name)?.eq(base.getattr(name)?)? {
                return Ok(None);
            }
        }
        return Ok((!class.hasattr(intern!(py, "__copy__"))?).then_some(base));
    }
    Ok(None)
}

impl Trace {
    fn of(exception: &Bound<'_, PyAny>, frames: bool) -> PyResult<Self> {
        let py = exception.py();
        let Some(traceback) = related(exception, ffi::PyException_GetTraceback) else {
            return Ok(Self::Nowhere);
        };
        let traceback = traceback.cast_into::<PyTraceback>()?;
        if frames {
            return Ok(Self::Frames(traceback.unbind()));
        }
        let mut lines = Vec::new();
        let mut next = traceback.into_any();
        while !next.is_none() {
            let code = next.getattr(intern!(py, "tb_frame"))?.getattr(intern!(py, "f_code"))?;
            let line: Option<i32> = next.getattr(intern!(py, "tb_lineno"))?.extract()?;
            lines.push((code, line.unwrap_or(0)));
            if lines.len() > MAX_LINES {
                lines.remove(MAX_LINES / 2);
            }
            next = next.getattr(intern!(py, "tb_next"))?;
        }
        let lines = lines
            .into_iter()
            .map(|(code, line)| Ok((bare_code(&code, line)?, line)));
        Ok(Self::Lines(lines.collect::<PyResult<_>>()?))
    }

    fn traceback<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let lines = match self {
            Self::Nowhere => return Ok(None),
            Self::Frames(traceback) => return Ok(Some(traceback.bind(py).clone().into_any())),
            Self::Lines(lines) => lines,
        };
        let (class, globals) = (py.get_type::<PyTraceback>(), PyDict::new(py));
        let mut traceback = None;
        for (code, line) in lines.iter().rev() {
            // SAFETY: the thread is attached, and the code has no variables.
            let frame = unsafe {
                let frame = ffi::PyFrame_New(
                    ffi::PyThreadState_Get(),
                    code.as_ptr().cast(),
                    globals.as_ptr(),
                    ptr::null_mut(),
                );
                Bound::from_owned_ptr_or_err(py, frame.cast())?
            };
            traceback = Some(class.call1((traceback, frame, 0, *line))?);
        }
        Ok(traceback)
    }
}

/// A code object of the same file and name, without anything of the code.
fn bare_code(code: &Bound<'_, PyAny>, line: i32) -> PyResult<Py<PyCode>> {
    let py = code.py();
    let c_string = |text: Vec<u8>| CString::new(text).unwrap_or_default();
    let file = code.getattr(intern!(py, "co_filename"))?.cast_into::<PyString>()?;
    let name = code.getattr(intern!(py, "co_name"))?.cast_into::<PyString>()?;
    // SAFETY: a string, of which bytes are made in the way in which they are read again.
    let file = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyUnicode_EncodeFSDefault(file.as_ptr()))? };
    let (file, name) = (
        c_string(file.extract()?),
        c_string(name.to_string_lossy().into_owned().into_bytes()),
    );
    // SAFETY: both end with a null.
    let code = unsafe { ffi::PyCode_NewEmpty(file.as_ptr(), name.as_ptr(), line) };
    // SAFETY: a new reference, or null.
    let code = unsafe { Bound::from_owned_ptr_or_err(py, code.cast())? };
    Ok(code.cast_into::<PyCode>()?.unbind())
}
