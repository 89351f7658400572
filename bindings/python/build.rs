//! Passes the version of Python to the sources, as configuration flags.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}
