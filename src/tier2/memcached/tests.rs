//! Tests without a server: hashing, expirations, replies.
