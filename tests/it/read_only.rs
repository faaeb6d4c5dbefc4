//! The embedded log, read beside the real server that writes it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use herald::event_log::local::open_read_only;
use herald::event_log::{EventLog, LogReader, Position, ReadLimits};
use herald::proto::GameEvent;
use prost::Message as _;

use crate::process::Process;

/// For what has to come, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

const SOME: ReadLimits = ReadLimits { records: 500, bytes: 1 << 20 };

fn open(dir: &Path) -> Arc<dyn EventLog> {
    open_read_only(&dir.join("data")).unwrap()
}

async fn reader(log: &Arc<dyn EventLog>) -> Box<dyn LogReader> {
    let id = log.bounds().await.unwrap().log;
    log.open_reader(id, Position::default()).await.unwrap()
}

/// The ids of the events that come next.
async fn next(reader: &mut Box<dyn LogReader>) -> Vec<String> {
    let batch = tokio::time::timeout(PATIENCE, reader.next(SOME)).await.unwrap().unwrap();
    assert!(batch.trimmed.is_empty());
    let ids = batch.records.into_iter().map(|it| GameEvent::decode(it.value).unwrap().event_id);
    ids.collect()
}

/// Buys, and returns the id of the event and its place.
fn buy(server: &Process) -> (String, u32, u64) {
    let bought = server.herald(&["purchase", "--player", "alice", "--item", "sword", "--json"]);
    assert!(bought.status.success(), "{bought:?}");
    let receipt: serde_json::Value = serde_json::from_slice(&bought.stdout).unwrap();
    let receipt = &receipt["receipt"];
    let offset = receipt["offset"].as_str().unwrap_or("0").parse().unwrap();
    let partition = receipt["partition"].as_u64().unwrap_or(0).try_into().unwrap();
    (receipt["eventId"].as_str().unwrap().to_owned(), partition, offset)
}

#[tokio::test]
async fn each_event_that_was_acknowledged_can_be_read_by_another_process_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]);
    let log = open(dir.path());
    let mut reader = reader(&log).await;
    for _ in 0..5 {
        let (event_id, partition, offset) = buy(&server);
        assert!(log.bounds().await.unwrap().end.get(partition) > offset);
        assert_eq!(next(&mut reader).await, [event_id]);
    }

    // Killed, and no server there; then the next one, which finds nothing in its way.
    let (event_id, _, _) = buy(&server);
    let (code, _) = server.end("-KILL");
    assert_eq!(code, None);
    assert_eq!(next(&mut reader).await, [event_id]);
    let server = Process::start(dir.path(), &[]);
    let (event_id, _, _) = buy(&server);
    assert_eq!(next(&mut reader).await, [event_id]);
    let (code, lines) = server.end("-TERM");
    assert_eq!(code, Some(0), "{lines}");
    assert!(!lines.contains("ERROR") && !lines.contains("WARN"), "{lines}");

    // Opened while no server is there, and left before one comes.
    drop(reader);
    drop(log);
    let log = open(dir.path());
    assert_eq!(next(&mut self::reader(&log).await).await.len(), 7);
    drop(log);
    buy(&Process::start(dir.path(), &[]));
}

#[tokio::test]
async fn all_that_a_killed_server_has_acknowledged_under_load_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]);
    let receipts = dir.path().join("receipts");
    let mut load = server.load(&receipts);
    let log = open(dir.path());
    let mut reader = reader(&log).await;
    let mut read = BTreeSet::new();
    while read.len() < 5_000 {
        read.extend(next(&mut reader).await);
    }
    server.end("-KILL");
    tokio::task::spawn_blocking(move || load.wait().unwrap()).await.unwrap();
    let end = log.bounds().await.unwrap().end;
    while !reader.position().covers(&end) {
        read.extend(next(&mut reader).await);
    }
    let receipts = std::fs::read_to_string(&receipts).unwrap();
    assert!(receipts.lines().count() > 1_000);
    for receipt in receipts.lines() {
        let receipt: serde_json::Value = serde_json::from_str(receipt).unwrap();
        assert!(read.contains(receipt["event_id"].as_str().unwrap()), "{receipt}");
    }
    // And the next server agrees.
    drop(Process::start(dir.path(), &[]));
    assert!(log.bounds().await.unwrap().end.covers(&end));
}

/// Locks and files come and go as they may, also in the middle of a start and of a recovery.
#[tokio::test]
async fn readers_that_come_and_go_are_in_no_servers_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_path_buf();
    drop(Process::start(dir.path(), &[]));
    let servers = tokio::task::spawn_blocking(move || {
        for signal in ["-KILL", "-TERM"].repeat(4) {
            let server = Process::start(&path, &[]);
            buy(&server);
            let (_, lines) = server.end(signal);
            assert!(!lines.contains("ERROR") && !lines.contains("WARN"), "{lines}");
        }
    });
    let mut newest = Position::default();
    while !servers.is_finished() {
        let end = open(dir.path()).bounds().await.unwrap().end;
        assert!(end.covers(&newest));
        newest = end;
    }
    servers.await.unwrap();
    assert_eq!(open(dir.path()).bounds().await.unwrap().end.get(0), 8);
}
