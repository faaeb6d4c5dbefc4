//! `herald export`: from the log to files that every data tool reads.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use indicatif::{
    HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::interval;

use super::exit::{Exit, UsageError};
use super::output::Output;
use super::remote::duration;
use super::signals::Signals;
use super::tail::From;
use super::topic;
use super::words::printable;
use crate::clock::{Clock, Timestamp};
use crate::config::{LogOptions, LogSettings, bytes};
use crate::domain::Violations;
use crate::event_log::kafka::{self, DescribeError, KafkaLog, describe_topic};
use crate::event_log::{Cursor, EventLog, ReadError, local};
use crate::export::{
    self, Compression, Expired, ExportError, Format, Key, Layout, MAX_S3_FILE_SIZE, MIN_FILE_SIZE,
    Mode, Options, Origins, Place, Progress, S3Settings, Summary, Target,
};
use crate::feed::Filter;
use crate::proto::EventFilter;
use crate::telemetry::{self, Telemetry};

/// How often the progress is drawn.
const DRAWN_EVERY: Duration = Duration::from_millis(200);

/// The variables with which object stores are configured, as other tools read them.
const S3_VARIABLES: &str = "AWS_";

/// Arguments of `herald export`.
#[derive(Debug, Args)]
#[command(
    mut_arg("data_dir", |arg| arg.help("The folder of the embedded log, also while a server has it open")),
    mut_arg("topic", |arg| arg.help("The topic")),
    mut_arg("retention_age", |arg| arg.hide(true)),
    mut_arg("retention_bytes", |arg| arg.hide(true)),
    mut_arg("key_partitions", |arg| arg.hide(true)),
    mut_arg("topic_replication_factor", |arg| arg.hide(true)),
    mut_arg("topic_min_insync_replicas", |arg| arg.hide(true))
)]
pub struct Export {
    /// Where to: a folder, s3://BUCKET/PREFIX or hdfs://HOST:PORT/FOLDER. A store that speaks
    /// S3 is configured by the usual variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
    /// AWS_REGION, AWS_ENDPOINT_URL.
    #[arg(long, value_name = "WHERE")]
    out: Target,
    /// Where to start: earliest, now, behind a cursor, at a time such as
    /// 2026-11-21T10:00:00Z, or so long ago, such as 15m, 2h or 7d. Of no matter where the cursor
    /// file holds a cursor.
    #[arg(long, value_name = "earliest|now|CURSOR|TIME", default_value = "earliest")]
    from: From,
    /// Where to end, in the same forms; now is the end that the log has at the start.
    #[arg(long, value_name = "now|CURSOR|TIME", default_value = "now")]
    to: From,
    /// Go on with new events until told to stop.
    #[arg(long, requires = "cursor_file", conflicts_with = "to")]
    follow: bool,
    /// Start behind the cursor in this file, and keep in it the cursor behind what is in the
    /// files: each run goes on where the last one ended, and one that is killed at any moment
    /// loses no row and doubles none.
    #[arg(long, value_name = "PATH")]
    cursor_file: Option<PathBuf>,
    /// What to do when retention has removed events behind the cursor: give up, or go on from
    /// the oldest event there is.
    #[arg(long, value_name = "WHAT", default_value = "fail")]
    if_expired: IfExpired,
    /// Only events of this type, such as item_purchased; can be repeated.
    #[arg(long = "type", value_name = "TYPE", help_heading = "Which events")]
    types: Vec<String>,
    /// Only events of this player; can be repeated.
    #[arg(long = "player", value_name = "ID", help_heading = "Which events")]
    players: Vec<String>,
    /// Only events that name this guild; can be repeated.
    #[arg(long = "guild", value_name = "ID", help_heading = "Which events")]
    guilds: Vec<String>,
    /// Without what is private: the request id, headers, address and client of each event.
    #[arg(long, help_heading = "Which events")]
    no_origin: bool,
    /// What files are made of.
    #[arg(long, value_name = "FORMAT", default_value = "parquet", help_heading = "Files")]
    format: FormatArg,
    /// How they are compressed; snappy in Parquet and none in lines of JSON, when absent.
    #[arg(long, value_name = "HOW", help_heading = "Files")]
    compression: Option<CompressionArg>,
    /// Folders by day and type, or all files in one.
    #[arg(long, value_name = "LAYOUT", default_value = "hive", help_heading = "Files")]
    layout: LayoutArg,
    /// One folder for each value instead: by type, or for each --player or --guild.
    #[arg(long, value_name = "KEY", conflicts_with = "layout", help_heading = "Files")]
    split_by: Option<KeyArg>,
    /// What to do with files that are there: error, append or overwrite; append with a cursor
    /// file and error without one, when absent. Only files that an export wrote are overwritten.
    /// Once the cursor file holds a cursor, files are expected, and error is as append.
    #[arg(long, value_name = "MODE", help_heading = "Files")]
    mode: Option<ModeArg>,
    /// How long a file gets, about; 1MiB at the least, and in S3 64GiB at the most.
    #[arg(long, value_name = "SIZE", default_value = "128MiB", help_heading = "Files", value_parser = file_size)]
    file_size: u64,
    /// With --follow: after how long events are in files that readers see, at the latest.
    #[arg(long, value_name = "TIME", default_value = "60s", help_heading = "Files", value_parser = duration)]
    file_age: Duration,
    /// Print what came of it as JSON, to stdout.
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    log: LogSettings,
}

