//! `herald tail`, the real binary against the real server.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::{TestServer, binary, purchase};
use crate::process::Process;

/// For what has to come, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

fn tail(address: &str, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(["tail", "--json", "--server", address]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a tail to its end.
async fn run(address: &str, args: &[&str]) -> Output {
    let mut command = tail(address, args);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// The partition and offset of each line.
fn places(stdout: &[u8]) -> Vec<(i64, i64)> {
    std::str::from_utf8(stdout).unwrap().lines().map(place).collect()
}

fn place(line: &str) -> (i64, i64) {
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    // Canonical JSON leaves zeros out.
    let number = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.parse().unwrap(),
        value => value.as_i64().unwrap_or(0),
    };
    (number(&event["partition"]), number(&event["offset"]))
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

async fn buy(server: &TestServer, count: usize) {
    let mut game = server.game().await;
    for i in 0..count {
        game.purchase_item(purchase(&format!("player-{i}"), "sword")).await.unwrap();
    }
}

/// An address that stays while the server behind it goes and comes.
struct Front {
    address: String,
    server: Arc<Mutex<SocketAddr>>,
}

impl Front {
    fn of(server: &Process) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = Arc::new(Mutex::new(socket(server)));
        let target = Arc::clone(&server);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                // Without a server the caller is hung up on.
                let Ok(server) = TcpStream::connect(*target.lock().unwrap()) else { continue };
                pipe(client.try_clone().unwrap(), server.try_clone().unwrap());
                pipe(server, client);
            }
        });
        Self { address, server }
    }

    fn lead_to(&self, server: &Process) {
        *self.server.lock().unwrap() = socket(server);
    }
}

fn socket(server: &Process) -> SocketAddr {
    server.address.trim_start_matches("http://").parse().unwrap()
}

fn pipe(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}

/// Buys under a request id until that is acknowledged.
fn buy_for_sure(address: &str, player: usize) {
    let request_id = format!("00000000-0000-4000-8000-{player:012}");
    let player = format!("player-{player}");
    let args = ["purchase", "--item", "sword", "--player", &player, "--request-id", &request_id];
    loop {
        let bought = Command::new(binary()).args(args).args(["--server", address]).output();
        if bought.unwrap().status.success() {
            return;
        }
    }
}

/// Lines until there are `count` in all.
fn read_up_to(stdout: &mut BufReader<ChildStdout>, lines: &mut String, count: usize) {
    while lines.lines().count() < count {
        assert_ne!(stdout.read_line(lines).unwrap(), 0, "it ended: {lines}");
    }
}

fn interrupt(mut process: Child) -> String {
    let id = process.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let mut stderr = String::new();
    process.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(130), "{stderr}");
    stderr
}

#[test]
fn a_server_that_is_killed_and_comes_back_costs_and_repeats_no_event() {
    const EVENTS: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--key-partitions=3"];
    let server = Process::start(dir.path(), &flags);
    let front = Front::of(&server);
    let mut process = tail(&front.address, &["--from", "earliest"]).spawn().unwrap();
    let mut stdout = BufReader::new(process.stdout.take().unwrap());
    let address = front.address.clone();
    let writer = std::thread::spawn(move || (0..EVENTS).for_each(|i| buy_for_sure(&address, i)));
    let mut lines = String::new();
    let mut server = server;
    for shown in [10, 25] {
        read_up_to(&mut stdout, &mut lines, shown);
        // SIGKILL.
        drop(server);
        server = Process::start(dir.path(), &flags);
        front.lead_to(&server);
    }
    writer.join().unwrap();
    let all = tail(&server.address, &["--from", "earliest", "--until-caught-up"]).output().unwrap();
    let mut all = places(&all.stdout);
    assert!(all.len() >= EVENTS, "{all:?}");
    read_up_to(&mut stdout, &mut lines, all.len());
    let stderr = interrupt(process);
    stdout.read_to_string(&mut lines).unwrap();
    assert!(stderr.contains("reconnecting in"), "{stderr}");
    let mut shown = places(lines.as_bytes());
    let mut next = BTreeMap::new();
    for (partition, offset) in &shown {
        assert!(next.insert(*partition, *offset).is_none_or(|before| before < *offset));
    }
    shown.sort_unstable();
    all.sort_unstable();
    assert_eq!(shown, all);
}

