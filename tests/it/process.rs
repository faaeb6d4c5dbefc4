//! The real binary: its lines, its signals, its exit codes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use crate::harness::binary;

/// A running `herald serve`; killed when the test ends early.
struct Process {
    child: Child,
    lines: BufReader<std::process::ChildStderr>,
    address: String,
}

impl Process {
    fn start(dir: &std::path::Path, flags: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .args(["serve", "--listen=127.0.0.1:0", "--admin-listen=off"])
            .arg("--data-dir")
            .arg(dir.join("data"))
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before it was ready");
            if let Some((_, rest)) = line.split_once("grpc=") {
                break rest.split_whitespace().next().unwrap().to_owned();
            }
        };
        Self { child, lines, address }
    }

    fn herald(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(binary());
        command.args(args).args(["--server", &self.address]).output().unwrap()
    }

    /// Sends a signal; returns the exit code and all lines since it was ready.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let mut lines = String::new();
        self.lines.read_to_string(&mut lines).unwrap();
        (self.child.wait().unwrap().code(), lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn both_signals_stop_it_in_order() {
    for signal in ["-TERM", "-INT"] {
        let dir = tempfile::tempdir().unwrap();
        let server = Process::start(dir.path(), &[]);
        assert!(
            server.herald(&["purchase", "--player", "alice", "--item", "sword"]).status.success()
        );
        let (code, lines) = server.end(signal);
        assert_eq!(code, Some(0), "{lines}");
        assert!(!lines.contains("ERROR"), "{lines}");
    }
}

#[test]
fn each_call_has_a_line_without_anything_secret() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &["--log-format=json"]);
    assert!(server.herald(&["join", "--player", "sesame", "--guild", "mascots"]).status.success());
    assert!(!server.herald(&["purchase", "--player", "alice", "--item", "x"]).status.success());
    let (_, lines) = server.end("-TERM");
    let calls: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .filter(|line: &serde_json::Value| line["message"] == "call")
        .collect();
    let summary: Vec<_> =
        calls.iter().map(|call| (call["method"].as_str(), call["code"].as_str())).collect();
    assert_eq!(
        summary,
        [
            (Some("/game.v1.GameService/JoinGuild"), Some("OK")),
            (Some("/game.v1.GameService/PurchaseItem"), Some("INVALID_ARGUMENT")),
        ]
    );
    assert!(calls.iter().all(|call| call["duration_ms"].as_f64().unwrap() > 0.0));
    assert!(calls.iter().all(|call| call["peer"].as_str().unwrap().starts_with("127.0.0.1:")));
    assert!(!lines.contains("sesame"), "players stay out of the lines: {lines}");
}

#[test]
fn a_folder_that_is_in_use_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]);
    let second = Command::new(binary())
        .args(["serve", "--listen=127.0.0.1:0", "--admin-listen=off", "--data-dir"])
        .arg(dir.path().join("data"))
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use"), "{second:?}");
    drop(server);
}

#[test]
fn a_wrong_configuration_is_told_whole_and_nothing_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    for check in [&["--check-config"][..], &[]] {
        let wrong = Command::new(binary())
            .args(["--listen=nowhere", "--max-subscribers=none", "--data-dir"])
            .arg(dir.path().join("data"))
            .args(check)
            .output()
            .unwrap();
        assert_eq!(wrong.status.code(), Some(2));
        let told = String::from_utf8(wrong.stderr).unwrap();
        assert!(told.contains("--listen") && told.contains("--max-subscribers"), "{told}");
        assert!(wrong.stdout.is_empty());
    }
    assert!(!dir.path().join("data").exists());
    let right = Command::new(binary()).args(["serve", "--check-config"]).output().unwrap();
    assert!(right.status.success(), "{right:?}");
}
