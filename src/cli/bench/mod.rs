//! `herald bench`: how fast a server is, measured side by side with a yardstick
//! in the same run.
//!
//! [`mod@write`] is the measurement, [`load`] one round of it over [`wire`],
//! [`payload`] what is sent, [`tally`] what came of it, [`report`] how that is
//! shown. [`echo`] is the yardstick: a bare tonic server that writes nothing.
//!
//! [`fanout`] measures the live feed: [`subscribers`] read it by [`stream`],
//! [`deliveries`] knows who is to get what, [`fanout_report`] shows it.
//! [`replay`] measures one subscriber that reads all that was ever written, which
//! [`fill`] has done, beside [`consumer`], which only counts.

mod child;
mod consumer;
mod deliveries;
mod echo;
mod fanout;
mod fanout_report;
mod fill;
mod load;
mod machine;
mod payload;
mod replay;
mod report;
mod stream;
mod subscribers;
mod tally;
mod wire;
mod write;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::exit::Exit;
use super::output::Output;

/// Arguments of `herald bench`.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send purchases as fast as a server takes them.
    ///
    /// The players and their purchases stay in the server's log: use a server
    /// for it that nobody plays on, or --spawn.
    Write(write::Write),
    /// Deliver events to many subscribers, and measure what that costs and takes.
    ///
    /// Fails when an event was lost or came twice. The events stay in the server's
    /// log: use a server for it that nobody plays on, or --spawn.
    Fanout(fanout::Fanout),
    /// Read everything as one subscriber; on Kafka beside a bare librdkafka consumer.
    ///
    /// Starts a server of its own for it.
    Replay(replay::Replay),
    /// Fill a log with purchases, as fast as it takes them; nobody may serve it meanwhile.
    Fill(fill::Fill),
    /// Serve PurchaseItem with plain tonic and write nothing: the yardstick.
    Echo(echo::Echo),
}

impl Bench {
    /// Measures, or serves to be measured.
    pub fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        match self.command {
            Command::Write(write) => super::block_on(write.run(output)),
            Command::Fanout(fanout) => super::block_on(fanout.run(output)),
            Command::Replay(replay) => super::block_on(replay.run(output)),
            Command::Fill(fill) => super::block_on(fill.run(output)),
            Command::Echo(echo) => echo.run(output),
        }
    }
}

/// What was measured, unless a signal came first. That is awaited here, so that the servers
/// that were started for a measurement end with it.
async fn until_signalled<T>(
    output: &mut Output,
    measuring: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Result<T, Exit>> {
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot await signals")?;
    let mut terminated = signal(SignalKind::terminate()).context("cannot await signals")?;
    if cfg!(debug_assertions) {
        output.note("this is a debug build, its numbers say little");
    }
    Ok(tokio::select! {
        measured = measuring => Ok(measured?),
        _ = interrupted.recv() => Err(Exit::Interrupted),
        _ = terminated.recv() => Err(Exit::Terminated),
    })
}
