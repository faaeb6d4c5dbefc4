//! Snapshots that are used, and snapshots that are not.

use std::fs;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::people_tests::{
    PARTITIONS, Script, ask, bought, given, joined, members, players, session,
};
use super::*;
use crate::clock::Timestamp;
use crate::event_log::{Bounds, partition_of_key};
use crate::proto;

const LOG: LogId = LogId(Uuid::from_u128(7));

/// A snapshot of a few players.
struct Saved {
    dir: tempfile::TempDir,
    file: PathBuf,
    script: Script,
    bytes: Vec<u8>,
}

fn saved() -> Saved {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("players.snapshot");
    let mut script = Script::default();
    script.add("alice", Some(session()));
    script.add("alice", Some(bought("sword", 2)));
    script.add("bob", Some(given("horse", 1)));
    script.add("bob", Some(joined("owls")));
    let players = players(Some(&file));
    players.restart(LOG, Position::zero(PARTITIONS as usize));
    players.apply(script.records.iter(), &script.end());
    players.save_now(&CancellationToken::new());
    let bytes = fs::read(&file).unwrap();
    Saved { dir, file, script, bytes }
}

/// Whether the file is used; if so, all that it says has to be there, and if not, nothing, and
/// the file has to lie beside.
async fn is_used(file: &Path, bounds: &Bounds) -> bool {
    let players = players(Some(file));
    let from = players.begin_at(bounds, &bounds.end).await;
    let used = from != bounds.start;
    if used {
        assert_eq!(ask(&players, "alice").unwrap().inventory[0].quantity, 2);
        assert_eq!(members(&players, "owls"), ["bob"]);
        assert_eq!(players.0.metrics.known.get(), 2);
    } else {
        assert_eq!(players.0.metrics.known.get(), 0);
        assert!(players.0.guilds.page("owls", None, 1).members.is_empty());
        assert!(!file.exists() && file.with_extension("snapshot.refused").exists());
    }
    used
}

