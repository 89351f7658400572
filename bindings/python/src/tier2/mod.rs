//! The protocol of the second tier, for the package's transports: without I/O, and without calls of
//! Python code.

mod checks;
mod memcached;
mod operation;
mod reads;

use checks::{checked_node, failure};
use hotset::tier2::{self, Failure, NamespaceSettings, Probe, Settings, Task, Tier};
use operation::Operation;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use reads::Reads;
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::{Arc, PoisonError};

/// One server (or cluster) and prefix in one process. For any thread.
///
/// Has the state of nodes, journal, bus, generations and leases, and the counters. Belongs to a
/// pid: a child process creates its own. Nothing here sends, waits, or calls Python code.
#[pyclass(frozen, name = "Tier2", module = "hotset._hotset")]
pub(crate) struct PyTier {
    tier: Tier,
    /// Operands of the last task of each node: a deadline, and a number.
    operands: Mutex<Vec<(u64, u64)>>,
}

impl PyTier {
    /// Returns the trust, which hits of tier 1 compare with the clock.
    pub(crate) fn trust(&self) -> Arc<tier2::Trust> {
        self.tier.trust().clone()
    }

    fn operands(&self, node: u32) -> PyResult<(u64, u64)> {
        let operands = self.operands.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(operands.get(checked_node(node)? as usize).copied().unwrap_or_default())
    }
}

