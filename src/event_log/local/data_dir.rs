//! The folder that holds a log: made durably, and used by one process at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::OpenError;

/// Empty; whoever holds its lock owns the folder. The operating system lets go of
/// the lock when the process dies, however it dies.
pub(super) const LOCK_FILE: &str = "lock";

/// The database. SQLite keeps two more files beside it, with `-wal` and `-shm`
/// at the end, which belong to it: the newest records may be in them alone.
pub(super) const DATABASE_FILE: &str = "events.sqlite3";

/// A folder owned by this process until it is dropped.
pub(super) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the folder where there is none, and takes its lock.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::DataDir { dir: path.to_path_buf(), source };
        create_durably(path).map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {
                // Made here, and not by SQLite, so that it is its owner's alone in a folder
                // that is open to others; the files that SQLite puts beside it follow.
                private_file(&path.join(DATABASE_FILE)).map_err(failed)?;
                Ok(Self { path: path.to_path_buf(), _lock: lock })
            }
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { dir: path.to_path_buf() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the database is, or is to be.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE_FILE)
    }

    /// Makes the names in the folder survive a power failure. SQLite does that for
    /// its own write-ahead file, but not for the database itself.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync_dir(&self.path)
    }
}

/// `create_dir_all`, and each new name is on the disk when it returns.
fn create_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_durably(parent)?;
    match create_private(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_dir(parent),
    }
}

/// Makes a file for its owner alone, where there is none.
fn private_file(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// A folder for its owner alone, as events hold what is private of their callers.
#[cfg(unix)]
fn create_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().mode(0o700).create(path)
}

#[cfg(not(unix))]
fn create_private(path: &Path) -> io::Result<()> {
    fs::create_dir(path)
}

#[cfg(unix)]
fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Elsewhere a folder cannot be opened as a file, and the file system orders names
/// and contents itself.
#[cfg(not(unix))]
fn sync_dir(_path: &Path) -> io::Result<()> {
    Ok(())
}
