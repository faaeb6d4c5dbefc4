//! Destinations: where the files go.
//!
//! A file is written where no reader sees it ([`Destination::create`]), and is complete and
//! durable there once it is [staged](Upload::finish). Publishing shows it under its name, whole,
//! and may be asked for again after a crash: it says what a killed run did not live to see.
//!
//! Everything here blocks; an object store is waited for.

mod hdfs;
mod local;
mod s3;

use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

pub use s3::{MAX_FILE_SIZE as MAX_S3_FILE_SIZE, Settings as S3Settings};

/// Where files are until they are published: below the destination, under names that no reader
/// of Parquet takes for data, each export's in a folder of its own. Not `_temporary`, which is
/// where Hadoop's committers have theirs.
const TEMPORARY: &str = "_herald_temporary";

/// Says that a run has ended well, as it does for Hadoop's committers; empty.
const SUCCESS: &str = "_SUCCESS";

/// Where an export goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A folder of this machine.
    Local(PathBuf),
    /// A prefix in a bucket; the prefix is empty or ends in no slash.
    S3 {
        /// The bucket.
        bucket: String,
        /// Before the name of each file.
        prefix: String,
    },
    /// A folder in HDFS.
    Hdfs {
        /// The name node, as `hdfs://host:port`, or the name service.
        server: String,
        /// The folder, from its root.
        path: String,
    },
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "" => Err("is empty; name a folder".to_owned()),
                _ => Ok(Self::Local(PathBuf::from(text))),
            };
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        // Stores take them for names of their own, or leave them out, each as it likes.
        let given = path.strip_suffix('/').unwrap_or(path);
        if scheme != "file" && !given.is_empty() && given.split('/').any(str::is_empty) {
            return Err("has // in its path; write the path with single slashes".to_owned());
        }
        let path = path.trim_matches('/');
        if path.split('/').any(|part| [".", ".."].contains(&part)) {
            return Err("has . or .. in it; write the path without".to_owned());
        }
        match scheme {
            "s3" | "s3a" if !host.is_empty() => {
                Ok(Self::S3 { bucket: host.to_owned(), prefix: path.to_owned() })
            }
            "hdfs" if !host.is_empty() && !path.is_empty() => {
                Ok(Self::Hdfs { server: format!("hdfs://{host}"), path: format!("/{path}") })
            }
            "hdfs" => Err("write hdfs://HOST:PORT/FOLDER".to_owned()),
            "file" => Ok(Self::Local(PathBuf::from(format!("/{path}")))),
            _ => Err("write a folder, s3://BUCKET/PREFIX or hdfs://HOST:PORT/FOLDER".to_owned()),
        }
    }
}

impl Target {
    /// The same for all names of the same place, as far as this machine can tell: a folder that
    /// is there by its path from the root, without links.
    pub(super) fn resolved(&self) -> Self {
        match self {
            Self::Local(path) => {
                let known = path.canonicalize().or_else(|_| std::path::absolute(path));
                Self::Local(known.unwrap_or_else(|_| path.clone()))
            }
            elsewhere => elsewhere.clone(),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Hdfs { server, path } => write!(f, "{server}{path}"),
        }
    }
}

/// What went wrong there, and where.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {why}")]
pub struct DestinationError {
    doing: String,
    why: String,
}

impl DestinationError {
    fn new(doing: impl Into<String>, why: impl ToString) -> Self {
        Self { doing: doing.into(), why: why.to_string() }
    }
}

/// A file that is complete and durable, and not yet seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// Its name once it is published, from the destination on.
    pub path: String,
    /// How long it is.
    pub bytes: u64,
    /// Where it is until then.
    pub place: StagedAt,
}

/// Where a staged file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StagedAt {
    /// Under another name, from the destination on.
    Temporary(String),
    /// In the parts of an upload that is to be completed.
    Multipart {
        /// The upload.
        id: String,
        /// Its parts, in order.
        parts: Vec<String>,
    },
}

