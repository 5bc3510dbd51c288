//! AWS's unit of metering.

/// AWS IoT Core meters messages in units of 5 KB: of 5 KiB, by its own worked examples.
pub const UNIT_BYTES: usize = 5 * 1024;

/// What a message of so many bytes of topic and payload costs.
pub fn units(bytes: usize) -> u64 {
    units_of(bytes, UNIT_BYTES)
}

/// The same for what has a unit of its own: operations on shadows and the registry are billed by the KiB.
pub fn units_of(bytes: usize, unit_bytes: usize) -> u64 {
    bytes.div_ceil(unit_bytes).max(1) as u64
}

/// How many bytes more would still cost the same.
pub fn spare(bytes: usize) -> usize {
    bytes.max(1).next_multiple_of(UNIT_BYTES) - bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_costs_its_size_rounded_up_and_at_least_one() {
        let cases = [(5120, 1), (5121, 2), (0, 1), (10_240, 2)];
        for (bytes, expected) in cases {
            assert_eq!(units(bytes), expected, "{bytes} bytes");
            assert_eq!(units(bytes + spare(bytes)), expected, "{bytes} bytes");
            assert_eq!(units(bytes + spare(bytes) + 1), expected + 1, "{bytes} bytes");
        }
    }
}
