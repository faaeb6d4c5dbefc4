//! The real binary: its lines, its signals, its exit codes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::binary;

/// A running `herald serve`; killed when the test ends early.
pub struct Process {
    child: Child,
    lines: BufReader<std::process::ChildStderr>,
    /// Its lines up to the one that says that it is ready.
    first_lines: String,
    pub address: String,
}

impl Process {
    /// Buys from now on, until the server is gone; writes down the receipts.
    pub fn load(&self, receipts: &Path) -> Child {
        Command::new(binary())
            .args(["bench", "write", "--server", &self.address, "--requests", "1000000"])
            .args(["--in-flight", "32", "--tolerate-errors", "--receipts"])
            .arg(receipts)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    pub fn start(dir: &std::path::Path, flags: &[&str]) -> Self {
        Self::start_by(&mut Command::new(binary()), dir, flags)
    }

    fn start_by(command: &mut Command, dir: &std::path::Path, flags: &[&str]) -> Self {
        let mut child = command
            .args(["serve", "--listen=127.0.0.1:0", "--admin-listen=off"])
            .arg("--data-dir")
            .arg(dir.join("data"))
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut first_lines = String::new();
        let mut until = |what: &str| {
            loop {
                let begin = first_lines.len();
                let read = lines.read_line(&mut first_lines).unwrap();
                assert_ne!(read, 0, "it ended before it was ready");
                let line = &first_lines[begin..];
                if let Some((_, rest)) = line.split_once(what) {
                    break rest.split('"').next().unwrap().to_owned();
                }
            }
        };
        let address = until("\"grpc\":\"");
        until("\"writes\":true");
        Self { child, lines, first_lines, address }
    }

    pub fn herald(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(binary());
        command.args(args).args(["--server", &self.address]).output().unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// The next line with this in it.
    pub fn line_with(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it ended before {part}");
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Sends a signal; returns the exit code and all lines, but for those that were looked at.
    pub fn end(mut self, signal: &str) -> (Option<i32>, String) {
        self.signal(signal);
        let mut lines = std::mem::take(&mut self.first_lines);
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
        assert!(!lines.contains("ERROR") && !lines.contains("WARN"), "{lines}");
    }
}

#[test]
fn it_stops_in_order_under_load_and_what_it_acknowledged_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]);
    let receipts = dir.path().join("receipts");
    let mut load = server.load(&receipts);
    let mut tail = Command::new(binary())
        .args(["tail", "--from", "earliest", "--server", &server.address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Under way once the tail has shown something.
    let mut shown = BufReader::new(tail.stdout.take().unwrap());
    shown.read_line(&mut String::new()).unwrap();
    let drained = std::thread::spawn(move || std::io::copy(&mut shown, &mut std::io::sink()));
    let (code, lines) = server.end("-TERM");
    assert_eq!(code, Some(0), "{lines}");
    assert!(!lines.contains("ERROR") && !lines.contains("WARN"), "{lines}");
    let place = |words: &str| lines.find(words).unwrap_or_else(|| panic!("{words}: {lines}"));
    assert!(place("\"stopping\"") < place("\"stopped\""));
    let mut told = BufReader::new(tail.stderr.take().unwrap());
    let mut closing = String::new();
    told.read_line(&mut closing).unwrap();
    while !closing.contains("the server is stopping") {
        assert_ne!(told.read_line(&mut closing).unwrap(), 0, "{closing}");
    }
    tail.kill().unwrap();
    tail.wait().unwrap();
    drained.join().unwrap().unwrap();
    load.wait().unwrap();

    let server = Process::start(dir.path(), &[]);
    let all = server.herald(&["tail", "--from", "earliest", "--until-caught-up", "--json"]);
    let all = String::from_utf8(all.stdout).unwrap();
    let mut acknowledged = 0;
    for receipt in std::fs::read_to_string(&receipts).unwrap().lines() {
        let receipt: serde_json::Value = serde_json::from_str(receipt).unwrap();
        assert!(all.contains(receipt["event_id"].as_str().unwrap()), "{receipt}");
        acknowledged += 1;
    }
    assert!(acknowledged > 0);
}

#[test]
fn a_full_disk_is_told_and_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    // A limit on the size of files stands for the end of the disk; anybody may set it.
    let limited = ["-c", "ulimit -f 4000 && exec \"$0\" \"$@\""];
    let server = Process::start_by(Command::new("sh").args(limited).arg(binary()), dir.path(), &[]);
    let receipts = dir.path().join("receipts");
    let load = Command::new(binary())
        .args(["bench", "write", "--server", &server.address, "--requests", "30000"])
        .args(["--tolerate-errors", "--receipts"])
        .arg(&receipts)
        .output()
        .unwrap();
    let load = String::from_utf8(load.stderr).unwrap();
    assert!(load.contains("Unavailable") || load.contains("DeadlineExceeded"), "{load}");
    let refused = server.herald(&["purchase", "--player", "alice", "--item", "sword"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("LOG_UNAVAILABLE"), "{told}");
    drop(server);

    let server = Process::start(dir.path(), &[]);
    let all = server.herald(&["tail", "--from", "earliest", "--until-caught-up", "--json"]);
    let all = String::from_utf8(all.stdout).unwrap();
    let known: std::collections::HashSet<_> =
        all.split("\"eventId\":\"").skip(1).map(|rest| &rest[..36]).collect();
    let receipts = std::fs::read_to_string(&receipts).unwrap();
    assert!(receipts.lines().count() > 100);
    for receipt in receipts.lines() {
        let receipt: serde_json::Value = serde_json::from_str(receipt).unwrap();
        assert!(known.contains(receipt["event_id"].as_str().unwrap()), "{receipt}");
    }
    assert!(server.herald(&["purchase", "--player", "alice", "--item", "sword"]).status.success());
}

#[test]
fn a_start_that_fails_says_so_in_one_json_line_and_leaves_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--listen={}", taken.local_addr().unwrap());
    let failed = Command::new(binary())
        .args(["serve", &listen, "--admin-listen=off", "--data-dir"])
        .arg(dir.path().join("data"))
        .output()
        .unwrap();
    assert_eq!(failed.status.code(), Some(1));
    let lines = String::from_utf8(failed.stderr).unwrap();
    let last = lines.lines().last().unwrap();
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["level"], "ERROR");
    assert!(last["message"].as_str().unwrap().starts_with("cannot listen on"), "{last}");
    assert!(!dir.path().join("data").exists());
}