/// What becomes of an export whose cursor is older than the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum IfExpired {
    /// It ends.
    Fail,
    /// It goes on from the oldest event.
    Earliest,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    /// Apache Parquet.
    Parquet,
    /// One event a line, as `herald tail --json` prints it.
    Jsonl,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CompressionArg {
    /// Little work.
    Snappy,
    /// Smaller.
    Zstd,
    /// Not at all.
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LayoutArg {
    /// date=2026-11-29/event_type=item_purchased, by the day in UTC of the append time.
    Hive,
    /// All files in one folder.
    Flat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KeyArg {
    /// event_type=item_purchased.
    Type,
    /// player_id=alice.
    Player,
    /// guild_id=mascots.
    Guild,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// There may be none.
    Error,
    /// They stay.
    Append,
    /// They are replaced at the end.
    Overwrite,
}

/// What came of it, as JSON.
#[derive(Debug, Serialize)]
struct Report<'a> {
    events: u64,
    files: u64,
    bytes: u64,
    duplicates: u64,
    foreign: u64,
    missing: u64,
    cursor: &'a str,
    seconds: f64,
    interrupted: bool,
}

impl Export {
    /// Exports.
    pub fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let log = match self.log.load_alone() {
            Ok(log) => log,
            Err(error) => {
                error.0.iter().for_each(|problem| output.note(problem));
                return Ok(Exit::Usage);
            }
        };
        let options = self.options()?;
        // What the log has to say while it is read: that brokers are gone, say.
        let _telemetry = Telemetry::install(telemetry::Options {
            format: telemetry::Format::Text,
            colour: false,
            filter: "warn".to_owned(),
            access_lines: false,
        })
        .map_err(anyhow::Error::msg)?;
        // One thread reads, and another one is there for what is sent to a store meanwhile.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let done = runtime.block_on(async {
            let mut signals = Signals::listen().context("cannot await signals")?;
            let (stop, stopped) = oneshot::channel();
            tokio::select! {
                done = self.export(log, options, stopped, output) => done,
                exit = second(&mut signals, stop) => Ok(exit),
            }
        });
        // After a second signal threads are in the middle of something, and need the runtime until
        // the process ends.
        std::mem::forget(runtime);
        done
    }

    async fn export(
        &self,
        log: LogOptions,
        options: Options,
        stopped: oneshot::Receiver<Exit>,
        output: &mut Output,
    ) -> anyhow::Result<Exit> {
        let begun = Instant::now();
        let log = open(log).await?;
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        let progress = Arc::new(Progress::default());
        let mut exit = Exit::Done;
        let stop = async {
            if let Ok(signal) = stopped.await {
                exit = signal;
            }
        };
        let summary = {
            let exporting = export::run(Arc::clone(&log), options, Arc::clone(&progress), stop);
            tokio::select! {
                summary = exporting => summary,
                () = draw(&bar, &progress) => unreachable!("it is drawn until the end"),
            }
        };
        bar.finish_and_clear();
        let summary = summary?;
        log.close().await;
        self.tell(&summary, begun.elapsed(), output)?;
        // Who follows can only be ended so.
        Ok(if summary.interrupted && !self.follow { exit } else { Exit::Done })
    }

    fn options(&self) -> anyhow::Result<Options> {
        let usage = |text: &str| Err(UsageError(text.to_owned()).into());
        if matches!(self.out, Target::S3 { .. }) && self.file_size > MAX_S3_FILE_SIZE {
            return usage(
                "--file-size: at most 64GiB in S3, where an upload has 10,000 parts, of 8MiB here",
            );
        }
        let mode = match self.mode {
            Some(ModeArg::Overwrite) if self.cursor_file.is_some() => {
                return usage(
                    "--mode overwrite goes with no --cursor-file, as the files of the runs before \
                     would be lost; remove the cursor file and the folder to start anew",
                );
            }
            Some(ModeArg::Overwrite) => Mode::Overwrite,
            Some(ModeArg::Append) => Mode::Append,
            Some(ModeArg::Error) => Mode::Error,
            None if self.cursor_file.is_some() => Mode::Append,
            None => Mode::Error,
        };
        let (format, compression) = match (self.format, self.compression) {
            (FormatArg::Parquet, None | Some(CompressionArg::Snappy)) => {
                (Format::Parquet, Compression::Snappy)
            }
            (FormatArg::Parquet, Some(CompressionArg::Zstd)) => {
                (Format::Parquet, Compression::Zstd)
            }
            (FormatArg::Parquet, Some(CompressionArg::None)) => {
                (Format::Parquet, Compression::None)
            }
            (FormatArg::Jsonl, None | Some(CompressionArg::None)) => {
                (Format::JsonLines, Compression::None)
            }
            (FormatArg::Jsonl, Some(CompressionArg::Zstd)) => {
                (Format::JsonLines, Compression::Zstd)
            }
            (FormatArg::Jsonl, Some(CompressionArg::Snappy)) => {
                return usage("lines of JSON are compressed with --compression zstd, or none");
            }
        };
        Ok(Options {
            target: self.out.clone(),
            s3: s3_settings(),
            from: place("--from", &self.from)?,
            to: if self.follow { None } else { Some(place("--to", &self.to)?) },
            filter: self.filter()?,
            origins: if self.no_origin { Origins::LeftOut } else { Origins::Kept },
            format,
            compression,
            layout: self.layout()?,
            mode,
            cursor_file: self.cursor_file.clone(),
            if_expired: match self.if_expired {
                IfExpired::Fail => Expired::Fail,
                IfExpired::Earliest => Expired::Earliest,
            },
            file_size: self.file_size,
            file_age: self.file_age,
        })
    }

    fn filter(&self) -> anyhow::Result<Filter> {
        let filter = EventFilter {
            event_types: self.types.clone(),
            player_ids: self.players.clone(),
            guild_ids: self.guilds.clone(),
        };
        let mut violations = Violations::default();
        let parsed = Filter::parse(Some(&filter), &mut violations);
        let flag = |field: &str| match field {
            "filter.event_types" => "--type",
            "filter.player_ids" => "--player",
            _ => "--guild",
        };
        let problems: Vec<_> = violations
            .into_vec()
            .iter()
            .map(|violation| format!("{}: {}", flag(&violation.field), violation.description))
            .collect();
        if problems.is_empty() { Ok(parsed) } else { Err(UsageError(problems.join("\n")).into()) }
    }

    fn layout(&self) -> anyhow::Result<Layout> {
        let (key, flag, values) = match self.split_by {
            None => {
                return Ok(match self.layout {
                    LayoutArg::Hive => Layout::Hive,
                    LayoutArg::Flat => Layout::Flat,
                });
            }
            Some(KeyArg::Type) => return Ok(Layout::Split(Key::Type)),
            Some(KeyArg::Player) => (Key::Player, "--player", &self.players),
            Some(KeyArg::Guild) => (Key::Guild, "--guild", &self.guilds),
        };
        if values.is_empty() {
            return Err(UsageError(format!(
                "--split-by makes a folder for each {flag} that is given, and none is; for all \
                 of them, query the files by {}",
                key.column()
            ))
            .into());
        }
        if let Some(value) = values.iter().find(|value| !key.can_name_a_folder(value)) {
            return Err(UsageError(format!("{flag} {value:?} is too long to name a folder")).into());
        }
        Ok(Layout::Split(key))
    }

    fn tell(&self, summary: &Summary, took: Duration, output: &mut Output) -> anyhow::Result<()> {
        let Summary { events, files, bytes, duplicates, foreign, missing, .. } = *summary;
        if self.json {
            output.line(serde_json::to_string(&Report {
                events,
                files,
                bytes,
                duplicates,
                foreign,
                missing,
                cursor: &summary.cursor,
                seconds: took.as_secs_f64(),
                interrupted: summary.interrupted,
            })?)?;
        }
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let rate = (events as f64 / took.as_secs_f64().max(0.001)) as u64;
        if summary.interrupted && self.cursor_file.is_none() {
            output.note("stopped; nothing was published");
            return Ok(());
        }
        output.note(&format!(
            "exported {} events in {} files, {}, to {} in {:.1} s ({} events/s)",
            HumanCount(events),
            HumanCount(files),
            HumanBytes(bytes),
            printable(&self.out.to_string()),
            took.as_secs_f64(),
            HumanCount(rate),
        ));
        if duplicates > 0 {
            output.note(&format!(
                "left out {} records whose event was there before: retries that reached two \
                 servers",
                HumanCount(duplicates)
            ));
        }
        if let Some((partition, offset)) = summary.first_foreign {
            output.note(&format!(
                "left out {} records that are no events, the first at partition {partition}, \
                 offset {offset}",
                HumanCount(foreign)
            ));
        }
        if missing > 0 {
            output.note(&format!(
                "{} records are missing: retention removed them before they were exported",
                HumanCount(missing)
            ));
        }
        match &self.cursor_file {
            Some(path) => output.note(&format!(
                "the next run goes on from the cursor in {}",
                printable(&path.display().to_string())
            )),
            None => output.note(&format!("go on with: --from {}", summary.cursor)),
        }
        Ok(())
    }
}

