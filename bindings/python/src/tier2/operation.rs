//! One operation. Actions are numbers, so that a hit makes no object but this one.

use super::checks::{checked_node, failure};
use hotset::tier2::{self, Action, Kind, Reply};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyInt};

/// One operation, owned by its caller: perform `action`, report, perform the next one.
///
/// Not for two threads at a time. Dropping it before its end is safe: what was sent without an
/// answer counts as unknown.
#[pyclass(module = "hotset._hotset")]
pub(crate) struct Operation(tier2::Operation);

impl Operation {
    pub(super) fn new(operation: tier2::Operation) -> Self {
        Self(operation)
    }

    pub(super) fn core(&self) -> &tier2::Operation {
        &self.0
    }
}

/// Returns the server's reply in the form that the action expects.
fn reply<'a>(action: Action, data: &'a Bound<'_, PyAny>) -> PyResult<Reply<'a>> {
    let valued = matches!(action, Action::Get | Action::Acquire | Action::ReadGeneration);
    if data.is_none() {
        return Ok(if valued { Reply::Value(None) } else { Reply::Flag(false) });
    }
    if let Ok(bytes) = data.cast::<PyBytes>() {
        return Ok(if valued {
            Reply::Value(Some(bytes.as_bytes()))
        } else {
            Reply::Flag(true)
        });
    }
    if !valued && (data.is_instance_of::<PyBool>() || data.is_instance_of::<PyInt>()) {
        return Ok(Reply::Flag(data.is_truthy()?));
    }
    let class = data.get_type();
    Err(PyTypeError::new_err(format!(
        "the reply to {action:?} is of type {}",
        class.name()?
    )))
}

#[pymethods]
impl Operation {
    #[getter]
    fn action(&self) -> u8 {
        self.0.action() as u8
    }

    /// Reports that the local action (DROP_LOCAL, WAIT, PROBE) is done; returns the next action.
    ///
    /// The other reports return the next action, too.
    #[pyo3(signature = (now, /))]
    fn step(&mut self, now: u64) -> u8 {
        self.0.step(now) as u8
    }

    /// Reports, before the bytes of PUT are sent, the CLIENT ID of the connection (0: unknown).
    #[pyo3(signature = (connection, /))]
    fn sending(&mut self, connection: u64) {
        self.0.sending(connection);
    }

    /// Reports the server's answer, and the epoch of the connection that received it.
    #[pyo3(signature = (now, epoch, data, /))]
    fn reply(&mut self, now: u64, epoch: u32, data: &Bound<'_, PyAny>) -> PyResult<u8> {
        let reply = reply(self.0.action(), data)?;
        Ok(self.0.reply(now, epoch, reply) as u8)
    }

    /// Reports the answers to CLAIM.
    #[pyo3(signature = (now, epoch, won, data, /))]
    fn reply_claim(&mut self, now: u64, epoch: u32, won: bool, data: Option<&[u8]>) -> u8 {
        self.0.reply(now, epoch, Reply::Claim(won, data)) as u8
    }

    /// Reports that a command failed.
    #[pyo3(signature = (now, kind, /))]
    fn failed(&mut self, now: u64, kind: u8) -> PyResult<u8> {
        Ok(self.0.failed(now, failure(kind)?) as u8)
    }

    /// Reports, for LOAD, that the loader returned.
    ///
    /// Args:
    ///     now: The current time.
    ///     ttl: The value's ttl; 0 for that of the namespace.
    ///     kind: VALUE, NEGATIVE ("there is none") or LOCAL (too large or not encodable).
    #[pyo3(signature = (now, ttl, kind=1, /))]
    fn loaded(&mut self, now: u64, ttl: u64, kind: u8) -> PyResult<u8> {
        let kind = match kind {
            Self::VALUE => Kind::Value,
            Self::NEGATIVE => Kind::Negative,
            Self::LOCAL => Kind::Local,
            _ => return Err(PyValueError::new_err(format!("unknown kind of value: {kind}"))),
        };
        Ok(self.0.loaded(now, ttl, kind) as u8)
    }

    /// Reports, for LOAD, that the loader raised.
    #[pyo3(signature = (now, /))]
    fn load_failed(&mut self, now: u64) -> u8 {
        self.0.load_failed(now) as u8
    }

    /// Reports that the payload of HIT, NEGATIVE_HIT or STALE cannot be used: counted, a miss.
    #[pyo3(signature = (now, /))]
    fn reject(&mut self, now: u64) -> u8 {
        self.0.reject(now) as u8
    }

