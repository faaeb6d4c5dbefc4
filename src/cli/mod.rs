//! The command line: the only room that prints.
//!
//! Data goes to stdout and all else to stderr ([`output`]); what a command ends
//! with is in [`exit`]. A command is a struct of arguments and a `run` that
//! returns an [`Exit`] or an error; the errors are put into words here.

mod actions;
mod bench;
mod doctor;
mod exit;
#[cfg(feature = "export")]
mod export;
#[cfg(not(feature = "export"))]
#[path = "no_export.rs"]
mod export;
mod json;
#[cfg(all(test, feature = "export"))]
#[allow(dead_code)]
mod no_export;
mod output;
mod players;
mod remote;
mod schema;
mod serve;
mod signals;
mod tail;
mod topic;
mod words;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::exit::Exit;
use self::output::Output;
use crate::config::Settings;
use crate::event_log::kafka;

/// Herald, a game event service: typed actions in, a durable log and a live feed
/// out.
///
/// Without a command, or with flags only, it serves: `herald --flag` is
/// `herald serve --flag`.
#[derive(Debug, Parser)]
#[command(name = "herald", version, override_usage = "herald [COMMAND]", after_help = exit::HELP, subcommand_required = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the default).
    Serve(Box<Settings>),
    /// Buy an item for a player.
    #[command(after_help = exit::HELP)]
    Purchase(actions::Purchase),
    /// Give a player some of an item for nothing.
    #[command(after_help = exit::HELP)]
    Grant(actions::Grant),
    /// Use up some of an item of a player's.
    #[command(after_help = exit::HELP)]
    Consume(actions::Consume),
    /// Take back a purchase of a player's.
    #[command(after_help = exit::HELP)]
    Refund(actions::Refund),
    /// Make a player a member of a guild.
    #[command(after_help = exit::HELP)]
    Join(actions::Join),
    /// End a player's membership in a guild.
    #[command(after_help = exit::HELP)]
    Leave(actions::Leave),
    /// Start a play session of a player.
    #[command(after_help = exit::HELP)]
    Session(actions::Session),
    /// Show the receipt of an action, by its request id.
    #[command(after_help = exit::HELP)]
    Receipt(actions::Receipt),
    /// Show what a player has.
    #[command(after_help = exit::HELP)]
    Player(players::Player),
    /// Show who is in a guild, one player a line.
    #[command(after_help = exit::HELP)]
    Guild(players::Guild),
    /// Show what can be bought and which guilds can be joined.
    #[command(after_help = exit::HELP)]
    Catalog(actions::Catalog),
    /// Show events as they happen, one line each.
    #[command(after_help = exit::HELP)]
    Tail(tail::Tail),
    /// Print what is needed to read the events elsewhere: the schema, in several forms.
    #[command(after_help = exit::HELP)]
    Schema(schema::Schema),
    /// Write events to files: Parquet or lines of JSON, on disk, in S3 or in HDFS.
    #[command(after_help = exit::HELP)]
    Export(Box<export::Export>),
    /// Check that everything is all right, from the settings to an event read back.
    ///
    /// It starts a server with the settings given, on a port that nobody knows, and uses it
    /// as a client would; or it examines one that runs, with --server. Unless --no-write is
    /// given it writes one real event, which stays in the log: the start of a session of the
    /// player "herald-doctor". It makes no topic. Data goes to stdout, the lines of its own
    /// server to stderr.
    #[command(after_help = doctor::EXIT_CODES)]
    Doctor(Box<doctor::Doctor>),
    /// Look at the topic in Kafka.
    Topic(topic::Topic),
    /// Measure a server.
    Bench(bench::Bench),
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    let arguments = parse(default_to_serve(std::env::args_os())).unwrap_or_else(|e| e.exit());
    let mut output = Output::new();
    let result = run(arguments.command, &mut output).and_then(|exit| {
        output.flush()?;
        Ok(exit)
    });
    kafka::wait_for_clients();
    result
        .unwrap_or_else(|error| {
            let exit = Exit::of(&error);
            if exit != Exit::Done {
                for line in exit::describe(&error) {
                    output.note(&line);
                }
            }
            exit
        })
        .into()
}

