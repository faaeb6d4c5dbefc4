//! The shaper: from what was read to rows for files, on a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;

use super::columns::Malformed;
use super::encoding::{Chunk, Format};
use super::jsonl::Lines;
use super::layout::{Folder, Folders};
use super::rows::{KeyFinder, Keys, Origins, Rows};
use super::writer::{Shared, Work};
use super::{ExportError, Options, Progress};
use crate::clock::Timestamp;
use crate::event_log::{Cursor, LogId, Position, Record};
use crate::feed::Filter;
use crate::history::Verdict;

/// How many rows of a folder are handed on together.
const CHUNK_ROWS: usize = 8_192;

/// How many bytes the records of them may have.
const CHUNK_BYTES: usize = 4 << 20;

/// How many bytes the records that wait for others of their folder may have, all together.
const WAITING_BYTES: usize = 24 << 20;

/// How many folders may have rows that wait.
const WAITING_FOLDERS: usize = 64;

/// What the reader hands on.
pub(super) enum Passed {
    /// Records and what they are; those behind the end of the export are not for it.
    Read { records: Vec<Record>, verdicts: Vec<Verdict>, position: Position },
    /// Time has passed.
    Tick,
    /// All was read.
    End,
}

/// Rows or lines that are gathered.
enum Gathering {
    Rows(Box<Rows>),
    Lines(Lines),
}

impl Gathering {
    fn append(&mut self, record: &Record, keys: &Keys<'_>) -> Result<(), Malformed> {
        match self {
            Self::Rows(rows) => rows.append(record, keys),
            Self::Lines(lines) => lines.append(record),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.len(),
            Self::Lines(lines) => lines.len(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.bytes(),
            Self::Lines(lines) => lines.bytes(),
        }
    }

    fn finish(&mut self) -> Result<Chunk, Malformed> {
        Ok(match self {
            Self::Rows(rows) => Chunk::Batch(rows.finish()?),
            Self::Lines(lines) => {
                let (rows, text) = lines.finish();
                Chunk::Lines { rows, text }
            }
        })
    }
}

/// See the module.
pub(super) struct Shaper {
    log: LogId,
    format: Format,
    origins: Origins,
    filter: Filter,
    finder: KeyFinder,
    folders: Folders,
    /// A batch of files is published when one of them has so many bytes. None when all are at
    /// the end.
    batch_bytes: Option<u64>,
    /// And when its first record was read so long ago, where the export goes on for ever.
    batch_age: Option<Duration>,
    gathered: Vec<(Folder, Gathering)>,
    /// Without rows, to be used again.
    spare: Vec<Gathering>,
    waiting_bytes: usize,
    /// Everything before it has been looked at.
    position: Position,
    time: Timestamp,
    /// When the first record that is not committed came.
    begun: Option<Instant>,
    commits: u64,
    shared: Arc<Shared>,
    progress: Arc<Progress>,
    work: SyncSender<Work>,
}

/// The other end is gone, and says why.
struct Gone;

impl Shaper {
    pub fn new(
        options: &Options,
        cursor: Cursor,
        shared: Arc<Shared>,
        progress: Arc<Progress>,
        work: SyncSender<Work>,
    ) -> Self {
        let is_incremental = options.cursor_file.is_some();
        Self {
            log: cursor.epoch,
            format: options.format,
            origins: options.origins,
            filter: options.filter.clone(),
            finder: KeyFinder::new(),
            folders: Folders::new(options.layout),
            batch_bytes: is_incremental.then_some(options.file_size),
            batch_age: options.to.is_none().then_some(options.file_age),
            gathered: Vec::new(),
            spare: Vec::new(),
            waiting_bytes: 0,
            position: cursor.position,
            time: cursor.time,
            begun: None,
            commits: 0,
            shared,
            progress,
            work,
        }
    }

    /// Shapes until there is no more. What was not ended is not published.
    pub fn run(mut self, mut passed: Receiver<Passed>) -> Result<(), ExportError> {
        while let Some(next) = passed.blocking_recv() {
            let done = match next {
                Passed::Read { records, verdicts, position } => {
                    self.read(&records, &verdicts, position)?
                }
                Passed::Tick => self.commit_if_due()?,
                Passed::End => {
                    if self.hand_on_all()?.is_ok() {
                        // Whether it came there is what the writer says.
                        let _ = self.work.send(Work::Finish { cursor: self.cursor() });
                    }
                    return Ok(());
                }
            };
            if let Err(Gone) = done {
                break;
            }
        }
        Ok(())
    }

