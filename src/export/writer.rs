//! The writer: files, from the first row to their names, on a thread of its own.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

use uuid::Uuid;

use super::destination::{Destination, Staged};
use super::encoding::{Chunk, Compression, Encoder, Format};
use super::journal::Journal;
use super::shaper::MAX_FOLDERS;
use super::{ExportError, Mode, Options, Progress};

/// How many files may be open at a time; beyond that the one that was not written to for the
/// longest time is completed, and the next rows of its folder begin another one.
const MAX_OPEN_FILES: usize = MAX_FOLDERS;

/// How many bytes all files that are being written may hold in memory; beyond that the one that
/// holds the most writes its rows as a row group or, where they are the lesser part, is
/// completed.
const MEMORY_BYTES: usize = 64 << 20;

/// With a cursor file, what was written is also published when it is so many times the size of a
/// file: a log of many days fills no file of a day, and yet what was done is not to be done
/// again after a crash.
const FILES_A_COMMIT: u64 = 8;

/// And when there are so many files, all of which the journal names.
const MAX_STAGED: usize = 1_000;

/// What the names of files begin with.
const PREFIX: &str = "part-";

/// What there is to write.
pub(super) enum Work {
    /// Rows for a folder.
    Chunk { folder: Arc<str>, chunk: Chunk },
    /// Everything before the cursor has come: it is to be seen.
    Commit { cursor: String },
    /// So it has, and nothing more comes.
    Finish { cursor: String },
}

/// What the shaper has to know of the writer.
#[derive(Debug, Default)]
pub(super) struct Shared {
    is_due: AtomicBool,
    commits: AtomicU64,
}

impl Shared {
    /// Whether enough was written to be published.
    pub fn is_due(&self) -> bool {
        self.is_due.load(Ordering::Acquire)
    }

    /// How many commits were done.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }
}

/// See the module.
pub(super) struct Writer {
    destination: Box<dyn Destination>,
    journal: Option<Journal>,
    format: Format,
    compression: Compression,
    file_size: u64,
    /// What is replaced at the end.
    replaced: Vec<String>,
    /// Makes the names of files unlike any others, and in order of time.
    batch: Uuid,
    files_begun: u32,
    open: HashMap<Arc<str>, OpenFile>,
    /// Counts the chunks.
    clock: u64,
    staged: Vec<Staged>,
    shared: Arc<Shared>,
    progress: Arc<Progress>,
}

struct OpenFile {
    encoder: Encoder,
    /// When it was last written to, in chunks.
    used: u64,
}

impl Writer {
    /// Takes over a destination, after a look at what lies there. Blocks.
    pub fn prepare(
        options: &Options,
        destination: Box<dyn Destination>,
        journal: Option<Journal>,
        shared: Arc<Shared>,
        progress: Arc<Progress>,
    ) -> Result<Self, ExportError> {
        let there = match options.mode {
            Mode::Append => Vec::new(),
            Mode::Error | Mode::Overwrite => destination.files()?,
        };
        if options.mode == Mode::Error && !there.is_empty() {
            return Err(ExportError::NotEmpty(options.target.to_string()));
        }
        if let Some(foreign) = there.iter().find(|path| !is_ours(path)) {
            return Err(ExportError::Foreign(options.target.to_string(), foreign.clone()));
        }
        destination.clear()?;
        if options.mode != Mode::Append {
            destination.unmark_success()?;
        }
        Ok(Self {
            destination,
            journal,
            format: options.format,
            compression: options.compression,
            file_size: options.file_size,
            replaced: there,
            batch: Uuid::now_v7(),
            files_begun: 0,
            open: HashMap::new(),
            clock: 0,
            staged: Vec::new(),
            shared,
            progress,
        })
    }

    /// Where the last run ended.
    pub fn cursor(&self) -> Option<&str> {
        self.journal.as_ref().and_then(Journal::cursor)
    }

    /// Writes until there is no more, and takes back what was not committed.
    pub fn run(mut self, work: &Receiver<Work>) -> Result<(), ExportError> {
        let done = self.write(work);
        if !matches!(done, Ok(true)) {
            self.take_back();
        }
        done.map(drop)
    }

