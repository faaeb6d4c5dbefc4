//! `herald topic`: the topic in Kafka, without a server.
//!
//! [`describe`] shows it, [`verdict`] says whether it is fit to be Herald's log.

mod describe;
pub mod verdict;

use clap::{Args, Subcommand};

#[cfg(feature = "export")]
pub use self::describe::explain;
pub use self::describe::{advice, records};
use super::exit::Exit;
use super::output::Output;

/// Arguments of `herald topic`.
#[derive(Debug, Args)]
pub struct Topic {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the topic, and whether it is fit to be Herald's log.
    ///
    /// Changes nothing; a topic that is missing stays missing.
    #[command(after_help = describe::EXIT_CODES)]
    Describe(describe::Describe),
}

impl Topic {
    /// Looks at the topic.
    pub fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        match self.command {
            Command::Describe(describe) => describe.run(output),
        }
    }
}
