//! The journal: what makes publishing several files and moving the cursor one step.
//!
//! Beside the cursor file lies `NAME.pending` while files are being published. It is there
//! whole or not at all, and says which files, staged by then, belong before which cursor. A run
//! that finds one finishes what it says, however far the run before had come: publishing is no
//! different the second time. So a run that is killed
//!
//! * before the journal is there has done nothing that can be seen, and the cursor is where it
//!   was: its rows come again;
//! * after that has done everything, as far as the next run is concerned.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ExportError;
use super::destination::{Destination, Staged, Target};
use crate::client::CursorFile;
use crate::durable;

/// Behind the name of the cursor file.
const ENDING: &str = ".pending";

/// Raised when an older Herald could no longer do what a newer one's journal says.
const VERSION: u32 = 1;

/// What is in the journal.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    version: u32,
    /// Where the files go.
    target: String,
    /// The cursor before; none where there was no file.
    before: Option<String>,
    /// The cursor behind what is in the files.
    after: String,
    files: Vec<Staged>,
}

/// The cursor file of an export, with its journal.
pub(super) struct Journal {
    file: CursorFile,
    path: PathBuf,
    target: Target,
    cursor: Option<String>,
}

impl Journal {
    /// Opens it, finishes what a killed run had begun to publish, and reads the cursor. The
    /// target is [resolved](Target::resolved): it is compared with that of the run before.
    pub fn open(
        file: CursorFile,
        target: Target,
        destination: &dyn Destination,
    ) -> Result<Self, ExportError> {
        let mut path = file.path().as_os_str().to_owned();
        path.push(ENDING);
        let cursor = file.read()?;
        let mut journal = Self { file, path: path.into(), target, cursor };
        if let Some(entry) = journal.pending()? {
            journal.finish(entry, destination)?;
        }
        Ok(journal)
    }

    /// Where the run begins.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Publishes files and moves the cursor: both happen or neither does, once the next run has
    /// looked.
    pub fn commit(
        &mut self,
        files: Vec<Staged>,
        after: String,
        destination: &dyn Destination,
    ) -> Result<(), ExportError> {
        if self.cursor.as_ref() == Some(&after) && files.is_empty() {
            return Ok(());
        }
        let before = self.cursor.clone();
        let entry =
            Entry { version: VERSION, target: self.target.to_string(), before, after, files };
        if !entry.files.is_empty() {
            let text = serde_json::to_vec_pretty(&entry).map_err(io::Error::from);
            text.and_then(|text| durable::replace(&self.path, &text))
                .map_err(|error| self.failed(error))?;
        }
        self.apply(entry, destination)
    }

    fn pending(&self) -> Result<Option<Entry>, ExportError> {
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| self.failed(error))?,
        };
        let entry = serde_json::from_slice::<Entry>(&text);
        match entry {
            Ok(entry) if entry.version == VERSION => Ok(Some(entry)),
            Ok(Entry { version, .. }) => Err(ExportError::Journal(format!(
                "{} has version {version}, made by another version of herald; finish the export \
                 with that one first",
                self.path.display()
            ))),
            Err(error) => Err(ExportError::Journal(format!(
                "{} cannot be understood ({error}); it says which files the last run was \
                 publishing: restore it from a copy",
                self.path.display()
            ))),
        }
    }

    /// Finishes what an entry says.
    fn finish(&mut self, entry: Entry, destination: &dyn Destination) -> Result<(), ExportError> {
        let path = self.path.display();
        if entry.target != self.target.to_string() {
            return Err(ExportError::Journal(format!(
                "the last run was killed while it published files in {}; run it once more with \
                 that --out, or with another --cursor-file",
                entry.target
            )));
        }
        if self.cursor.as_ref() == Some(&entry.after) {
            // Everything but the end of the journal was done.
            return self.remove();
        }
        if self.cursor != entry.before {
            return Err(ExportError::Journal(format!(
                "{path} says what the last run was publishing when it was killed, and the cursor \
                 was changed since; put back the cursor {}, or remove {path} if those files are \
                 not wanted",
                entry.before.as_deref().unwrap_or("file that was not there")
            )));
        }
        tracing::info!(files = entry.files.len(), "finishing what a killed run had begun");
        self.apply(entry, destination)
    }

    fn apply(&mut self, entry: Entry, destination: &dyn Destination) -> Result<(), ExportError> {
        for file in &entry.files {
            destination.publish(file)?;
        }
        self.file.write(&entry.after)?;
        self.cursor = Some(entry.after);
        if entry.files.is_empty() { Ok(()) } else { self.remove() }
    }

    fn remove(&self) -> Result<(), ExportError> {
        // It has to stay away: by the next time the cursor is another one.
        fs::remove_file(&self.path)
            .and_then(|()| durable::sync_name(&self.path))
            .map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> ExportError {
        ExportError::Journal(format!("cannot keep {}: {error}", self.path.display()))
    }
}