#[tokio::test]
async fn a_cursor_file_gives_each_event_to_one_run() {
    let server = TestServer::start(&["--key-partitions=3"]).await;
    let address = format!("http://{}", server.address);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("place").display().to_string();
    let args = ["--cursor-file", &file, "--from", "earliest"];
    let mut all = Vec::new();
    buy(&server, 10).await;
    let first = run(&address, &[&args[..], &["--max-events=4"]].concat()).await;
    assert!(first.status.success(), "{}", told(&first));
    assert!(!told(&first).contains("resume with"), "the file is for that: {}", told(&first));
    all.extend(places(&first.stdout));
    assert_eq!(all.len(), 4);
    let second = run(&address, &[&args[..], &["--until-caught-up", "--sorted"]].concat()).await;
    all.extend(places(&second.stdout));
    assert_eq!(all.len(), 10);

    // One that is interrupted, while another one is refused.
    buy(&server, 5).await;
    let mut third = tail(&address, &args).spawn().unwrap();
    let mut stdout = BufReader::new(third.stdout.take().unwrap());
    let mut lines = String::new();
    read_up_to(&mut stdout, &mut lines, 5);
    let refused = run(&address, &args).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(told(&refused).contains("in use by another reader"), "{}", told(&refused));
    interrupt(third);
    all.extend(places(lines.as_bytes()));
    let nothing = run(&address, &[&args[..], &["--until-caught-up"]].concat()).await;
    assert_eq!(nothing.stdout, b"", "{}", told(&nothing));

    all.sort_unstable();
    let mut expected: Vec<_> = (0..3)
        .zip(server.end_offsets().await)
        .flat_map(|(partition, end)| (0..end).map(move |offset| (partition, offset)))
        .collect();
    expected.sort_unstable();
    assert_eq!(all, expected);
}

#[tokio::test]
async fn a_tail_that_is_killed_loses_nothing() {
    let server = TestServer::start(&["--key-partitions=3"]).await;
    let address = format!("http://{}", server.address);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("place").display().to_string();
    let args = ["--cursor-file", &file, "--from", "earliest"];
    let mut all = Vec::new();
    for _ in 0..3 {
        buy(&server, 10).await;
        let mut killed = tail(&address, &args).spawn().unwrap();
        let mut stdout = BufReader::new(killed.stdout.take().unwrap());
        let mut lines = String::new();
        read_up_to(&mut stdout, &mut lines, 1);
        killed.kill().unwrap();
        killed.wait().unwrap();
        stdout.read_to_string(&mut lines).unwrap();
        all.extend(places(lines.as_bytes()));
    }
    let last = run(&address, &[&args[..], &["--until-caught-up"]].concat()).await;
    all.extend(places(&last.stdout));
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 30, "{}", told(&last));
}

#[tokio::test]
async fn a_cursor_file_that_is_not_fit_for_use_says_what_to_do() {
    let server = TestServer::start(&[]).await;
    let address = format!("http://{}", server.address);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("place");
    let cut = server.feed().await.get_feed(herald::proto::GetFeedRequest {}).await.unwrap();
    let cut = cut.into_inner().latest_cursor[..20].to_owned();
    for (text, code, words) in [
        ("", 1, "is empty; put a cursor into it, or remove it"),
        ("no cursor\n", 1, "holds no cursor; put"),
        (cut.as_str(), 2, "to start anew at --from, remove the file"),
    ] {
        std::fs::write(&path, text).unwrap();
        let args = ["--cursor-file", path.to_str().unwrap(), "--until-caught-up"];
        let failed = run(&address, &args).await;
        assert_eq!(failed.status.code(), Some(code), "{}", told(&failed));
        assert!(told(&failed).contains(words), "{}", told(&failed));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "it is left as it was");
    }
    let missing = Path::new("missing").join("place");
    let missing = dir.path().join(missing);
    let failed = run(&address, &["--cursor-file", missing.to_str().unwrap()]).await;
    assert_eq!(failed.status.code(), Some(1));
    assert!(told(&failed).contains("must exist and be writable"), "{}", told(&failed));
}

