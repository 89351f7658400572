//! Which server has a key: rendezvous hashing, as pymemcache's `HashClient` does it.

/// Returns the place of the server that has `key`: of all, the one whose hash of `NAME-KEY` is the
/// highest. Names are `host:port`, or the path of a socket.
///
/// # Panics
/// If there are no names.
pub fn node_of(names: &[Box<[u8]>], key: &[u8]) -> usize {
    if names.len() == 1 {
        return 0;
    }
    let score = |name: &[u8]| murmur3([name, b"-", key]);
    let scored = names.iter().enumerate().map(|(at, name)| (score(name), name, at));
    scored.max().expect("a tier has servers").2
}

/// MurmurHash3 (Austin Appleby, public domain), 32 bits, of the concatenated parts.
fn murmur3(parts: [&[u8]; 3]) -> u32 {
    const C1: u32 = 0xCC9E_2D51;
    const C2: u32 = 0x1B87_3593;
    let mix = |block: u32| block.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);
    let (mut hash, mut block, mut count) = (0_u32, 0_u32, 0_u32);
    for &byte in parts.into_iter().flatten() {
        block |= u32::from(byte) << (8 * (count % 4));
        count += 1;
        if count % 4 == 0 {
            hash = (hash ^ mix(block))
                .rotate_left(13)
                .wrapping_mul(5)
                .wrapping_add(0xE654_6B64);
            block = 0;
        }
    }
    hash ^= mix(block) ^ count;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85EB_CA6B);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xC2B2_AE35);
    hash ^ (hash >> 16)
}
