//! `herald doctor` and `herald topic describe`, the real binary.
//!
//! What needs a Kafka uses the one that `TEST_KAFKA_BROKERS` names, and is left out without
//! it, unless `REQUIRE_KAFKA=1`.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::binary;
use crate::process::Process;

/// Each check with its outcome, in the order in which they were made.
type Outcomes = Vec<(String, String)>;

fn herald(args: &[&str]) -> Output {
    Command::new(binary()).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The exit code, the checks with their outcomes, and all that was printed.
fn doctor(args: &[&str]) -> (Option<i32>, Outcomes, String) {
    let output = herald(&[&["doctor", "--json"][..], args].concat());
    let stdout = text(&output.stdout);
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let checks = report["checks"].as_array().unwrap().iter();
    let word = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    let outcomes = checks.map(|check| (word(check, "check"), word(check, "outcome"))).collect();
    let code = output.status.code();
    assert_eq!(report["well"].as_bool(), Some(code == Some(0)), "{report}");
    (code, outcomes, stdout + &text(&output.stderr))
}

fn outcome<'a>(outcomes: &'a Outcomes, check: &str) -> &'a str {
    let found = outcomes.iter().find(|(name, _)| name == check);
    found.map_or_else(|| panic!("{check} is not told of: {outcomes:?}"), |(_, word)| word)
}

/// Every check after `check`, save the named ones, was told of as skipped.
fn skipped_after(outcomes: &Outcomes, check: &str, save: &[&str]) {
    let place = outcomes.iter().position(|(name, _)| name == check).unwrap();
    for (name, word) in &outcomes[place + 1..] {
        assert!(save.contains(&name.as_str()) || word == "skipped", "{name}: {outcomes:?}");
    }
    assert_eq!(outcomes.len(), CHECKS, "{outcomes:?}");
}

/// How many checks there are.
const CHECKS: usize = 10;

fn data_dir(dir: &Path) -> String {
    format!("--data-dir={}", dir.join("data").display())
}

#[test]
fn an_embedded_log_that_is_well_gets_one_event_which_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let output = herald(&["doctor", &data_dir(dir.path())]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines.len(), CHECKS + 2, "{stdout}");
    assert!(lines[..CHECKS].iter().all(|line| line.starts_with("ok ")), "{stdout}");
    assert_eq!(lines[CHECKS + 1], "all is well");

    let server = Process::start(dir.path(), &[]);
    let tail = ["tail", "--from=earliest", "--until-caught-up", "--server", &server.address];
    let events = text(&herald(&tail).stdout);
    assert_eq!(events.lines().count(), 1, "{events}");
    assert!(events.contains("session_started  herald-doctor"), "{events}");
}

#[test]
fn without_writing_nothing_is_written_and_no_folder_made() {
    let dir = tempfile::tempdir().unwrap();
    let (code, outcomes, said) = doctor(&[&data_dir(dir.path()), "--no-write"]);
    assert_eq!(code, Some(0), "{said}");
    skipped_after(&outcomes, "log", &[]);
    assert!(!dir.path().join("data").exists());

    let server = Process::start(dir.path(), &[]);
    let (code, outcomes, said) = doctor(&["--server", &server.address, "--no-write"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!((outcome(&outcomes, "feed"), outcome(&outcomes, "write")), ("ok", "skipped"));
    let tail = ["tail", "--from=earliest", "--until-caught-up", "--server", &server.address];
    assert!(herald(&tail).stdout.is_empty());
}

#[test]
fn a_folder_in_use_is_said_to_be_its_servers_which_can_be_examined() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]);
    let (code, outcomes, said) = doctor(&[&data_dir(dir.path())]);
    assert_eq!((code, outcome(&outcomes, "log")), (Some(1), "fail"), "{said}");
    assert!(said.contains("in use") && said.contains("herald doctor --server"), "{said}");
    skipped_after(&outcomes, "log", &[]);

    let (code, outcomes, said) = doctor(&["--server", &server.address]);
    assert_eq!(code, Some(0), "{said}");
    for check in ["server", "serving", "catalogue", "feed", "write", "read", "log clock"] {
        assert_eq!(outcome(&outcomes, check), "ok", "{check}: {said}");
    }
    assert_eq!(outcomes.len(), CHECKS);
}

