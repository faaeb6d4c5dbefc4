//! How far stdout has come, and the file that keeps it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::cli::output::Output;
use crate::client::{CursorFile, CursorFileError};

/// How often the file is written at most: what a crash brings again is no more than
/// the events of this time.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// The cursor behind everything that was written to stdout.
#[derive(Debug)]
pub struct Place {
    cursor: Option<String>,
    file: Option<CursorFile>,
    /// When to save the cursor; none when the file has it.
    due: Option<Instant>,
    saved: Option<Instant>,
}

impl Place {
    /// At the start.
    pub fn new(file: Option<CursorFile>) -> Self {
        Self { cursor: None, file, due: None, saved: None }
    }

    /// What the tail starts behind, which needs no saving.
    pub fn starts_behind(&mut self, cursor: String) {
        self.cursor = Some(cursor);
    }

    /// Everything before `cursor` was written to stdout and flushed.
    pub fn reached(&mut self, cursor: String) {
        if self.cursor.as_ref() == Some(&cursor) {
            return;
        }
        self.cursor = Some(cursor);
        if self.file.is_some() {
            let next = self.saved.map_or_else(Instant::now, |saved| saved + SAVE_INTERVAL);
            self.due.get_or_insert(next);
        }
    }

    /// Returns when it is time to save; never when there is nothing to.
    pub async fn due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Writes the file if it is behind. What the cursor covers is made as durable as the
    /// file first, so that a crash of the machine loses no event either.
    pub fn save(&mut self, output: &mut Output) -> anyhow::Result<()> {
        if let (Some(_), Some(file), Some(cursor)) = (self.due.take(), &self.file, &self.cursor) {
            output.sync()?;
            file.write(cursor)?;
            self.saved = Some(Instant::now());
        }
        Ok(())
    }

    /// What the file says, where there is one.
    pub fn stored(&self) -> Result<Option<String>, CursorFileError> {
        self.file.as_ref().map_or(Ok(None), CursorFile::read)
    }

    /// The cursor, for people.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// The file.
    pub fn file(&self) -> Option<&CursorFile> {
        self.file.as_ref()
    }
}
