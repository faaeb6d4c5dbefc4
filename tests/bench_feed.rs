//! The real binary: the feed's own benchmarks, in small, against real servers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_herald"));
    command.env_remove("HERALD_SERVER").stdin(Stdio::null());
    command.arg("bench").args(arguments).output().unwrap()
}

fn report(arguments: &[&str]) -> Value {
    let output = bench(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

const FANOUT: [&str; 11] = [
    "fanout",
    "--spawn",
    "--json",
    "--connections=3",
    "--subscribers=20",
    "--rate=50",
    "--seconds=1",
    "--warmup=0",
    "--idle=1",
    "--stalled=1",
    "--item=horse",
];

#[test]
fn every_subscriber_gets_every_event_once_beside_one_that_does_not_read() {
    let report = report(&[&FANOUT[..], &["--burst=30"]].concat());
    assert_eq!(report["load"]["subscribers"], 20);
    assert_eq!(report["load"]["filter"], "none");
    let phases = report["phases"].as_array().unwrap();
    for (phase, name, events) in [(&phases[0], "steady", 50), (&phases[1], "burst", 30)] {
        assert_eq!(phase["name"], name);
        assert_eq!(phase["events_sent"], events);
        assert_eq!(phase["deliveries_received"], events * 20);
        let latency = &phase["latency_micros"];
        assert!(latency["p99"].as_u64() >= latency["p50"].as_u64());
        assert!(latency["p50"].as_u64().unwrap() > 0);
        assert!(phase["recovery_micros"].is_number());
    }
    assert_eq!(report["total"]["deliveries_lost"], 0);
    assert_eq!(report["troubles"]["repeated"], 0);
    assert!(report["idle"]["bytes_per_subscriber"].is_number());
    assert!(report["idle"]["server_cpu_share"].is_number());
}

#[test]
fn a_subscriber_that_filters_by_player_gets_only_that_players_events() {
    let report = report(&[&FANOUT[..], &["--filter=player"]].concat());
    let phase = &report["phases"][0];
    assert_eq!(phase["deliveries_expected"], 50);
    assert_eq!(phase["deliveries_received"], 50);
    assert_eq!(report["troubles"]["unwanted"], 0);
}

#[test]
fn what_cannot_be_opened_or_bought_is_a_failure() {
    let refused = bench(&[&FANOUT[..], &["--serve-arg=--max-subscribers=10"]].concat());
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(words.contains("ResourceExhausted"), "{words}");
    let item = bench(&[&FANOUT[..10], &["--item=nothing"]].concat());
    assert_eq!(item.status.code(), Some(1));
    let words = String::from_utf8_lossy(&item.stderr);
    assert!(words.contains("50 calls failed") && words.contains("InvalidArgument"), "{words}");
}

#[test]
fn a_replay_of_the_embedded_log_reads_all_of_it_every_time() {
    let report = report(&["replay", "--events=3000", "--rounds=2", "--json"]);
    let targets = report["targets"].as_array().unwrap();
    assert_eq!((targets.len(), &report["ratio"]), (1, &Value::Null));
    let rounds = targets[0]["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 2);
    for round in rounds {
        assert_eq!(round["events"], 3000);
        assert!(round["events_per_second"].as_f64().unwrap() > 0.0);
    }
}
