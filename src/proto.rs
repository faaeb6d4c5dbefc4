//! The generated messages of `proto/game.proto` and their descriptor set.
//!
//! A leaf: plain data that any room may use. The stubs are elsewhere, the
//! server's in `grpc`, the client's in `client`.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

include!(concat!(env!("OUT_DIR"), "/messages/game.v1.rs"));

/// `game.proto` itself.
pub const SOURCE: &str = include_str!("../proto/game.proto");

/// The encoded `FileDescriptorSet` of `game.proto` and all that it imports, each file behind
/// those that it imports, with comments.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));
