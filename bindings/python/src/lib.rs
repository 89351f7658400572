//! The native part of hotset's Python wheel.

mod border;
mod call;
mod lru;
mod objects;
mod seed;
mod types;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
fn _hotset(module: &Bound<'_, PyModule>) -> PyResult<()> {
    seed::prepare();
    call::prepare(module.py())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    lru::add(module)
}