    /// Returns, for FILL and PUT, the head of the frame: head + payload (+ MAC).
    ///
    /// Args:
    ///     flags: 16 bits of the caller's.
    ///     codec: The number of the codec.
    #[pyo3(signature = (flags, codec, /))]
    fn head<'py>(&self, py: Python<'py>, flags: u16, codec: u8) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.head(flags, codec))
    }

    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.key())
    }

    #[getter]
    fn node(&self) -> u32 {
        self.0.node()
    }

    #[setter]
    fn set_node(&mut self, node: u32) -> PyResult<()> {
        self.0.set_node(checked_node(node)?);
        Ok(())
    }

    /// The key that the command names; usually `key`.
    #[getter]
    fn target<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.target())
    }

    #[getter]
    fn expected<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.expected())
    }

    /// ACQUIRE, SWAP, CLAIM: the new value. BUMP, READ_GENERATION, EXPIRE, TOUCH: 16 bytes of
    /// stamp.
    #[getter]
    fn frame<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.frame())
    }

    #[getter]
    fn px(&self) -> u64 {
        self.0.px()
    }

    /// PUT: server time in ms after which the server must refuse it (a script); 0: plain SET.
    #[getter]
    fn not_after(&self) -> u64 {
        self.0.not_after()
    }

    /// TOUCH, EXPIRE: the new soft deadline in server ms.
    ///
    /// 8 bytes, little endian, at offset 24 of the frame (the stamp: 16 bytes at offset 4).
    #[getter]
    fn soft_end(&self) -> u64 {
        self.0.soft_end()
    }

    /// FENCE: the CLIENT ID to kill.
    #[getter]
    fn connection(&self) -> u64 {
        self.0.connection()
    }

    /// WAIT: until when.
    #[getter]
    fn until(&self) -> u64 {
        self.0.until()
    }

    /// LOAD: without a lease (tier 2 is down, or the key is journalled): at most `max_loads`
    /// concurrently.
    #[getter]
    fn limited(&self) -> bool {
        self.0.is_limited()
    }

    /// HIT, STALE: where the payload (and a MAC after it) begins in the reply.
    #[getter]
    fn offset(&self) -> usize {
        self.0.offset()
    }

    #[getter]
    fn flags(&self) -> u16 {
        self.0.flags()
    }

    #[getter]
    fn codec(&self) -> u8 {
        self.0.codec()
    }

    /// HIT, NEGATIVE_HIT, DELIVER, DONE: until when tier 1 may store the value, if its load was
    /// not invalidated; 0: not at all.
    #[getter]
    fn keep_until(&self) -> u64 {
        self.0.keep_until()
    }

    /// DELIVER, DONE: tier 2 confirmed it, and the generations are the current ones as far as
    /// known.
    ///
    /// Only then callers that joined a mark of FILL or PUT get the value; otherwise they try again.
    #[getter]
    fn stored(&self) -> bool {
        self.0.is_stored()
    }

    /// LOAD: the payload of the last reply may be served while this load runs (`offset`,
    /// `flags`, `codec`).
    #[getter]
    fn stale(&self) -> bool {
        self.0.serves_stale()
    }

    #[classattr]
    const VALUE: u8 = Kind::Value as u8;
    #[classattr]
    const NEGATIVE: u8 = Kind::Negative as u8;
    #[classattr]
    const LOCAL: u8 = Kind::Local as u8;
    #[classattr]
    const GET: u8 = Action::Get as u8;
    #[classattr]
    const ACQUIRE: u8 = Action::Acquire as u8;
    #[classattr]
    const SWAP: u8 = Action::Swap as u8;
    #[classattr]
    const FILL: u8 = Action::Fill as u8;
    #[classattr]
    const PUT: u8 = Action::Put as u8;
    #[classattr]
    const RELEASE: u8 = Action::Release as u8;
    #[classattr]
    const REMOVE: u8 = Action::Remove as u8;
    #[classattr]
    const EXPIRE: u8 = Action::Expire as u8;
    #[classattr]
    const TOUCH: u8 = Action::Touch as u8;
    #[classattr]
    const BUMP: u8 = Action::Bump as u8;
    #[classattr]
    const READ_GENERATION: u8 = Action::ReadGeneration as u8;
    #[classattr]
    const CLAIM: u8 = Action::Claim as u8;
    #[classattr]
    const FENCE: u8 = Action::Fence as u8;
    #[classattr]
    const DIRECT: u8 = Action::Direct as u8;
    #[classattr]
    const PROBE: u8 = Action::Probe as u8;
    #[classattr]
    const LOAD: u8 = Action::Load as u8;
    #[classattr]
    const WAIT: u8 = Action::Wait as u8;
    #[classattr]
    const DROP_LOCAL: u8 = Action::DropLocal as u8;
    #[classattr]
    const HIT: u8 = Action::Hit as u8;
    #[classattr]
    const NEGATIVE_HIT: u8 = Action::NegativeHit as u8;
    #[classattr]
    const STALE: u8 = Action::Stale as u8;
    #[classattr]
    const MISS: u8 = Action::Miss as u8;
    #[classattr]
    const DELIVER: u8 = Action::Deliver as u8;
    #[classattr]
    const FAILED: u8 = Action::Failed as u8;
    #[classattr]
    const DONE: u8 = Action::Done as u8;
    #[classattr]
    const UNCONFIRMED: u8 = Action::Unconfirmed as u8;
}