    fn take_back(&mut self) {
        self.open.clear();
        // What was to be published is not among them: a journal says what becomes of that.
        self.staged.iter().for_each(|file| self.destination.discard(file));
        if self.journal.is_none() {
            // What fails here is left for the next run.
            let _ = self.destination.clear();
        }
    }

    /// Whether all was written, or nobody has more to say and did not say so.
    fn write(&mut self, work: &Receiver<Work>) -> Result<bool, ExportError> {
        while let Ok(next) = work.recv() {
            match next {
                Work::Chunk { folder, chunk } => self.chunk(&folder, &chunk)?,
                Work::Commit { cursor } => self.commit(cursor)?,
                Work::Finish { cursor } => {
                    self.commit(cursor)?;
                    self.destination.mark_success()?;
                    self.destination.clear()?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn chunk(&mut self, folder: &Arc<str>, chunk: &Chunk) -> Result<(), ExportError> {
        self.clock += 1;
        if !self.open.contains_key(folder) {
            if self.open.len() == MAX_OPEN_FILES {
                let oldest = self.open.iter().min_by_key(|(_, file)| file.used);
                if let Some(folder) = oldest.map(|(folder, _)| Arc::clone(folder)) {
                    self.complete(&folder)?;
                }
            }
            let encoder = self.begin(folder)?;
            self.open.insert(Arc::clone(folder), OpenFile { encoder, used: 0 });
        }
        let file = self.open.get_mut(folder).expect("it was put there above");
        file.used = self.clock;
        file.encoder.write(chunk)?;
        self.progress.wrote(chunk.rows());
        let is_full = file.encoder.bytes() >= self.file_size;
        if self.journal.is_none() && is_full {
            // Nobody sees it before the end.
            self.complete(folder)?;
        }
        self.keep_memory_bounded()?;
        if self.journal.is_some() && (is_full || self.is_much()) {
            self.shared.is_due.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Whether what is not committed is much to do again, though no file is full.
    fn is_much(&self) -> bool {
        let open = self.open.values().map(|file| file.encoder.bytes());
        let bytes: u64 = self.staged.iter().map(|file| file.bytes).chain(open).sum();
        self.staged.len() >= MAX_STAGED || bytes >= self.file_size.saturating_mul(FILES_A_COMMIT)
    }

    fn begin(&mut self, folder: &str) -> Result<Encoder, ExportError> {
        let ending = self.format.ending(self.compression);
        let name = format!("{PREFIX}{}-{:05}.{ending}", self.batch, self.files_begun);
        self.files_begun += 1;
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        let upload = self.destination.create(&path)?;
        Ok(Encoder::new(self.format, self.compression, upload)?)
    }

    fn keep_memory_bounded(&mut self) -> Result<(), ExportError> {
        let memory = |files: &HashMap<_, OpenFile>| -> usize {
            files.values().map(|file| file.encoder.memory()).sum()
        };
        while memory(&self.open) > MEMORY_BYTES {
            let size = |file: &OpenFile| (file.encoder.memory(), Reverse(file.used));
            let largest = self.open.iter_mut().max_by_key(|(_, file)| size(file));
            let Some((folder, file)) = largest else { break };
            if file.encoder.is_mostly_rows() {
                file.encoder.flush()?;
            } else {
                // What it holds it can only let go of at its end.
                let folder = Arc::clone(folder);
                self.complete(&folder)?;
            }
        }
        Ok(())
    }

    /// Completes the file of a folder.
    fn complete(&mut self, folder: &Arc<str>) -> Result<(), ExportError> {
        if let Some(file) = self.open.remove(folder) {
            let staged = file.encoder.finish()?;
            self.progress.file(staged.bytes);
            self.staged.push(staged);
        }
        Ok(())
    }

    /// Shows what was written.
    fn commit(&mut self, cursor: String) -> Result<(), ExportError> {
        let folders: Vec<_> = self.open.keys().cloned().collect();
        for folder in folders {
            self.complete(&folder)?;
        }
        self.progress.reached(&cursor);
        if let Some(journal) = &mut self.journal {
            journal.commit(std::mem::take(&mut self.staged), cursor, &*self.destination)?;
        } else {
            // In this order nothing is lost that was there, whatever fails.
            for file in std::mem::take(&mut self.staged) {
                self.destination.publish(&file)?;
            }
            for path in std::mem::take(&mut self.replaced) {
                self.destination.remove(&path)?;
            }
        }
        self.batch = Uuid::now_v7();
        self.files_begun = 0;
        self.shared.is_due.store(false, Ordering::Release);
        self.shared.commits.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// Whether an export wrote a file, by its name.
fn is_ours(path: &str) -> bool {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let keyed = folders.is_empty() || folders.split('/').all(|folder| folder.contains('='));
    let Some((stem, ending)) = name.strip_prefix(PREFIX).and_then(|name| name.split_once('.'))
    else {
        return false;
    };
    let Some((batch, number)) = stem.rsplit_once('-') else { return false };
    keyed
        && ["parquet", "jsonl", "jsonl.zst"].contains(&ending)
        && batch.parse::<Uuid>().is_ok()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::mpsc::channel;

    use tokio::runtime::Runtime;

    use super::super::destination::{self, S3Settings, Target};
    use super::super::tests::runs::incremental;
    use super::*;
    use crate::client::CursorFile;

    const TEXT_BYTES: u64 = 512 << 10;

    /// Writes a chunk of lines to each of so many folders, half a megabyte each; says whether
    /// they are due then.
    fn is_due_after(out: &Path, folders: u64) -> bool {
        let options = Options {
            format: Format::JsonLines,
            compression: Compression::None,
            file_size: 2 * TEXT_BYTES,
            ..incremental(out)
        };
        let runtime = Runtime::new().unwrap();
        let target = Target::Local(out.into());
        let destination =
            destination::open(&target, "me", &S3Settings::default(), runtime.handle()).unwrap();
        let file = CursorFile::open(options.cursor_file.as_ref().unwrap()).unwrap();
        let journal = Journal::open(file, target, &*destination).unwrap();
        let (shared, progress) = (Arc::<Shared>::default(), Arc::default());
        let writer =
            Writer::prepare(&options, destination, Some(journal), Arc::clone(&shared), progress)
                .unwrap();
        let (send, receive) = channel();
        for folder in 0..folders {
            let text = vec![b'\n'; TEXT_BYTES as usize];
            let chunk = Chunk::Lines { rows: 1, text };
            send.send(Work::Chunk { folder: format!("{folder}").into(), chunk }).unwrap();
        }
        drop(send);
        writer.run(&receive).unwrap();
        shared.is_due()
    }

    #[test]
    fn many_files_of_which_none_is_full_are_due_some_time() {
        let folder = tempfile::tempdir().unwrap();
        let enough = 2 * FILES_A_COMMIT;
        assert!(!is_due_after(&folder.path().join("few"), enough - 1));
        assert!(is_due_after(&folder.path().join("out"), enough));
        // Though more folders than there may be open files leave none of them open.
        let many = MAX_FOLDERS as u64 + enough;
        assert!(is_due_after(&folder.path().join("many"), many));
        assert!(fs::read_dir(folder.path().join("out")).unwrap().next().is_some());
    }

    #[test]
    fn only_what_an_export_wrote_is_its_own() {
        let id = Uuid::nil();
        for ours in [
            format!("part-{id}-00000.parquet"),
            format!("date=2026-11-29/event_type=guild_joined/part-{id}-00012.jsonl.zst"),
        ] {
            assert!(is_ours(&ours), "{ours}");
        }
        for foreign in [
            "notes.txt".to_owned(),
            "part-00000-x.snappy.parquet".to_owned(),
            format!("part-{id}-00000.csv"),
            format!("photos/part-{id}-00000.parquet"),
        ] {
            assert!(!is_ours(&foreign), "{foreign}");
        }
    }
}
