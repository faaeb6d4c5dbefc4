//! Encoding: from rows to the bytes of a file, Parquet or lines of JSON.

use std::io::{self, Write};
use std::sync::LazyLock;

use arrow_array::RecordBatch;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression as ParquetCompression, Encoding, Type, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::printer::print_schema;
use parquet::schema::types::ColumnPath;
use zstd::stream::write::Encoder as Zstd;

use super::destination::{DestinationError, Staged, Upload};
use super::rows;

/// How many bytes of encoded rows make a row group: what readers take in one piece, and what a
/// file that is being written keeps in memory at the most.
pub(super) const ROW_GROUP_BYTES: usize = 32 << 20;

/// How hard zstd tries: its own default.
const ZSTD_LEVEL: i32 = 3;

/// How far back a compressor for lines looks for what came before, as a power of two of bytes: a
/// quarter of what zstd takes at that level, as there may be many files at a time.
const ZSTD_WINDOW_LOG: u32 = 19;

/// What a compressor for lines holds then, about: the window and its tables.
/// Source: `ZSTD_estimateCStreamSize_usingCParams` of zstd 1.5 says 2,090,521.
const ZSTD_BYTES: usize = 2 << 20;

/// What the compressors of a Parquet file hold at the most, one for each column; each grows with
/// its pages. Source: measured, with a full row group.
const ZSTD_COLUMNS_BYTES: usize = 6 << 20;

/// What a Parquet file holds beside its rows, for its columns and their compressors.
/// Source: measured, as what 300 of them with a few rows added to the resident memory.
const PARQUET_BYTES: usize = 320 << 10;

/// What it keeps of each row group to the end, for the footer. Source: measured likewise, over ten.
const ROW_GROUP_METADATA_BYTES: usize = 40 << 10;

/// Columns whose values hardly ever come twice, so that looking for them in a dictionary is
/// work for nothing.
const UNIQUE: [&[&str]; 6] = [
    &["event_id"],
    &["raw_value"],
    &["origin", "request_id"],
    &["session_started", "session_id"],
    &["purchase_refunded", "purchase_event_id"],
    &["origin", "client_context", "session_id"],
];

/// What files are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Apache Parquet, with the columns of [`rows::schema`].
    Parquet,
    /// One event a line, as `herald tail --json` prints it.
    JsonLines,
}

/// How files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Snappy, in Parquet only: little work.
    Snappy,
    /// Zstandard: smaller.
    Zstd,
}

impl Format {
    /// What the names of files end with.
    pub(super) fn ending(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Parquet, _) => "parquet",
            (Self::JsonLines, Compression::Zstd) => "jsonl.zst",
            (Self::JsonLines, _) => "jsonl",
        }
    }
}

/// Rows for a file.
#[derive(Debug)]
pub(super) enum Chunk {
    Batch(RecordBatch),
    Lines { rows: usize, text: Vec<u8> },
}

impl Chunk {
    pub fn rows(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.num_rows(),
            Self::Lines { rows, .. } => *rows,
        }
    }
}