/// A file that is being written.
pub trait Upload: Send {
    /// Adds bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// How many bytes are held in memory until there are more.
    fn held(&self) -> usize {
        0
    }

    /// Makes it complete and durable.
    fn finish(self: Box<Self>) -> Result<Staged, DestinationError>;
}

/// A destination, used by this export alone.
pub trait Destination: Send {
    /// The files there, from the destination on, in no order; not those that are being written,
    /// nor what marks success.
    fn files(&self) -> Result<Vec<String>, DestinationError>;

    /// Begins a file that is to have the name `path` from the destination on.
    fn create(&self, path: &str) -> Result<Box<dyn Upload>, DestinationError>;

    /// Shows a file, so that it outlives a crash of the machine. When it was published before,
    /// nothing happens.
    fn publish(&self, file: &Staged) -> Result<(), DestinationError>;

    /// Removes a file.
    fn remove(&self, path: &str) -> Result<(), DestinationError>;

    /// Takes back a file that is not to be published.
    fn discard(&self, file: &Staged);

    /// Removes what a killed run of this export left of files that it did not finish.
    fn clear(&self) -> Result<(), DestinationError>;

    /// Says that a run has ended well.
    fn mark_success(&self) -> Result<(), DestinationError>;

    /// Takes that back.
    fn unmark_success(&self) -> Result<(), DestinationError>;
}

/// Takes a destination for this export, whose temporary files are told from those of others by
/// `owner`, a name for a folder.
///
/// # Errors
///
/// It cannot be reached or used, or another export has it.
pub fn open(
    target: &Target,
    owner: &str,
    s3: &S3Settings,
    runtime: &Handle,
) -> Result<Box<dyn Destination>, DestinationError> {
    Ok(match target {
        Target::Local(path) => Box::new(local::Local::open(path, owner)?),
        Target::S3 { bucket, prefix } => {
            Box::new(s3::S3::open(bucket, prefix, s3, runtime.clone())?)
        }
        Target::Hdfs { server, path } => {
            Box::new(hdfs::Hdfs::open(server, path, owner, runtime.clone())?)
        }
    })
}

/// What a killed process would have to say.
#[cfg(test)]
pub fn dead() -> DestinationError {
    DestinationError::new("dead", "")
}

/// The temporary name of a file, from the destination on. The last part is unique already.
fn temporary_name(owner: &str, path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    format!("{TEMPORARY}/{owner}/{name}.tmp")
}

/// Whether a name, from the destination on, is one of a file that readers see.
fn is_data(path: &str) -> bool {
    path != SUCCESS && !path.starts_with(&format!("{TEMPORARY}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_folder_or_an_address() {
        let parse = |text: &str| text.parse::<Target>();
        assert_eq!(parse("a/b"), Ok(Target::Local("a/b".into())));
        assert_eq!(parse("file:///a/b"), Ok(Target::Local("/a/b".into())));
        let s3 = |bucket: &str, prefix: &str| {
            Ok(Target::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
        };
        assert_eq!(parse("s3://b/x/y/"), s3("b", "x/y"));
        assert_eq!(parse("s3a://b"), s3("b", ""));
        let hdfs = Target::Hdfs { server: "hdfs://n:9000".into(), path: "/x/y".into() };
        assert_eq!(hdfs.to_string(), "hdfs://n:9000/x/y");
        assert_eq!(parse("hdfs://n:9000/x/y"), Ok(hdfs));
        for wrong in ["", "s3://", "hdfs://n:9000", "gs://b/x", "s3://b/../c", "hdfs:///x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        // object_store would list s3://b/a/b, and so find nothing that has to be spared.
        for wrong in ["s3://b/a//b", "s3://b//a", "s3://b/a//", "hdfs://n:9000/a//b"] {
            assert!(parse(wrong).unwrap_err().contains("single slashes"), "{wrong}");
        }
    }
}
