//! `herald topic describe`.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::verdict::Verdict;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::cli::{json, words};
use crate::config::KafkaSettings;
use crate::event_log::kafka::{DescribeError, TopicDescription, describe_topic};

/// The codes, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    the topic is fit to be Herald's log (also with warnings)
  1    it is not fit, or there is no such topic
  2    wrong usage, or a setting is wrong
  3    the brokers cannot be reached, or refuse to answer";

/// Arguments of `herald topic describe`.
#[derive(Debug, Args)]
#[command(
    mut_arg("kafka_brokers", |arg| arg.help("The brokers: \"host:port\", several separated by commas")),
    mut_arg("topic", |arg| arg.help("The topic"))
)]
pub struct Describe {
    #[command(flatten)]
    kafka: KafkaSettings,
    /// Print JSON.
    #[arg(long, help_heading = "Output")]
    json: bool,
}

impl Describe {
    /// Shows the topic.
    pub fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let options = match self.kafka.load() {
            Ok(options) => options,
            Err(error) => {
                error.0.iter().for_each(|problem| output.note(problem));
                return Ok(Exit::Usage);
            }
        };
        let brokers = options.brokers.clone();
        // It blocks, and no runtime runs on this thread.
        let topic = match describe_topic(options) {
            Ok(topic) => topic,
            Err(error) => {
                output.note(&words::printable(&explain(&error, &brokers)));
                return Ok(match error {
                    DescribeError::Missing(_) => Exit::Failed,
                    DescribeError::Unavailable(_) => Exit::Unavailable,
                });
            }
        };
        let verdict = Verdict::of(&topic);
        let fit = verdict.problems.is_empty();
        if self.json {
            let json = serde_json::to_string(&Description::new(&topic, verdict))?;
            output.line(json::without_controls(json))?;
        } else {
            for line in table(&topic, &verdict) {
                output.line(words::printable(&line))?;
            }
        }
        Ok(if fit { Exit::Done } else { Exit::Failed })
    }
}

/// Why there is nothing to show, and what to do.
pub fn explain(error: &DescribeError, brokers: &str) -> String {
    format!(
        "{error}{}; {}",
        match error {
            DescribeError::Missing(_) => format!(" at {brokers}"),
            DescribeError::Unavailable(_) => String::new(),
        },
        advice(error)
    )
}

/// What to do where a topic cannot be described.
pub fn advice(error: &DescribeError) -> &'static str {
    match error {
        DescribeError::Missing(_) => {
            "check --topic and --kafka-brokers; herald serve makes the topic when it starts"
        }
        DescribeError::Unavailable(_) => {
            "check that the brokers run and can be reached from here, --kafka-brokers and \
             --kafka-config"
        }
    }
}

/// How many records are in all partitions together.
pub fn records(topic: &TopicDescription) -> u64 {
    topic.partitions.iter().map(|partition| partition.end - partition.start).sum()
}

/// For people.
fn table(topic: &TopicDescription, verdict: &Verdict) -> Vec<String> {
    let mut lines = vec![
        format!("topic     {}", topic.name),
        format!("identity  {}  (the epoch of the feed)", topic.id),
        format!("records   {}", records(topic)),
        format!(
            "fit       {}",
            if verdict.problems.is_empty() { "yes, to be Herald's log" } else { "no, see below" }
        ),
        String::new(),
    ];
    let list = |brokers: &[i32]| {
        let brokers: Vec<_> = brokers.iter().map(ToString::to_string).collect();
        if brokers.is_empty() { "none".to_owned() } else { brokers.join(",") }
    };
    let head = ["partition", "leader", "replicas", "in sync", "start", "end", "records"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(topic.partitions.iter().map(|partition| {
        [
            partition.partition.to_string(),
            partition.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
            list(&partition.replicas),
            list(&partition.in_sync),
            partition.start.to_string(),
            partition.end.to_string(),
            (partition.end - partition.start).to_string(),
        ]
    }));
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    lines.extend(rows.iter().map(|row| {
        let cells: Vec<_> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        cells.join("  ")
    }));
    if !topic.config.is_empty() {
        lines.push(String::new());
    }
    let width = topic.config.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.extend(topic.config.iter().map(|(name, value)| format!("{name:<width$}  {value}")));
    let remarks = verdict.problems.iter().map(|problem| format!("not fit: {problem}"));
    let remarks: Vec<_> =
        remarks.chain(verdict.warnings.iter().map(|text| format!("warning: {text}"))).collect();
    if !remarks.is_empty() {
        lines.push(String::new());
    }
    lines.extend(remarks);
    lines
}

/// For machines.
#[derive(Serialize)]
struct Description<'a> {
    topic: &'a str,
    feed_epoch: String,
    fit: bool,
    records: u64,
    partitions: Vec<Partition<'a>>,
    config: BTreeMap<&'a str, &'a str>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Partition<'a> {
    partition: u32,
    leader: Option<i32>,
    replicas: &'a [i32],
    in_sync: &'a [i32],
    start_offset: u64,
    end_offset: u64,
}

impl<'a> Description<'a> {
    fn new(topic: &'a TopicDescription, verdict: Verdict) -> Self {
        let partitions = topic.partitions.iter().map(|partition| Partition {
            partition: partition.partition,
            leader: partition.leader,
            replicas: &partition.replicas,
            in_sync: &partition.in_sync,
            start_offset: partition.start,
            end_offset: partition.end,
        });
        Self {
            topic: &topic.name,
            feed_epoch: topic.id.to_string(),
            fit: verdict.problems.is_empty(),
            records: records(topic),
            partitions: partitions.collect(),
            config: topic.config.iter().map(|(name, value)| (&**name, &**value)).collect(),
            problems: verdict.problems,
            warnings: verdict.warnings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::tests::sound;
    use super::*;

    #[test]
    fn a_topic_is_a_table_for_people() {
        let mut topic = sound();
        topic.partitions[1].leader = None;
        topic.partitions[1].in_sync.clear();
        assert_eq!(
            table(&topic, &Verdict::of(&topic)).join("\n"),
            "\
topic     game-events
identity  00000000-0000-0000-0000-000000000007  (the epoch of the feed)
records   17
fit       no, see below

partition  leader  replicas  in sync  start  end  records
        0       1     1,2,3    1,2,3      0    5        5
        1    none     1,2,3     none      0   12       12

cleanup.policy       delete
min.insync.replicas  2

not fit: partition 1: no broker leads, so nothing can be written or read there; start the brokers \
that have replicas of it"
        );
    }

    #[test]
    fn a_topic_is_an_object_for_machines() {
        let topic = sound();
        let json = serde_json::to_value(Description::new(&topic, Verdict::of(&topic))).unwrap();
        assert_eq!(json["fit"], true);
        assert_eq!(json["feed_epoch"], "00000000-0000-0000-0000-000000000007");
        assert_eq!(json["partitions"][1]["end_offset"], 12);
        assert_eq!(json["config"]["min.insync.replicas"], "2");
        assert_eq!((&json["records"], json["problems"].as_array().unwrap().len()), (&17.into(), 0));
    }

    #[test]
    fn an_error_says_what_to_do() {
        let missing = explain(&DescribeError::Missing("x".to_owned()), "k:1");
        assert!(missing.starts_with("there is no topic x at k:1; check --topic"), "{missing}");
        let unreachable = explain(&DescribeError::Unavailable("no broker".into()), "k:1");
        assert!(unreachable.starts_with("no broker; check that the brokers run"), "{unreachable}");
    }
}