#[pymethods]
impl PyTier {
    #[new]
    #[pyo3(signature = (seed, *, bus=true, max_lag=2_500_000_000, canary_interval=1_000_000_000, journal=10_000, write_window=200_000_000,
                        generation_per_node=false, clock_resolution=1))]
    #[allow(clippy::too_many_arguments)] // Python's are named.
    fn new(
        seed: u64,
        bus: bool,
        max_lag: u64,
        canary_interval: u64,
        journal: usize,
        write_window: u64,
        generation_per_node: bool,
        clock_resolution: u64,
    ) -> Self {
        let settings = Settings {
            bus,
            max_lag,
            canary_interval,
            journal,
            write_window,
            generation_per_node,
            clock_resolution,
        };
        Self {
            tier: Tier::new(seed, settings),
            operands: Mutex::default(),
        }
    }

    /// Tier 1 may serve a hit only while now <= trusted_until. One atomic, read each time.
    #[getter]
    fn trusted_until(&self) -> u64 {
        self.tier.trust().hits_until()
    }

    /// A caller may join a load in flight only while now <= join_until.
    ///
    /// Otherwise it invalidates the key's loads and reads for itself.
    #[getter]
    fn join_until(&self) -> u64 {
        self.tier.trust().joins_until()
    }

    /// Returns a new cache on this tier. Durations are in nanoseconds.
    #[pyo3(signature = (*, ttl, local_ttl, unsynced_ttl, stale_while_revalidate=0, stale_if_error=0, lease=1_500_000_000, lease_wait=0,
                        load_timeout=60_000_000_000, early_reload=0.0))]
    #[allow(clippy::too_many_arguments)] // Python's are named.
    fn namespace(
        &self,
        ttl: u64,
        local_ttl: u64,
        unsynced_ttl: u64,
        stale_while_revalidate: u64,
        stale_if_error: u64,
        lease: u64,
        lease_wait: u64,
        load_timeout: u64,
        early_reload: f64,
    ) -> Namespace {
        let settings = NamespaceSettings {
            ttl,
            local_ttl,
            unsynced_ttl,
            stale_while_revalidate,
            stale_if_error,
            lease,
            lease_wait,
            load_timeout,
            early_reload,
        };
        Namespace(tier2::Namespace::new(&self.tier, settings))
    }

    /// Reports that a new connection of `node` answered INFO and TIME.
    ///
    /// Args:
    ///     node: The number of the server.
    ///     identity: run_id + master_replid.
    ///     server_ms: The server's time in milliseconds.
    ///     sent: When the commands were sent.
    ///     now: The current time.
    ///     fence: Whether CLIENT KILL ID is allowed and reaches the server itself.
    ///     canary_prefix: The prefix of this process's canaries on that node, outside the prefix of
    ///         the entries.
    ///
    /// Returns:
    ///     The epoch, which the connection keeps and passes with its replies.
    #[pyo3(signature = (node, identity, server_ms, sent, now, fence, canary_prefix, /))]
    #[allow(clippy::too_many_arguments)] // One answer of the server.
    fn probed(
        &self,
        node: u32,
        identity: &[u8],
        server_ms: u64,
        sent: u64,
        now: u64,
        fence: bool,
        canary_prefix: &[u8],
    ) -> PyResult<u32> {
        let probe = Probe {
            identity,
            server_ms,
            sent,
            can_fence: fence,
            canary_prefix,
        };
        Ok(self.tier.probed(checked_node(node)?, &probe, now))
    }

    /// Reports whether `node` serves slots of the cluster.
    #[pyo3(signature = (node, serving, now, /))]
    fn set_serving(&self, node: u32, serving: bool, now: u64) -> PyResult<()> {
        self.tier.set_serving(checked_node(node)?, serving, now);
        Ok(())
    }

    /// Reports that `node` joined the cluster after the others were known.
    #[pyo3(signature = (node, now, /))]
    fn joined(&self, node: u32, now: u64) -> PyResult<()> {
        self.tier.joined(checked_node(node)?, now);
        Ok(())
    }

    /// Reports that `node` could not be probed.
    #[pyo3(signature = (node, kind, now, /))]
    fn probe_failed(&self, node: u32, kind: u8, now: u64) -> PyResult<()> {
        self.tier.probe_failed(checked_node(node)?, failure(kind)?, now);
        Ok(())
    }

    /// Returns the node's current epoch (0: not probed).
    ///
    /// A connection of another epoch must be closed, not used.
    #[pyo3(signature = (node, /))]
    fn epoch(&self, node: u32) -> PyResult<u32> {
        Ok(self.tier.epoch(checked_node(node)?))
    }

    /// Returns the server's time in milliseconds, at least.
    #[pyo3(signature = (node, now, /))]
    fn server_ms(&self, node: u32, now: u64) -> PyResult<u64> {
        Ok(self.tier.server_ms(checked_node(node)?, now))
    }

    /// Returns whether the node answers.
    #[pyo3(signature = (node, /))]
    fn is_up(&self, node: u32) -> PyResult<bool> {
        Ok(self.tier.is_up(checked_node(node)?))
    }

    /// Returns the next action for `node`, whose operands are below.
    ///
    /// It is one of Tier2.SLEEP, PROBE, CONNECT, CLOSE, CANARY, PING, CLEAR, DROP_LOADS and
    /// OPERATE.
    #[pyo3(signature = (node, now, /))]
    fn background(&self, node: u32, now: u64) -> PyResult<u8> {
        let task = self.tier.background(checked_node(node)?, now);
        let (code, operand) = match task {
            Task::Sleep(until) => (Self::SLEEP, (until, 0)),
            Task::Probe => (Self::PROBE, (0, 0)),
            Task::Connect => (Self::CONNECT, (0, 0)),
            Task::Close => (Self::CLOSE, (0, 0)),
            Task::Canary(number) => (Self::CANARY, (0, number)),
            Task::Ping(number) => (Self::PING, (0, number)),
            Task::Clear => (Self::CLEAR, (0, 0)),
            Task::DropLoads => (Self::DROP_LOADS, (0, 0)),
            Task::Operate => (Self::OPERATE, (0, 0)),
        };
        let mut operands = self.operands.lock().unwrap_or_else(PoisonError::into_inner);
        let at = node as usize;
        if operands.len() <= at {
            operands.resize(at + 1, (0, 0));
        }
        operands[at] = operand;
        Ok(code)
    }

    /// Returns, for SLEEP, until when to sleep unless the tracking connection has a message.
    #[pyo3(signature = (node, /))]
    fn background_until(&self, node: u32) -> PyResult<u64> {
        Ok(self.operands(node)?.0)
    }

    /// Returns, for CANARY and PING, the number.
    #[pyo3(signature = (node, /))]
    fn background_number(&self, node: u32) -> PyResult<u64> {
        Ok(self.operands(node)?.1)
    }

    /// Returns the key of the canary.
    #[pyo3(signature = (node, /))]
    fn canary_key<'py>(&self, py: Python<'py>, node: u32) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.tier.canary_key(checked_node(node)?)))
    }

    /// Returns, for OPERATE, the operation to drive; None if it is no longer due.
    ///
    /// It is a renewal of a lease, or a replay of the journal.
    #[pyo3(signature = (node, now, /))]
    fn background_operation(&self, node: u32, now: u64) -> PyResult<Option<Operation>> {
        Ok(self
            .tier
            .background_operation(checked_node(node)?, now)
            .map(Operation::new))
    }

    /// Reports, for CONNECT, that the tracking connection is subscribed.
    #[pyo3(signature = (node, now, /))]
    fn connected(&self, node: u32, now: u64) -> PyResult<()> {
        self.tier.connected(checked_node(node)?, now);
        Ok(())
    }

    /// Reports that CONNECT failed, or that the tracking connection ended.
    #[pyo3(signature = (node, now, /))]
    fn disconnected(&self, node: u32, now: u64) -> PyResult<()> {
        self.tier.disconnected(checked_node(node)?, now);
        Ok(())
    }

    /// Reports that a canary was written.
    #[pyo3(signature = (node, number, epoch, now, /))]
    fn canary_written(&self, node: u32, number: u64, epoch: u32, now: u64) -> PyResult<()> {
        self.tier.canary_written(checked_node(node)?, number, epoch, now);
        Ok(())
    }

    /// Reports that a canary could not be written.
    #[pyo3(signature = (node, number, kind, now, /))]
    fn canary_failed(&self, node: u32, number: u64, kind: u8, now: u64) -> PyResult<()> {
        self.tier
            .canary_failed(checked_node(node)?, number, failure(kind)?, now);
        Ok(())
    }

    /// Reports that the tracking connection answered PING, after all earlier messages.
    #[pyo3(signature = (node, number, now, /))]
    fn pong(&self, node: u32, number: u64, now: u64) -> PyResult<()> {
        self.tier.pong(checked_node(node)?, number, now);
        Ok(())
    }

    /// Reports, for CLEAR, that tier 1 is empty and all its loads in flight are invalidated.
    #[pyo3(signature = (node, now, /))]
    fn cleared(&self, node: u32, now: u64) -> PyResult<()> {
        self.tier.cleared(checked_node(node)?, now);
        Ok(())
    }

    /// Reports, for DROP_LOADS, that all loads in flight are invalidated; entries stay.
    #[pyo3(signature = (node, now, /))]
    fn loads_dropped(&self, node: u32, now: u64) -> PyResult<()> {
        self.tier.loads_dropped(checked_node(node)?, now);
        Ok(())
    }

    /// Applies invalidations, in their order; returns those that tier 1 must act on.
    ///
    /// Tier 1 removes each returned key, invalidates its loads and wakes its waiters. For a
    /// generation key it clears what belongs to it (for a tag: at least the entries with that tag).
    /// Canaries are consumed. Call `background` afterwards.
    #[pyo3(signature = (node, keys, _now, /))]
    fn messages<'py>(
        &self,
        node: u32,
        keys: Vec<Bound<'py, PyBytes>>,
        _now: u64,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let mut apply = Vec::new();
        // Messages are passed on as the objects in which they came.
        let at = Cell::new(0);
        let numbered = keys.iter().enumerate().map(|(number, key)| {
            at.set(number);
            key.as_bytes()
        });
        self.tier
            .messages(checked_node(node)?, numbered, |_| apply.push(keys[at.get()].clone()));
        Ok(apply)
    }

    /// Reports the null message of FLUSHALL or FLUSHDB.
    #[pyo3(signature = (node, now, /))]
    fn flushed(&self, node: u32, now: u64) -> PyResult<()> {
        self.tier.flushed(checked_node(node)?, now);
        Ok(())
    }

    /// Returns the state and the counters by name.
    #[pyo3(signature = (now, /))]
    fn stats<'py>(&self, py: Python<'py>, now: u64) -> PyResult<Bound<'py, PyDict>> {
        let stats = PyDict::new(py);
        let mut counts = Vec::new();
        self.tier.stats().for_each(|name, count| counts.push((name, count)));
        for (name, count) in counts {
            stats.set_item(name, count)?;
        }
        stats.set_item("journal", self.tier.journal_len())?;
        stats.set_item("latency", self.tier.latency().counts().to_vec())?;
        let nodes = PyDict::new(py);
        for (node, report) in self.tier.nodes(now).into_iter().enumerate() {
            let one = PyDict::new(py);
            one.set_item("link", report.link)?;
            one.set_item("bus", report.bus)?;
            one.set_item("epoch", report.epoch)?;
            one.set_item("lag", report.lag)?;
            nodes.set_item(node, one)?;
        }
        stats.set_item("nodes", nodes)?;
        Ok(stats)
    }

    #[classattr]
    const SLEEP: u8 = 0;
    #[classattr]
    const PROBE: u8 = 1;
    #[classattr]
    const CONNECT: u8 = 2;
    #[classattr]
    const CLOSE: u8 = 3;
    #[classattr]
    const CANARY: u8 = 4;
    #[classattr]
    const PING: u8 = 5;
    #[classattr]
    const CLEAR: u8 = 6;
    #[classattr]
    const DROP_LOADS: u8 = 7;
    #[classattr]
    const OPERATE: u8 = 8;
    #[classattr]
    const TIMEOUT: u8 = Failure::Timeout as u8;
    #[classattr]
    const NOT_SENT: u8 = Failure::NotSent as u8;
    #[classattr]
    const REFUSED: u8 = Failure::Refused as u8;
    #[classattr]
    const OOM: u8 = Failure::OutOfMemory as u8;
    #[classattr]
    const READONLY: u8 = Failure::ReadOnly as u8;
    #[classattr]
    const NOSCRIPT: u8 = Failure::NoScript as u8;
    #[classattr]
    const NOPERM: u8 = Failure::NoPermission as u8;
    #[classattr]
    const LOADING: u8 = Failure::Loading as u8;
    #[classattr]
    const CLUSTERDOWN: u8 = Failure::ClusterDown as u8;
    #[classattr]
    const MOVED: u8 = Failure::Moved as u8;
    #[classattr]
    const OTHER: u8 = Failure::Other as u8;
}

