//! Herald, a game event service.
//!
//! `docs/architecture.md` is the map: which room does what, what it promises,
//! and which way the arrows point.

pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod event_log;
pub mod proto;
pub mod tasks;
