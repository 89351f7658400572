//! Makes the checksums of a damaged snapshot right again, so that what lies behind them is tested. Knows the format from
//! `docs/reference/snapshot-format.md` only, and takes any bytes.

use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const HEADER: usize = 128;
const RECORD: usize = 48;

fn number(file: &[u8], at: usize, size: usize) -> Option<u64> {
    let mut word = [0; 8];
    word[..size].copy_from_slice(file.get(at..at.checked_add(size)?)?);
    Some(u64::from_le_bytes(word))
}

fn place(file: &[u8], at: usize) -> Option<usize> {
    number(file, at, 8)?.try_into().ok()
}

/// Puts the checksum of `what` at `at`.
fn seal(file: &mut [u8], at: usize, what: Range<usize>, seed: u64) -> Option<()> {
    let checksum = xxh3_64_with_seed(file.get(what)?, seed).to_le_bytes();
    file.get_mut(at..at.checked_add(8)?)?.copy_from_slice(&checksum);
    Some(())
}

/// The record that begins at `at` and ends by `end`; returns where it ends.
fn record(file: &mut [u8], at: usize, end: usize, id: u64) -> Option<usize> {
    let (key, value) = (number(file, at.checked_add(8)?, 4)?, number(file, at + 12, 4)?);
    let length = RECORD.checked_add(usize::try_from(key + value).ok()?)?;
    let after = at.checked_add(length.checked_next_multiple_of(8)?)?;
    let fits = at >= HEADER && after <= end.min(file.len());
    fits.then_some(())?;
    seal(file, at, at + 8..after, id.wrapping_add(at as u64))?;
    Some(after)
}

fn repair_all(file: &mut [u8]) -> Option<()> {
    let id = number(file, 16, 8)?;
    let end = HEADER.saturating_add(place(file, 72)?);
    // Those that lie one behind another, and, where a length lies, those that the index names.
    let mut at = HEADER;
    while let Some(next) = record(file, at, end, id) {
        at = next;
    }
    let (index, length) = (place(file, 80)?, place(file, 88)?);
    let index = index..index.saturating_add(length);
    if file.get(index.clone()).is_some() {
        for entry in index.clone().step_by(16) {
            if let Some(offset) = place(file, entry + 8) {
                record(file, offset, end, id);
            }
        }
        seal(file, 96, index, id);
    }
    seal(file, 120, 0..120, 0)
}

/// Recomputes every checksum that can be found; a file that is whole stays as it is.
pub(crate) fn repair(file: &mut [u8]) {
    // A part that cannot be found has no checksum to mend.
    let _ = repair_all(file);
}
