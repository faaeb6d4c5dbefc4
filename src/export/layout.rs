//! Layout: which folder an event goes to.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::domain::EventKeys;
use crate::event_log::Record;

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// The most bytes that a folder may have in its name: what file systems take.
const MAX_FOLDER_BYTES: usize = 255;

/// The longest event type that has a folder of its own.
const MAX_TYPE_BYTES: usize = 64;

/// The value of those that have none of their own: the same as Hive and Spark write, and they
/// and DuckDB read as null.
const NO_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";

/// Which folders there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// None: all files lie in the destination itself.
    Flat,
    /// `date=2026-11-29/event_type=item_purchased`: by day in UTC of the append time, and type.
    Hive,
    /// One for each value of a key, such as `player_id=alice`.
    Split(Key),
}

/// What events can be split by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// By type.
    Type,
    /// By player.
    Player,
    /// By guild; events that name none have no folder of their own.
    Guild,
}

impl Key {
    /// The name of the column.
    pub fn column(self) -> &'static str {
        match self {
            Self::Type => "event_type",
            Self::Player => "player_id",
            Self::Guild => "guild_id",
        }
    }

    /// Whether the folder of a value has a name that file systems take.
    pub fn can_name_a_folder(self, value: &str) -> bool {
        partition(self.column(), value).len() <= MAX_FOLDER_BYTES
    }

    fn of<'a>(self, keys: &EventKeys<'a>) -> &'a str {
        match self {
            Self::Type => keys.event_type,
            Self::Player => keys.player_id,
            Self::Guild => keys.guild_id.unwrap_or_default(),
        }
    }
}

/// A folder, by number.
pub(super) type Folder = usize;

/// The folders that were met.
#[derive(Debug)]
pub(super) struct Folders {
    layout: Layout,
    /// By day; where the day is no part of it, under 0.
    known: HashMap<i64, HashMap<Box<str>, Folder>>,
    paths: Vec<Arc<str>>,
}

impl Folders {
    pub fn new(layout: Layout) -> Self {
        Self { layout, known: HashMap::new(), paths: Vec::new() }
    }

    /// The folder of an event.
    pub fn of(&mut self, record: &Record, keys: &EventKeys<'_>) -> Folder {
        let (day, value) = match self.layout {
            Layout::Flat => (0, ""),
            // Whoever writes to the log can invent types, and each would have its files.
            Layout::Hive if is_type_name(keys.event_type) => (day(record), keys.event_type),
            Layout::Hive => (day(record), ""),
            Layout::Split(Key::Type) if !is_type_name(keys.event_type) => (0, ""),
            Layout::Split(key) => (0, key.of(keys)),
        };
        let folders = self.known.entry(day).or_default();
        if let Some(folder) = folders.get(value) {
            return *folder;
        }
        let path = match self.layout {
            Layout::Flat => String::new(),
            Layout::Hive => format!("date={}/{}", date(day), partition("event_type", value)),
            Layout::Split(key) => partition(key.column(), value),
        };
        folders.insert(value.into(), self.paths.len());
        self.paths.push(path.into());
        self.paths.len() - 1
    }

    /// Where it is within the destination; empty for the destination itself.
    pub fn path(&self, folder: Folder) -> Arc<str> {
        Arc::clone(&self.paths[folder])
    }
}

fn is_type_name(name: &str) -> bool {
    (1..=MAX_TYPE_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn day(record: &Record) -> i64 {
    record.append_time.as_millis().div_euclid(DAY_MILLIS)
}

fn date(day: i64) -> String {
    let time = Timestamp::from_millis(day.saturating_mul(DAY_MILLIS)).to_string();
    time.split('T').next().unwrap_or_default().to_owned()
}

fn partition(column: &str, value: &str) -> String {
    if value.is_empty() {
        return format!("{column}={NO_VALUE}");
    }
    let mut text = format!("{column}=");
    for c in value.chars() {
        // What Hive escapes, and what a URL would take for something else; the rest is taken as
        // it is. Source: FileUtils.java of Apache Hive.
        if c.is_control() || "\"#%'*/:=?\\{}[]^ &+<>|$!`~;,@()".contains(c) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                text.push_str(&format!("%{byte:02X}"));
            }
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn path(layout: Layout, millis: i64, keys: EventKeys<'_>) -> String {
        let record = Record {
            partition: 0,
            offset: 0,
            append_time: Timestamp::from_millis(millis),
            key: None,
            value: Bytes::new(),
        };
        let mut folders = Folders::new(layout);
        let folder = folders.of(&record, &keys);
        assert_eq!(folders.of(&record, &keys), folder, "the same one again");
        folders.path(folder).to_string()
    }

    #[test]
    fn an_event_goes_to_the_folder_of_its_keys() {
        let keys =
            EventKeys { event_type: "guild_joined", player_id: "al/ice", guild_id: Some("a=b") };
        let day = 1_700_000_000_000;
        assert_eq!(path(Layout::Flat, day, keys), "");
        assert_eq!(path(Layout::Hive, day, keys), "date=2023-11-14/event_type=guild_joined");
        assert_eq!(path(Layout::Hive, 0, keys), "date=1970-01-01/event_type=guild_joined");
        assert_eq!(path(Layout::Split(Key::Type), day, keys), "event_type=guild_joined");
        assert_eq!(path(Layout::Split(Key::Player), day, keys), "player_id=al%2Fice");
        assert_eq!(path(Layout::Split(Key::Guild), day, keys), "guild_id=a%3Db");
    }

    #[test]
    fn what_has_no_name_of_its_own_is_read_as_null() {
        let long = "x".repeat(65);
        for event_type in ["", "../../etc", "a b", &long] {
            let keys = EventKeys { event_type, ..EventKeys::default() };
            let none = format!("event_type={NO_VALUE}");
            assert_eq!(path(Layout::Split(Key::Type), 0, keys), none);
            assert_eq!(path(Layout::Hive, 0, keys), format!("date=1970-01-01/{none}"));
        }
        assert!(Key::Player.can_name_a_folder(&"x".repeat(128)));
        assert!(!Key::Player.can_name_a_folder(&"/".repeat(128)));
    }
}
