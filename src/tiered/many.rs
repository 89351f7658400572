//! Calls with many keys.
