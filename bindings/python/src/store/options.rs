//! The keyword arguments of caches, checked.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Options<'py> {
    /// In entries or weight; `None` for no bound.
    pub(crate) capacity: Option<u64>,
    pub(crate) policy: hotset::Policy,
    pub(crate) ttl: Option<Duration>,
    pub(crate) tti: Option<Duration>,
    pub(crate) jitter: f64,
    pub(crate) typed: bool,
    pub(crate) key: Option<Bound<'py, PyAny>>,
    pub(crate) weigher: Option<Bound<'py, PyAny>>,
    pub(crate) on_removal: Option<Bound<'py, PyAny>>,
    pub(crate) single_flight: bool,
    pub(crate) negative_ttl: Option<Duration>,
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
    pub(crate) refresher: Option<Bound<'py, PyAny>>,
    pub(crate) timer: Option<Bound<'py, PyAny>>,
    pub(crate) profile: bool,
    /// The bounds of the capacity, and the share of the possible hits.
    pub(crate) autosize: Option<(u64, u64, f64)>,
    pub(crate) method: bool,
    /// Whether a method's bound is for each instance, and not for all of them together.
    pub(crate) per_instance: bool,
}

/// Returns a number of seconds as a duration.
pub(crate) fn seconds(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds: f64 = given.extract().map_err(|_| {
        PyTypeError::new_err(format!(
            "{name} must be a number of seconds or None, not {}",
            kind(given)
        ))
    })?;
    if seconds.is_nan() || seconds <= 0.0 {
        return Err(PyValueError::new_err(format!(
            "{name} must be more than 0 seconds, not {seconds}"
        )));
    }
    // A duration out of range is as good as infinite: the engine's clock reaches 584 years.
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

fn kind(given: &Bound<'_, PyAny>) -> String {
    given
        .get_type()
        .name()
        .map_or_else(|_| "that".to_owned(), |name| name.to_string())
}

fn callable<'py>(name: &str, given: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if given.is_callable() {
        return Ok(given);
    }
    Err(PyTypeError::new_err(format!(
        "{name} must be callable or None, not {}",
        kind(&given)
    )))
}

/// Returns a capacity, in entries or weight.
pub(crate) fn capacity(name: &str, given: &Bound<'_, PyAny>) -> PyResult<u64> {
    let number: i128 = given.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyTypeError>(given.py()) {
            return PyTypeError::new_err(format!("{name} must be an int, not {}", kind(given)));
        }
        PyValueError::new_err(format!("{name} is too large"))
    })?;
    if number < 0 {
        return Err(PyValueError::new_err(format!("{name} must not be negative")));
    }
    Ok(u64::try_from(number).unwrap_or(u64::MAX))
}

impl<'py> Options<'py> {
    /// Reads the keyword arguments; `wanted` are the names that this kind of cache has.
    pub(crate) fn read(kwargs: Option<&Bound<'py, PyDict>>, default: u64, wanted: &[&str]) -> PyResult<Self> {
        let mut options = Self {
            single_flight: true,
            ..Self::default()
        };
        let (mut entries, mut weight) = (None, None);
        for (name, given) in kwargs.into_iter().flatten() {
            let name: String = name.extract()?;
            let name = &*name;
            if !wanted.contains(&name) {
                return Err(PyTypeError::new_err(format!("unexpected keyword argument '{name}'")));
            }
            if name == "maxsize" {
                entries = Some(if given.is_none() {
                    None
                } else {
                    Some(capacity(name, &given)?)
                });
                continue;
            }
            if given.is_none() {
                continue;
            }
            match name {
                "max_weight" => weight = Some(capacity(name, &given)?),
                "policy" => options.policy = policy(&given)?,
                "ttl" => options.ttl = Some(seconds(name, &given)?),
                "tti" => options.tti = Some(seconds(name, &given)?),
                "negative_ttl" => options.negative_ttl = Some(seconds(name, &given)?),
                "stale_while_revalidate" => options.stale_while_revalidate = Some(seconds(name, &given)?),
                "stale_if_error" => options.stale_if_error = Some(seconds(name, &given)?),
                "jitter" => {
                    options.jitter = given.extract()?;
                    if !(0.0..1.0).contains(&options.jitter) {
                        return Err(PyValueError::new_err("jitter is a fraction, from 0 to below 1"));
                    }
                }
                "typed" => options.typed = given.is_truthy()?,
                "single_flight" => options.single_flight = given.is_truthy()?,
                "per_instance" => options.per_instance = given.is_truthy()?,
                "profile" => options.profile = given.is_truthy()?,
                "autosize" => options.autosize = Some(given.extract()?),
                "method" => options.method = given.is_truthy()?,
                "key" => options.key = Some(callable(name, given)?),
                "weigher" => options.weigher = Some(callable(name, given)?),
                "on_removal" => options.on_removal = Some(callable(name, given)?),
                "refresher" => options.refresher = Some(callable(name, given)?),
                "timer" => options.timer = Some(callable(name, given)?),
                _ => unreachable!("all that is wanted is known"),
            }
        }
        options.capacity = match (entries, weight) {
            (Some(Some(_)), Some(_)) => {
                return Err(PyValueError::new_err("maxsize and max_weight exclude each other"));
            }
            (_, Some(weight)) if options.weigher.is_some() => Some(weight),
            (_, Some(_)) => {
                return Err(PyValueError::new_err(
                    "max_weight needs a weigher, which returns the weight of an entry",
                ));
            }
            _ if options.weigher.is_some() => return Err(PyValueError::new_err("a weigher needs max_weight")),
            (Some(entries), None) => entries,
            (None, None) => Some(default),
        };
        let stale = options.stale_while_revalidate.or(options.stale_if_error);
        if options.ttl.is_none() && stale.is_some() {
            return Err(PyValueError::new_err(
                "stale_while_revalidate and stale_if_error start when ttl ends: set ttl, too",
            ));
        }
        if options.stale_while_revalidate.is_some() && options.refresher.is_none() {
            return Err(PyValueError::new_err("stale_while_revalidate needs a refresher"));
        }
        Ok(options)
    }
}

fn policy(given: &Bound<'_, PyAny>) -> PyResult<hotset::Policy> {
    let name: &str = given.extract()?;
    Ok(match name {
        "tinylfu" => hotset::Policy::WTinyLfu,
        "lru" => hotset::Policy::Lru,
        "lfu" => hotset::Policy::Lfu,
        "fifo" => hotset::Policy::Fifo,
        "random" => hotset::Policy::Random,
        _ => {
            let text = format!("policy must be one of tinylfu, lru, lfu, fifo, random, not '{name}'");
            return Err(PyValueError::new_err(text));
        }
    })
}