#[test]
fn settings_come_from_the_environment_and_flags_win() {
    let with = |flags: &[&str]| {
        let checked = Command::new(binary())
            .args(["serve", "--check-config"])
            .args(flags)
            .env("HERALD_MAX_SUBSCRIBERS", "none")
            .env("HERALD_LISTENN", "x")
            .output()
            .unwrap();
        (checked.status.code(), String::from_utf8(checked.stderr).unwrap())
    };
    let (code, told) = with(&[]);
    assert_eq!(code, Some(2));
    assert!(told.contains("HERALD_MAX_SUBSCRIBERS"), "{told}");
    let (code, told) = with(&["--max-subscribers=5"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("HERALD_LISTENN is no setting"), "{told}");
}

#[test]
fn what_was_written_is_told_also_when_the_answer_cannot_be_shown() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let bought = Command::new(binary())
        .args(["purchase", "--player", "alice", "--item", "sword", "--server", &server.address])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(bought.status.code(), Some(1));
    let told = String::from_utf8(bought.stderr).unwrap();
    assert!(told.contains("it was written all the same"), "{told}");
}

#[test]
fn a_cursor_that_never_was_one_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]);
    let wrong = server.herald(&["tail", "--from", "EARLIEST"]);
    assert_eq!(wrong.status.code(), Some(2));
    let told = String::from_utf8(wrong.stderr).unwrap();
    assert!(told.contains("--from takes earliest, latest, a cursor, a time"), "{told}");
}

#[test]
fn each_call_has_a_line_without_anything_secret() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &["--log-format=json"]);
    assert!(server.herald(&["join", "--player", "sesame", "--guild", "mascots"]).status.success());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let channel = tonic::transport::Endpoint::from_shared(server.address.clone()).unwrap();
        let mut request = tonic::Request::new(herald::proto::GetCatalogRequest {});
        request.metadata_mut().insert("authorization", "Bearer sesame".parse().unwrap());
        let mut game = herald::client::stubs::game_service_client::GameServiceClient::new(
            channel.connect().await.unwrap(),
        );
        game.get_catalog(request).await.unwrap();
    });
    assert!(!server.herald(&["purchase", "--player", "alice", "--item", "x"]).status.success());
    let (_, lines) = server.end("-TERM");
    let calls: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .filter(|line: &serde_json::Value| line["message"] == "call")
        .collect();
    // Each runtime hands over its lines by itself, so they come in any order.
    let mut summary: Vec<_> =
        calls.iter().map(|call| (call["method"].as_str(), call["code"].as_str())).collect();
    summary.sort_unstable();
    assert_eq!(
        summary,
        [
            (Some("/game.v1.GameService/GetCatalog"), Some("OK")),
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

#[test]
fn what_is_stored_is_its_owners_alone_also_in_an_open_folder() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let server = Process::start(dir.path(), &[]);
    let bought = server.herald(&["purchase", "--player", "alice", "--item", "sword"]);
    assert!(bought.status.success(), "{bought:?}");
    let mut checked = 0;
    for file in std::fs::read_dir(&data).unwrap() {
        let file = file.unwrap();
        if file.file_name().to_string_lossy().contains("sqlite") {
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", file.path().display());
            checked += 1;
        }
    }
    assert!(checked >= 2, "the database and its write-ahead file");
}
