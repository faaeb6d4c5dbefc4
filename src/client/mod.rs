//! The client.

/// The generated client stubs.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod stubs {
    include!(concat!(env!("OUT_DIR"), "/client/game.v1.rs"));
}
