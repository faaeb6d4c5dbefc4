//! The purchases that are sent: encoded once, then only patched.
//!
//! The client shares the machine with the server that it measures, so a call
//! must cost it as little as possible.

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{encode_varint, encoded_len_varint};
use uuid::Uuid;

use crate::proto::PurchaseItemRequest;

/// What is called.
pub const PATH: &str = "/game.v1.GameService/PurchaseItem";

/// The largest quantity that the schema allows.
const LARGEST_QUANTITY: u64 = 1_000_000;

/// The most players of one run: their ids have one length, six digits in it.
pub const MOST_PLAYERS: u64 = 1_000_000;

/// Of each message in gRPC: one byte of flags, four of length.
pub const FRAME_HEADER_BYTES: usize = 5;

/// Where the digits of "bench-xxxxxxxx-nnnnnn" are.
const PLAYER_DIGITS_AT: usize = 15;
const PLAYER_DIGITS: usize = 6;

/// The tag of `quantity`, field 6 with a varint.
const QUANTITY_TAG: u8 = 6 << 3;

/// One purchase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which of all calls of the run it is; makes the request id.
    pub number: u64,
    /// Which player buys; counts from 0.
    pub player: u64,
    /// Which of the player's purchases it is; counts from 1, and is the quantity
    /// that is bought (from 1 again after 1,000,000).
    pub sequence: u64,
}

impl Call {
    fn quantity(self) -> u64 {
        (self.sequence - 1) % LARGEST_QUANTITY + 1
    }
}

/// Makes the requests of one round. No two rounds share a player or a request id.
#[derive(Clone, Debug)]
pub struct Payload {
    round: [u8; 8],
    /// A framed request without its quantity, which comes last.
    template: Vec<u8>,
    request_id_at: usize,
    player_id_at: usize,
}

impl Payload {
    /// Purchases of `item` by the players of a new round.
    pub fn new(item: &str) -> Self {
        let mut round = [0; 8];
        round.copy_from_slice(&Uuid::new_v4().into_bytes()[..8]);
        let mut payload = Self {
            round,
            template: Vec::new(),
            request_id_at: FRAME_HEADER_BYTES + 2,
            player_id_at: 0,
        };
        let request = PurchaseItemRequest {
            request_id: payload.request_id(0).hyphenated().to_string(),
            player_id: payload.player_id(0),
            item_id: item.to_owned(),
            ..Default::default()
        };
        payload.player_id_at = payload.request_id_at + request.request_id.len() + 2;
        payload.template = vec![0; FRAME_HEADER_BYTES];
        payload.template.extend(request.encode_to_vec());
        payload
    }

    /// The request id of a call.
    pub fn request_id(&self, number: u64) -> Uuid {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.round);
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// The id of a player.
    pub fn player_id(&self, player: u64) -> String {
        let [a, b, c, d, ..] = self.round;
        format!("bench-{:08x}-{player:06}", u32::from_be_bytes([a, b, c, d]))
    }

    /// Which player of this round has the id; none of others.
    pub fn player(&self, id: &[u8]) -> Option<u64> {
        let (beginning, digits) = id.split_at_checked(PLAYER_DIGITS_AT)?;
        let own = &self.template[self.player_id_at..self.player_id_at + PLAYER_DIGITS_AT];
        if beginning != own || digits.len() != PLAYER_DIGITS {
            return None;
        }
        digits.iter().try_fold(0, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
        })
    }

    /// A call as one framed gRPC message.
    pub fn frame(&self, call: Call) -> Bytes {
        let quantity = call.quantity();
        let length = self.template.len() + 1 + encoded_len_varint(quantity);
        let mut frame = Vec::with_capacity(length);
        frame.extend_from_slice(&self.template);
        frame.push(QUANTITY_TAG);
        encode_varint(quantity, &mut frame);
        let message = u32::try_from(frame.len() - FRAME_HEADER_BYTES).unwrap_or(u32::MAX);
        frame[1..FRAME_HEADER_BYTES].copy_from_slice(&message.to_be_bytes());
        let request_id = &mut frame[self.request_id_at..self.request_id_at + 36];
        self.request_id(call.number).hyphenated().encode_lower(request_id);
        let digits = self.player_id_at + PLAYER_DIGITS_AT;
        let mut rest = call.player;
        for digit in frame[digits..digits + PLAYER_DIGITS].iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
        }
        Bytes::from(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patched_frame_is_the_request_that_it_should_be() {
        let payload = Payload::new("sword");
        for (number, player, sequence) in
            [(0, 0, 1), (7, 42, 300), (u64::from(u32::MAX), MOST_PLAYERS - 1, LARGEST_QUANTITY)]
        {
            let frame = payload.frame(Call { number, player, sequence });
            let length = u32::from_be_bytes(frame[1..5].try_into().unwrap());
            assert_eq!((frame[0], length as usize), (0, frame.len() - FRAME_HEADER_BYTES));
            let request = PurchaseItemRequest::decode(&frame[FRAME_HEADER_BYTES..]).unwrap();
            let expected = PurchaseItemRequest {
                request_id: payload.request_id(number).to_string(),
                player_id: payload.player_id(player),
                item_id: "sword".to_owned(),
                quantity: Some(i32::try_from(sequence).unwrap()),
                ..Default::default()
            };
            assert_eq!(request, expected);
            assert_eq!(payload.player(expected.player_id.as_bytes()), Some(player));
            assert_eq!(Payload::new("sword").player(expected.player_id.as_bytes()), None);
        }
        assert_eq!(payload.player(b"alice"), None);
        let again = Call { number: 1, player: 1, sequence: LARGEST_QUANTITY + 1 };
        assert_eq!(again.quantity(), 1);
    }
}
