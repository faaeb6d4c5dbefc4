//! The generated messages of `proto/game.proto` and their descriptor set.
//!
//! A leaf: plain data that any room may use. The stubs are elsewhere, the
//! server's in `grpc`, the client's in `client`.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

include!(concat!(env!("OUT_DIR"), "/messages/game.v1.rs"));

/// The encoded `FileDescriptorSet` of `game.proto` and all that it imports,
/// with comments.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));
