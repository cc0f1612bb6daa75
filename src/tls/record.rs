//! Pure: how far has a TLS record come? Follows the lengths of records (RFC 8446 5.1) as their bytes come off the socket, so that the
//! pump knows how many more bytes must arrive before a message can be whole.

/// Bytes of a record's header: type, version, length.
const HEADER: u8 = 5;
/// Least that protection adds to what a record carries: the tag of an AEAD (RFC 8446 5.2).
const TAG: u64 = 16;

/// The record in progress.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Records {
    /// Bytes of its header that are there; 0 between records.
    header: u8,
    /// The length that its header says, as far as it is there.
    length: u16,
    /// Bytes of its body that are still to come.
    left: u16,
}

impl Records {
    /// Follows what came off the socket.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) {
        while let [first, rest @ ..] = bytes {
            if self.left > 0 {
                let taken = bytes.len().min(usize::from(self.left));
                // `taken` is at most `left`, so it fits.
                self.left -= u16::try_from(taken).unwrap_or(self.left);
                bytes = &bytes[taken..];
                continue;
            }
            self.header += 1;
            self.length = self.length << 8 | u16::from(*first);
            if self.header == HEADER {
                (self.header, self.left) = (0, self.length);
            }
            bytes = rest;
        }
    }

    /// Fewest bytes that the socket must still receive before `plain` more bytes can be read, and no fewer than the record in progress
    /// lacks, of which nothing can be read before it is whole; at least 1. More may be needed, where the peer's records are short.
    pub(super) fn bytes_for(&self, plain: u64) -> u64 {
        if plain == 0 {
            let header = if self.header == 0 { 1 } else { HEADER - self.header };
            return if self.left > 0 { u64::from(self.left) } else { u64::from(header) };
        }
        let fresh = |plain: u64| u64::from(HEADER) + plain + TAG;
        if self.left == 0 {
            return fresh(plain) - u64::from(self.header);
        }
        let carries = u64::from(self.length).saturating_sub(TAG);
        let left = u64::from(self.left);
        if plain <= carries { left } else { left + fresh(plain - carries) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(plain: usize) -> Vec<u8> {
        let length = u16::try_from(plain + 17).expect("a record");
        let mut record = vec![23, 3, 3];
        record.extend(length.to_be_bytes());
        record.resize(5 + usize::from(length), 0xAB);
        record
    }

    #[test]
    fn a_message_of_one_record_is_never_asked_for_beyond_its_last_byte() {
        let record = record(10_000);
        for cut in 0..record.len() {
            let mut records = Records::default();
            records.advance(&record[..cut]);
            let asked = records.bytes_for(10_000);
            let left = (record.len() - cut) as u64;
            assert!(asked <= left && asked >= left.saturating_sub(1).max(1), "{cut}: asked {asked} of {left}");
        }
    }

    #[test]
    fn a_message_of_several_records_is_never_asked_for_beyond_its_last_byte() {
        let stream: Vec<u8> = [4_000, 1, 16_000, 300].into_iter().flat_map(record).collect();
        for cut in 0..stream.len() {
            let mut records = Records::default();
            stream[..cut].iter().for_each(|byte| records.advance(&[*byte]));
            // What the records that are whole have carried is no longer missing.
            let mut missing = 20_301;
            let mut at = 0;
            for plain in [4_000, 1, 16_000, 300_u64] {
                at += 22 + usize::try_from(plain).expect("small");
                if at <= cut {
                    missing -= plain;
                }
            }
            assert!(records.bytes_for(missing) <= (stream.len() - cut) as u64, "{cut}");
        }
    }

    #[test]
    fn between_records_nothing_is_left_over() {
        let mut records = Records::default();
        records.advance(&record(77));
        assert_eq!((records.header, records.left), (0, 0));
        assert_eq!(records.bytes_for(0), 1);
    }

    #[test]
    fn nothing_of_a_record_is_worth_a_wake_before_its_last_byte() {
        let record = record(4_096);
        for cut in 1..record.len() {
            let mut records = Records::default();
            records.advance(&record[..cut]);
            let end = if cut < usize::from(HEADER) { usize::from(HEADER) } else { record.len() };
            assert_eq!(records.bytes_for(0), (end - cut) as u64, "{cut}");
        }
    }
}
