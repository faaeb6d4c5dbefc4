//! Export: the events of the log as files that every data tool reads, Parquet or lines of JSON.
//!
//! * `columns`, `rows`, `jsonl`: from the bytes of an event to columns, or to a line.
//! * `layout`: which folder an event goes to.
//! * `encoding`, `destination`: files, and where they are.
//! * `journal`: why a run that was killed has either published or not begun.
//! * `shaper`, `writer`: the two threads behind the one that reads.
//!
//! # What it promises
//!
//! * **Each event once**, by the rule of [`crate::history`]. What the schema of this build does
//!   not know of an event is kept in `raw_value`.
//! * **Whole files.** What readers see was complete and durable before it had a name they look
//!   at. With a cursor file each run goes on where the last one ended, and a run that is killed
//!   at any moment neither loses nor doubles a row: see `journal`. Without one, all files of a
//!   run are published at its end.
//! * **Bounded memory**, whatever is exported: rows that wait, files that are being written and
//!   what lies between the threads have a bound each. `docs/export.md` has figures.
//!
//! # What it may not know
//!
//! Anything about calls; how it is shown.

mod columns;
mod destination;
mod encoding;
mod journal;
mod jsonl;
mod layout;
mod progress;
mod rows;
mod shaper;
#[cfg(test)]
mod tests;
mod writer;

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use self::destination::Destination;
use self::encoding::EncodeError;
use self::journal::Journal;
use self::shaper::{Passed, Shaper};
use self::writer::{Shared, Writer};
use crate::client::{CursorFile, CursorFileError};
use crate::clock::Timestamp;
use crate::event_log::{
    Bounds, Cursor, CursorMalformed, EventLog, Offset, Partition, Position, ReadError, ReadLimits,
    Trimmed,
};
use crate::feed::Filter;
use crate::history::{Read, Reader};

pub use self::destination::{DestinationError, MAX_S3_FILE_SIZE, S3Settings, Target};
pub use self::encoding::{Compression, Format, parquet_schema};
pub use self::layout::{Key, Layout};
pub use self::progress::{Progress, Summary};
pub use self::rows::{Origins, schema};

/// How much is read at once.
const READ_LIMITS: ReadLimits = ReadLimits { records: 4_096, bytes: 1 << 20 };

/// How many reads may wait for the shaper: 8 MiB.
const WAITING_READS: usize = 8;

/// How many chunks may wait for the writer, of 4 MiB of records at the most each.
const WAITING_CHUNKS: usize = 4;

/// An export that is to end fails when nothing has come for so long before its end: the log
/// cannot be reached.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// How often an export that goes on for ever looks whether files are due.
const TICK: Duration = Duration::from_millis(250);

/// The least size of files: what is below that is all footer.
pub const MIN_FILE_SIZE: u64 = 1 << 20;

/// A place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The oldest event there is.
    Earliest,
    /// The end, as it is when the export starts.
    Now,
    /// A cursor of the feed.
    Cursor(Cursor),
    /// The first event that the log took then or later.
    At(Timestamp),
}

/// What becomes of files that are in the destination already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// There may be none, unless the cursor file holds a cursor: then they are those of the runs
    /// before.
    Error,
    /// They stay.
    Append,
    /// They are replaced at the end, if an export wrote them; others are a reason to refuse.
    Overwrite,
}

/// What becomes of an export whose place retention has removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// It fails.
    Fail,
    /// It goes on from the oldest event there is, and says how much is missing.
    Earliest,
}

/// What to export, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to.
    pub target: Target,
    /// How to reach it, if it is a bucket.
    pub s3: S3Settings,
    /// From where on; of no matter where the cursor file holds a cursor.
    pub from: Place,
    /// Up to where. None goes on for ever.
    pub to: Option<Place>,
    /// Which events.
    pub filter: Filter,
    /// With what is private, or without.
    pub origins: Origins,
    /// What files are made of.
    pub format: Format,
    /// How they are compressed.
    pub compression: Compression,
    /// Which folders they are in.
    pub layout: Layout,
    /// What becomes of what is there.
    pub mode: Mode,
    /// The file with the cursor, for one export to go on where the last one ended.
    pub cursor_file: Option<PathBuf>,
    /// What becomes of a cursor that is older than the log.
    pub if_expired: Expired,
    /// How long a file gets, about; at least [`MIN_FILE_SIZE`]. With a cursor file, when the
    /// first file has that size all that are being written are completed and published.
    pub file_size: u64,
    /// After how long they are, at the latest, in an export that goes on for ever.
    pub file_age: Duration,
}

