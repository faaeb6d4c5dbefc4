//! The few things of the wire format that the export does by hand.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::columns::Malformed;

/// Calls `each` with the number and the value of each field of a message that is text, bytes
/// or a message.
pub(super) fn each_bytes<'a>(
    mut message: &'a [u8],
    mut each: impl FnMut(u32, &'a [u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !message.is_empty() {
        match decode_key(&mut message)? {
            (number, WireType::LengthDelimited) => {
                let length =
                    usize::try_from(decode_varint(&mut message)?).map_err(|_| Malformed)?;
                let (value, rest) = message.split_at_checked(length).ok_or(Malformed)?;
                message = rest;
                each(number, value)?;
            }
            (number, wire_type) => {
                skip_field(wire_type, number, &mut message, DecodeContext::default())?;
            }
        }
    }
    Ok(())
}

/// A message without one of its fields.
pub(super) fn without(message: &[u8], left_out: u32) -> Result<Vec<u8>, Malformed> {
    let mut kept = Vec::with_capacity(message.len());
    let mut rest = message;
    while !rest.is_empty() {
        let begin = message.len() - rest.len();
        let (number, wire_type) = decode_key(&mut rest)?;
        skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
        if number != left_out {
            kept.extend_from_slice(&message[begin..message.len() - rest.len()]);
        }
    }
    Ok(kept)
}