/// The columns of the files, as a Parquet schema.
pub fn parquet_schema() -> anyhow::Result<String> {
    export::parquet_schema().context("the columns make no Parquet schema")
}

/// Opens the log for reading. Makes none.
async fn open(log: LogOptions) -> anyhow::Result<Arc<dyn EventLog>> {
    match log {
        LogOptions::Local(options) => {
            let open = move || local::open_read_only(&options.data_dir);
            Ok(tokio::task::spawn_blocking(open).await.context("opening the log panicked")??)
        }
        LogOptions::Kafka(options) => {
            let (asked, brokers) = (options.clone(), options.brokers.clone());
            // One that is missing is made where it is opened.
            let described = tokio::task::spawn_blocking(move || describe_topic(asked)).await;
            let described = described.context("the search for the topic panicked")?;
            let topic = described.map_err(|error| {
                let said = topic::explain(&error, &brokers);
                match error {
                    DescribeError::Missing(_) => anyhow::Error::msg(said),
                    DescribeError::Unavailable(_) => super::exit::Unreached(said).into(),
                }
            })?;
            // Only who writes has to know how players are spread.
            let key_partitions = u32::try_from(topic.partitions.len()).ok();
            let options = kafka::Options { key_partitions, ..options };
            Ok(KafkaLog::open(options, &mut Registry::default()).await?)
        }
    }
}

