//! The second tier on memcached: actions as its commands, and its replies, without I/O.

use super::operation::Operation;
use hotset::tier2::Action;
use hotset::tier2::memcached::{self, CasNumbers, Exchange, Malformed, Operands, Outcome, Protocol, Step};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

/// The servers of a tier, and the CAS numbers that this process knows. For any thread.
#[pyclass(frozen, name = "Memcached", module = "hotset._hotset")]
pub(crate) struct PyMemcached {
    names: Vec<Box<[u8]>>,
    numbers: CasNumbers,
}

#[pymethods]
impl PyMemcached {
    #[new]
    #[pyo3(signature = (names, /))]
    fn new(names: Vec<Bound<'_, PyBytes>>) -> PyResult<Self> {
        if names.is_empty() {
            return Err(PyValueError::new_err("no servers"));
        }
        Ok(Self {
            names: names.iter().map(|name| name.as_bytes().into()).collect(),
            numbers: CasNumbers::default(),
        })
    }

    /// Returns the place of the server that has `key`, by pymemcache's rendezvous hashing.
    #[pyo3(signature = (key, /))]
    fn node_of(&self, key: &[u8]) -> usize {
        memcached::node_of(&self.names, key)
    }
}

/// One action of an operation on memcached, from its first request to its outcome.
#[pyclass(name = "MemcachedExchange", module = "hotset._hotset")]
pub(crate) struct PyExchange(Exchange);

#[pymethods]
impl PyExchange {
    /// Args:
    ///     operation: The operation, at the action.
    ///     target, key: Its keys as they are sent.
    ///     value: The whole frame of FILL and PUT.
    #[new]
    #[pyo3(signature = (operation, target, key, value=None, /))]
    fn new(operation: &Operation, target: &[u8], key: &[u8], value: Option<&[u8]>) -> Self {
        Self(Exchange::new(operation.core(), target, key, value))
    }

    /// Returns an exchange that replaces a frame by another one, if it has not changed since.
    ///
    /// Args:
    ///     target: The key as it is sent.
    ///     expected: The head of the frame.
    ///     frame: The whole new frame.
    ///     expires: Its expiration time, by `memcached_expiration`.
    #[staticmethod]
    #[pyo3(signature = (target, expected, frame, expires, /))]
    fn replace(target: &[u8], expected: &[u8], frame: &[u8], expires: u64) -> Self {
        let operands = Operands {
            target,
            expected,
            frame,
            expires,
            ..Operands::default()
        };
        Self(Exchange::with_operands(Action::Fill, operands))
    }

    /// Returns the next commands, each of which has one reply.
    ///
    /// Args:
    ///     memcached: The servers.
    ///     serial: The number of the connection: the connections of a server are numbered in the
    ///         order in which they were opened.
    ///     meta: Whether the server has meta commands.
    #[pyo3(signature = (memcached, serial, meta, /))]
    fn requests<'py>(
        &mut self,
        py: Python<'py>,
        memcached: &PyMemcached,
        serial: u64,
        meta: bool,
    ) -> PyResult<Bound<'py, PyList>> {
        let protocol = if meta { Protocol::Meta } else { Protocol::Classic };
        let commands = self.0.requests(protocol, serial, &memcached.numbers);
        PyList::new(py, commands.iter().map(|command| PyBytes::new(py, command)))
    }

    /// Takes the replies to the last commands.
    ///
    /// Returns:
    ///     None: `requests` must be sent again. Otherwise the outcome: VALUE and the value, FLAG
    ///     and a bool, CLAIM, a bool and the value, or FAILED and the kind of the failure.
    #[pyo3(signature = (memcached, replies, /))]
    fn replies<'py>(
        &mut self,
        py: Python<'py>,
        memcached: &PyMemcached,
        replies: Vec<Bound<'py, PyBytes>>,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let replies: Vec<&[u8]> = replies.iter().map(|reply| reply.as_bytes()).collect();
        let bytes = |data: Option<Vec<u8>>| data.map(|data| PyBytes::new(py, &data));
        let outcome = match self.0.replies(&replies, &memcached.numbers) {
            Step::Again => return Ok(None),
            Step::End(Outcome::Value(value)) => (Self::VALUE, bytes(value)).into_pyobject(py)?,
            Step::End(Outcome::Flag(done)) => (Self::FLAG, done).into_pyobject(py)?,
            Step::End(Outcome::Claim(won, value)) => (Self::CLAIM, won, bytes(value)).into_pyobject(py)?,
            Step::End(Outcome::Failed(failure)) => (Self::FAILED, failure as u8).into_pyobject(py)?,
        };
        Ok(Some(outcome))
    }

    #[classattr]
    const VALUE: u8 = 0;
    #[classattr]
    const FLAG: u8 = 1;
    #[classattr]
    const CLAIM: u8 = 2;
    #[classattr]
    const FAILED: u8 = 3;
}

/// Splits received bytes into whole replies.
///
/// Returns:
///     The replies, and how many bytes they have.
///
/// Raises:
///     ValueError: The bytes are no replies, or the server lacks a command.
#[pyfunction]
#[pyo3(signature = (data, /))]
pub(crate) fn memcached_replies<'py>(py: Python<'py>, data: &[u8]) -> PyResult<(Bound<'py, PyList>, usize)> {
    let replies = PyList::empty(py);
    let mut at = 0;
    while at < data.len() {
        match memcached::reply_length(&data[at..]) {
            Ok(Some(length)) => {
                replies.append(PyBytes::new(py, &data[at..at + length]))?;
                at += length;
            }
            Ok(None) => break,
            Err(Malformed) => {
                let begin = &data[at..data.len().min(at + 40)];
                let text = String::from_utf8_lossy(begin).into_owned();
                return Err(PyValueError::new_err(format!("not a reply of memcached: {text:?}")));
            }
        }
    }
    Ok((replies, at))
}

/// Returns the value in these bytes if they are one whole reply to a read, None if that has no
/// item; anything else: `other`.
#[pyfunction]
#[pyo3(signature = (other, data, /))]
pub(crate) fn memcached_quick_value<'py>(
    py: Python<'py>,
    other: Bound<'py, PyAny>,
    data: &[u8],
) -> PyResult<Bound<'py, PyAny>> {
    if memcached::reply_length(data) == Ok(Some(data.len())) {
        match memcached::value_of(data) {
            Some(Some(value)) => return Ok(PyBytes::new(py, value).into_any()),
            Some(None) => return Ok(py.None().into_bound(py)),
            None => {}
        }
    }
    Ok(other)
}

/// Returns the value in a whole reply to a read; None if there is no item.
///
/// Raises:
///     RuntimeError: It is an error reply.
#[pyfunction]
#[pyo3(signature = (reply, /))]
pub(crate) fn memcached_value<'py>(py: Python<'py>, reply: &[u8]) -> PyResult<Option<Bound<'py, PyBytes>>> {
    match memcached::value_of(reply) {
        Some(value) => Ok(value.map(|value| PyBytes::new(py, value))),
        None => Err(PyRuntimeError::new_err(String::from_utf8_lossy(reply).into_owned())),
    }
}

/// Returns the expiration time of an item that must live for `px` milliseconds.
#[pyfunction]
#[pyo3(signature = (px, server_ms, /))]
pub(crate) fn memcached_expiration(px: u64, server_ms: u64) -> u64 {
    memcached::expiration(px, server_ms)
}
