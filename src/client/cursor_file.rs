//! A file that keeps the place of a reader.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::durable;

/// The longest text that is taken for a cursor: those of a thousand partitions fit.
const MAX_BYTES: u64 = 16 * 1024;

/// The cursor of one reader, in a file of one line.
///
/// It is replaced as a whole: whatever happens, the file holds the cursor before or the
/// new one. While a `CursorFile` is there no other can be opened at the same path, in
/// this process or another one; a lock on the empty file `PATH.lock` beside it sees to
/// that. That file stays: a lock is on a file, not on its name.
#[derive(Debug)]
pub struct CursorFile {
    path: PathBuf,
    _lock: File,
}

/// Why a cursor file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CursorFileError {
    /// It has no folder, or none that can be written to.
    #[error(
        "the cursor file {path} cannot be kept: its folder {folder} must exist and be writable"
    )]
    Folder {
        /// Its path.
        path: PathBuf,
        /// Where it would be.
        folder: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Another reader has it.
    #[error("the cursor file {0} is in use by another reader; give each reader a file of its own")]
    InUse(PathBuf),
    /// It is there and cannot be read.
    #[error("the cursor file {0} cannot be read; make it readable, or remove it to start anew")]
    Unreadable(PathBuf, #[source] io::Error),
    /// It is there and holds no cursor.
    #[error("the cursor file {0} {1}; put a cursor into it, or remove it to start anew")]
    Damaged(PathBuf, &'static str),
    /// The new cursor is not in it; the one before is, or none.
    #[error("the cursor file {0} cannot be written; events since its last cursor will come again")]
    Unwritable(PathBuf, #[source] io::Error),
}

impl CursorFile {
    /// Takes the file at `path`, which need not exist, for this reader alone.
    ///
    /// # Errors
    ///
    /// [`CursorFileError::Folder`] and [`CursorFileError::InUse`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CursorFileError> {
        // What a link points to is replaced, not the link; and the lock is the same one
        // whatever name is used.
        let path = fs::canonicalize(&path).unwrap_or_else(|_| path.as_ref().to_owned());
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(with_ending(&path, ".lock"));
        let lock = match lock.map(|lock| lock.try_lock().map(|()| lock)) {
            Ok(Ok(lock)) => lock,
            Ok(Err(TryLockError::WouldBlock)) => return Err(CursorFileError::InUse(path)),
            Ok(Err(TryLockError::Error(source))) | Err(source) => {
                return Err(CursorFileError::Folder { path, folder, source });
            }
        };
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cursor in it; none when there is no file. That it is a cursor of a certain
    /// log only the server can tell.
    ///
    /// # Errors
    ///
    /// [`CursorFileError::Unreadable`] and [`CursorFileError::Damaged`]: never taken for
    /// a file that is not there, as the reader would start at another place.
    pub fn read(&self) -> Result<Option<String>, CursorFileError> {
        let mut bytes = Vec::new();
        let read = File::open(&self.path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CursorFileError::Unreadable(self.path.clone(), error)),
            Ok(_) => {}
        }
        let cursor = bytes.trim_ascii();
        if cursor.is_empty() {
            return Err(CursorFileError::Damaged(self.path.clone(), "is empty"));
        }
        if bytes.len() as u64 > MAX_BYTES || !cursor.iter().all(u8::is_ascii_graphic) {
            return Err(CursorFileError::Damaged(self.path.clone(), "holds no cursor"));
        }
        Ok(Some(String::from_utf8_lossy(cursor).into_owned()))
    }

    /// Replaces the cursor. Once this returns, it outlives a crash of the machine. Blocks
    /// for as long as the disk takes.
    ///
    /// # Errors
    ///
    /// [`CursorFileError::Unwritable`].
    pub fn write(&self, cursor: &str) -> Result<(), CursorFileError> {
        durable::replace(&self.path, format!("{cursor}\n").as_bytes())
            .map_err(|error| CursorFileError::Unwritable(self.path.clone(), error))
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_newest_cursor_and_one_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cursor");
        let file = CursorFile::open(&path).unwrap();
        assert_eq!(file.read().unwrap(), None);
        for cursor in ["a-longer-one", "b"] {
            file.write(cursor).unwrap();
            assert_eq!(file.read().unwrap().as_deref(), Some(cursor));
        }
        assert!(matches!(CursorFile::open(&path), Err(CursorFileError::InUse(_))));
        drop(file);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = CursorFile::open(&link).unwrap();
        assert!(matches!(CursorFile::open(&path), Err(CursorFileError::InUse(_))));
        file.write("c").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "c\n");
        assert!(!with_ending(&path, ".tmp").exists());
    }

    #[test]
    fn what_is_no_cursor_is_never_taken_for_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cursor");
        let file = CursorFile::open(&path).unwrap();
        for text in ["", "\n", "two words", "a\nb", "\0\0\0", &"a".repeat(20_000)] {
            fs::write(&path, text).unwrap();
            assert!(matches!(file.read(), Err(CursorFileError::Damaged(..))), "{text:?}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(file.read(), Err(CursorFileError::Unreadable(..))));
        assert!(matches!(file.write("a"), Err(CursorFileError::Unwritable(..))));
        let nowhere = folder.path().join("missing").join("cursor");
        assert!(matches!(CursorFile::open(nowhere), Err(CursorFileError::Folder { .. })));
    }
}
