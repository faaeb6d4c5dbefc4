//! What can be said of the folder of a log without opening it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::data_dir::{DATABASE_FILE, LOCK_FILE};

/// The folder of a log, as it is shown to an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderDescription {
    /// Whether there is a log in it.
    pub has_log: bool,
    /// Whether a process has the log open.
    pub in_use: bool,
    /// Whether files can be made in it or, where it is missing, whether it can be made.
    pub writable: bool,
    /// What this process could still write to its disk.
    pub free_bytes: u64,
}

/// Looks at the folder of a log. Makes nothing.
///
/// # Errors
///
/// The path names something else, or the operating system does not answer.
pub fn describe_folder(dir: &Path) -> io::Result<FolderDescription> {
    let existing = nearest_existing(dir)?;
    let space = rustix::fs::statvfs(&existing)?;
    Ok(FolderDescription {
        has_log: dir.join(DATABASE_FILE).try_exists()?,
        in_use: is_locked(&dir.join(LOCK_FILE))?,
        writable: rustix::fs::access(&existing, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
        free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
    })
}

/// The folder, or the one that it would be made in.
fn nearest_existing(dir: &Path) -> io::Result<PathBuf> {
    for ancestor in std::path::absolute(dir)?.ancestors() {
        match fs::metadata(ancestor) {
            Ok(found) if found.is_dir() => return Ok(ancestor.to_path_buf()),
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Whether somebody holds the lock. It is held here too for the moment of asking, in which
/// nobody else can take it.
fn is_locked(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LocalLog, Options};
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_folder_is_described_without_being_made_or_taken() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("deep/data");
        let described = describe_folder(&dir).unwrap();
        assert!(!described.has_log && !described.in_use && described.writable);
        assert!(described.free_bytes > 0);
        assert!(!root.path().join("deep").exists());

        let options = Options {
            data_dir: dir.clone(),
            partitions: 1,
            retention_age: None,
            retention_bytes: None,
            clock: Clock::System,
        };
        let log = LocalLog::open(options.clone()).unwrap();
        let described = describe_folder(&dir).unwrap();
        assert!(described.has_log && described.in_use);
        drop(log);
        assert!(!describe_folder(&dir).unwrap().in_use);
        LocalLog::open(options).unwrap();
    }

    #[test]
    fn a_file_is_no_folder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path().to_path_buf(), file.path().join("data")] {
            assert!(describe_folder(&path).is_err(), "{}", path.display());
        }
    }
}