#[test]
fn a_server_that_is_not_there_is_a_failure_that_says_so() {
    let (code, outcomes, said) = doctor(&["--server=http://127.0.0.1:1"]);
    assert_eq!((code, outcome(&outcomes, "server")), (Some(1), "fail"), "{said}");
    assert!(said.contains("start the server, or check --server"), "{said}");
    skipped_after(&outcomes, "server", &[]);
}

#[test]
fn all_that_is_wrong_with_the_settings_is_told_without_what_is_secret() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = dir.path().join("catalogue.toml");
    std::fs::write(&catalogue, "currency = ''\n[[items]]\nid = 'a'\nname = 'A'\nprice = -1\n")
        .unwrap();
    let (code, outcomes, said) = doctor(&[
        &data_dir(dir.path()),
        "--listen=nowhere",
        &format!("--catalog={}", catalogue.display()),
        "--kafka-config=sasl.pasword=hunter2",
    ]);
    assert_eq!((code, outcome(&outcomes, "configuration")), (Some(1), "fail"), "{said}");
    for wrong in ["--listen", "currency: missing", "items[0].price", "sasl.pasword"] {
        assert!(said.contains(wrong), "{wrong}: {said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
    skipped_after(&outcomes, "configuration", &["clock"]);
    assert!(!dir.path().join("data").exists());
}

#[test]
fn an_empty_catalogue_and_a_variable_that_is_no_setting_are_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = dir.path().join("catalogue.toml");
    std::fs::write(&catalogue, "currency = 'gold'\n").unwrap();
    let output = Command::new(binary())
        .args(["doctor", &data_dir(dir.path())])
        .env("HERALD_CATALOG", &catalogue)
        .env("HERALD_LISTENN", "x")
        .output()
        .unwrap();
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout.contains("no items") && stdout.contains("HERALD_LISTENN"), "{stdout}");
    assert!(stdout.ends_with("all is well, with 2 warnings\n"), "{stdout}");
}

