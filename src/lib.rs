//! Herald, a game event service.
//!
//! `docs/architecture.md` is the map: which room does what, what it promises,
//! and which way the arrows point.

pub mod cli;
pub mod client;
pub mod clock;
pub mod commands;
pub mod config;
pub mod domain;
pub mod durable;
pub mod event_log;
#[cfg(feature = "export")]
pub mod export;
pub mod feed;
pub mod grpc;
pub mod history;
pub mod http;
pub mod players;
pub mod proto;
pub mod server;
pub mod tasks;
pub mod telemetry;
