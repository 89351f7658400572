//! Values of the standard library's classes, for the codec `values`: which class, and what it is called with to make another.

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

/// What its arguments are.
enum Arguments {
    /// These attributes.
    Attributes(&'static [&'static str]),
    /// Likewise; and the last, which is named.
    AttributesAndFold(&'static [&'static str]),
    /// What it says of that itself.
    Initial,
    /// It as text.
    Text,
}

use Arguments::{Attributes, AttributesAndFold, Initial, Text};

struct StdClass {
    module: &'static str,
    name: &'static str,
    arguments: Arguments,
}

const fn class(module: &'static str, name: &'static str, arguments: Arguments) -> StdClass {
    StdClass {
        module,
        name,
        arguments,
    }
}

/// What is written for each is its place here, so new ones come last.
static CLASSES: [StdClass; 7] = [
    class("datetime", "date", Attributes(&["year", "month", "day"])),
    class(
        "datetime",
        "datetime",
        AttributesAndFold(&[
            "year",
            "month",
            "day",
            "hour",
            "minute",
            "second",
            "microsecond",
            "tzinfo",
            "fold",
        ]),
    ),
    class(
        "datetime",
        "time",
        AttributesAndFold(&["hour", "minute", "second", "microsecond", "tzinfo", "fold"]),
    ),
    class(
        "datetime",
        "timedelta",
        Attributes(&["days", "seconds", "microseconds"]),
    ),
    class("datetime", "timezone", Initial),
    class("decimal", "Decimal", Text),
    class("uuid", "UUID", Text),
];

impl StdClass {
    fn get<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyType>> {
        Ok(py.import(self.module)?.getattr(self.name)?.cast_into()?)
    }
}

/// The number of the value's class, and what to call it with; none if it is of another.
pub(super) fn parts<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<(u8, Bound<'py, PyTuple>)>> {
    let (py, class) = (value.py(), value.get_type());
    let name = class.name()?;
    let Some(number) = CLASSES.iter().position(|known| name == known.name) else {
        return Ok(None);
    };
    let known = &CLASSES[number];
    // (Another of that name is not it, and neither is a subclass.)
    if !known.get(py)?.is(&class) {
        return Ok(None);
    }
    let arguments = match known.arguments {
        Attributes(names) | AttributesAndFold(names) => {
            let values = names.iter().map(|name| value.getattr(*name));
            PyTuple::new(py, values.collect::<PyResult<Vec<_>>>()?)?
        }
        Initial => value.call_method0(intern!(py, "__getinitargs__"))?.cast_into()?,
        Text => PyTuple::new(py, [value.str()?])?,
    };
    Ok(Some((number as u8, arguments)))
}

/// Calls a class with what [`parts`] said, or what whoever wrote the bytes did.
pub(super) fn make<'py>(number: u8, arguments: Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
    let py = arguments.py();
    let known = CLASSES.get(usize::from(number));
    let known = known.ok_or_else(|| PyValueError::new_err(format!("{number} is no class")))?;
    // (They take other things, too. Of those the classes of `datetime` do not check all.)
    let fits = match known.arguments {
        Attributes(names) | AttributesAndFold(names) => names.len() == arguments.len(),
        Initial => true,
        Text => arguments.extract::<(Bound<'_, PyString>,)>().is_ok(),
    };
    if !fits {
        return Err(PyValueError::new_err(format!("a {} of other parts", known.name)));
    }
    let class = known.get(py)?;
    if !matches!(known.arguments, AttributesAndFold(_)) {
        return class.call1(arguments);
    }
    let (last, fold) = (arguments.len() - 1, PyDict::new(py));
    fold.set_item(intern!(py, "fold"), arguments.get_item(last)?)?;
    class.call(arguments.get_slice(0, last), Some(&fold))
}
