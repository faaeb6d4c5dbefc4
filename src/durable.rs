//! Files that are there as a whole, and outlive a crash of the machine.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Puts a file in the place of another one, or of none: at every moment it is as it was or has
/// all of `contents`. Once this returns, it outlives a crash of the machine. Blocks for as long
/// as the disk takes. What it writes is beside the file until it is complete, with `.tmp` behind
/// the name, so that one process at a time may replace it.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_name(path)
}

/// Makes the name of a file, or that it is gone, durable: it is in the folder, which is a file of
/// its own.
pub fn sync_name(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