/// Why an export failed. What was published before stays, and with a cursor file the next run
/// goes on behind it.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The log cannot be reached any more.
    #[error("nothing came from the log for {SILENCE_LIMIT:?}; check that it can be reached")]
    Silent,
    /// The cursor is one of another log.
    #[error(
        "the cursor is of another log (epoch {found}, and this one has {expected}): the topic \
         was made anew, or it is another one; to export this one, use another cursor file and \
         another --out"
    )]
    OtherLog {
        /// The one that it is of.
        found: String,
        /// The one that there is.
        expected: String,
    },
    /// The cursor is behind the end.
    #[error(
        "the cursor is ahead of the log: partition {0} ends at {1}, and the cursor is at {2}; is \
         it the right log?"
    )]
    Ahead(Partition, Offset, Offset),
    /// Retention has removed what was to be exported.
    #[error(
        "{} records are gone that were not exported: retention has removed partition {} up to \
         {}; --if-expired earliest goes on without them",
        .0.to - .0.from, .0.partition, .0.to
    )]
    Expired(Trimmed),
    /// What the cursor file holds is no cursor.
    #[error("the cursor file {}: {why}; put the cursor back that was in it", .path.display())]
    Cursor {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: CursorMalformed,
    },
    /// The cursor file cannot be used.
    #[error(transparent)]
    CursorFile(#[from] CursorFileError),
    /// What a killed run left cannot be finished.
    #[error("{0}")]
    Journal(String),
    /// There are files already.
    #[error("{0} is not empty; name another --out, or use --mode append or --mode overwrite")]
    NotEmpty(String),
    /// There are files that no export wrote.
    #[error(
        "{0} holds {1}, which no export wrote, and so nothing in it is replaced; move it away, \
         or name another --out"
    )]
    Foreign(String, String),
    /// The destination cannot be used.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// A file cannot be written.
    #[error("{0}")]
    Write(String),
    /// An event that does not fit into the columns, which is a defect of this program.
    #[error("the event at partition {0}, offset {1} cannot be put into columns")]
    Event(Partition, Offset),
    /// Columns that do not fit together, which is one too.
    #[error("the rows do not make a table")]
    Columns,
    /// The operating system gave no thread, or one of them died.
    #[error("{0}")]
    Thread(String),
}

impl From<EncodeError> for ExportError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Destination(error) => Self::Destination(error),
            error => Self::Write(error.to_string()),
        }
    }
}

/// Exports until the end is reached, or `stop` is ready. An export with a cursor file publishes
/// what it has when it is stopped; one without leaves nothing.
///
/// Has to be called within a runtime of several threads.
///
/// # Errors
///
/// See [`ExportError`].
pub async fn run(
    log: Arc<dyn EventLog>,
    options: Options,
    progress: Arc<Progress>,
    stop: impl Future<Output = ()>,
) -> Result<Summary, ExportError> {
    let (target, s3) = (options.target.clone(), options.s3.clone());
    let owner = owner(&options);
    let open = move |runtime: &Handle| destination::open(&target, &owner, &s3, runtime);
    run_at(log, options, progress, stop, open).await
}

/// What the temporary files of an export are told from those of others by: its cursor file. Of
/// those without one, one runs at a time.
fn owner(options: &Options) -> String {
    match &options.cursor_file {
        None => "once".to_owned(),
        Some(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            Uuid::new_v5(&Uuid::NAMESPACE_URL, path.as_os_str().as_encoded_bytes()).to_string()
        }
    }
}

