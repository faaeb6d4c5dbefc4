//! What all commands that talk to a server have in common.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::client::{Client, ClientError, ConnectOptions};

/// Where the server is.
#[derive(Clone, Debug, Args)]
pub struct Server {
    /// The server, such as http://127.0.0.1:50051.
    #[arg(
        long,
        value_name = "URL",
        env = "HERALD_SERVER",
        default_value = "http://127.0.0.1:50051"
    )]
    pub server: String,
}

/// Where the server is, how long to wait for it, and how to show its answer.
#[derive(Clone, Debug, Args)]
pub struct Remote {
    #[command(flatten)]
    server: Server,
    /// How long to wait for a connection, and then for an answer, such as 5s or
    /// 500ms.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    timeout: Duration,
    /// Print JSON (the canonical proto3 form of the server's message).
    #[arg(long)]
    pub json: bool,
}

impl Remote {
    /// Connects to the server.
    pub async fn connect(&self) -> Result<Client, ClientError> {
        let options = ConnectOptions {
            connect_timeout: self.timeout,
            call_timeout: self.timeout,
            lazy: false,
        };
        Client::connect(&self.server.server, options).await
    }
}

/// Reads a length of time, such as `5s`, `500ms`, `1m 30s`, `7d` or `2w`; more than nothing. A
/// day has 24 hours.
pub fn duration(text: &str) -> anyhow::Result<Duration> {
    let span: Option<jiff::Span> = text.parse().ok();
    // Months and years have no length of their own.
    let span = span.and_then(|s| s.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok());
    let span = span.context("write it like 5s, 500ms, 1m 30s or 7d")?;
    let time = Duration::try_from(span).ok().filter(|time| !time.is_zero());
    time.context("must be more than nothing")
}
