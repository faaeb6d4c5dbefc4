//! The file of the catalogue.

use std::fs;
use std::time::SystemTime;

use crate::domain::Catalog;

/// The most problems of a file that are told at once; a file of another kind could have one a
/// line.
const MAX_PROBLEMS: usize = 20;

/// A file with a catalogue, and what it looked like when it was last read.
#[derive(Clone, Debug)]
pub struct CatalogFile {
    path: String,
    read: Option<Stamp>,
    seen: Option<Stamp>,
}

/// What tells one content of a file from another without reading it: when it was changed, and
/// its length.
type Stamp = (SystemTime, u64);

impl CatalogFile {
    /// The file at `path`, which was not read yet.
    pub fn new(path: String) -> Self {
        Self { path, read: None, seen: None }
    }

    /// Reads the file.
    ///
    /// # Errors
    ///
    /// All that is wrong with it, up to a bound, one a line, each with the path.
    pub fn read(&mut self) -> Result<Catalog, Vec<String>> {
        // Before the content: a change while it is read is seen the next time.
        self.read = self.stamp();
        self.seen = self.read;
        let text = fs::read_to_string(&self.path);
        let text = text.map_err(|error| vec![format!("{}: {error}", self.path)])?;
        Catalog::parse(&text).map_err(|error| {
            let left_out = error.0.len().saturating_sub(MAX_PROBLEMS);
            let more = (left_out > 0).then(|| format!("and {left_out} more"));
            let told = error.0.into_iter().take(MAX_PROBLEMS).chain(more);
            told.map(|problem| format!("{}: {problem}", self.path)).collect()
        })
    }

    /// Whether the file has changed since it was read, and not any more since it was asked for
    /// last: one that is being written is left alone.
    pub fn has_changed(&mut self) -> bool {
        let now = self.stamp();
        let rests = now == std::mem::replace(&mut self.seen, now);
        rests && now != self.read
    }

    fn stamp(&self) -> Option<Stamp> {
        let metadata = fs::metadata(&self.path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_rests_and_until_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalogue.toml");
        fs::write(&path, "currency = 'gold'").unwrap();
        let mut file = CatalogFile::new(path.display().to_string());
        let version = file.read().unwrap().version().to_owned();
        assert!(!file.has_changed() && !file.has_changed());
        fs::write(&path, "currency = 'silver'").unwrap();
        assert!(!file.has_changed(), "it may still be written to");
        assert!(file.has_changed() && file.has_changed());
        assert_ne!(file.read().unwrap().version(), version);
        assert!(!file.has_changed());
        fs::remove_file(&path).unwrap();
        assert!(!file.has_changed());
        assert!(file.has_changed());
        assert!(file.read().unwrap_err()[0].starts_with(&path.display().to_string()));
        assert!(!file.has_changed() && !file.has_changed(), "told once");
    }

    #[test]
    fn the_problems_of_a_file_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalogue.toml");
        let item = "[[items]]\nid = ''\nname = 'x'\nprice = 1\n";
        fs::write(&path, format!("currency = 'gold'\n{}", item.repeat(100))).unwrap();
        let problems = CatalogFile::new(path.display().to_string()).read().unwrap_err();
        assert_eq!(problems.len(), MAX_PROBLEMS + 1);
        assert!(problems[MAX_PROBLEMS].ends_with("and 80 more"), "{problems:?}");
    }
}