#[tokio::test]
async fn it_starts_at_a_time() {
    let server = TestServer::start(&["--key-partitions=2"]).await;
    let address = format!("http://{}", server.address);
    buy(&server, 6).await;
    let sorted = ["--from", "1h", "--until-caught-up", "--sorted"];
    let all = run(&address, &sorted).await;
    assert_eq!(places(&all.stdout).len(), 6, "{}", told(&all));
    // Not compared as text: a whole second has no fraction.
    let times: Vec<jiff::Timestamp> = String::from_utf8(all.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            event["appendTime"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    let since = times.iter().filter(|time| **time >= times[3]).count();
    let fourth = times[3].to_string();
    let in_india = format!("{}+05:30", fourth.trim_end_matches('Z'));
    for (from, count) in [(fourth.as_str(), since), ("2999-01-01T00:00:00Z", 0), (&in_india, 6)] {
        let some = run(&address, &["--from", from, "--until-caught-up"]).await;
        assert!(some.status.success(), "{}", told(&some));
        assert_eq!(places(&some.stdout).len(), count, "{from}: {}", told(&some));
    }
    let wrong = run(&address, &["--from", "15 parsecs"]).await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(told(&wrong).contains("earliest, latest, a cursor, a time"), "{}", told(&wrong));
}

#[tokio::test]
async fn sorted_is_by_time_over_all_partitions_and_needs_an_end() {
    let server = TestServer::start(&["--key-partitions=4"]).await;
    let address = format!("http://{}", server.address);
    buy(&server, 40).await;
    let mut expected: Vec<_> = server
        .events()
        .await
        .iter()
        .map(|event| {
            let time = event.append_time.unwrap();
            let place = (i64::from(event.partition), event.offset);
            ((time.seconds, time.nanos), place)
        })
        .collect();
    expected.sort_unstable();
    let expected: Vec<_> = expected.into_iter().map(|(_, place)| place).collect();
    let sorted = run(&address, &["--from", "earliest", "--until-caught-up", "--sorted"]).await;
    assert_eq!(places(&sorted.stdout), expected);
    assert!(!expected.is_sorted(), "partitions must take turns");
    for args in [&["--sorted"][..], &["--sorted", "--until-caught-up", "--max-events=1"]] {
        assert_eq!(run(&address, args).await.status.code(), Some(2));
    }
}

#[tokio::test]
async fn a_place_that_retention_removed_is_left_as_it_was_told() {
    let server = TestServer::start(&["--retention-age=1ms"]).await;
    let address = format!("http://{}", server.address);
    let mut feed = server.feed().await;
    let request = herald::proto::GetFeedRequest {};
    let oldest = feed.get_feed(request).await.unwrap().into_inner().earliest_cursor;
    let trimmed = async {
        loop {
            buy(&server, 1).await;
            let bounds = feed.get_feed(request).await.unwrap().into_inner();
            if bounds.partitions[0].start_offset > 0 {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, trimmed).await.expect("retention must remove something");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("place");
    std::fs::write(&file, &oldest).unwrap();
    let args = ["--cursor-file", file.to_str().unwrap(), "--until-caught-up"];
    let failed = run(&address, &args).await;
    assert_eq!(failed.status.code(), Some(5), "{}", told(&failed));
    assert!(told(&failed).contains("CURSOR_EXPIRED"), "{}", told(&failed));
    let went_on = run(&address, &[&args[..], &["--if-expired=earliest"]].concat()).await;
    assert!(went_on.status.success(), "{}", told(&went_on));
    assert!(told(&went_on).contains("gap: "), "{}", told(&went_on));
    assert_ne!(std::fs::read_to_string(&file).unwrap().trim(), oldest);
}

/// A proxy that loses the answers of its first connections, and passes on all of the others.
fn forgetful(server: SocketAddr, lost: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let Ok(client) = client else { return };
            let upstream = TcpStream::connect(server).unwrap();
            let (from, to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            pipe(from, to);
            if number >= lost {
                pipe(upstream, client);
                continue;
            }
            std::thread::spawn(move || {
                let (mut upstream, mut client) = (upstream, client);
                let mut passed = 0;
                let mut some = [0; 1024];
                // The answers to the settings of the connection come through.
                while let Ok(count @ 1..) = upstream.read(&mut some) {
                    passed += count;
                    if passed > 100 || client.write_all(&some[..count]).is_err() {
                        break;
                    }
                }
                let _ = (upstream.shutdown(Shutdown::Both), client.shutdown(Shutdown::Both));
            });
        }
    });
    address
}

#[test]
fn a_command_that_got_no_answer_tries_again_and_does_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]);
    let proxy = forgetful(socket(&server), 1);
    let args = ["purchase", "--item", "sword", "--player", "alice", "--server"];
    let bought = Command::new(binary()).args(args).arg(proxy.to_string()).output().unwrap();
    let (stdout, stderr) = (bought.stdout, bought.stderr);
    let stdout = String::from_utf8(stdout).unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(bought.status.success(), "{stderr}");
    assert!(stderr.contains("outcome unknown, trying again: request id"), "{stderr}");
    assert!(stdout.contains("(written before)") && stdout.contains("offset 0"), "{stdout}");
}
