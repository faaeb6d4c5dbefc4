//! The snapshot: what players have, as a file, so that a start need not read the whole log.
//!
//! # The file
//!
//! [`MAGIC`], the version (four bytes, little endian), and sections: a kind (one byte), the
//! length of its content and a CRC-32 over kind, length and content (four bytes each, little
//! endian), and the content, a protobuf message. First comes a [`Head`], then [`Part`]s, then
//! one [`End`], which says how many players there are, and nothing behind it.
//!
//! # What it is true of
//!
//! Players are written down some at a time, each under the lock of its shard, while events go
//! on being applied. So a player may be further than the position in the head, and nobody is
//! less far. Each carries the offset behind its own newest event, and takes no event twice:
//! reading on from the head's position is right for all of them, and nothing has to wait for
//! the snapshot.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use prost::Message;

use crate::durable;

/// What the file begins with.
const MAGIC: &[u8; 8] = b"heraldpl";

/// The version of the form. A file of another one is not read.
const VERSION: u32 = 1;

/// Kind, length and check sum of a section.
const SECTION_HEAD_BYTES: usize = 9;

/// The kinds of sections.
const HEAD: u8 = b'h';
const PART: u8 = b'p';
const END: u8 = b'e';

/// What a snapshot is of.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Head {
    /// The log's identity; 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub log: Vec<u8>,
    /// Over how many partitions players were spread.
    #[prost(uint32, tag = "2")]
    pub key_partitions: u32,
    /// All events before these offsets, one a partition, are in.
    #[prost(uint64, repeated, tag = "3")]
    pub position: Vec<u64>,
    /// How far back that goes, one a partition.
    #[prost(message, repeated, tag = "4")]
    pub history: Vec<HistoryStart>,
}

/// How far back a partition's events go.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct HistoryStart {
    /// Whether retention had removed some before.
    #[prost(bool, tag = "1")]
    pub trimmed: bool,
    /// The append time of the oldest, in milliseconds since 1970, if there is one.
    #[prost(int64, optional, tag = "2")]
    pub since: Option<i64>,
}

/// Some players, and the texts and offers that they name by their places in these lists.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Part {
    #[prost(string, repeated, tag = "1")]
    pub texts: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    pub offers: Vec<OfferEntry>,
    #[prost(message, repeated, tag = "3")]
    pub players: Vec<PlayerEntry>,
}

/// An item and its price.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct OfferEntry {
    #[prost(uint32, tag = "1")]
    pub item: u32,
    #[prost(int64, tag = "2")]
    pub unit_price: i64,
    #[prost(uint32, tag = "3")]
    pub currency: u32,
}

/// A player. What there are several of is in lists of one length, one for each field.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PlayerEntry {
    #[prost(string, tag = "1")]
    pub player_id: String,
    #[prost(uint64, tag = "2")]
    pub next_offset: u64,
    #[prost(int64, tag = "3")]
    pub first_seen: i64,
    #[prost(int64, tag = "4")]
    pub last_seen: i64,
    #[prost(uint64, tag = "5")]
    pub sessions: u64,
    /// 16 bytes, or none.
    #[prost(bytes = "vec", tag = "6")]
    pub last_session: Vec<u8>,
    #[prost(string, tag = "7")]
    pub guild: String,
    #[prost(uint32, repeated, tag = "8")]
    pub items: Vec<u32>,
    #[prost(int64, repeated, tag = "9")]
    pub quantities: Vec<i64>,
    /// 16 bytes each.
    #[prost(bytes = "vec", tag = "10")]
    pub purchases: Vec<u8>,
    #[prost(uint32, repeated, tag = "11")]
    pub purchase_offers: Vec<u32>,
    #[prost(int32, repeated, tag = "12")]
    pub purchase_quantities: Vec<i32>,
    #[prost(bool, repeated, tag = "13")]
    pub purchase_refunded: Vec<bool>,
}

/// The end of a snapshot.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct End {
    #[prost(uint64, tag = "1")]
    players: u64,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    /// It cannot be read at all.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is damaged.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// It was written by another version.
    #[error("it has version {0}, and this server reads version {VERSION} only")]
    Version(u32),
    /// It is of another log, or of another state of this one.
    #[error("it does not belong to this log: {0}")]
    Foreign(&'static str),
}

/// Writes a snapshot beside the file that it will replace.
pub(super) struct Writer {
    path: PathBuf,
    beside: PathBuf,
    file: BufWriter<File>,
    buffer: Vec<u8>,
    players: u64,
}

