//! Any bytes that a memcached server sends: a reply ends where it ends in any longer stream, is
//! incomplete until its last byte has arrived, and is read without a panic.
#![no_main]

use hotset::tier2::memcached::{reply_length, value_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some(length)) = reply_length(rest) {
        let (reply, later) = rest.split_at(length);
        assert!(!reply.is_empty());
        assert_eq!(reply_length(reply), Ok(Some(length)));
        for end in [1, 2, length / 2, length - 1].into_iter().filter(|&end| end < length) {
            assert_eq!(reply_length(&reply[..end]), Ok(None));
        }
        if let Some(Some(value)) = value_of(reply) {
            assert!(value.len() < length);
        }
        rest = later;
    }
    _ = value_of(rest);
});
