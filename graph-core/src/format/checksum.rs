//! The checksum of event files and checkpoints: CRC-32C (Castagnoli), masked.
//!
//! The mask keeps a checksum that is itself part of checksummed data from cancelling out.

const MASK_DELTA: u32 = 0xa282_ead8;

/// The masked CRC-32C of `data`.
pub fn masked_crc32c(data: &[u8]) -> u32 {
    mask(crc32c::crc32c(data))
}

/// Masks a CRC-32C for storage.
pub fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(MASK_DELTA)
}

/// The CRC-32C behind a masked one.
pub fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(MASK_DELTA).rotate_left(15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_vectors() {
        // RFC 3720, section B.4.
        assert_eq!(unmask(masked_crc32c(&[0; 32])), 0x8a91_36aa);
        assert_eq!(unmask(masked_crc32c(&[0xff; 32])), 0x62a8_ab43);
        assert_eq!(unmask(masked_crc32c(b"123456789")), 0xe306_9283);
        assert_eq!(masked_crc32c(b""), MASK_DELTA);
    }

    #[test]
    fn unmask_undoes_mask() {
        for crc in [0, 1, 0xffff_ffff, 0x1234_5678] {
            assert_eq!(unmask(mask(crc)), crc);
            assert_ne!(mask(crc), crc);
        }
    }
}