/// As [`run`], at a destination that is opened by somebody else.
async fn run_at(
    log: Arc<dyn EventLog>,
    options: Options,
    progress: Arc<Progress>,
    stop: impl Future<Output = ()>,
    open: impl FnOnce(&Handle) -> Result<Box<dyn Destination>, DestinationError> + Send + 'static,
) -> Result<Summary, ExportError> {
    let bounds = log.bounds().await?;
    let shared = Arc::<Shared>::default();
    let writer = {
        let (mut options, shared) = (options.clone(), Arc::clone(&shared));
        let (progress, runtime) = (Arc::clone(&progress), Handle::current());
        let prepare = move || {
            let cursor_file = options.cursor_file.as_ref().map(CursorFile::open).transpose()?;
            let destination = open(&runtime)?;
            // Finishes what a killed run had begun, before anything is cleared.
            let journal = cursor_file
                .map(|file| Journal::open(file, options.target.resolved(), &*destination))
                .transpose()?;
            // What the runs before have published is expected.
            let goes_on = journal.as_ref().is_some_and(|journal| journal.cursor().is_some());
            if goes_on && options.mode == Mode::Error {
                options.mode = Mode::Append;
            }
            Writer::prepare(&options, destination, journal, shared, progress)
        };
        blocking(prepare).await??
    };
    let start = start(&*log, &options, writer.cursor(), &bounds).await?;
    progress.begin(&start.position);
    let end = match &options.to {
        Some(place) => Some(place.position(&*log, &bounds, &options).await?),
        None => None,
    };
    // What is not before the end is not moved back.
    let end = end.map(|mut end| {
        end.advance_to(&start.position);
        end
    });
    let (passed, to_shape) = mpsc::channel(WAITING_READS);
    let (work, to_write) = sync_channel(WAITING_CHUNKS);
    let shaper = Shaper::new(&options, start.clone(), shared, Arc::clone(&progress), work);
    let shaping = thread("export-shaper", move || shaper.run(to_shape))?;
    let (alive, writer_is_gone) = oneshot::channel::<()>();
    let writing = thread("export-writer", move || {
        let done = writer.run(&to_write);
        drop(alive);
        done
    })?;

    let reading = Reading { log, options: &options, start, end, passed, progress: &progress };
    let read = reading.run(stop, writer_is_gone).await;
    let threads = blocking(move || (shaping.join(), writing.join())).await?;
    let died = |_| ExportError::Thread("a thread of the export panicked".to_owned());
    // What the writer says is why the shaper stopped, and what both say why the reader did.
    threads.1.map_err(died)??;
    threads.0.map_err(died)??;
    let interrupted = read?;
    Ok(progress.summary(interrupted))
}

/// Runs what blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ExportError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ExportError::Thread(error.to_string()))
}

fn thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, ExportError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| ExportError::Thread(format!("cannot start a thread: {error}")))
}

/// Where the export starts.
async fn start(
    log: &dyn EventLog,
    options: &Options,
    stored: Option<&str>,
    bounds: &Bounds,
) -> Result<Cursor, ExportError> {
    let from = match stored {
        Some(cursor) => Place::Cursor(Cursor::decode(cursor).map_err(|why| {
            let path = options.cursor_file.clone().unwrap_or_default();
            ExportError::Cursor { path, why }
        })?),
        None => options.from.clone(),
    };
    let time = match &from {
        Place::Cursor(cursor) => cursor.time,
        _ => Timestamp::default(),
    };
    let mut position = from.position(log, bounds, options).await?;
    if let Place::Cursor(_) = from {
        // Partitions that were added since: reading tells what retention has removed of them,
        // which was not exported either.
        for (partition, _) in bounds.start.iter().skip(position.len()) {
            position.set(partition, 0);
        }
    }
    Ok(Cursor { epoch: bounds.log, position, time })
}

impl Place {
    async fn position(
        &self,
        log: &dyn EventLog,
        bounds: &Bounds,
        options: &Options,
    ) -> Result<Position, ExportError> {
        match self {
            Self::Earliest => Ok(bounds.start.clone()),
            Self::Now => Ok(bounds.end.clone()),
            Self::At(time) => Ok(log.position_at(bounds.log, *time).await?),
            Self::Cursor(cursor) => within(cursor, bounds, options.if_expired),
        }
    }
}

