//! The real binary: the benchmark against its own yardstick, and the exit codes
//! that need no server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

fn herald() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_herald"));
    command.env_remove("HERALD_SERVER").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    herald().args(arguments).output().unwrap()
}

struct Echo {
    process: Child,
    address: String,
}

impl Echo {
    fn start() -> Self {
        let mut process = herald().args(["bench", "echo"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { process, address }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that nobody listens on.
fn nobody() -> String {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    format!("http://{address}")
}

#[test]
fn every_call_is_acknowledged_and_in_the_receipts_in_the_order_of_its_player() {
    let echo = Echo::start();
    let directory = tempfile::tempdir().unwrap();
    let receipts = directory.path().join("receipts");
    let output = herald()
        .args(["bench", "write", "--server", &echo.address, "--requests", "2000", "--json"])
        .args(["--server-pid", &echo.process.id().to_string()])
        .args(["--players", "7", "--ordered", "--receipts"])
        .arg(&receipts)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let round = &report["targets"][0]["rounds"][0];
    assert_eq!(round["calls"], 2000);
    assert_eq!(round["acknowledged"], 2000);
    assert_eq!(round["failed"], serde_json::json!({}));
    assert!(round["server_cpu_micros_per_call"].is_number());
    assert!(round["latency_micros"]["p99"].as_u64() >= round["latency_micros"]["p50"].as_u64());

    let mut next = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for line in std::fs::read_to_string(&receipts).unwrap().lines() {
        let receipt: Value = serde_json::from_str(line).unwrap();
        let expected = next.entry(receipt["player_id"].as_str().unwrap().to_owned()).or_insert(1);
        assert_eq!(receipt["sequence"], *expected);
        *expected += 1;
        assert!(ids.insert(receipt["request_id"].as_str().unwrap().to_owned()));
    }
    assert_eq!((ids.len(), next.len()), (2000, 7));
}

#[test]
fn a_comparison_starts_its_yardsticks_itself() {
    let echo = Echo::start();
    let output = run(&[
        "bench",
        "write",
        "--server",
        &echo.address,
        "--requests",
        "300",
        "--echo",
        "--echo-single-thread",
        "--rounds",
        "2",
        "--json",
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["targets"].as_array().unwrap().len(), 3);
    assert_eq!(report["targets"][2]["rounds"].as_array().unwrap().len(), 2);
    assert_eq!(report["ratios"][0]["to"], "echo");
    assert!(report["ratios"][0]["calls_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn exit_codes_tell_what_happened() {
    let nobody = nobody();
    let purchase = ["--player", "alice", "--item", "sword"];
    let with = |server: &str| {
        run(&[&["purchase", "--server", server], &purchase[..]].concat()).status.code()
    };
    assert_eq!(with(&nobody), Some(3));
    assert_eq!(run(&["tail", "--server", &nobody]).status.code(), Some(3));
    assert_eq!(run(&["purchase", "--player", "alice"]).status.code(), Some(2));
    assert_eq!(run(&["--no-such-flag"]).status.code(), Some(2));
    assert_eq!(run(&["bench", "write", "--server", "ftp://x"]).status.code(), Some(2));
    assert_eq!(run(&["bench", "write", "--server", &nobody]).status.code(), Some(3));
    assert_eq!(run(&["catalog", "--server", "https://x"]).status.code(), Some(2));
    // A server that is not Herald's knows no such method: a definite answer.
    let echo = Echo::start();
    assert_eq!(run(&["catalog", "--server", &echo.address]).status.code(), Some(1));
    // It answers a purchase, which is all that the command line needs.
    let output = run(&[&["purchase", "--server", &echo.address], &purchase[..]].concat());
    assert_eq!(output.status.code(), Some(0));
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(line.starts_with("bought 1 sword for 100 gold  event "), "{line}");
}
