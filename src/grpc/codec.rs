//! The codec of the server's stubs: prost, with Herald's own answer to bytes that are
//! no message (tonic's would be INTERNAL, as if the server were at fault), and with small
//! buffers.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::status;

/// What a call's buffers begin with, and grow by: most requests and receipts fit. tonic's
/// own 8 KiB for each would be held by every answer until it is sent.
const BUFFER_BYTES: usize = 512;

/// At how many bytes a stream's messages that wait are sent as one; tonic's default.
const YIELD_BYTES: usize = 32 * 1024;

/// Encodes `T` and decodes `U`.
#[derive(Debug)]
pub struct ServerCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for ServerCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for ServerCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ServerEncoder<T>;
    type Decoder = ServerDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ServerEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ServerDecoder(PhantomData)
    }
}

/// Encodes `T`.
#[derive(Debug)]
pub struct ServerEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for ServerEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode_raw(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

/// Decodes `U`.
#[derive(Debug)]
pub struct ServerDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for ServerDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(bytes).map(Some).map_err(|error| status::malformed(&error.to_string()))
    }
    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}