/// The position of a cursor, if the log has it.
fn within(cursor: &Cursor, bounds: &Bounds, expired: Expired) -> Result<Position, ExportError> {
    if cursor.epoch != bounds.log {
        let (found, expected) = (cursor.epoch.to_string(), bounds.log.to_string());
        return Err(ExportError::OtherLog { found, expected });
    }
    for (partition, offset) in cursor.position.iter() {
        let (start, end) = (bounds.start.get(partition), bounds.end.get(partition));
        if offset > end {
            return Err(ExportError::Ahead(partition, end, offset));
        }
        if offset < start && expired == Expired::Fail {
            return Err(ExportError::Expired(Trimmed { partition, from: offset, to: start }));
        }
    }
    Ok(cursor.position.clone())
}

/// The part of the export that reads the log.
struct Reading<'a> {
    log: Arc<dyn EventLog>,
    options: &'a Options,
    start: Cursor,
    end: Option<Position>,
    passed: mpsc::Sender<Passed>,
    progress: &'a Progress,
}

impl Reading<'_> {
    /// Reads to the end, or until it is told to stop or the writer is gone, which says why; says
    /// whether it was told to.
    async fn run(
        self,
        stop: impl Future<Output = ()>,
        mut writer_is_gone: oneshot::Receiver<()>,
    ) -> Result<bool, ExportError> {
        let mut stop = pin!(stop);
        let mut reached = self.start.position.clone();
        if let Some(end) = &self.end {
            self.progress.end(end);
        }
        let mut reader =
            Reader::open(Arc::clone(&self.log), self.start.epoch, reached.clone()).await?;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut interrupted = false;
        while self.end.as_ref().is_none_or(|end| !reached.covers(end)) {
            // One read goes on through all ticks: to begin it anew may cost more than a tick.
            let mut next = pin!(reader.next(READ_LIMITS));
            let mut silence = pin!(sleep(SILENCE_LIMIT));
            let read = loop {
                tokio::select! {
                    () = &mut stop => break None,
                    read = &mut next => break Some(read?),
                    // An export that goes on for ever would learn it with the next event only.
                    _ = &mut writer_is_gone => return Ok(false),
                    _ = ticks.tick(), if self.end.is_none() => {
                        if self.passed.send(Passed::Tick).await.is_err() {
                            return Ok(false);
                        }
                    }
                    () = &mut silence, if self.end.is_some() => return Err(ExportError::Silent),
                }
            };
            let Some(read) = read else {
                interrupted = true;
                break;
            };
            let Read { records, verdicts, trimmed, position } = read;
            self.check(&trimmed)?;
            reached = match &self.end {
                Some(end) => capped(&position, end),
                None => position,
            };
            self.progress.passed(&reached);
            let read = Passed::Read { records, verdicts, position: reached.clone() };
            // Whoever is gone says why.
            if self.passed.send(read).await.is_err() {
                return Ok(false);
            }
        }
        if !interrupted || self.options.cursor_file.is_some() {
            let _ = self.passed.send(Passed::End).await;
        }
        Ok(interrupted)
    }

    fn check(&self, trimmed: &[Trimmed]) -> Result<(), ExportError> {
        for gone in trimmed {
            // Of what lies behind the end nothing was to be exported.
            let end = self.end.as_ref().map_or(gone.to, |end| end.get(gone.partition));
            let to = gone.to.min(end);
            if to <= gone.from {
                continue;
            }
            if self.options.if_expired == Expired::Fail {
                return Err(ExportError::Expired(Trimmed { to, ..*gone }));
            }
            self.progress.missing(to - gone.from);
        }
        Ok(())
    }
}

/// A position, but not behind the end. A partition that the end does not name was made since.
fn capped(position: &Position, end: &Position) -> Position {
    end.iter().map(|(partition, end)| position.get(partition).min(end)).collect()
}
