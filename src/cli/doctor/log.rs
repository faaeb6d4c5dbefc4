//! The check of the log, without opening it: the topic, or the folder.

use std::path::Path;
use std::sync::Arc;
use std::{io, thread};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::report::{self, Finding};
use crate::cli::topic::verdict::Verdict;
use crate::cli::topic::{advice, records};
use crate::config::{Config, LogOptions};
use crate::event_log::LogId;
use crate::event_log::kafka::{DescribeError, TopicDescription, describe_topic};
use crate::event_log::local::{FolderDescription, describe_folder};

/// The name of the check.
const CHECK: &str = "log";

/// With less free space than this (1 GiB) it is time to make some: some million events more.
const LOW_SPACE_BYTES: u64 = 1 << 30;

/// What the following checks go by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// The identity of the topic.
    pub epoch: Option<LogId>,
    /// There is no log yet, and a server would make it.
    pub no_log: bool,
}

/// Looks at the log that is configured. That of a running server can be looked at only in
/// Kafka.
pub async fn look(config: &Config, running: bool, deadline: Instant) -> (Finding, Found) {
    let begun = Instant::now();
    match config.log.clone() {
        LogOptions::Kafka(options) => {
            let brokers = options.brokers.clone();
            let described = on_a_thread(move || describe_topic(options), deadline).await;
            let (finding, epoch) = match described {
                Err(finding) => (finding, None),
                Ok(Err(error)) => (undescribed(&error, &brokers), None),
                Ok(Ok(topic)) => (of_topic(&topic, &brokers), Some(topic.id)),
            };
            (finding.took(begun.elapsed()), Found { epoch, no_log: false })
        }
        LogOptions::Local(_) if running => {
            let why = "it is the server's; name its Kafka, if it has one, with --kafka-brokers";
            (Finding::skipped(CHECK, why), Found::default())
        }
        LogOptions::Local(options) => {
            let dir: Arc<Path> = options.data_dir.into();
            let there = Arc::clone(&dir);
            let described = on_a_thread(move || describe_folder(&there), deadline).await;
            let server = format!("http://{}", config.server.listen);
            match described {
                Err(finding) => (finding, Found::default()),
                Ok(Err(error)) => (unusable(&dir, &error), Found::default()),
                Ok(Ok(folder)) => {
                    let found = Found { epoch: None, no_log: !folder.has_log };
                    (of_folder(&folder, &dir, &server), found)
                }
            }
        }
    }
}

/// Does what blocks, and gives it up at the deadline.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    deadline: Instant,
) -> Result<T, Finding> {
    let (done, is_done) = oneshot::channel();
    let thread = thread::Builder::new().name("doctor-log".to_owned()).spawn(move || {
        // Nobody waits any more after the deadline.
        let _ = done.send(work());
    });
    if let Err(error) = thread {
        let advice = "check the limit of threads";
        return Err(Finding::fail(CHECK, format!("cannot start a thread: {error}"), [advice]));
    }
    match timeout_at(deadline, is_done).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) | Err(_) => Err(report::late(CHECK)),
    }
}

fn undescribed(error: &DescribeError, brokers: &str) -> Finding {
    let place = match error {
        DescribeError::Missing(_) => format!(" at {brokers}"),
        DescribeError::Unavailable(_) => String::new(),
    };
    Finding::fail(CHECK, format!("{error}{place}"), [advice(error)])
}

fn of_topic(topic: &TopicDescription, brokers: &str) -> Finding {
    let replicas = topic.partitions.iter().map(|partition| partition.replicas.len());
    let found = format!(
        "topic {} at {brokers}: {}, {}, {}",
        topic.name,
        report::count(topic.partitions.len() as u64, "partition"),
        report::count(replicas.min().unwrap_or(0) as u64, "replica"),
        report::count(records(topic), "record"),
    );
    let Verdict { problems, warnings } = Verdict::of(topic);
    if !problems.is_empty() {
        Finding::fail(CHECK, found, problems.into_iter().chain(warnings))
    } else if !warnings.is_empty() {
        Finding::warn(CHECK, found, warnings)
    } else {
        Finding::ok(CHECK, found)
    }
}