/// Why rows could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum EncodeError {
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
    #[error("cannot write Parquet: {0}")]
    Parquet(#[from] ParquetError),
    #[error("{0}")]
    Destination(#[from] DestinationError),
}

/// A file that is being written.
pub(super) struct Encoder {
    form: Form,
    is_zstd: bool,
}

enum Form {
    Parquet(Box<ArrowWriter<Sink>>),
    Plain(Sink),
    Zstd(Zstd<'static, Sink>),
}

/// Where the bytes go, and how many went there.
struct Sink {
    upload: Box<dyn Upload>,
    bytes: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.upload.write(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Encoder {
    pub fn new(
        format: Format,
        compression: Compression,
        upload: Box<dyn Upload>,
    ) -> Result<Self, EncodeError> {
        let sink = Sink { upload, bytes: 0 };
        let form = match (format, compression) {
            (Format::Parquet, _) => {
                let properties = Some(properties(compression));
                Form::Parquet(Box::new(ArrowWriter::try_new(sink, rows::schema(), properties)?))
            }
            (Format::JsonLines, Compression::Zstd) => {
                let mut writer = Zstd::new(sink, ZSTD_LEVEL)?;
                writer.window_log(ZSTD_WINDOW_LOG)?;
                Form::Zstd(writer)
            }
            (Format::JsonLines, _) => Form::Plain(sink),
        };
        Ok(Self { form, is_zstd: compression == Compression::Zstd })
    }

    pub fn write(&mut self, chunk: &Chunk) -> Result<(), EncodeError> {
        match (&mut self.form, chunk) {
            (Form::Parquet(writer), Chunk::Batch(batch)) => {
                writer.write(batch)?;
                if writer.in_progress_size() >= ROW_GROUP_BYTES {
                    writer.flush()?;
                }
            }
            (Form::Plain(sink), Chunk::Lines { text, .. }) => sink.write_all(text)?,
            (Form::Zstd(writer), Chunk::Lines { text, .. }) => writer.write_all(text)?,
            _ => unreachable!("an export has one format"),
        }
        Ok(())
    }

    /// How long the file would be if it were closed now, about.
    pub fn bytes(&self) -> u64 {
        match &self.form {
            Form::Parquet(writer) => (writer.bytes_written() + writer.in_progress_size()) as u64,
            Form::Plain(sink) => sink.bytes,
            Form::Zstd(writer) => writer.get_ref().bytes,
        }
    }

    /// What it holds in memory, about.
    pub fn memory(&self) -> usize {
        self.kept() + self.rows()
    }

    /// What of that it holds to its end.
    fn kept(&self) -> usize {
        match &self.form {
            Form::Parquet(writer) => {
                let groups = writer.flushed_row_groups().len();
                PARQUET_BYTES + groups * ROW_GROUP_METADATA_BYTES + writer.inner().upload.held()
            }
            Form::Plain(sink) => sink.upload.held(),
            Form::Zstd(writer) => ZSTD_BYTES + writer.get_ref().upload.held(),
        }
    }

    /// And what until a row group is made.
    fn rows(&self) -> usize {
        match &self.form {
            Form::Parquet(writer) => {
                let rows = writer.memory_size();
                rows + if self.is_zstd { rows.min(ZSTD_COLUMNS_BYTES) } else { 0 }
            }
            Form::Plain(_) | Form::Zstd(_) => 0,
        }
    }

    /// Whether most of it can be let go of by a row group.
    pub fn is_mostly_rows(&self) -> bool {
        self.rows() > self.kept()
    }

    /// Makes a row group of the rows that it holds.
    pub fn flush(&mut self) -> Result<(), EncodeError> {
        if let Form::Parquet(writer) = &mut self.form {
            writer.flush()?;
        }
        Ok(())
    }

    /// Completes the file.
    pub fn finish(self) -> Result<Staged, EncodeError> {
        let sink = match self.form {
            Form::Parquet(writer) => writer.into_inner()?,
            Form::Plain(sink) => sink,
            Form::Zstd(writer) => writer.finish()?,
        };
        Ok(sink.upload.finish()?)
    }
}

/// The columns of the files, as a Parquet schema for people.
pub fn parquet_schema() -> Result<String, ParquetError> {
    let converted = ArrowSchemaConverter::new().convert(&rows::schema())?;
    let mut text = Vec::new();
    print_schema(&mut text, converted.root_schema());
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn properties(compression: Compression) -> WriterProperties {
    let compression = match compression {
        Compression::None => ParquetCompression::UNCOMPRESSED,
        Compression::Snappy => ParquetCompression::SNAPPY,
        Compression::Zstd => {
            ParquetCompression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default())
        }
    };
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("herald version {}", env!("CARGO_PKG_VERSION")))
        .set_compression(compression)
        .set_max_row_group_row_count(None)
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for path in UNIQUE {
        properties = properties.set_column_dictionary_enabled(column(path), false);
    }
    // Numbers are small or grow by little; an empty dictionary of them takes 72 KiB a column.
    for path in integer_columns() {
        properties = properties
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED);
    }
    properties.build()
}

fn integer_columns() -> &'static [ColumnPath] {
    static PATHS: LazyLock<Vec<ColumnPath>> = LazyLock::new(|| {
        let schema = ArrowSchemaConverter::new().convert(&rows::schema());
        let schema = schema.expect("a test makes files of the schema");
        let columns = schema.columns().iter();
        let integers =
            columns.filter(|column| matches!(column.physical_type(), Type::INT32 | Type::INT64));
        integers.map(|column| column.path().clone()).collect()
    });
    &PATHS
}

fn column(path: &[&str]) -> ColumnPath {
    ColumnPath::new(path.iter().map(|part| (*part).to_owned()).collect())
}