#[test]
fn brokers_that_refuse_or_hang_are_told_in_time_and_passwords_are_not() {
    let secrets = ["--kafka-config=sasl.password=hunter2", "--kafka-config=sasl.username=herald"];
    let flags = ["--kafka-config=security.protocol=SASL_PLAINTEXT", secrets[0], secrets[1]];
    // Its connections are accepted by the system, and nobody ever reads them.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    for brokers in ["127.0.0.1:1".to_owned(), hangs.local_addr().unwrap().to_string()] {
        let brokers = format!("--kafka-brokers={brokers}");
        let args = [
            &[brokers.as_str(), "--timeout=4s", "--kafka-config=sasl.mechanism=PLAIN"][..],
            &flags,
        ]
        .concat();
        let begun = Instant::now();
        let (code, outcomes, said) = doctor(&args);
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        assert_eq!((code, outcome(&outcomes, "log")), (Some(1), "fail"), "{said}");
        assert!(said.contains("the brokers"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        skipped_after(&outcomes, "log", &[]);
    }
    let described = herald(&["topic", "describe", "--kafka-brokers=127.0.0.1:1"]);
    assert_eq!(described.status.code(), Some(3), "{described:?}");
    let told = text(&described.stderr);
    assert!(told.contains("127.0.0.1:1") && told.contains("check that the brokers run"), "{told}");
    assert!(described.stdout.is_empty());
}

#[test]
fn a_topic_is_described_for_brokers_only() {
    let described = herald(&["topic", "describe"]);
    assert_eq!(described.status.code(), Some(2), "{described:?}");
    assert!(text(&described.stderr).contains("--kafka-brokers"), "{described:?}");
}

#[allow(clippy::disallowed_methods, reason = "tests are told where the broker is")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The flag that names the broker to test with, if there is one.
#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
fn brokers() -> Option<String> {
    let brokers = variable("TEST_KAFKA_BROKERS");
    assert!(
        brokers.is_some() || variable("REQUIRE_KAFKA").as_deref() != Some("1"),
        "there is no Kafka to test with: start one with `scripts/kafka start`, and set \
         TEST_KAFKA_BROKERS to the brokers that it prints (scripts/test does both)"
    );
    if brokers.is_none() {
        eprintln!("left out: TEST_KAFKA_BROKERS names no Kafka");
    }
    brokers.map(|brokers| format!("--kafka-brokers={brokers}"))
}

#[test]
fn a_topic_is_examined_and_never_made() {
    let Some(brokers) = brokers() else { return };
    let topic = format!("--topic=test-{}", uuid::Uuid::new_v4());
    let describe = |flags: &[&str]| {
        let described =
            herald(&[&["topic", "describe", brokers.as_str(), topic.as_str()], flags].concat());
        (described.status.code(), text(&described.stdout), text(&described.stderr))
    };

    let (code, outcomes, said) = doctor(&[&brokers, &topic]);
    assert_eq!((code, outcome(&outcomes, "log")), (Some(1), "fail"), "{said}");
    assert!(said.contains("there is no topic") && said.contains("herald serve"), "{said}");
    skipped_after(&outcomes, "log", &[]);
    // Still not there: neither of them has made it.
    for _ in 0..2 {
        let (code, shown, told) = describe(&[]);
        assert_eq!((code, shown.as_str()), (Some(1), ""), "{told}");
        assert!(told.contains("there is no topic"), "{told}");
    }

    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[&brokers, &topic, "--key-partitions=3"]);
    let bought = ["purchase", "--player=alice", "--item=sword", "--server", &server.address];
    assert!(herald(&bought).status.success());
    let fit = "--key-partitions=3";
    for args in
        [&[&brokers, &topic, fit][..], &[&brokers, &topic, fit, "--server", &server.address]]
    {
        let (code, outcomes, said) = doctor(args);
        assert_eq!(code, Some(0), "{said}");
        for check in ["server", "serving", "feed", "write", "read", "log clock"] {
            assert_eq!(outcome(&outcomes, check), "ok", "{check}: {said}");
        }
        assert!(said.contains("3 partitions, 1 replica"), "{said}");
    }

    let (code, shown, told) = describe(&[fit, "--json"]);
    assert_eq!(code, Some(0), "{told}");
    let described: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&described["fit"], &described["records"]), (&true.into(), &3.into()), "{shown}");
    assert_eq!(described["config"]["message.timestamp.type"], "LogAppendTime");
    let (code, shown, _) = describe(&[fit]);
    assert!(code == Some(0) && shown.contains("yes, to be Herald's log"), "{shown}");

    // By the default number of partitions it is not fit.
    let (code, shown, _) = describe(&[]);
    assert!(code == Some(1) && shown.contains("not fit: it has 3 partitions"), "{shown}");
    let (code, outcomes, said) = doctor(&[&brokers, &topic]);
    assert_eq!((code, outcome(&outcomes, "log")), (Some(1), "fail"), "{said}");
    assert!(said.contains("3 for a topic that herald has not written to"), "{said}");
    skipped_after(&outcomes, "log", &[]);
}

#[test]
fn a_server_on_another_log_than_the_one_named_is_noticed() {
    let Some(brokers) = brokers() else { return };
    let topic = format!("--topic=test-{}", uuid::Uuid::new_v4());
    let kafka = tempfile::tempdir().unwrap();
    let _made = Process::start(kafka.path(), &[&brokers, &topic]);
    let dir = tempfile::tempdir().unwrap();
    let embedded = Process::start(dir.path(), &[]);
    let args = [&brokers, &topic, "--no-write", "--server", &embedded.address];
    let (code, outcomes, said) = doctor(&args);
    assert_eq!((code, outcome(&outcomes, "feed")), (Some(1), "fail"), "{said}");
    assert!(said.contains("that is not the topic looked at above"), "{said}");
}
