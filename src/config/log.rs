//! Where events are kept: the flags of the log, and what they come to.

use std::path::PathBuf;

use super::{Problems, at_least_and_at_most, duration, size, unless_off};
use crate::clock::Clock;
use crate::event_log::{kafka, local};

/// The flags of the log.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Log")]
pub struct LogSettings {
    /// The Kafka of the flags below, if any.
    #[command(flatten)]
    pub kafka: KafkaSettings,

    /// The folder of the embedded log, which is used when no Kafka is given
    #[arg(long, env = "HERALD_DATA_DIR", value_name = "DIR", default_value = "./herald-data")]
    pub data_dir: String,

    /// Remove events of the embedded log older than this, such as "30d"; "off" keeps all
    #[arg(long, env = "HERALD_RETENTION_AGE", value_name = "DURATION", default_value = "off")]
    pub retention_age: String,

    /// Remove the oldest events of the embedded log beyond this size, such as "10GiB", 4MiB at
    /// the least; "off" keeps all
    #[arg(long, env = "HERALD_RETENTION_BYTES", value_name = "SIZE", default_value = "off")]
    pub retention_bytes: String,
}

/// The flags that name a topic in Kafka.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaSettings {
    /// The Kafka that keeps the events: "host:port", several separated by commas; without it
    /// there is an embedded log
    #[arg(
        long,
        env = "HERALD_KAFKA_BROKERS",
        value_name = "BROKERS",
        default_value = "",
        hide_default_value = true
    )]
    pub kafka_brokers: String,

    /// The topic; made when it is missing
    #[arg(long, env = "HERALD_TOPIC", value_name = "NAME", default_value = kafka::DEFAULT_TOPIC)]
    pub topic: String,

    /// Over how many partitions players are spread, for as long as there is the log: 1 to 256
    /// in the embedded log, 1 to 1000 in Kafka; "auto" for 1 and 6
    #[arg(long, env = "HERALD_KEY_PARTITIONS", value_name = "N", default_value = "auto")]
    pub key_partitions: String,

    /// How many brokers keep each event of a new topic; an existing topic must have as many.
    /// "auto" leaves it to the cluster
    #[arg(long, env = "HERALD_TOPIC_REPLICATION_FACTOR", value_name = "N", default_value = "auto")]
    pub topic_replication_factor: String,

    /// How many of them must have an event before it is acknowledged, for a new topic; an
    /// existing topic must ask for as many. "auto" leaves it to the cluster
    #[arg(
        long,
        env = "HERALD_TOPIC_MIN_INSYNC_REPLICAS",
        value_name = "N",
        default_value = "auto"
    )]
    pub topic_min_insync_replicas: String,

    /// A property of librdkafka, such as security.protocol=SASL_SSL; can be repeated (in the
    /// environment: one a line)
    #[arg(
        long,
        env = "HERALD_KAFKA_CONFIG",
        value_name = "KEY=VALUE",
        value_delimiter = '\n',
        hide_env_values = true
    )]
    pub kafka_config: Vec<String>,

    /// A file of such properties, one a line; the place for passwords
    #[arg(
        long,
        env = "HERALD_KAFKA_CONFIG_FILE",
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub kafka_config_file: String,
}

impl std::fmt::Debug for KafkaSettings {
    /// Without the properties, which may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("kafka_brokers", &self.kafka_brokers)
            .field("topic", &self.topic)
            .field("key_partitions", &self.key_partitions)
            .finish_non_exhaustive()
    }
}

/// Which log there is, and how to open it.
#[derive(Clone, Debug)]
pub enum LogOptions {
    /// The embedded one.
    Local(local::Options),
    /// A topic in Kafka.
    Kafka(kafka::Options),
}

impl LogSettings {
    /// Checks the flags of a command that only reads the log.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, each with its flag.
    pub fn load_alone(&self) -> Result<LogOptions, super::ConfigError> {
        let mut p = Problems::default();
        let options = self.load(&mut p);
        if p.0.is_empty() { Ok(options) } else { Err(super::ConfigError(p.0)) }
    }

    pub(super) fn load(&self, p: &mut Problems) -> LogOptions {
        if let Some(options) = self.kafka.load_if_given(p) {
            for (flag, value) in
                [("retention-age", &self.retention_age), ("retention-bytes", &self.retention_bytes)]
            {
                if unless_off(value).is_some() {
                    p.add(
                        flag,
                        "is for the embedded log; in Kafka set the topic's own retention.ms or \
                         retention.bytes",
                    );
                }
            }
            return LogOptions::Kafka(options);
        }
        if self.data_dir.is_empty() {
            p.add("data-dir", "is empty; name a folder such as ./herald-data");
        }
        LogOptions::Local(local::Options {
            data_dir: PathBuf::from(&self.data_dir),
            partitions: self.kafka.key_partitions(local::MAX_PARTITIONS, p).unwrap_or(1),
            retention_age: unless_off(&self.retention_age)
                .map(|text| duration("retention-age", text, p)),
            retention_bytes: unless_off(&self.retention_bytes).map(|text| {
                let bytes = size("retention-bytes", text, p);
                let (least, most) = (local::MIN_RETENTION_BYTES, u64::MAX);
                at_least_and_at_most("retention-bytes", bytes, least, most, p)
            }),
            clock: Clock::System,
        })
    }
}

impl KafkaSettings {
    /// Checks the flags of a command for which Kafka is not a choice.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, each with its flag.
    pub fn load(&self) -> Result<kafka::Options, super::ConfigError> {
        let mut p = Problems::default();
        let options = self.load_if_given(&mut p);
        if options.is_none() && p.0.is_empty() {
            p.add("kafka-brokers", "missing; name the brokers, such as 127.0.0.1:9092");
        }
        options.filter(|_| p.0.is_empty()).ok_or(super::ConfigError(p.0))
    }