impl Writer {
    pub fn create(path: &Path, head: &Head) -> io::Result<Self> {
        let beside = with_suffix(path, ".new");
        let mut options = OpenOptions::new();
        // Its owner's alone, as the events are.
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = BufWriter::new(options.open(&beside)?);
        let buffer = Vec::new();
        let mut writer = Self { path: path.to_owned(), beside, file, buffer, players: 0 };
        writer.file.write_all(MAGIC)?;
        writer.file.write_all(&VERSION.to_le_bytes())?;
        writer.section(HEAD, head)?;
        Ok(writer)
    }

    pub fn part(&mut self, part: &Part) -> io::Result<()> {
        self.players += part.players.len() as u64;
        self.section(PART, part)
    }

    /// Makes it durable and puts it in its place, at once or not at all.
    pub fn finish(mut self) -> io::Result<()> {
        let end = End { players: self.players };
        self.section(END, &end)?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        fs::rename(&self.beside, &self.path)?;
        durable::sync_name(&self.path)
    }

    /// Leaves things as they were.
    pub fn discard(self) {
        let _ = fs::remove_file(&self.beside);
    }

    fn section(&mut self, kind: u8, content: &impl Message) -> io::Result<()> {
        self.buffer.clear();
        content.encode(&mut self.buffer).map_err(io::Error::other)?;
        let length = u32::try_from(self.buffer.len()).map_err(io::Error::other)?;
        let mut head = [0; SECTION_HEAD_BYTES];
        head[0] = kind;
        head[1..5].copy_from_slice(&length.to_le_bytes());
        let sum = check_sum(&head[..5], &self.buffer);
        head[5..].copy_from_slice(&sum.to_le_bytes());
        self.file.write_all(&head)?;
        self.file.write_all(&self.buffer)
    }
}

/// Reads a snapshot from its beginning to its end.
pub(super) struct Reader {
    file: BufReader<File>,
    /// How many bytes of the file are left, which bounds what is allocated.
    left: u64,
    players: u64,
}

impl Reader {
    /// Opens a file; none when there is none.
    pub fn open(path: &Path) -> Result<Option<(Self, Head)>, SnapshotError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let left = file.metadata()?.len();
        let mut reader = Self { file: BufReader::new(file), left, players: 0 };
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(SnapshotError::Damaged("it does not begin as a snapshot does"));
        }
        let version = reader.take(4)?;
        let version = u32::from_le_bytes([version[0], version[1], version[2], version[3]]);
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        match reader.section()? {
            (HEAD, content) => Ok(Some((reader, decode(&content)?))),
            _ => Err(SnapshotError::Damaged("it has no head")),
        }
    }

    /// The next players; none at the end, once that is known to be the end.
    pub fn next(&mut self) -> Result<Option<Part>, SnapshotError> {
        match self.section()? {
            (PART, content) => {
                let part: Part = decode(&content)?;
                self.players += part.players.len() as u64;
                Ok(Some(part))
            }
            (END, content) if decode::<End>(&content)?.players == self.players => {
                if self.left == 0 {
                    Ok(None)
                } else {
                    Err(SnapshotError::Damaged("something follows its end"))
                }
            }
            _ => Err(SnapshotError::Damaged("it is not what was written")),
        }
    }

    fn section(&mut self) -> Result<(u8, Vec<u8>), SnapshotError> {
        let head = self.take(SECTION_HEAD_BYTES)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        let sum = u32::from_le_bytes([head[5], head[6], head[7], head[8]]);
        let content = self.take(length as usize)?;
        if check_sum(&head[..5], &content) != sum {
            return Err(SnapshotError::Damaged("a check sum is wrong"));
        }
        Ok((head[0], content))
    }

    fn take(&mut self, bytes: usize) -> Result<Vec<u8>, SnapshotError> {
        let left = self.left.checked_sub(bytes as u64);
        self.left = left.ok_or(SnapshotError::Damaged("its end is missing"))?;
        let mut taken = vec![0; bytes];
        self.file.read_exact(&mut taken)?;
        Ok(taken)
    }
}

/// Moves a file out of the way that is not used, so that the next snapshot does not replace
/// what may be the only copy; returns where to.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = with_suffix(path, ".refused");
    fs::rename(path, &aside)?;
    Ok(aside)
}

fn decode<T: Message + Default>(content: &[u8]) -> Result<T, SnapshotError> {
    T::decode(content).map_err(|_| SnapshotError::Damaged("a section is no message"))
}

fn check_sum(head: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(content);
    hasher.finalize()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
