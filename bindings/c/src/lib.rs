//! hotset as a C library. `include/hotset.h` is generated from these sources: the comments of the
//! types and of the exported functions are written for its readers. There is a module for each
//! section of the header. The others:
//!
//! - `ffi`: the guard of every call. No panic passes it.
//! - `cache`: a cache behind a pointer, refused after a close or a fork.
//! - `closed`: what was closed, and must not be used.
//! - `tier2_transport`: the callbacks of a second tier as the engine's traits.
//! - `blob`: an entry's memory, one allocation that key, value and handles share.
//! - `callback`: the caches that are calling back, so that a call that would wait for itself is
//!   refused.
//! - `change`, `reply`, `ttl`: shared parts of the calls that change entries.
//! - `thread`, `fork`, `memory`, `ticker`: cancellation and errno, forks, refused memory, the
//!   maintenance thread.
#![allow(non_camel_case_types)]
// The header has the rules for callers: for all calls in its preamble, and for each in its comment.
#![allow(clippy::missing_safety_doc)]
// Comments become those of the header, where names have no backticks.
#![allow(clippy::doc_markdown)]
// Types and functions of the header are `pub`, in any module; nothing else is.
#![allow(unreachable_pub)]

mod admin;
mod advice;
mod basic;
mod blob;
mod cache;
mod callback;
mod change;
mod closed;
mod compute;
mod ffi;
mod fork;
mod iter;
mod load;
mod memory;
mod metrics;
mod options;
mod read;
mod reply;
mod snapshot;
mod stats_file;
mod strings;
#[cfg(test)]
mod tests;
mod thread;
mod ticker;
#[cfg(feature = "tier2")]
mod tier2;
#[cfg(feature = "tier2")]
mod tier2_transport;
#[cfg(feature = "tier2")]
mod tiered;
#[cfg(feature = "tier2")]
mod tiered_options;
mod ttl;
mod types;
mod write;
