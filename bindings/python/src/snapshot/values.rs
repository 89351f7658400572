//! The codec `values`: simple values as bytes and back, each as exactly what it was.
//!
//! A value is a byte that says what it is, and what that takes; numbers are little-endian, lengths have 32 bits. What is read is
//! trusted in nothing: lengths are within what is left, depth is bounded, and no code runs but that of the builtin types
//! and of the standard library's classes (`classes.rs`).

use super::classes;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple};

const NONE: u8 = b'n';
const FALSE: u8 = b'F';
const TRUE: u8 = b'T';
/// 64 bits, signed.
const INT: u8 = b'i';
/// A length, and so many bytes, signed.
const LARGE_INT: u8 = b'I';
const FLOAT: u8 = b'f';
const COMPLEX: u8 = b'c';
/// A length, and UTF-8 (where surrogates may be alone).
const STR: u8 = b's';
const BYTES: u8 = b'b';
/// These: how many items, and the items; of a dict keys and values in turns.
const TUPLE: u8 = b't';
const LIST: u8 = b'l';
const DICT: u8 = b'd';
const SET: u8 = b'S';
const FROZENSET: u8 = b'z';
/// Of a class of the standard library: its number, and the tuple of what it is called with.
const OBJECT: u8 = b'o';

/// How deep values may lie within others. (A list that contains itself is deeper.)
const DEPTH: usize = 100;

fn too_deep() -> PyErr {
    PyValueError::new_err(format!("values within values, more than {DEPTH} deep"))
}

fn length(length: usize, out: &mut Vec<u8>) -> PyResult<()> {
    let length = u32::try_from(length).map_err(|_| PyValueError::new_err("a value is too long for a snapshot"))?;
    out.extend_from_slice(&length.to_le_bytes());
    Ok(())
}

fn text(kind: u8, bytes: &[u8], out: &mut Vec<u8>) -> PyResult<()> {
    out.push(kind);
    length(bytes.len(), out)?;
    out.extend_from_slice(bytes);
    Ok(())
}

fn all<'py>(
    kind: u8,
    count: usize,
    items: impl IntoIterator<Item = Bound<'py, PyAny>>,
    out: &mut Vec<u8>,
    depth: usize,
) -> PyResult<()> {
    out.push(kind);
    length(count, out)?;
    let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
    items.into_iter().try_for_each(|item| encode(&item, out, depth))
}

fn encode(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, depth: usize) -> PyResult<()> {
    let py = value.py();
    if value.is_none() {
        out.push(NONE);
    } else if let Ok(value) = value.cast_exact::<PyBool>() {
        out.push(if value.is_true() { TRUE } else { FALSE });
    } else if let Ok(value) = value.cast_exact::<PyInt>() {
        return encode_int(value, out);
    } else if let Ok(value) = value.cast_exact::<PyString>() {
        return match value.to_str() {
            Ok(value) => text(STR, value.as_bytes(), out),
            Err(_) => {
                let bytes = value.call_method1(intern!(py, "encode"), ("utf-8", "surrogatepass"))?;
                text(STR, bytes.extract()?, out)
            }
        };
    } else if let Ok(value) = value.cast_exact::<PyFloat>() {
        out.push(FLOAT);
        out.extend_from_slice(&value.value().to_bits().to_le_bytes());
    } else if let Ok(value) = value.cast_exact::<PyBytes>() {
        return text(BYTES, value.as_bytes(), out);
    } else if let Ok(value) = value.cast_exact::<PyTuple>() {
        return all(TUPLE, value.len(), value, out, depth);
    } else if let Ok(value) = value.cast_exact::<PyList>() {
        return list(LIST, value, out, depth);
    } else if let Ok(value) = value.cast_exact::<PyDict>() {
        // (Its items as of this moment, whoever changes it.)
        let items = value.items();
        let pairs = items
            .iter()
            .map(|item| item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>());
        let pairs = pairs.collect::<PyResult<Vec<_>>>()?;
        let count = pairs.len();
        return all(
            DICT,
            count,
            pairs.into_iter().flat_map(|(key, value)| [key, value]),
            out,
            depth,
        );
    } else if value.is_exact_instance_of::<PySet>() {
        return list(SET, &py.get_type::<PyList>().call1((value,))?.cast_into()?, out, depth);
    } else if value.is_exact_instance_of::<PyFrozenSet>() {
        return list(
            FROZENSET,
            &py.get_type::<PyList>().call1((value,))?.cast_into()?,
            out,
            depth,
        );
    } else if let Ok(value) = value.cast_exact::<PyComplex>() {
        out.push(COMPLEX);
        for part in [value.real(), value.imag()] {
            out.extend_from_slice(&part.to_bits().to_le_bytes());
        }
    } else if let Some((class, arguments)) = classes::parts(value)? {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        out.extend_from_slice(&[OBJECT, class]);
        return encode(&arguments, out, depth);
    } else {
        return Err(PyTypeError::new_err(format!(
            "the codec \"values\" has no {}: only None, bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset, \
             Decimal, UUID, the classes of datetime, and none of their subclasses",
            value.get_type().fully_qualified_name()?
        )));
    }
    Ok(())
}

