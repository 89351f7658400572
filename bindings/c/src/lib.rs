//! hotset as a C library. Its users read `include/hotset.h`, which is made of these sources: what the comments of the types and
//! of the exported functions say is said to them. A module per rung of the header's ladder; below them:
//!
//! - `border`: what every call begins and ends with. No panic gets past it.
//! - `blob`: an entry's memory, one allocation that key, value and handles share.
//! - `callback`: who is being called back, so that what would wait for itself is refused.
//! - `thread`, `fork`, `memory`, `ticker`: what a C program does to a thread, a process and its memory while a call runs.
#![allow(non_camel_case_types)]
// The header says what a caller must keep to: for all calls in its caveats, and for each in its comment.
#![allow(clippy::missing_safety_doc)]
// What C sees is `pub`, wherever it lies: nothing else is.
#![allow(unreachable_pub)]

mod admin;
mod basic;
mod blob;
mod cache;
mod callback;
mod change;
mod compute;
mod ffi;
mod fork;
mod iter;
mod load;
mod memory;
mod options;
mod read;
mod reply;
mod snapshot;
mod strings;
#[cfg(test)]
mod tests;
mod thread;
mod ticker;
mod ttl;
mod types;
mod write;