#[tokio::test]
async fn a_snapshot_that_fits_is_used() {
    let Saved { file, script, dir, .. } = saved();
    assert!(is_used(&file, &script.bounds(LOG)).await);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[tokio::test]
async fn a_change_of_any_byte_is_noticed() {
    let Saved { dir: _dir, file, script, bytes } = saved();
    for at in 0..bytes.len() {
        for change in [1, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            fs::write(&file, changed).unwrap();
            assert!(!is_used(&file, &script.bounds(LOG)).await, "byte {at} of {}", bytes.len());
        }
    }
}

#[tokio::test]
async fn an_end_that_is_missing_or_too_much_is_noticed() {
    let Saved { dir: _dir, file, script, bytes } = saved();
    for length in 0..bytes.len() {
        fs::write(&file, &bytes[..length]).unwrap();
        assert!(!is_used(&file, &script.bounds(LOG)).await, "{length} of {}", bytes.len());
    }
    fs::write(&file, [&bytes[..], &[0]].concat()).unwrap();
    assert!(!is_used(&file, &script.bounds(LOG)).await);
}

#[tokio::test]
async fn a_snapshot_of_another_version_or_log_is_not_used() {
    let Saved { dir: _dir, file, script, bytes } = saved();
    let mut newer = bytes.clone();
    newer[8] += 1;
    fs::write(&file, newer).unwrap();
    assert!(!is_used(&file, &script.bounds(LOG)).await);

    fs::write(&file, &bytes).unwrap();
    assert!(!is_used(&file, &script.bounds(LogId(Uuid::from_u128(8)))).await);

    // The log has lost what the snapshot knows.
    for partition in 0..PARTITIONS {
        let mut bounds = script.bounds(LOG);
        let end = bounds.end.get(partition);
        if end > 0 {
            bounds.end.set(partition, end - 1);
            fs::write(&file, &bytes).unwrap();
            assert!(!is_used(&file, &bounds).await);
        }
    }

    fs::write(&file, &bytes).unwrap();
    let options = players(Some(&file)).0.options.clone();
    let clock = Clock::default();
    let players = Players::build(options, PARTITIONS + 1, clock, &mut Registry::default());
    let bounds = script.bounds(LOG);
    assert_eq!(players.begin_at(&bounds, &bounds.end).await, bounds.start);
}

#[tokio::test]
async fn a_player_who_is_ahead_of_the_log_is_none_of_it() {
    let Saved { dir: _dir, file, script, .. } = saved();
    let (mut reader, head) = snapshot::Reader::open(&file).unwrap().unwrap();
    let mut part = reader.next().unwrap().unwrap();
    let player = &mut part.players[0];
    let partition = partition_of_key(player.player_id.as_bytes(), PARTITIONS);
    player.next_offset = script.end().get(partition) + 1;
    let mut writer = snapshot::Writer::create(&file, &head).unwrap();
    writer.part(&part).unwrap();
    while let Some(part) = reader.next().unwrap() {
        writer.part(&part).unwrap();
    }
    writer.finish().unwrap();
    assert!(!is_used(&file, &script.bounds(LOG)).await);
}

#[tokio::test]
async fn behind_a_snapshot_no_more_is_read_than_can_be_remembered() {
    let Saved { dir: _dir, file, script, .. } = saved();
    let options = players(Some(&file)).0.options.clone();
    let options = Options { request_max_entries: PARTITIONS as usize, ..options };
    let clock = Clock::manual(Timestamp::from_millis(1_000_000));
    let players = Players::build(options, PARTITIONS, clock, &mut Registry::default());
    let bounds = script.bounds(LOG);
    let from = players.begin_at(&bounds, &bounds.start).await;
    for (partition, end) in bounds.end.iter() {
        assert_eq!(from.get(partition), end.saturating_sub(1));
    }
}

#[tokio::test]
async fn nothing_is_written_before_the_log_was_read_as_far_as_it_went() {
    let Saved { dir: _dir, file, mut script, bytes } = saved();
    script.add("carol", None);
    script.add("carol", None);
    let players = players(Some(&file));
    let bounds = script.bounds(LOG);
    players.begin_at(&bounds, &bounds.start).await;
    players.apply(script.records[..5].iter(), &Position::zero(PARTITIONS as usize));
    players.save_now(&CancellationToken::new());
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[tokio::test]
async fn a_snapshot_below_the_start_of_the_log_is_the_only_copy() {
    let Saved { dir: _dir, file, script, .. } = saved();
    let end = script.end();
    // All that the snapshot knows is gone from the log, and in one partition one event more.
    let mut bounds = Bounds { log: LOG, start: end.clone(), end: end.clone() };
    let alices = script.records[0].partition;
    bounds.start.set(alices, end.get(alices) + 1);
    bounds.end = bounds.start.clone();
    let players = players(Some(&file));
    assert_eq!(players.begin_at(&bounds, &bounds.end).await, bounds.start);
    let (alice, bob) = (ask(&players, "alice").unwrap(), ask(&players, "bob").unwrap());
    assert_eq!((alice.inventory[0].quantity, bob.inventory[0].quantity), (2, 1));
    let since = |player: proto::Player| player.history_start_time.map(Timestamp::from);
    let bobs = script.records[2].partition;
    assert_eq!(since(alice), Some(players.0.clock.now()));
    assert_eq!(since(bob), (alices == bobs).then(|| players.0.clock.now()));
}

#[test]
fn it_is_written_when_there_is_news_only() {
    let Saved { dir: _dir, file, mut script, .. } = saved();
    let again = players(Some(&file));
    again.restart(LOG, Position::zero(PARTITIONS as usize));
    again.apply(script.records.iter(), &script.end());
    let written = |players: &Players| {
        let _ = fs::remove_file(&file);
        players.save_now(&CancellationToken::new());
        file.exists()
    };
    assert!(written(&again));
    assert!(!written(&again));
    script.add("carol", None);
    again.apply(script.records.iter(), &script.end());
    assert!(written(&again));
}

#[test]
fn one_that_is_given_up_leaves_the_file_as_it_was() {
    let Saved { dir, file, mut script, bytes } = saved();
    let again = players(Some(&file));
    again.restart(LOG, Position::zero(PARTITIONS as usize));
    script.add("carol", None);
    again.apply(script.records.iter(), &script.end());
    let given_up = CancellationToken::new();
    given_up.cancel();
    again.save_now(&given_up);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
