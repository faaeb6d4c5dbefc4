//! `herald schema`: what is needed to read the events elsewhere.
//!
//! Each form is made of the schema that this binary was built with, so that it describes the
//! events that this binary writes.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::exit::{Exit, UsageError};
use super::output::Output;
use super::words::printable;
use crate::{http, proto};

/// Of what a line of `herald tail --json` is the JSON.
const LINE: &str = "game.v1.DeliveredEvent";

/// Arguments of `herald schema`.
#[derive(Debug, Args)]
pub struct Schema {
    #[command(flatten)]
    form: Form,
    /// Write it to this file, which is replaced as a whole, instead of to stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A form of the schema, of which exactly one has to be given.
#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = false)]
struct Form {
    /// The text of game.proto, to generate code from.
    #[arg(long)]
    proto: bool,
    /// A descriptor set in binary, of game.proto and all that it imports, as
    /// protoc --descriptor_set_in and Spark's from_protobuf read it. The value of a record is
    /// a game.v1.GameEvent.
    #[arg(long)]
    descriptor_set: bool,
    /// A JSON Schema (draft 2020-12) of a line of herald tail --json.
    #[arg(long)]
    json: bool,
    /// The columns of the Parquet files of herald export, as a Parquet schema.
    #[arg(long)]
    parquet: bool,
}

/// What a form looks like.
enum Content {
    Text(Cow<'static, str>),
    /// With what its file is usually called.
    Binary {
        bytes: Cow<'static, [u8]>,
        file: &'static str,
    },
}

impl Form {
    fn content(self) -> anyhow::Result<Content> {
        Ok(match self {
            Self { proto: true, .. } => Content::Text(proto::SOURCE.into()),
            Self { descriptor_set: true, .. } => {
                Content::Binary { bytes: proto::DESCRIPTORS.into(), file: "game.desc" }
            }
            Self { json: true, .. } => Content::Text(json_of_a_line()?.into()),
            Self { parquet: true, .. } => Content::Text(super::export::parquet_schema()?.into()),
            Self { .. } => return Err(UsageError("name one form".to_owned()).into()),
        })
    }
}

impl Schema {
    /// Prints it, or writes it to a file.
    pub fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let content = self.form.content()?;
        if let Some(path) = &self.out {
            let bytes = match &content {
                Content::Text(text) => text.as_bytes(),
                Content::Binary { bytes, .. } => bytes,
            };
            let shown = printable(&path.display().to_string()).into_owned();
            replace(path, bytes).with_context(|| format!("cannot write {shown}"))?;
            output.note(&format!("wrote {shown}"));
            return Ok(Exit::Done);
        }
        match content {
            Content::Text(text) => output.raw(text.as_bytes())?,
            Content::Binary { file, .. } if output.is_terminal() => {
                let advice = format!("it is binary; put it into a file: > {file}, or --out {file}");
                return Err(UsageError(advice).into());
            }
            Content::Binary { bytes, .. } => output.raw(&bytes)?,
        }
        Ok(Exit::Done)
    }
}

fn json_of_a_line() -> anyhow::Result<String> {
    let known = http::Schema::build(&[]).map_err(anyhow::Error::msg)?;
    let schema = http::json_schema(&known, LINE);
    let schema = schema.with_context(|| format!("the schema has no message {LINE}"))?;
    Ok(format!("{schema:#}\n"))
}

/// Puts `bytes` into a file as a whole: whatever happens, it is as it was or has all of them.
/// Where the path is a link, what it leads to is replaced.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = match fs::metadata(path) {
        Ok(there) if there.is_file() => fs::canonicalize(path)?,
        Ok(_) => return Err(io::Error::other("it is there and is no file; leave --out away")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    // In the same folder, so that it can take the other one's place.
    let mut temporary = path.clone().into_os_string();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, &path));
    if written.is_err() {
        // What is there of it is of no use, and the error says enough.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("game.desc");
        let names = || fs::read_dir(folder.path()).unwrap().count();
        for bytes in [&b"one"[..], b"another"] {
            replace(&path, bytes).unwrap();
            assert_eq!((fs::read(&path).unwrap(), names()), (bytes.to_vec(), 1));
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, b"through").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"through");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

        let refused = replace(folder.path(), b"x").unwrap_err();
        assert!(refused.to_string().contains("is no file"), "{refused}");
        assert!(replace(&folder.path().join("missing/game.desc"), b"x").is_err());
        assert_eq!(names(), 2);
    }
}