/// The command that reads one log of possibly two.
const EXPORT: &str = "export";

/// Reads a command line.
fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let mut command = Arguments::command();
    let mut matches = command.try_get_matches_from_mut(words)?;
    if matches.subcommand().is_some_and(|(name, of)| name == EXPORT && names_two_logs(of)) {
        let both = "--data-dir is for the embedded log and --kafka-brokers for one in Kafka; name \
                    one of them";
        return Err(command.error(ErrorKind::ArgumentConflict, both));
    }
    Arguments::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Whether the command line itself names both logs. A server takes the one in Kafka then; of who
/// exports one of two it cannot be told which. What the environment says is for all commands, and
/// of no matter where the other one is given.
fn names_two_logs(command: &ArgMatches) -> bool {
    ["data_dir", "kafka_brokers"].into_iter().all(|flag| {
        // Most commands know neither.
        let values = command.try_get_raw(flag).ok().flatten();
        values.is_some_and(|mut values| values.any(|value| !value.is_empty()))
            && command.value_source(flag) == Some(ValueSource::CommandLine)
    })
}

fn run(command: Command, output: &mut Output) -> anyhow::Result<Exit> {
    match command {
        Command::Serve(settings) => serve::run(&settings, output),
        Command::Purchase(purchase) => block_on(purchase.run(output)),
        Command::Grant(grant) => block_on(grant.run(output)),
        Command::Consume(consume) => block_on(consume.run(output)),
        Command::Refund(refund) => block_on(refund.run(output)),
        Command::Join(join) => block_on(join.run(output)),
        Command::Leave(leave) => block_on(leave.run(output)),
        Command::Session(session) => block_on(session.run(output)),
        Command::Receipt(receipt) => block_on(receipt.run(output)),
        Command::Player(player) => block_on(player.run(output)),
        Command::Guild(guild) => block_on(guild.run(output)),
        Command::Catalog(catalog) => block_on(catalog.run(output)),
        Command::Tail(tail) => block_on(tail.run(output)),
        Command::Schema(schema) => schema.run(output),
        Command::Export(export) => export.run(output),
        Command::Doctor(doctor) => doctor.run(output),
        Command::Topic(topic) => topic.run(output),
        Command::Bench(bench) => bench.run(output),
    }
}

/// Runs a client's work; one thread is enough for it.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let done = runtime.block_on(work);
    // Looking up a name may hang, and is waited for otherwise.
    runtime.shutdown_background();
    done
}

/// Puts `serve` in front of arguments that name no command.
fn default_to_serve(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<_> = arguments.into_iter().collect();
    let names_none = arguments.get(1).is_none_or(|first| {
        first.as_encoded_bytes().starts_with(b"-")
            && !["-h", "--help", "-V", "--version"].iter().any(|known| first == known)
    });
    if names_none {
        arguments.insert(arguments.len().min(1), "serve".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn an_export_is_of_one_log() {
        let parse = |line: &str| parse(line.split(' ').map(OsString::from)).map(drop);
        parse("herald serve --data-dir d --kafka-brokers k:1").unwrap();
        if cfg!(feature = "export") {
            let line = "herald export --out x --data-dir d";
            parse(line).unwrap();
            parse(&format!("{line} --kafka-brokers=")).unwrap();
            let error = parse(&format!("{line} --kafka-brokers k:1")).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("name one of them"), "{error}");
        }
    }

    #[test]
    fn flags_alone_are_for_serve() {
        for (given, expected) in [
            ("herald", "herald serve"),
            ("herald --listen x", "herald serve --listen x"),
            ("herald --help", "herald --help"),
            ("herald -V", "herald -V"),
            ("herald tail --json", "herald tail --json"),
            ("herald help", "herald help"),
        ] {
            let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
            assert_eq!(default_to_serve(words(given)), words(expected));
        }
    }
}
