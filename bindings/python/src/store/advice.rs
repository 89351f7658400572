//! The advice of a profiled cache.

use super::Store;
use hotset::AdviseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

impl Store {
    pub(crate) fn capacity(&self) -> u64 {
        self.cache.capacity()
    }

    /// Returns the fields of `hotset.Advice` by name.
    pub(crate) fn advise<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        // Other threads may run while the optimum is computed.
        let advice = py.detach(|| self.cache.advise());
        let advice = advice.map_err(|error| match error {
            AdviseError::NotProfiled => {
                PyRuntimeError::new_err("the cache is not profiled: create it with profile=True")
            }
            _ => PyRuntimeError::new_err(error.to_string()),
        })?;
        let points = advice
            .points
            .iter()
            .map(|point| (point.factor, point.capacity, point.hit_ratio, point.bytes));
        let dict = PyDict::new(py);
        dict.set_item("capacity", advice.capacity)?;
        dict.set_item("hit_ratio", advice.hit_ratio)?;
        dict.set_item("lookups", advice.lookups)?;
        dict.set_item("sample", advice.sample)?;
        dict.set_item("points", PyTuple::new(py, points.collect::<Vec<_>>())?)?;
        dict.set_item("unbounded", advice.unbounded)?;
        dict.set_item("enough", advice.enough)?;
        dict.set_item("tenth_more", advice.tenth_more)?;
        dict.set_item("optimum", advice.optimum)?;
        dict.set_item("over_lru", advice.over_lru)?;
        dict.set_item("doubt", advice.doubt.map(|doubt| doubt.to_string()))?;
        dict.set_item("text", advice.to_string())?;
        Ok(dict)
    }
}
