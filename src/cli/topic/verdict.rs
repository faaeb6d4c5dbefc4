//! Whether a topic is fit to be Herald's log, and how well it would keep the events.

use crate::event_log::kafka::{PartitionDescription, TopicDescription};

/// How many partitions are named before the others are only counted.
const MAX_NAMED: usize = 10;

/// What is to be said of a topic. Each entry says what to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it cannot be the log as it is; empty when it can.
    pub problems: Vec<String>,
    /// What works and is worth a look.
    pub warnings: Vec<String>,
}

impl Verdict {
    /// Judges a topic. Of its leaders and replicas all partitions count, also those that get
    /// no new events: they have to be read.
    pub fn of(topic: &TopicDescription) -> Self {
        let mut verdict = Self { problems: topic.problems.clone(), warnings: Vec::new() };
        let partitions = &topic.partitions;
        let which = |matches: &dyn Fn(&PartitionDescription) -> bool| {
            let found = partitions.iter().filter(|partition| matches(partition));
            let found: Vec<_> = found.map(|partition| partition.partition.to_string()).collect();
            match found.len() {
                0 => None,
                1 => Some(format!("partition {}", found[0])),
                count if count == partitions.len() => Some("all partitions".to_owned()),
                count if count > MAX_NAMED => {
                    let others = count - MAX_NAMED;
                    Some(format!(
                        "partitions {} and {others} others",
                        found[..MAX_NAMED].join(", ")
                    ))
                }
                _ => Some(format!("partitions {}", found.join(", "))),
            }
        };
        let setting = |name: &str| {
            topic.config.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        let least: usize =
            setting("min.insync.replicas").and_then(|text| text.parse().ok()).unwrap_or(1);

        if let Some(which) = which(&|partition| partition.leader.is_none()) {
            verdict.problems.push(format!(
                "{which}: no broker leads, so nothing can be written or read there; start the \
                 brokers that have replicas of it"
            ));
        }
        if let Some(which) =
            which(&|partition| partition.leader.is_some() && partition.in_sync.len() < least)
        {
            verdict.problems.push(format!(
                "{which}: fewer replicas in sync than min.insync.replicas asks for ({least}), so \
                 nothing can be written there; start the brokers that are missing"
            ));
        }
        if let Some(which) = which(&|partition| {
            partition.leader.is_some()
                && (least..partition.replicas.len()).contains(&partition.in_sync.len())
        }) {
            verdict.warnings.push(format!(
                "{which}: not all replicas are in sync; look at the brokers that are missing"
            ));
        }
        if let Some(which) = which(&|partition| partition.replicas.len() == 1) {
            verdict.warnings.push(format!(
                "{which}: one replica only, so events are lost with the disk of one broker; \
                 reassign to three, unless this is a trial"
            ));
        } else if least == 1 {
            verdict.warnings.push(
                "min.insync.replicas is 1: while replicas lag, one broker alone has the newest \
                 events; set it to 2"
                    .to_owned(),
            );
        }
        if topic.config.is_empty() {
            verdict.warnings.push(
                "its configuration may not be read, and so was not checked; allow DescribeConfigs \
                 on it"
                    .to_owned(),
            );
        }
        verdict
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::event_log::LogId;

    /// Two partitions on brokers 1, 2 and 3, with nothing to be said of them.
    pub fn sound() -> TopicDescription {
        let partition = |partition, end| PartitionDescription {
            partition,
            leader: Some(1),
            replicas: vec![1, 2, 3],
            in_sync: vec![1, 2, 3],
            start: 0,
            end,
        };
        TopicDescription {
            name: "game-events".to_owned(),
            id: LogId(uuid::Uuid::from_u128(7)),
            partitions: vec![partition(0, 5), partition(1, 12)],
            config: vec![
                ("cleanup.policy".to_owned(), "delete".to_owned()),
                ("min.insync.replicas".to_owned(), "2".to_owned()),
            ],
            problems: Vec::new(),
        }
    }

    #[test]
    fn nothing_is_said_of_a_topic_that_is_well() {
        assert_eq!(Verdict::of(&sound()), Verdict::default());
    }

    #[test]
    fn what_takes_no_writes_is_a_problem_and_what_may_lose_some_a_warning() {
        type Change = fn(&mut TopicDescription);
        let cases: [(Change, &[&str], &[&str]); 6] = [
            (|topic| topic.partitions[1].leader = None, &["partition 1: no broker leads"], &[]),
            (|topic| topic.partitions[0].in_sync.truncate(1), &["partition 0: fewer"], &[]),
            (|topic| topic.partitions[0].in_sync.truncate(2), &[], &["partition 0: not all"]),
            (|topic| topic.config[1].1 = "1".to_owned(), &[], &["min.insync.replicas is 1"]),
            (|topic| topic.problems.push("compacted".to_owned()), &["compacted"], &[]),
            (
                |topic| {
                    topic.config.clear();
                    for partition in &mut topic.partitions {
                        partition.replicas.truncate(1);
                        partition.in_sync.truncate(1);
                    }
                },
                &[],
                &["all partitions: one replica", "its configuration may not be read"],
            ),
        ];
        for (change, problems, warnings) in cases {
            let mut topic = sound();
            change(&mut topic);
            let verdict = Verdict::of(&topic);
            for (found, expected) in [(verdict.problems, problems), (verdict.warnings, warnings)] {
                assert_eq!(found.len(), expected.len(), "{found:?}");
                for (found, expected) in found.iter().zip(expected) {
                    assert!(found.starts_with(expected), "{found}");
                }
            }
        }
    }
}
