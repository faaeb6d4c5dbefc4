//! A folder of this machine.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{
    Destination, DestinationError, SUCCESS, Staged, StagedAt, TEMPORARY, Upload, is_data,
    temporary_name,
};
use crate::durable;

/// See the module.
pub(super) struct Local {
    root: PathBuf,
    owner: String,
    /// Its lock is held for as long as it is open.
    _folder: File,
}

impl Local {
    pub fn open(root: &Path, owner: &str) -> Result<Self, DestinationError> {
        let failed = |error: io::Error| {
            DestinationError::new(format!("cannot use the folder {}", root.display()), error)
        };
        fs::create_dir_all(root).map_err(failed)?;
        let root = fs::canonicalize(root).map_err(failed)?;
        let folder = File::open(&root).map_err(failed)?;
        match folder.try_lock() {
            Ok(()) => Ok(Self { root, owner: owner.to_owned(), _folder: folder }),
            Err(TryLockError::WouldBlock) => {
                Err(failed(io::Error::other("another export writes to it; wait for its end")))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

fn failed<'a>(doing: &'a str, path: &'a Path) -> impl Fn(io::Error) -> DestinationError + 'a {
    move |error| DestinationError::new(format!("cannot {doing} {}", path.display()), error)
}

/// Adds the names of files below a folder.
fn walk(folder: &Path, below: &str, names: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if !entry.file_type()?.is_dir() {
            names.push(name);
        } else if name != TEMPORARY {
            walk(&entry.path(), &format!("{name}/"), names)?;
        }
    }
    Ok(())
}

impl Destination for Local {
    fn files(&self) -> Result<Vec<String>, DestinationError> {
        let mut names = Vec::new();
        walk(&self.root, "", &mut names).map_err(failed("list", &self.root))?;
        names.retain(|name| is_data(name));
        Ok(names)
    }

    fn create(&self, path: &str) -> Result<Box<dyn Upload>, DestinationError> {
        let name = temporary_name(&self.owner, path);
        let at = self.at(&name);
        let made = at.parent().map_or(Ok(()), fs::create_dir_all);
        let file = made.and_then(|()| File::create_new(&at)).map_err(failed("write", &at))?;
        Ok(Box::new(Writing { file, at, path: path.to_owned(), name, bytes: 0 }))
    }

    fn publish(&self, file: &Staged) -> Result<(), DestinationError> {
        let StagedAt::Temporary(name) = &file.place else {
            return Err(DestinationError::new("cannot publish", "it is no local file"));
        };
        let (from, to) = (self.at(name), self.at(&file.path));
        let folder = to.parent().unwrap_or(&self.root);
        // Each new folder is a name in the one above it.
        let missing: Vec<_> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
        for folder in missing {
            durable::sync_name(folder).map_err(failed("sync", folder))?;
        }
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && to.exists() => {}
            renamed => renamed.map_err(failed("rename a file to", &to))?,
        }
        durable::sync_name(&to).map_err(failed("sync the folder of", &to))
    }

    fn remove(&self, path: &str) -> Result<(), DestinationError> {
        let at = self.at(path);
        match fs::remove_file(&at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(failed("remove", &at))?,
        }
        // Folders that are empty now go too; the others say that they are not.
        let above = at.ancestors().skip(1).take_while(|folder| *folder != self.root);
        let _ = above.map(fs::remove_dir).find(Result::is_err);
        Ok(())
    }

    fn discard(&self, file: &Staged) {
        if let StagedAt::Temporary(name) = &file.place {
            // What stays is removed by the next run.
            let _ = fs::remove_file(self.at(name));
        }
    }

    fn clear(&self) -> Result<(), DestinationError> {
        let all = self.at(TEMPORARY);
        let at = all.join(&self.owner);
        match fs::remove_dir_all(&at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(failed("remove", &at))?,
        }
        // It stays where another export has something in it.
        let _ = fs::remove_dir(&all);
        Ok(())
    }

    fn mark_success(&self) -> Result<(), DestinationError> {
        let at = self.at(SUCCESS);
        File::create(&at)
            .and_then(|file| file.sync_all())
            .and_then(|()| durable::sync_name(&at))
            .map_err(failed("write", &at))
    }

    fn unmark_success(&self) -> Result<(), DestinationError> {
        let at = self.at(SUCCESS);
        match fs::remove_file(&at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(failed("remove", &at)),
        }
    }
}

struct Writing {
    file: File,
    at: PathBuf,
    path: String,
    name: String,
    bytes: u64,
}

impl Upload for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn finish(self: Box<Self>) -> Result<Staged, DestinationError> {
        self.file
            .sync_all()
            .and_then(|()| durable::sync_name(&self.at))
            .map_err(failed("write", &self.at))?;
        Ok(Staged { path: self.path, bytes: self.bytes, place: StagedAt::Temporary(self.name) })
    }
}