    /// What is given of a Kafka; none where no brokers are, which makes everything else that
    /// is given a mistake.
    fn load_if_given(&self, p: &mut Problems) -> Option<kafka::Options> {
        let properties = self.properties(p);
        let replication_factor =
            number("topic-replication-factor", &self.topic_replication_factor, p);
        let min_insync_replicas =
            number("topic-min-insync-replicas", &self.topic_min_insync_replicas, p);
        if self.kafka_brokers.is_empty() {
            for (flag, given) in [
                ("topic", self.topic != kafka::DEFAULT_TOPIC),
                ("topic-replication-factor", replication_factor.is_some()),
                ("topic-min-insync-replicas", min_insync_replicas.is_some()),
                ("kafka-config", !self.kafka_config.is_empty()),
                ("kafka-config-file", !self.kafka_config_file.is_empty()),
            ] {
                if given {
                    p.add(flag, "is for Kafka, and no brokers are given; add --kafka-brokers");
                }
            }
            return None;
        }
        for broker in self.kafka_brokers.split(',') {
            let port = broker.trim().rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                p.add("kafka-brokers", format!("{broker:?} is no broker such as kafka-1:9092"));
            }
        }
        if !is_topic_name(&self.topic) {
            p.add(
                "topic",
                format!(
                    "{:?} is no name of a topic: 1 to 249 letters, digits, dots, dashes and \
                     underscores",
                    self.topic
                ),
            );
        }
        if let (Some(all), Some(least)) = (replication_factor, min_insync_replicas)
            && least > all
        {
            p.add("topic-min-insync-replicas", "more than --topic-replication-factor");
        }
        Some(kafka::Options {
            brokers: self.kafka_brokers.clone(),
            topic: self.topic.clone(),
            properties,
            key_partitions: self.key_partitions(kafka::MAX_KEY_PARTITIONS, p),
            replication_factor,
            min_insync_replicas,
        })
    }

    fn key_partitions(&self, most: u32, p: &mut Problems) -> Option<u32> {
        unless_auto(&self.key_partitions).map(|text| p.number("key-partitions", text, 1, most))
    }

    /// The file's properties, and those of the flags over them.
    fn properties(&self, p: &mut Problems) -> kafka::Properties {
        let mut properties = kafka::Properties::default();
        let file = &self.kafka_config_file;
        if !file.is_empty() {
            match std::fs::read_to_string(file) {
                Err(error) => p.add("kafka-config-file", format!("{file}: {error}")),
                Ok(text) => {
                    for problem in properties.add_file(&text).err().unwrap_or_default() {
                        p.add("kafka-config-file", format!("{file}: {problem}"));
                    }
                }
            }
        }
        for line in self.kafka_config.iter().filter(|line| !line.trim().is_empty()) {
            if let Err(problem) = properties.add(line) {
                p.add("kafka-config", problem);
            }
        }
        properties
    }
}

fn unless_auto(text: &str) -> Option<&str> {
    (text != "auto").then_some(text)
}

fn number(flag: &str, text: &str, p: &mut Problems) -> Option<u32> {
    unless_auto(text).map(|text| p.number(flag, text, 1, i16::MAX.unsigned_abs().into()))
}

/// Source: `org.apache.kafka.common.internals.Topic`.
fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;
    use super::*;

    fn problems(flags: &[&str]) -> Vec<String> {
        load(flags).unwrap_err().0
    }

    #[test]
    fn every_bad_value_of_kafka_is_reported_at_once() {
        let found = problems(&[
            "--kafka-brokers=kafka,:9092,kafka:port",
            "--topic=game events",
            "--key-partitions=0",
            "--topic-replication-factor=2",
            "--topic-min-insync-replicas=3",
            "--kafka-config=acks=1",
            "--kafka-config=no.such=1",
            "--kafka-config-file=/nowhere.properties",
            "--retention-age=30d",
            "--retention-bytes=1GiB",
        ]);
        assert_eq!(found.len(), 11, "{found:#?}");
    }

    #[test]
    fn flags_for_kafka_without_brokers_are_a_mistake_and_no_embedded_log() {
        for flag in [
            "--topic=events",
            "--topic-replication-factor=3",
            "--topic-min-insync-replicas=2",
            "--kafka-config=security.protocol=SSL",
        ] {
            let found = problems(&[flag]);
            assert!(found.len() == 1 && found[0].contains("--kafka-brokers"), "{found:?}");
        }
    }

    #[test]
    fn a_password_is_in_no_problem_and_in_no_debug_output() {
        let given = ["--kafka-brokers=k:1", "--kafka-config=sasl.password=hunter2"];
        let config = load(&given).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let wrong = [given[0], "--kafka-config=sasl.pasword=hunter2", "--kafka-config=hunter2"];
        let found = problems(&wrong);
        assert!(found.len() == 2 && !found.concat().contains("hunter2"), "{found:?}");
    }

    #[test]
    fn the_number_of_partitions_depends_on_the_log() {
        let LogOptions::Local(local) = load(&[]).unwrap().log else { panic!("embedded") };
        assert_eq!(local.partitions, 1);
        let LogOptions::Kafka(kafka) = load(&["--kafka-brokers=k:1"]).unwrap().log else {
            panic!("Kafka")
        };
        assert_eq!(kafka.key_partitions, None);
        assert!(load(&["--kafka-brokers=k:1", "--key-partitions=300"]).is_ok());
        assert!(load(&["--key-partitions=300"]).is_err());
    }
}
