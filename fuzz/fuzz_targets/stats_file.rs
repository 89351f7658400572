//! A stats file of any bytes, with repaired checksums: it is read, or refused with a reason.
#![no_main]

use hotset::stats_file::parse;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

const HEADER: usize = 4096;
const SLOT_HEADER: usize = 128;
const RECORD: usize = 2048;
const RECORDS: usize = 2;
/// The size of a slot with 256 records, as every file of version 1 has it.
const SLOT: usize = SLOT_HEADER + 256 * RECORD;

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fuzz_target!(|input: &[u8]| {
    _ = parse(Path::new("raw"), input);
    // The input is the first bytes of the header, then a slot; what it lacks is valid.
    let mut bytes = vec![0; HEADER + SLOT_HEADER + RECORDS * RECORD];
    let sizes = [1, HEADER, SLOT, SLOT_HEADER, RECORD, 256, 3].map(|size| size as u32);
    bytes[..8].copy_from_slice(b"HOTSTAT\0");
    (0..sizes.len()).for_each(|n| put(&mut bytes, 8 + 4 * n, sizes[n]));
    put(&mut bytes, HEADER + 4, (SLOT_HEADER + RECORDS * RECORD) as u32);
    put(&mut bytes, HEADER + 8, 2);
    put(&mut bytes, HEADER + 32, RECORDS as u32);
    let (header, slot) = input.split_at(input.len().min(256));
    header.iter().enumerate().for_each(|(at, byte)| bytes[at] ^= byte);
    let room = bytes.len() - HEADER;
    let slot = slot.iter().take(room).enumerate();
    slot.for_each(|(at, byte)| bytes[HEADER + at] ^= byte);
    let sum = crc32fast::hash(&bytes[..508]);
    put(&mut bytes, 508, sum);
    let length = u32::from_le_bytes(bytes[HEADER + 4..HEADER + 8].try_into().unwrap()) as usize;
    if let Some(sealed) = bytes[HEADER..].get(4..length) {
        let sum = crc32fast::hash(sealed);
        put(&mut bytes, HEADER, sum);
    }
    if let Ok(process) = parse(Path::new("repaired"), &bytes) {
        assert!(process.caches.len() <= RECORDS);
        for cache in process.caches {
            assert!(cache.name.len() <= 3 * 256 && cache.samples.len() <= 60);
            assert!(cache.curve.iter().all(|point| (0.0..=1.0).contains(&point.hit_ratio)));
        }
    }
});