/// One cache on a Tier2: its settings, its generations and its counters.
#[pyclass(frozen, module = "hotset._hotset")]
pub(crate) struct Namespace(pub(crate) tier2::Namespace);

/// Tags in the form of the core.
struct Tags<'py>(Vec<Bound<'py, PyBytes>>);

impl<'py> Tags<'py> {
    fn check(&self) -> PyResult<Vec<&[u8]>> {
        if self.0.len() > tier2::MAX_TAGS {
            let (count, most) = (self.0.len(), tier2::MAX_TAGS);
            return Err(PyValueError::new_err(format!("{count} tags: at most {most}")));
        }
        let tags: Vec<&[u8]> = self.0.iter().map(|tag| tag.as_bytes()).collect();
        match tags.iter().find(|tag| tag.len() > 255) {
            Some(tag) => Err(PyValueError::new_err(format!(
                "a tag of {} bytes: at most 255",
                tag.len()
            ))),
            None => Ok(tags),
        }
    }
}

impl Namespace {
    fn ready(&self, node: u32) -> PyResult<u32> {
        checked_node(node)?;
        if self.0.generations() > 0 {
            return Ok(node);
        }
        Err(PyValueError::new_err(
            "no generation is set: call set_generations first",
        ))
    }
}

#[pymethods]
impl Namespace {
    /// Sets the keys of the namespace's generations: one, or in a cluster one per range of
    /// slots.
    ///
    /// The generation key of a tag is this key + b":" + the tag. Called before the first operation.
    #[pyo3(signature = (keys, /))]
    fn set_generations(&self, keys: Vec<Bound<'_, PyBytes>>) -> PyResult<()> {
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        if !(1..=usize::from(tier2::SLOTS)).contains(&keys.len()) {
            let (count, most) = (keys.len(), tier2::SLOTS);
            return Err(PyValueError::new_err(format!(
                "expected 1 to {most} generations, got {count}"
            )));
        }
        self.0.set_generations(&keys);
        Ok(())
    }

