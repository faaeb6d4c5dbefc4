//! How large players are, and how long a snapshot takes.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::people_tests::{PARTITIONS, Script, bought, joined, players};
use super::*;
use crate::event_log::Bounds;

/// That of `main.rs`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a player may take: 450 bytes, as measured, and some for where the tables of the shards
/// are just about to grow.
const MOST_BYTES: u64 = 500;

/// The bytes of memory that the process has in use.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// A player with an id of 12 bytes, 4 items, 4 purchases and a guild of a hundred.
///
/// `cargo test --release --lib -- --ignored --nocapture a_million_players`
#[tokio::test]
#[ignore = "takes a minute; prints figures"]
async fn a_million_players() {
    let (log, all) = (LogId(Uuid::from_u128(7)), 1_000_000);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("players");
    let first = players(Some(&file));
    first.restart(log, Position::zero(PARTITIONS as usize));
    let before = resident();
    let mut end = Position::zero(PARTITIONS as usize);
    let mut applying = Duration::ZERO;
    for number in 0..all {
        let mut script = Script::default();
        let player = format!("player{number:06}");
        for item in 0..4 {
            let item = format!("item-{:03}", (number + item) % 100);
            script.add(&player, Some(bought(&item, 1)));
        }
        script.add(&player, Some(joined(&format!("guild-{}", number % (all / 100)))));
        let mut records = script.records;
        for record in &mut records {
            record.offset = end.get(record.partition);
            end.set(record.partition, record.offset + 1);
        }
        let begun = Instant::now();
        first.apply(records.iter(), &end);
        applying += begun.elapsed();
    }
    println!("{:?} an event", applying / u32::try_from(5 * all).unwrap());
    let bytes = (resident() - before) / all;
    println!("{bytes} bytes of memory a player");

    let begun = Instant::now();
    first.save_now(&CancellationToken::new());
    let size = std::fs::metadata(&file).unwrap().len();
    println!("written in {:?}: {} bytes a player", begun.elapsed(), size / all);

    let second = players(Some(&file));
    let bounds = Bounds { log, start: Position::zero(PARTITIONS as usize), end };
    let (begun, before) = (Instant::now(), resident());
    second.begin_at(&bounds, &bounds.end).await;
    println!("read in {:?}", begun.elapsed());
    println!("{} bytes of memory a player", (resident() - before) / all);
    assert_eq!(second.0.metrics.known.get(), i64::try_from(all).unwrap());
    assert!(bytes <= MOST_BYTES, "a player takes {bytes} bytes");
}