fn unusable(dir: &Path, error: &io::Error) -> Finding {
    let found = format!("{} cannot be used: {error}", dir.display());
    Finding::fail(CHECK, found, ["check --data-dir and its permissions"])
}

fn of_folder(folder: &FolderDescription, dir: &Path, server: &str) -> Finding {
    let dir = dir.display();
    if folder.in_use {
        let advice = format!(
            "if that is a server, examine it instead: herald doctor --server {server}; if not, \
             choose another --data-dir"
        );
        return Finding::fail(CHECK, format!("{dir} is in use by another process"), [advice]);
    }
    if !folder.writable {
        let advice = "let the user that herald runs as write there, or choose another --data-dir";
        return Finding::fail(CHECK, format!("{dir} cannot be written to"), [advice]);
    }
    let state = if folder.has_log { "a log" } else { "no log yet" };
    let found = format!("{dir}: {state}, {} free", bytes(folder.free_bytes));
    if folder.free_bytes < LOW_SPACE_BYTES {
        let advice = "without space no event is taken; make some, or see --retention-bytes";
        Finding::warn(CHECK, found, [advice])
    } else {
        Finding::ok(CHECK, found)
    }
}

/// A size in the largest unit of which there is one.
fn bytes(size: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| size >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", size / unit, size % unit * 10 / unit),
        None => format!("{size} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Outcome;
    use super::*;
    use crate::cli::topic::verdict::tests::sound;

    #[test]
    fn a_topic_is_as_well_as_the_worst_that_is_said_of_it() {
        let mut topic = sound();
        let finding = of_topic(&topic, "k:1");
        assert_eq!(finding.outcome, Outcome::Ok);
        assert_eq!(finding.found, "topic game-events at k:1: 2 partitions, 3 replicas, 17 records");
        topic.partitions[0].in_sync.truncate(2);
        assert_eq!(of_topic(&topic, "k:1").outcome, Outcome::Warn);
        topic.partitions[1].leader = None;
        let finding = of_topic(&topic, "k:1");
        assert_eq!((finding.outcome, finding.advice.len()), (Outcome::Fail, 2));
    }

    #[test]
    fn a_folder_can_be_used_or_it_is_said_what_to_do() {
        let well =
            FolderDescription { has_log: true, in_use: false, writable: true, free_bytes: 5 << 30 };
        for (folder, outcome, says) in [
            (well.clone(), Outcome::Ok, "d: a log, 5.0 GiB free"),
            (FolderDescription { has_log: false, ..well.clone() }, Outcome::Ok, "no log yet"),
            (
                FolderDescription { in_use: true, ..well.clone() },
                Outcome::Fail,
                "--server http://s",
            ),
            (FolderDescription { writable: false, ..well.clone() }, Outcome::Fail, "cannot be"),
            (FolderDescription { free_bytes: 7 << 20, ..well }, Outcome::Warn, "7.0 MiB free"),
        ] {
            let finding = of_folder(&folder, Path::new("d"), "http://s");
            let said = format!("{} {}", finding.found, finding.advice.concat());
            assert!(finding.outcome == outcome && said.contains(says), "{says}: {said}");
        }
    }

    #[test]
    fn sizes_are_in_the_largest_unit() {
        for (size, text) in [(9, "9 B"), (1536, "1.5 KiB"), ((1 << 40) - 1, "1023.9 GiB")] {
            assert_eq!(bytes(size), text);
        }
    }

    #[tokio::test]
    async fn what_hangs_is_given_up() {
        let (_held, hangs) = std::sync::mpsc::channel::<()>();
        let given_up = on_a_thread(move || hangs.recv(), Instant::now()).await;
        assert_eq!(given_up.unwrap_err().outcome, Outcome::Fail);
    }
}
