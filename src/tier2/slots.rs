//! The slots of a Redis cluster.
//!
//! A generation belongs to a range of slots, not to a server: servers exchange slots, and all
//! processes must agree at any time on which key holds the generation of which values.

/// How many slots a cluster has.
pub const SLOTS: u16 = 16_384;

/// The remainders of CRC-16 (XMODEM) of one byte.
const REMAINDERS: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 {
                (crc << 1) ^ 0x1021
            } else {
                crc << 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// Returns the part of a key that decides its slot: what the first pair of braces holds, unless
/// that is nothing.
pub(crate) fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&byte| byte == b'{')?;
    let rest = &key[open + 1..];
    let close = rest.iter().position(|&byte| byte == b'}')?;
    (close > 0).then_some(&rest[..close])
}

/// Returns the slot of a key in a cluster.
pub fn slot(key: &[u8]) -> u16 {
    let hashed = hash_tag(key).unwrap_or(key);
    let crc = hashed.iter().fold(0_u16, |crc, &byte| {
        (crc << 8) ^ REMAINDERS[usize::from((crc >> 8) as u8 ^ byte)]
    });
    crc % SLOTS
}

/// Returns the key of what is kept beside `key`: in the same slot, unless `key` has a closing brace
/// outside of a pair.
pub(crate) fn beside(key: &[u8], suffix: &[u8]) -> Box<[u8]> {
    if hash_tag(key).is_some() {
        return [key, suffix].concat().into();
    }
    [b"{", key, b"}", suffix].concat().into()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn slot_agrees_with_the_specification() {
        // The check value of CRC-16/XMODEM, and slots that `CLUSTER KEYSLOT` of Redis 7.0 returns.
        assert_eq!(slot(b"123456789"), 0x31C3 % SLOTS);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"{foo}.bar"), 12_182);
        assert_eq!(slot(b"x{foo}{bar}"), 12_182);
        assert_ne!(slot(b"{}foo"), 12_182);
    }

    #[test]
    fn key_beside_another_has_its_slot() {
        for key in [&b"shop:11234:prices:[1]"[..], b"a{b}c", b"x{"] {
            assert_eq!(slot(&beside(key, b":r")), slot(key), "{key:?}");
        }
    }
}
