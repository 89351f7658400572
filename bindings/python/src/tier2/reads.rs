//! Reads of many keys of one node: one object, and one call for all replies.

use super::operation::Operation;
use hotset::tier2::{self, Action, Reply};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

/// Started reads of many keys on one node, which one MGET may answer.
#[pyclass(module = "hotset._hotset")]
pub(crate) struct Reads(Vec<Option<tier2::Operation>>);

impl Reads {
    pub(super) fn new(operations: impl Iterator<Item = tier2::Operation>) -> Self {
        Self(operations.map(Some).collect())
    }
}

#[pymethods]
impl Reads {
    /// Returns whether GET is the action of all reads.
    fn are_gets(&self) -> bool {
        let mut operations = self.0.iter().flatten();
        operations.all(|one| one.action() == Action::Get)
    }

    /// Reports the replies of an MGET.
    ///
    /// Returns:
    ///     For each key (payload, flags, codec, keep_until) of a hit, None if the key is absent,
    ///     and False for a read that must be taken and driven by itself.
    #[pyo3(signature = (now, epoch, replies, /))]
    fn replies<'py>(&mut self, now: u64, epoch: u32, replies: &Bound<'py, PyList>) -> PyResult<Bound<'py, PyList>> {
        let py = replies.py();
        if replies.len() != self.0.len() {
            let (got, wanted) = (replies.len(), self.0.len());
            return Err(PyValueError::new_err(format!("{got} replies for {wanted} reads")));
        }
        let results = PyList::empty(py);
        for (operation, reply) in self.0.iter_mut().zip(replies.iter()) {
            let Some(one) = operation else {
                results.append(false)?;
                continue;
            };
            let bytes = reply.cast::<PyBytes>().ok();
            let action = match bytes {
                Some(bytes) => one.reply(now, epoch, Reply::Value(Some(bytes.as_bytes()))),
                None if reply.is_none() => one.reply(now, epoch, Reply::Value(None)),
                // An error: the operation gets it when its command is sent alone.
                None => one.action(),
            };
            match (action, bytes) {
                (Action::Hit, Some(bytes)) => {
                    let payload = PyBytes::new(py, &bytes.as_bytes()[one.offset()..]);
                    results.append((payload, one.flags(), one.codec(), one.keep_until()))?;
                }
                (Action::Miss, _) => results.append(py.None())?,
                _ => results.append(false)?,
            }
        }
        Ok(results)
    }

    /// Returns the read of the key with this index, to be driven by itself.
    #[pyo3(signature = (at, /))]
    fn take(&mut self, at: usize) -> PyResult<Operation> {
        let operation = self.0.get_mut(at).and_then(Option::take);
        operation
            .map(Operation::new)
            .ok_or_else(|| PyIndexError::new_err(format!("there is no read at {at}")))
    }
}

/// Returns the reply in these bytes if it is a whole array of bulk strings; else None.
#[pyfunction]
#[pyo3(signature = (data, /))]
pub(crate) fn bulk_strings<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Option<Bound<'py, PyList>>> {
    let Some((count, mut rest)) = prefixed(data, b'*') else {
        return Ok(None);
    };
    let items = PyList::empty(py);
    for _ in 0..count.unwrap_or(0) {
        let Some((length, behind)) = prefixed(rest, b'$') else {
            return Ok(None);
        };
        let Some(length) = length else {
            items.append(py.None())?;
            rest = behind;
            continue;
        };
        let Some((item, behind)) = behind.split_at_checked(length) else {
            return Ok(None);
        };
        items.append(PyBytes::new(py, item))?;
        let Some(behind) = behind.strip_prefix(b"\r\n") else {
            return Ok(None);
        };
        rest = behind;
    }
    Ok(rest.is_empty().then_some(items).filter(|_| count.is_some()))
}

/// Splits off a kind, a number (`None` if it is -1) and a line's end.
fn prefixed(data: &[u8], kind: u8) -> Option<(Option<usize>, &[u8])> {
    let data = data.strip_prefix(&[kind])?;
    if let Some(rest) = data.strip_prefix(b"-1\r\n") {
        return Some((None, rest));
    }
    let digits = data.iter().take(9).take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = data.split_at(digits);
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    Some((Some(number), rest.strip_prefix(b"\r\n")?))
}
