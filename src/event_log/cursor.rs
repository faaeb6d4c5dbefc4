//! The cursor: a place in a log, as opaque text.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::{LogId, Position};
use crate::clock::Timestamp;

/// The version of the form below. Another first byte is another form.
const VERSION: u8 = 1;

/// The longest text that is looked at: a thousand partitions at their largest fit.
const MAX_TEXT_BYTES: usize = 16 * 1024;

/// A place in a log.
///
/// Its text is URL-safe base64 without padding over: the version (one byte), the
/// epoch (16 bytes), the time (milliseconds, as a variable-length integer), the
/// number of partitions and the next offset of each (variable-length integers: seven
/// bits a byte, lowest first, the high bit set on all but the last), and the CRC-32
/// of all that (four bytes, little endian). A place has exactly one text.
///
/// It grants nothing: anybody may make one up, and gets no more than by asking for
/// the whole feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The identity of the log.
    pub epoch: LogId,
    /// The next offset of each partition.
    pub position: Position,
    /// Everything up to about this time is behind the cursor; for people, and for
    /// finding the place again in another log. Never negative.
    pub time: Timestamp,
}

/// Why a text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorMalformed {
    /// Something was cut off, added or changed.
    #[error("the cursor is damaged; pass it on exactly as it was received")]
    Damaged,
    /// It was made by a newer version.
    #[error("the cursor has version {0}, which this server does not know")]
    Version(u8),
}

impl Cursor {
    /// The text.
    pub fn encode(&self) -> String {
        Self::of(self.epoch, &self.position, self.time)
    }

    /// The text of a place.
    pub fn of(epoch: LogId, position: &Position, time: Timestamp) -> String {
        let mut bytes = Vec::with_capacity(32 + 6 * position.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(epoch.0.as_bytes());
        put_varint(&mut bytes, u64::try_from(time.as_millis()).unwrap_or(0));
        put_varint(&mut bytes, position.len() as u64);
        for (_, offset) in position.iter() {
            put_varint(&mut bytes, offset);
        }
        let sum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a text.
    ///
    /// # Errors
    ///
    /// [`CursorMalformed`] for every text that [`Cursor::encode`] did not make.
    pub fn decode(text: &str) -> Result<Self, CursorMalformed> {
        const DAMAGED: CursorMalformed = CursorMalformed::Damaged;
        if text.len() > MAX_TEXT_BYTES {
            return Err(DAMAGED);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| DAMAGED)?;
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or(DAMAGED)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
            return Err(DAMAGED);
        }
        let (&version, rest) = body.split_first().ok_or(DAMAGED)?;
        if version != VERSION {
            return Err(CursorMalformed::Version(version));
        }
        let (epoch, mut rest) = rest.split_first_chunk::<16>().ok_or(DAMAGED)?;
        let time = take_varint(&mut rest).ok_or(DAMAGED)?;
        let partitions = take_varint(&mut rest).ok_or(DAMAGED)?;
        // Each takes a byte at least, which bounds what is allocated.
        if partitions > rest.len() as u64 {
            return Err(DAMAGED);
        }
        let position = (0..partitions)
            .map(|_| take_varint(&mut rest))
            .collect::<Option<Position>>()
            .ok_or(DAMAGED)?;
        if !rest.is_empty() || position.is_empty() {
            return Err(DAMAGED);
        }
        Ok(Self {
            epoch: LogId(Uuid::from_bytes(*epoch)),
            position,
            time: Timestamp::from_millis(i64::try_from(time).map_err(|_| DAMAGED)?),
        })
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes a variable-length integer in its only form off the front. Offsets and times
/// are below 2^63.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            // A last byte of zero would be a second form of the same number.
            return (byte != 0 || shift == 0).then_some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursor(offsets: Vec<u64>, time: i64) -> Cursor {
        Cursor {
            epoch: LogId(Uuid::from_u128(7)),
            position: offsets.into(),
            time: Timestamp::from_millis(time),
        }
    }

    #[test]
    fn the_text_is_what_it_always_was() {
        assert_eq!(
            cursor(vec![42, 300], 1_700_000_000_123).encode(),
            "AQAAAAAAAAAAAAAAAAAAAAf70JX_vDECKqwCz0EW1g"
        );
    }

    #[test]
    fn it_is_compact() {
        let text = cursor(vec![(1 << 40) - 1; 64], 1_700_000_000_123).encode();
        assert!(text.len() <= 1024, "{} bytes", text.len());
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = URL_SAFE_NO_PAD.decode(cursor(vec![1], 0).encode()).unwrap();
        bytes[0] = 9;
        let body = bytes.len() - 4;
        let sum = crc32fast::hash(&bytes[..body]);
        bytes[body..].copy_from_slice(&sum.to_le_bytes());
        let text = URL_SAFE_NO_PAD.encode(bytes);
        assert_eq!(Cursor::decode(&text), Err(CursorMalformed::Version(9)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            offsets in prop::collection::vec(0..1u64 << 62, 1..80),
            time in 0..i64::MAX,
        ) {
            let cursor = cursor(offsets, time);
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        }

        #[test]
        fn arbitrary_text_is_an_error_and_never_a_panic(text in ".{0,200}") {
            prop_assert!(Cursor::decode(&text).is_err());
        }

        /// With a check sum that fits, so that what is behind it is reached.
        #[test]
        fn arbitrary_bytes_have_one_form_or_none(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = body;
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
            let text = URL_SAFE_NO_PAD.encode(bytes);
            if let Ok(cursor) = Cursor::decode(&text) {
                prop_assert_eq!(cursor.encode(), text);
            }
        }

        #[test]
        fn any_change_is_noticed(at in 0usize..50, to in any::<u8>()) {
            let text = cursor(vec![42, 300], 1_700_000_000_123).encode();
            let mut changed = text.clone().into_bytes();
            let at = at % changed.len();
            changed[at] = to;
            if let Ok(changed) = String::from_utf8(changed) && changed != text {
                prop_assert!(Cursor::decode(&changed).is_err());
            }
        }
    }
}