/// A place, as it is written on the command line, now.
fn place(flag: &str, from: &From) -> anyhow::Result<Place> {
    Ok(match from {
        From::Earliest => Place::Earliest,
        From::Latest => Place::Now,
        From::Cursor(text) => Place::Cursor(Cursor::decode(text).map_err(|error| {
            UsageError(format!("{flag}: {error}; write {}", super::tail::FORMS))
        })?),
        From::At(time) => Place::At(Timestamp::from_millis(time.as_millisecond().max(0))),
        From::Ago(age) => Place::At(Clock::System.now().minus(*age)),
    })
}

fn s3_settings() -> S3Settings {
    S3Settings(std::env::vars().filter(|(name, _)| name.starts_with(S3_VARIABLES)).collect())
}

fn file_size(text: &str) -> anyhow::Result<u64> {
    let bytes = bytes(text).context("write it like 64MiB or 1GiB")?;
    anyhow::ensure!(bytes >= MIN_FILE_SIZE, "must be at least 1MiB");
    Ok(bytes)
}

/// Returns when a second signal has come; the first is passed on. What is killed loses nothing,
/// and it may hang on a store that does not answer.
async fn second(signals: &mut Signals, first: oneshot::Sender<Exit>) -> Exit {
    // Whoever is at the end already does not ask.
    let _ = first.send(signals.next().await);
    tracing::warn!("stopping; a second signal ends it at once");
    signals.next().await
}

/// Draws how far it is, on a terminal; never ends.
async fn draw(bar: &ProgressBar, progress: &Progress) {
    let mut ticks = interval(DRAWN_EVERY);
    // The first one comes at once, when nothing is known yet.
    ticks.tick().await;
    bar.set_style(style("{spinner} {human_pos} records, {rate}, {msg}"));
    let mut bounded = false;
    loop {
        ticks.tick().await;
        let (passed, total) = progress.records();
        if let Some(total) = total
            && !bounded
        {
            bounded = true;
            bar.set_length(total);
            bar.set_style(style(
                "{bar:40} {percent}% {human_pos}/{human_len} records, {rate}, {eta} left, {msg}",
            ));
        }
        // Which draws nothing where there is no terminal.
        if bar.is_hidden() {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        bar.set_message(format!("{} rows", HumanCount(progress.rows())));
        bar.set_position(passed);
    }
}

fn style(template: &str) -> ProgressStyle {
    let rate = |state: &ProgressState, text: &mut dyn fmt::Write| {
        // Nobody can do anything about it.
        let _ = write!(text, "{}/s", HumanCount(state.per_sec() as u64));
    };
    ProgressStyle::with_template(template)
        .expect("the template is well formed")
        .with_key("rate", rate)
}

/// What a command ends with that failed in an export.
pub fn exit(error: &anyhow::Error) -> Option<Exit> {
    Some(match error.downcast_ref()? {
        ExportError::Log(ReadError::Unavailable(_)) | ExportError::Silent => Exit::Unavailable,
        ExportError::OtherLog { .. }
        | ExportError::Ahead(..)
        | ExportError::Expired(_)
        | ExportError::Log(ReadError::Replaced) => Exit::PositionLost,
        _ => Exit::Failed,
    })
}
