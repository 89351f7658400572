//! Checks of arguments that the types here share.

use hotset::tier2::Failure;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The maximum number of nodes of a tier.
const MAX_NODES: u32 = 4_096;

pub(super) fn checked_node(node: u32) -> PyResult<u32> {
    if node < MAX_NODES {
        Ok(node)
    } else {
        Err(PyValueError::new_err(format!("node {node}: at most {MAX_NODES} nodes")))
    }
}

pub(super) fn failure(kind: u8) -> PyResult<Failure> {
    Failure::from_number(kind).ok_or_else(|| PyValueError::new_err(format!("unknown kind of failure: {kind}")))
}