    /// Returns a started read: get (load=False) or get_or_load (load=True). See its `action`.
    #[pyo3(signature = (key, node, now, load, tags=Vec::new(), /))]
    fn read(&self, key: &[u8], node: u32, now: u64, load: bool, tags: Vec<Bound<'_, PyBytes>>) -> PyResult<Operation> {
        let tags = Tags(tags);
        Ok(Operation::new(self.0.read(
            key,
            self.ready(node)?,
            now,
            load,
            &tags.check()?,
        )))
    }

    /// Returns started reads of many keys on one node.
    #[pyo3(signature = (keys, node, now, load, tags=Vec::new(), /))]
    fn read_many(
        &self,
        keys: Vec<Bound<'_, PyBytes>>,
        node: u32,
        now: u64,
        load: bool,
        tags: Vec<Bound<'_, PyBytes>>,
    ) -> PyResult<Reads> {
        let (node, tags) = (self.ready(node)?, Tags(tags));
        let tags = tags.check()?;
        let read = |key: &Bound<'_, PyBytes>| self.0.read(key.as_bytes(), node, now, load, &tags);
        Ok(Reads::new(keys.iter().map(read)))
    }

    /// Returns a started set.
    #[pyo3(signature = (key, node, now, ttl, tags=Vec::new(), /))]
    fn write(&self, key: &[u8], node: u32, now: u64, ttl: u64, tags: Vec<Bound<'_, PyBytes>>) -> PyResult<Operation> {
        let tags = Tags(tags);
        Ok(Operation::new(self.0.write(
            key,
            self.ready(node)?,
            now,
            ttl,
            &tags.check()?,
        )))
    }

