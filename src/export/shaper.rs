//! The shaper: from what was read to rows for files, on a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;

use super::columns::Malformed;
use super::encoding::{Chunk, Format};
use super::jsonl::Lines;
use super::layout::{Folder, Folders};
use super::rows::{Origins, Rows};
use super::writer::{Shared, Work};
use super::{ExportError, Options, Progress};
use crate::clock::Timestamp;
use crate::domain::EventKeys;
use crate::event_log::{Cursor, LogId, Position, Record};
use crate::feed::{Filter, MAX_FILTER_VALUES};
use crate::history::{Origin, Verdict};

/// How many rows of a folder are handed on together.
const CHUNK_ROWS: usize = 8_192;

/// How many bytes the records of them may have.
const CHUNK_BYTES: usize = 4 << 20;

/// How many bytes the records that wait for others of their folder may have, all together.
const WAITING_BYTES: usize = 24 << 20;

/// How many folders may have rows that wait, and then a file that is being written: as many as
/// one can split by.
pub(super) const MAX_FOLDERS: usize = MAX_FILTER_VALUES;

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
    fn append(
        &mut self,
        record: &Record,
        origin: &Origin,
        keys: &EventKeys<'_>,
    ) -> Result<(), Malformed> {
        match self {
            Self::Rows(rows) => rows.append(record, origin, keys),
            Self::Lines(lines) => lines.append(record, origin),
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
    folders: Folders,
    /// Whether files are published when the writer says that they are due, not all at the end.
    is_incremental: bool,
    /// They also are when its first record was read so long ago, where the export goes on for ever.
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

/// Why it goes no further.
enum Stop {
    /// The writer is gone, and says why.
    Gone,
    Failed(ExportError),
}

impl From<ExportError> for Stop {
    fn from(error: ExportError) -> Self {
        Self::Failed(error)
    }
}

impl Shaper {
    pub fn new(
        options: &Options,
        cursor: Cursor,
        shared: Arc<Shared>,
        progress: Arc<Progress>,
        work: SyncSender<Work>,
    ) -> Self {
        Self {
            log: cursor.epoch,
            format: options.format,
            origins: options.origins,
            filter: options.filter.clone(),
            folders: Folders::new(options.layout),
            is_incremental: options.cursor_file.is_some(),
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
    pub fn run(mut self, passed: Receiver<Passed>) -> Result<(), ExportError> {
        match self.shape(passed) {
            Err(Stop::Failed(error)) => Err(error),
            Ok(()) | Err(Stop::Gone) => Ok(()),
        }
    }

    fn shape(&mut self, mut passed: Receiver<Passed>) -> Result<(), Stop> {
        while let Some(next) = passed.blocking_recv() {
            match next {
                Passed::Read { records, verdicts, position } => {
                    self.read(&records, &verdicts, position)?;
                }
                Passed::Tick => self.commit_if_due()?,
                Passed::End => {
                    self.hand_on_all()?;
                    return self.send(Work::Finish { cursor: self.cursor() });
                }
            }
        }
        Ok(())
    }

    fn send(&self, work: Work) -> Result<(), Stop> {
        self.work.send(work).map_err(|_| Stop::Gone)
    }

    fn read(
        &mut self,
        records: &[Record],
        verdicts: &[Verdict],
        position: Position,
    ) -> Result<(), Stop> {
        self.begun.get_or_insert_with(Instant::now);
        for (record, verdict) in records.iter().zip(verdicts) {
            if record.offset >= position.get(record.partition) {
                continue;
            }
            self.time = self.time.max(record.append_time);
            match verdict {
                Verdict::Event(origin) => self.event(record, origin)?,
                Verdict::Duplicate => self.progress.duplicate(),
                Verdict::Foreign => self.progress.foreign(record),
            }
        }
        self.position = position;
        self.commit_if_due()
    }

    fn event(&mut self, record: &Record, origin: &Origin) -> Result<(), Stop> {
        let malformed = || ExportError::Event(record.partition, record.offset);
        let keys = EventKeys::of(&record.value).ok_or_else(malformed)?;
        if !self.filter.matches(keys.event_type, keys.player_id, keys.guild_id) {
            return Ok(());
        }
        let folder = self.folders.of(record, &keys);
        let index = self.gathering(folder)?;
        let gathering = &mut self.gathered[index].1;
        let before = gathering.bytes();
        gathering.append(record, origin, &keys).map_err(|_| malformed())?;
        self.waiting_bytes += gathering.bytes() - before;
        self.progress.event();
        if gathering.len() >= CHUNK_ROWS || gathering.bytes() >= CHUNK_BYTES {
            return self.hand_on(index);
        }
        if self.waiting_bytes >= WAITING_BYTES {
            return self.hand_on_largest();
        }
        Ok(())
    }

    /// Where the rows of a folder are gathered.
    fn gathering(&mut self, folder: Folder) -> Result<usize, Stop> {
        if let Some(index) = self.gathered.iter().position(|(known, _)| *known == folder) {
            return Ok(index);
        }
        if self.gathered.len() == MAX_FOLDERS {
            self.hand_on_largest()?;
        }
        let gathering = self.spare.pop().unwrap_or_else(|| match self.format {
            Format::Parquet => Gathering::Rows(Box::new(Rows::new(self.origins))),
            Format::JsonLines => Gathering::Lines(Lines::new(self.origins)),
        });
        self.gathered.push((folder, gathering));
        Ok(self.gathered.len() - 1)
    }

    fn hand_on(&mut self, index: usize) -> Result<(), Stop> {
        let (folder, mut gathering) = self.gathered.swap_remove(index);
        self.waiting_bytes -= gathering.bytes();
        let chunk = gathering.finish().map_err(|_| ExportError::Columns)?;
        self.spare.push(gathering);
        self.send(Work::Chunk { folder: self.folders.path(folder), chunk })
    }

    fn hand_on_largest(&mut self) -> Result<(), Stop> {
        let sizes = self.gathered.iter().map(|(_, gathering)| gathering.bytes());
        match sizes.enumerate().max_by_key(|(_, bytes)| *bytes) {
            Some((index, _)) => self.hand_on(index),
            None => Ok(()),
        }
    }

    fn hand_on_all(&mut self) -> Result<(), Stop> {
        while !self.gathered.is_empty() {
            self.hand_on(self.gathered.len() - 1)?;
        }
        Ok(())
    }

    fn commit_if_due(&mut self) -> Result<(), Stop> {
        // What the writer says of sizes before it has done the last commit is old.
        let is_large =
            self.is_incremental && self.shared.commits() == self.commits && self.shared.is_due();
        let is_old =
            self.batch_age.zip(self.begun).is_some_and(|(age, begun)| begun.elapsed() >= age);
        if !is_large && !is_old {
            return Ok(());
        }
        self.hand_on_all()?;
        self.begun = None;
        self.commits += 1;
        self.send(Work::Commit { cursor: self.cursor() })
    }

    fn cursor(&self) -> String {
        Cursor::of(self.log, &self.position, self.time)
    }
}