    fn read(
        &mut self,
        records: &[Record],
        verdicts: &[Verdict],
        position: Position,
    ) -> Result<Result<(), Gone>, ExportError> {
        self.begun.get_or_insert_with(Instant::now);
        for (record, verdict) in records.iter().zip(verdicts) {
            if record.offset >= position.get(record.partition) {
                continue;
            }
            self.time = self.time.max(record.append_time);
            match verdict {
                Verdict::Event(_) => {
                    if let Err(Gone) = self.event(record)? {
                        return Ok(Err(Gone));
                    }
                }
                Verdict::Duplicate => self.progress.duplicate(),
                Verdict::Foreign => self.progress.foreign(record),
            }
        }
        self.position = position;
        self.commit_if_due()
    }

    fn event(&mut self, record: &Record) -> Result<Result<(), Gone>, ExportError> {
        let malformed = |_| ExportError::Event(record.partition, record.offset);
        let keys = self.finder.find(&record.value).map_err(malformed)?;
        if !self.filter.matches(keys.event_type, keys.player_id, keys.guild_id) {
            return Ok(Ok(()));
        }
        let folder = self.folders.of(record, &keys);
        let index = match self.gathered.iter().position(|(known, _)| *known == folder) {
            Some(index) => index,
            None => {
                if self.gathered.len() == WAITING_FOLDERS
                    && let Err(Gone) = self.hand_on_largest()?
                {
                    return Ok(Err(Gone));
                }
                let gathering = self.spare.pop().unwrap_or_else(|| match self.format {
                    Format::Parquet => Gathering::Rows(Box::new(Rows::new(self.origins))),
                    Format::JsonLines => Gathering::Lines(Lines::new(self.origins)),
                });
                self.gathered.push((folder, gathering));
                self.gathered.len() - 1
            }
        };
        let gathering = &mut self.gathered[index].1;
        let before = gathering.bytes();
        gathering.append(record, &keys).map_err(malformed)?;
        self.waiting_bytes += gathering.bytes() - before;
        self.progress.event();
        if gathering.len() >= CHUNK_ROWS || gathering.bytes() >= CHUNK_BYTES {
            return self.hand_on(index);
        }
        if self.waiting_bytes >= WAITING_BYTES {
            return self.hand_on_largest();
        }
        Ok(Ok(()))
    }

    fn hand_on(&mut self, index: usize) -> Result<Result<(), Gone>, ExportError> {
        let (folder, mut gathering) = self.gathered.swap_remove(index);
        self.waiting_bytes -= gathering.bytes();
        let chunk = gathering.finish().map_err(|_| ExportError::Columns)?;
        self.spare.push(gathering);
        let sent = self.work.send(Work::Chunk { folder: self.folders.path(folder), chunk });
        Ok(sent.map_err(|_| Gone))
    }

    fn hand_on_largest(&mut self) -> Result<Result<(), Gone>, ExportError> {
        let sizes = self.gathered.iter().map(|(_, gathering)| gathering.bytes());
        match sizes.enumerate().max_by_key(|(_, bytes)| *bytes) {
            Some((index, _)) => self.hand_on(index),
            None => Ok(Ok(())),
        }
    }

    fn hand_on_all(&mut self) -> Result<Result<(), Gone>, ExportError> {
        while !self.gathered.is_empty() {
            if let Err(Gone) = self.hand_on(self.gathered.len() - 1)? {
                return Ok(Err(Gone));
            }
        }
        Ok(Ok(()))
    }

    fn commit_if_due(&mut self) -> Result<Result<(), Gone>, ExportError> {
        // What the writer says of sizes before it has done the last commit is old.
        let is_large = self.batch_bytes.is_some_and(|bytes| {
            self.shared.commits() == self.commits && self.shared.largest() >= bytes
        });
        let is_old =
            self.batch_age.zip(self.begun).is_some_and(|(age, begun)| begun.elapsed() >= age);
        if !is_large && !is_old {
            return Ok(Ok(()));
        }
        if let Err(Gone) = self.hand_on_all()? {
            return Ok(Err(Gone));
        }
        self.begun = None;
        self.commits += 1;
        Ok(self.work.send(Work::Commit { cursor: self.cursor() }).map_err(|_| Gone))
    }

    fn cursor(&self) -> String {
        Cursor::of(self.log, &self.position, self.time)
    }
}
