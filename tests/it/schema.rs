//! `herald schema`, the real binary, and the events that it is to describe.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use herald::event_log::local::open_read_only;
use herald::event_log::{Position, ReadLimits};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::FileDescriptorSet;
use serde_json::Value;

use crate::harness::binary;
use crate::process::Process;

fn schema(args: &[&str]) -> Output {
    Command::new(binary()).arg("schema").args(args).output().unwrap()
}

fn printed(args: &[&str]) -> Vec<u8> {
    let done = schema(args);
    assert!(done.status.success(), "{done:?}");
    assert!(done.stderr.is_empty(), "{done:?}");
    done.stdout
}

#[test]
fn the_descriptor_set_is_complete_and_in_order() {
    let set = FileDescriptorSet::decode(&*printed(&["--descriptor-set"])).unwrap();
    let mut known = BTreeSet::new();
    for file in &set.file {
        // Each file behind those that it imports, as readers add them one by one.
        for import in &file.dependency {
            assert!(known.contains(import.as_str()), "{} comes before {import}", file.name());
        }
        known.insert(file.name());
    }
    assert!(known.contains("game.proto") && known.contains("google/protobuf/timestamp.proto"));
}

/// What the log holds, by the descriptor set alone, is what `herald tail --json` shows.
#[tokio::test]
async fn the_descriptor_set_decodes_the_records_of_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]);
    for args in [
        &["session", "--player", "alice"][..],
        &["purchase", "--player", "alice", "--item", "sword", "--quantity", "3"],
        &["join", "--player", "zoë", "--guild", "owls"],
    ] {
        let done = server.herald(args);
        assert!(done.status.success(), "{done:?}");
    }
    let tail = ["tail", "--from", "earliest", "--until-caught-up", "--include-origin", "--json"];
    let lines = String::from_utf8(server.herald(&tail).stdout).unwrap();
    let shown: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();

    let pool = DescriptorPool::decode(&*printed(&["--descriptor-set"])).unwrap();
    let event = pool.get_message_by_name("game.v1.GameEvent").unwrap();
    let log = open_read_only(&dir.path().join("data")).unwrap();
    let id = log.bounds().await.unwrap().log;
    let mut reader = log.open_reader(id, Position::default()).await.unwrap();
    let all = ReadLimits { records: 100, bytes: 1 << 20 };
    let records = reader.next(all).await.unwrap().records;
    assert_eq!((records.len(), shown.len()), (3, 3));
    for (record, shown) in records.into_iter().zip(shown) {
        let decoded = DynamicMessage::decode(event.clone(), record.value).unwrap();
        assert_eq!(decoded.unknown_fields().count(), 0);
        assert_eq!(serde_json::to_value(&decoded).unwrap(), shown["event"]);
    }
}

#[test]
fn the_text_is_the_schema_and_the_json_is_of_a_line() {
    assert_eq!(printed(&["--proto"]), include_bytes!("../../proto/game.proto"));
    let json: Value = serde_json::from_slice(&printed(&["--json"])).unwrap();
    assert_eq!(json["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(json["properties"]["event"]["allOf"][0]["$ref"], "#/$defs/GameEvent");
}

#[test]
fn a_file_takes_the_place_of_stdout() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("game.desc");
    let out = format!("--out={}", path.display());
    std::fs::write(&path, "what was there").unwrap();
    let done = schema(&["--descriptor-set", &out]);
    assert!(done.status.success() && done.stdout.is_empty(), "{done:?}");
    assert!(String::from_utf8(done.stderr).unwrap().contains("wrote "));
    assert_eq!(std::fs::read(&path).unwrap(), printed(&["--descriptor-set"]));

    let nowhere = format!("--out={}", dir.path().join("missing/game.desc").display());
    let done = schema(&["--proto", &nowhere]);
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8(done.stderr).unwrap().contains("missing/game.desc"));
    // Replacing a device by a file would be bad.
    let done = schema(&["--proto", "--out=/dev/null"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8(done.stderr).unwrap().contains("leave --out away"));
}

#[test]
fn exactly_one_form_is_asked_for() {
    for args in [&[][..], &["--proto", "--json"], &["--out=x"]] {
        let done = schema(args);
        assert_eq!(done.status.code(), Some(2), "{args:?}");
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(said.contains("--descriptor-set") || said.contains("--json"), "{said}");
    }
}