/// Its items as of this moment, whoever changes it.
fn list(kind: u8, list: &Bound<'_, PyList>, out: &mut Vec<u8>, depth: usize) -> PyResult<()> {
    let items: Vec<_> = list.iter().collect();
    all(kind, items.len(), items, out, depth)
}

fn encode_int(value: &Bound<'_, PyInt>, out: &mut Vec<u8>) -> PyResult<()> {
    if let Ok(small) = value.extract::<i64>() {
        out.push(INT);
        out.extend_from_slice(&small.to_le_bytes());
        return Ok(());
    }
    let py = value.py();
    let bits: usize = value.call_method0(intern!(py, "bit_length"))?.extract()?;
    let signed = PyDict::new(py);
    signed.set_item(intern!(py, "signed"), true)?;
    let bytes = value.call_method(intern!(py, "to_bytes"), (bits / 8 + 1, "little"), Some(&signed))?;
    text(LARGE_INT, bytes.extract()?, out)
}

/// What is left to be read.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> PyResult<&'b [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| PyValueError::new_err("the bytes end in the middle of a value"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("so many were taken"))
    }

    fn length(&mut self) -> PyResult<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn text(&mut self) -> PyResult<&'b [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    fn float(&mut self) -> PyResult<f64> {
        Ok(f64::from_bits(u64::from_le_bytes(self.array()?)))
    }

    fn items<'py>(&mut self, py: Python<'py>, depth: usize) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        let count = self.length()?;
        // (An item takes a byte at least, so nobody can ask for more memory than a few times the bytes that there are.)
        if count > self.0.len() {
            return Err(PyValueError::new_err("more items than bytes"));
        }
        (0..count).map(|_| self.decode(py, depth)).collect()
    }

    fn decode<'py>(&mut self, py: Python<'py>, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        let [kind] = self.array()?;
        Ok(match kind {
            NONE => py.None().into_bound(py),
            FALSE | TRUE => PyBool::new(py, kind == TRUE).to_owned().into_any(),
            INT => i64::from_le_bytes(self.array()?).into_pyobject(py)?.into_any(),
            LARGE_INT => {
                let signed = PyDict::new(py);
                signed.set_item(intern!(py, "signed"), true)?;
                let int = py.get_type::<PyInt>();
                let bytes = PyBytes::new(py, self.text()?);
                int.call_method(intern!(py, "from_bytes"), (bytes, "little"), Some(&signed))?
            }
            FLOAT => PyFloat::new(py, self.float()?).into_any(),
            COMPLEX => PyComplex::from_doubles(py, self.float()?, self.float()?).into_any(),
            STR => {
                let text = self.text()?;
                match std::str::from_utf8(text) {
                    Ok(text) => PyString::new(py, text).into_any(),
                    Err(_) => {
                        let bytes = PyBytes::new(py, text);
                        bytes.call_method1(intern!(py, "decode"), ("utf-8", "surrogatepass"))?
                    }
                }
            }
            BYTES => PyBytes::new(py, self.text()?).into_any(),
            TUPLE => PyTuple::new(py, self.items(py, depth)?)?.into_any(),
            LIST => PyList::new(py, self.items(py, depth)?)?.into_any(),
            SET => PySet::new(py, self.items(py, depth)?)?.into_any(),
            FROZENSET => PyFrozenSet::new(py, self.items(py, depth)?)?.into_any(),
            DICT => {
                let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
                let dict = PyDict::new(py);
                for _ in 0..self.length()? {
                    let key = self.decode(py, depth)?;
                    dict.set_item(key, self.decode(py, depth)?)?;
                }
                dict.into_any()
            }
            OBJECT => {
                let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
                let [class] = self.array()?;
                classes::make(class, self.decode(py, depth)?.cast_into()?)?
            }
            _ => return Err(PyValueError::new_err(format!("{kind:#04x} begins no value"))),
        })
    }
}

/// A simple value as bytes.
#[pyfunction]
#[pyo3(signature = (value, /))]
fn dumps<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::new();
    encode(value, &mut out, DEPTH)?;
    Ok(PyBytes::new(value.py(), &out))
}

/// The value that these bytes are.
#[pyfunction]
#[pyo3(signature = (data, /))]
fn loads<'py>(data: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
    let mut reader = Reader(data.as_bytes());
    let value = reader.decode(data.py(), DEPTH)?;
    if reader.0.is_empty() {
        return Ok(value);
    }
    Err(PyValueError::new_err("bytes after the end of the value"))
}

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(dumps, module)?)?;
    module.add_function(wrap_pyfunction!(loads, module)?)
}
