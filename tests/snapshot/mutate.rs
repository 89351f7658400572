//! Corruption of files, as by disks, copies and attackers.

use super::common::Random;

/// Numbers that are deceptive as lengths, counts and offsets.
const LIES: [u64; 14] = [
    0,
    1,
    7,
    64,
    255,
    4_096,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff8,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    u64::MAX - 7,
    u64::MAX,
];

/// Corrupts `file` in one way; `other` is a source of pieces.
pub(crate) fn mutate(file: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let len = file.len();
    if len == 0 {
        file.extend(&other[..random.below(other.len() + 1)]);
        return;
    }
    let at = random.below(len);
    match random.below(12) {
        0..3 => file[at] ^= 1 << random.below(8),
        3 => file[at] = random.next() as u8,
        4 => file.truncate(at),
        // A number at a place where one of that size may be.
        5..8 => {
            let size = [2, 4, 8][random.below(3)];
            let at = at / size * size;
            let lie = if random.below(4) == 0 {
                // Near the right number: one more, one less; or the file's own length.
                let mut word = [0; 8];
                let part = &file[at..len.min(at + size)];
                word[..part.len()].copy_from_slice(part);
                [1, u64::MAX, 8, len as u64][random.below(4)].wrapping_add(u64::from_le_bytes(word))
            } else {
                LIES[random.below(LIES.len())]
            };
            let end = len.min(at + size);
            file[at..end].copy_from_slice(&lie.to_le_bytes()[..end - at]);
        }
        // Replaces a piece by one of the other file, of the same file, or by nothing.
        8 => {
            let from = random.below(other.len().max(1)).min(other.len());
            let piece = &other[from..other.len().min(from + 1 + random.below(80))];
            let end = len.min(at + piece.len());
            file[at..end].copy_from_slice(&piece[..end - at]);
        }
        9 => {
            let size = 1 + random.below(len.min(64));
            let (from, to) = (random.below(len - size + 1), random.below(len - size + 1));
            file.copy_within(from..from + size, to);
        }
        10 => {
            let end = len.min(at + 1 + random.below(40));
            file.drain(at..end);
        }
        // The head of one file and the tail of the other; or extra bytes.
        _ => {
            if random.below(2) == 0 {
                file.truncate(at);
                file.extend(&other[at.min(other.len())..]);
            } else {
                let more = 1 + random.below(64);
                file.extend(std::iter::repeat_with(|| random.next() as u8).take(more));
            }
        }
    }
}