    /// Returns a started delete.
    #[pyo3(signature = (key, node, now, /))]
    fn remove(&self, key: &[u8], node: u32, now: u64) -> PyResult<Operation> {
        Ok(Operation::new(self.0.remove(key, self.ready(node)?, now)))
    }

    /// Returns a started soft invalidation: the old value may be returned while one caller
    /// reloads.
    #[pyo3(signature = (key, node, now, /))]
    fn expire(&self, key: &[u8], node: u32, now: u64) -> PyResult<Operation> {
        Ok(Operation::new(self.0.expire(key, self.ready(node)?, now)))
    }

    /// Returns a started touch. At DONE, `stored` is whether there was a live value.
    #[pyo3(signature = (key, node, now, ttl, /))]
    fn touch(&self, key: &[u8], node: u32, now: u64, ttl: u64) -> PyResult<Operation> {
        Ok(Operation::new(self.0.touch(key, self.ready(node)?, now, ttl)))
    }

    /// Returns a started clear() (tag None) or invalidate_tag(), on one node of a cluster.
    #[pyo3(signature = (tag, group, node, now, /))]
    fn bump(&self, tag: Option<&[u8]>, group: u32, node: u32, now: u64) -> PyResult<Operation> {
        let node = self.ready(node)?;
        if group >= self.0.generations() {
            return Err(PyValueError::new_err(format!("there is no generation {group}")));
        }
        Ok(Operation::new(self.0.bump(tag, group, node, now)))
    }

    /// Returns a started command of the caller's own on tier 2 alone (a counter).
    ///
    /// Its actions are DIRECT, then DONE, or UNCONFIRMED where its outcome is unknown.
    #[pyo3(signature = (key, node, now, /))]
    fn direct(&self, key: &[u8], node: u32, now: u64) -> PyResult<Operation> {
        Ok(Operation::new(self.0.direct(key, self.ready(node)?, now)))
    }

    /// Returns the counters by name.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = PyDict::new(py);
        let mut counts = Vec::new();
        self.0.stats().for_each(|name, count| counts.push((name, count)));
        for (name, count) in counts {
            stats.set_item(name, count)?;
        }
        Ok(stats)
    }
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyTier>()?;
    module.add_class::<Namespace>()?;
    module.add_class::<Reads>()?;
    module.add_function(wrap_pyfunction!(reads::bulk_strings, module)?)?;
    module.add_class::<memcached::PyMemcached>()?;
    module.add_class::<memcached::PyExchange>()?;
    module.add_function(wrap_pyfunction!(memcached::memcached_replies, module)?)?;
    module.add_function(wrap_pyfunction!(memcached::memcached_value, module)?)?;
    module.add_function(wrap_pyfunction!(memcached::memcached_quick_value, module)?)?;
    module.add_function(wrap_pyfunction!(memcached::memcached_expiration, module)?)?;
    module.add_class::<Operation>()
}
