//! Damage.

use fastrand::Rng;

/// Bytes that readers trip over: lengths at their limits, signs, ends of varints, quotes.
const TELLING: [&[u8]; 14] = [
    &[0],
    &[1],
    &[0x7f],
    &[0x80],
    &[0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xff, 0xff, 0xff, 0x7f],
    &[0, 0, 0, 0x80],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
    b"99999999999",
    b"-1",
    b"\"",
    b"{",
];

/// One of `seeds`, damaged in one to six places.
pub fn bytes(random: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut case = seeds[random.usize(..seeds.len())].clone();
    for _ in 0..random.usize(1..=6) {
        damage(random, &mut case, seeds);
    }
    case
}

/// [`bytes`] of what `inner` finds in a file, packed again by `outer`; one time in four the file itself.
pub fn beneath(
    random: &mut Rng,
    seeds: &[Vec<u8>],
    inner: impl Fn(&[u8]) -> Vec<Vec<u8>>,
    outer: impl Fn(&[Vec<u8>]) -> Vec<u8>,
) -> Vec<u8> {
    if random.u8(..4) == 0 {
        return bytes(random, seeds);
    }
    let mut parts = inner(&seeds[random.usize(..seeds.len())]);
    let others = parts.clone();
    for _ in 0..random.usize(1..=3) {
        if parts.is_empty() {
            break;
        }
        let part = random.usize(..parts.len());
        damage(random, &mut parts[part], &others);
    }
    outer(&parts)
}

fn damage(random: &mut Rng, case: &mut Vec<u8>, others: &[Vec<u8>]) {
    let place = |random: &mut Rng, case: &[u8]| random.usize(..=case.len());
    match random.u8(..8) {
        0 => case.truncate(place(random, case)),
        1 | 2 if !case.is_empty() => {
            let at = random.usize(..case.len());
            case[at] ^= 1 << random.u8(..8);
        }
        3 if !case.is_empty() => {
            let at = random.usize(..case.len());
            case[at] = random.u8(..);
        }
        4 => {
            // Over what is there, or between it.
            let telling = TELLING[random.usize(..TELLING.len())];
            let at = place(random, case);
            let end = if random.bool() {
                at
            } else {
                (at + telling.len()).min(case.len())
            };
            case.splice(at..end, telling.iter().copied());
        }
        5 => {
            let (a, b) = (place(random, case), place(random, case));
            let piece = case[a.min(b)..a.max(b)].to_vec();
            let at = place(random, case);
            case.splice(at..at, piece);
        }
        6 => {
            let (a, b) = (place(random, case), place(random, case));
            case.drain(a.min(b)..a.max(b));
        }
        _ => {
            let other = &others[random.usize(..others.len())];
            let from = random.usize(..=other.len());
            let at = place(random, case);
            case.truncate(at);
            case.extend_from_slice(&other[from..]);
        }
    }
    // Doubling again and again would make cases of the size of memory.
    case.truncate(1 << 20);
}
