//! The methods that memos and mappings share.

use crate::cache_ref::CacheRef;
use crate::snapshot::{LoadSession, SaveSession, SnapshotSource};
use crate::store::Store;
use crate::store::deferred_drop::DrainOnExit;
use crate::store::options::capacity;
use crate::tier2::{Namespace, PyTier};
use crate::types::NativeObject;
use pyo3::prelude::*;

type Args<'a, 'py> = &'a [Bound<'py, PyAny>];

/// A Python object that is a cache on a [`Store`].
pub(crate) trait CacheObject: NativeObject + SnapshotSource + 'static {
    fn store(&self) -> &Store;
}

/// Runs `f` as an operation of the store: reads the timer before, and drops what left the cache
/// after.
fn operate<C: CacheObject, R>(cache: &C, f: impl FnOnce(&Store) -> PyResult<R>) -> PyResult<R> {
    let _drain = DrainOnExit;
    cache.store().read_timer()?;
    f(cache.store())
}

pub(crate) fn stats<C: CacheObject>(cache: &C, _: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
    operate(cache, |store| Ok(store.stats(py)?.into_any().unbind()))
}

pub(crate) fn totals<C: CacheObject>(cache: &C, _: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
    operate(cache, |store| Ok(store.totals(py)?.into_any().unbind()))
}

pub(crate) fn reset_stats<C: CacheObject>(cache: &C, _: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
    operate(cache, |store| {
        store.reset_stats();
        Ok(())
    })
}

pub(crate) fn capacity_now<C: CacheObject>(cache: &C, _: Args<'_, '_>, _: Python<'_>) -> PyResult<u64> {
    Ok(cache.store().capacity())
}

pub(crate) fn advise<C: CacheObject>(cache: &C, _: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<PyAny>> {
    Ok(cache.store().advise(py)?.into_any().unbind())
}

pub(crate) fn clear<C: CacheObject>(cache: &C, _: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
    operate(cache, |store| {
        // Before the entries are removed: a load that completes in between must not restore an old
        // value.
        store.loads.invalidate_all();
        store.clear();
        Ok(())
    })
}

pub(crate) fn clear_entries<C: CacheObject>(cache: &C, _: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
    operate(cache, |store| {
        store.loads.invalidate_all();
        store.clear_entries();
        Ok(())
    })
}

pub(crate) fn invalidate_loads<C: CacheObject>(cache: &C, _: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
    cache.store().loads.invalidate_all();
    Ok(())
}

pub(crate) fn set_trust<C: CacheObject>(cache: &C, args: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
    let tier: Option<PyRef<'_, PyTier>> = args[0].extract()?;
    cache.store().set_trust(tier.map(|tier| tier.trust()));
    Ok(())
}

pub(crate) fn show_tier2<C: CacheObject>(cache: &C, args: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
    let namespace: PyRef<'_, Namespace> = args[0].extract()?;
    cache.store().show_tier2(namespace.0.clone());
    Ok(())
}

pub(crate) fn publish<C: CacheObject>(cache: &C, args: Args<'_, '_>, _: Python<'_>) -> PyResult<(u64, Option<String>)> {
    let name: String = args[0].extract()?;
    Ok(cache.store().publish(&name))
}

pub(crate) fn run_pending<C: CacheObject>(cache: &C, _: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
    operate(cache, |store| {
        store.run_pending();
        Ok(())
    })
}

pub(crate) fn resize<C: CacheObject>(cache: &C, args: Args<'_, '_>, _: Python<'_>) -> PyResult<()> {
    operate(cache, |store| {
        store.resize(capacity("capacity", &args[0])?);
        Ok(())
    })
}

pub(crate) fn save_session<C: CacheObject>(cache: &C, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<SaveSession>> {
    SaveSession::begin(py, snapshot_source(py, cache), args[0].extract()?, args[1].extract()?)
}

pub(crate) fn load_session<C: CacheObject>(cache: &C, args: Args<'_, '_>, py: Python<'_>) -> PyResult<Py<LoadSession>> {
    LoadSession::begin(py, snapshot_source(py, cache), args[0].extract()?, args[1].extract()?)
}

fn snapshot_source<C: CacheObject>(py: Python<'_>, cache: &C) -> CacheRef<dyn SnapshotSource> {
    CacheRef::new(py, cache, |cache| cache as &dyn SnapshotSource)
}

/// Returns the table of these methods for a type. A macro, since the functions that CPython calls
/// must name the type.
macro_rules! cache_methods {
    ($this:ty) => {
        $crate::ffi::methods![$this;
            c"stats" => $crate::cache_methods::stats::<$this>, 0..=0, c"stats($self, /)
--

Returns the counters by name, after pending maintenance.

They are hits, misses, stale_hits, insertions, evictions, evicted_weight, expirations,
rejections, loads, load_failures, waits, load_time, load_buckets, entries, weight and
capacity. hits, misses and stale_hits count from the last clear, as those of functools do.
";
            c"totals" => $crate::cache_methods::totals::<$this>, 0..=0, c"totals($self, /)
--

Returns the counters by name as `stats` does, but counted since the cache was created.
";
            c"reset_stats" => $crate::cache_methods::reset_stats::<$this>, 0..=0, c"reset_stats($self, /)
--

Resets all counters.
";
            c"capacity_now" => $crate::cache_methods::capacity_now::<$this>, 0..=0, c"capacity_now($self, /)
--

Returns the capacity, in entries or weight: an `autosize` changes it.
";
            c"advise" => $crate::cache_methods::advise::<$this>, 0..=0, c"advise($self, /)
--

Returns the fields of `hotset.Advice` by name.

Raises:
    RuntimeError: The cache is not profiled, or has no bound.
";
            c"clear" => $crate::cache_methods::clear::<$this>, 0..=0, c"clear($self, /)
--

Removes all entries, and resets hits and misses.
";
            c"clear_entries" => $crate::cache_methods::clear_entries::<$this>, 0..=0, c"clear_entries($self, /)
--

Removes all entries; the counters of hits and misses stay.
";
            c"invalidate_loads" => $crate::cache_methods::invalidate_loads::<$this>, 0..=0, c"invalidate_loads($self, /)
--

Invalidates all loads in progress: their results are not stored, nor returned later.
";
            c"set_trust" => $crate::cache_methods::set_trust::<$this>, 1..=1, c"set_trust($self, tier, /)
--

Restricts hits, and the joining of loads, to the time while the second tier is trusted.

For a cache with a time to live.

Args:
    tier: The second tier; None for no restriction.
";
            c"publish" => $crate::cache_methods::publish::<$this>, 1..=1, c"publish($self, name, /)
--

Puts the cache into the process's stats file, under `name`.

Returns:
    Its number there, and a warning or None.
";
            c"show_tier2" => $crate::cache_methods::show_tier2::<$this>, 1..=1, c"show_tier2($self, namespace, /)
--

Has the stats file show the counters of the second tier as well.
";
            c"run_pending" => $crate::cache_methods::run_pending::<$this>, 0..=0, c"run_pending($self, /)
--

Performs pending maintenance.
";
            c"resize" => $crate::cache_methods::resize::<$this>, 1..=1, c"resize($self, capacity, /)
--

Sets the capacity, in entries or weight.
";
            c"save_session" => $crate::cache_methods::save_session::<$this>, 2..=2, c"save_session($self, path, schema, /)
--

Begins a save to `path`.
";
            c"load_session" => $crate::cache_methods::load_session::<$this>, 2..=2, c"load_session($self, path, schema, /)
--

Begins a load from `path`.
";
        ]
    };
}
pub(crate) use cache_methods;
