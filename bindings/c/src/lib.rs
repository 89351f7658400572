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
// Comments become those of the header, where names have no backticks.
#![allow(clippy::doc_markdown)]
// What C sees is `pub`, wherever it lies: nothing else is.
#![allow(unreachable_pub)]

mod basic;
mod blob;
mod border;
mod callback;
mod change;
mod fork;
mod memory;
mod options;
mod read;
mod reply;
mod snapshot;
#[cfg(test)]
mod tests;
mod text;
mod thread;
mod ticker;
mod types;
mod walk;
mod whole;
mod write;
