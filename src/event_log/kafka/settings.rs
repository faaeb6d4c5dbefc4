//! What the clients of Kafka are configured with: Herald's choices, and the user's
//! properties over them.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

/// Most partitions that keys can be spread over. Positions and cursors name every
/// partition, so this bounds their size too.
pub const MAX_KEY_PARTITIONS: u32 = 1_000;

/// Over how many partitions keys are spread when nothing else is asked for.
pub const DEFAULT_KEY_PARTITIONS: u32 = 6;

/// The topic that is used when nothing else is asked for.
pub const DEFAULT_TOPIC: &str = "game-events";

/// Records that wait for a broker at the most, and their bytes: further ones are refused.
pub const MAX_QUEUED_RECORDS: usize = 65_536;
/// See [`MAX_QUEUED_RECORDS`].
pub const MAX_QUEUED_KIB: usize = 64 * 1024;

/// Records that wait for one partition at the most: its share, but so many at least, so that
/// a partition without a leader does not use up the room of the others.
pub const MIN_QUEUED_PER_PARTITION: usize = 1_024;

/// Records are tried for ever: to give one up makes librdkafka begin a new sequence of
/// numbers, and brokers then take for new what another retry had already written. Source:
/// `rd_kafka_idemp_drain_epoch_bump` in rdkafka_broker.c of librdkafka 2.12.
const NO_DELIVERY_TIMEOUT: &str = "0";

/// The largest batch: fits the largest record with its headers, and is what a topic takes
/// that was made with Kafka's defaults.
pub(super) const MAX_BATCH_BYTES: u64 = 1_048_588;

/// What is waited for more records before a batch is sent. Measured: 0 and 5 ms give two
/// thirds of the rate of 1 ms, or less.
const LINGER_MILLIS: u32 = 1;

/// What a reader of the past fetches ahead at the most, in records and in bytes, and how long
/// it then pauses: librdkafka's own second is what a fast reader would notice.
const AHEAD_RECORDS: u32 = 100_000;
/// See [`AHEAD_RECORDS`].
const AHEAD_KIB: u32 = 4 * 1024;
/// See [`AHEAD_RECORDS`].
const AHEAD_PAUSE_MILLIS: u32 = 10;

/// What the tail holds of the topic at the most.
const TAIL_AHEAD_KIB: u32 = 16 * 1024;

/// How long the tail leaves a partition out of its requests when more than a few records of it
/// have come, so that what comes meanwhile comes with one request. A broker answers one that
/// waits as soon as it has a single record, so that without a pause there is a request for each
/// batch that anybody writes; with it, 25 % more events a second could be written (a broker on
/// the same two cores).
const TAIL_PAUSE_MILLIS: u32 = 3;

/// From how many records on there is a pause. With fewer there is no hurry to spare the broker,
/// and whoever was left out would wait until something comes for another partition: at 1,000
/// events a second that made the 99th percentile of delivery 7 ms instead of 4.
const TAIL_PAUSE_RECORDS: u32 = 8;

/// What a consumer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// To have each record soon after it is written.
    Tail,
    /// To read far from the end, as fast as the reader takes it.
    Past,
}

/// Properties that decide whether Herald keeps its promises, and what to use instead.
const RESERVED: &[(&str, &str)] = &[
    ("bootstrap.servers", "use --kafka-brokers"),
    ("metadata.broker.list", "use --kafka-brokers"),
    ("enable.idempotence", "the producer is always idempotent"),
    ("acks", "events are acknowledged by all in-sync replicas; see --topic-min-insync-replicas"),
    ("request.required.acks", "events are acknowledged by all in-sync replicas"),
    ("message.timeout.ms", "a record that is given up can make others appear twice"),
    ("delivery.timeout.ms", "a record that is given up can make others appear twice"),
    ("retries", "a record that is given up can make others appear twice"),
    ("message.send.max.retries", "a record that is given up can make others appear twice"),
    ("delivery.report.only.error", "herald waits for each report"),
    ("transactional.id", "events are written without transactions"),
    ("partitioner", "herald chooses the partition; see --key-partitions"),
    ("partitioner_cb", "herald chooses the partition; see --key-partitions"),
    ("group.id", "herald reads without a consumer group"),
    ("group.instance.id", "herald reads without a consumer group"),
    ("enable.auto.commit", "herald keeps no offsets in Kafka"),
    ("enable.auto.offset.store", "herald keeps no offsets in Kafka"),
    ("auto.offset.reset", "a lost position is reported, never reset"),
    ("isolation.level", "a foreign transaction must not hold up the feed"),
    ("enable.partition.eof", "herald depends on it"),
    ("message.max.bytes", "herald's limit of a record is fixed"),
    ("allow.auto.create.topics", "herald creates its topic itself"),
];

/// Configuration properties of librdkafka, as a user gave them. What is secret in them is
/// shown by no formatter.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Adds a line such as `sasl.mechanism=SCRAM-SHA-512`; a later one wins.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words without the value.
    pub fn add(&mut self, line: &str) -> Result<(), String> {
        let Some((key, value)) = line.split_once('=') else {
            // The line may be a password that went astray.
            return Err("is no key=value, such as security.protocol=SASL_SSL".to_owned());
        };
        let key = key.trim();
        if let Some((_, why)) = RESERVED.iter().find(|(name, _)| *name == key) {
            return Err(format!("{key} cannot be set: {why}"));
        }
        if !key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        {
            // The rest of a key in PEM form has an equals sign too.
            return Err("is no key=value, such as security.protocol=SASL_SSL".to_owned());
        }
        let value = value.trim();
        // A client of its own for each property, so that the message names the one.
        let mut config = ClientConfig::new();
        config.set(key, value);
        match config.create_native_config() {
            Ok(_) => {}
            Err(KafkaError::ClientConfig(_, why, ..)) if !is_secret(key) => {
                return Err(format!("{key}: {why}"));
            }
            Err(_) => return Err(format!("{key} is no property of librdkafka, or not its value")),
        }
        self.0.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// Adds all lines of a properties file; empty ones and those that begin with `#` are
    /// passed over.
    ///
    /// # Errors
    ///
    /// Each line that is wrong, with its number.
    pub fn add_file(&mut self, text: &str) -> Result<(), Vec<String>> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let wrong: Vec<_> = lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .filter_map(|(number, line)| {
                self.add(line).err().map(|problem| format!("line {number}: {problem}"))
            })
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self
            .0
            .iter()
            .map(|(key, value)| (key, if is_secret(key) { "(secret)" } else { value.as_str() }));
        f.debug_map().entries(shown).finish()
    }
}

/// Whether a property holds something that nobody is to see.
fn is_secret(key: &str) -> bool {
    const MARKS: [&str; 6] =
        ["password", "secret", "passphrase", "key.pem", "oauthbearer.config", "assertion"];
    MARKS.iter().any(|mark| key.contains(mark))
}

/// How to open a log in Kafka.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to find the cluster: `host:port`, separated by commas.
    pub brokers: String,
    /// The topic that is the log.
    pub topic: String,
    /// Further configuration, such as for TLS and SASL.
    pub properties: Properties,
    /// Over how many partitions keys are spread, 1 to [`MAX_KEY_PARTITIONS`]. None: as many
    /// as a new topic gets, [`DEFAULT_KEY_PARTITIONS`], and only for a topic that has just as
    /// many.
    pub key_partitions: Option<u32>,
    /// How many replicas a new topic gets, and an existing one has to have at least. None
    /// leaves it to the cluster.
    pub replication_factor: Option<u32>,
    /// The same for the replicas that have to be in sync for a write.
    pub min_insync_replicas: Option<u32>,
}

impl Options {
    pub(super) fn key_partitions(&self) -> u32 {
        self.key_partitions.unwrap_or(DEFAULT_KEY_PARTITIONS)
    }

    /// For finding out about the topic.
    pub(super) fn admin(&self) -> ClientConfig {
        // Else the end would be where somebody's open transaction begins.
        self.client(&[("isolation.level", "read_uncommitted")])
    }

    /// For writing.
    pub(super) fn producer(&self) -> ClientConfig {
        self.client(&[
            ("enable.idempotence", "true"),
            ("linger.ms", &LINGER_MILLIS.to_string()),
            ("message.timeout.ms", NO_DELIVERY_TIMEOUT),
            ("message.max.bytes", &MAX_BATCH_BYTES.to_string()),
            ("queue.buffering.max.messages", &MAX_QUEUED_RECORDS.to_string()),
            ("queue.buffering.max.kbytes", &MAX_QUEUED_KIB.to_string()),
            ("statistics.interval.ms", "5000"),
        ])
    }

    /// For reading.
    pub(super) fn consumer(&self, reading: Reading) -> ClientConfig {
        let [ahead_records, ahead_kib, pause_millis] = match reading {
            Reading::Tail => [TAIL_PAUSE_RECORDS, TAIL_AHEAD_KIB, TAIL_PAUSE_MILLIS],
            Reading::Past => [AHEAD_RECORDS, AHEAD_KIB, AHEAD_PAUSE_MILLIS],
        };
        self.client(&[
            // It is never joined: partitions are assigned, and offsets not committed.
            ("group.id", "herald"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("isolation.level", "read_uncommitted"),
            ("enable.partition.eof", "true"),
            ("queued.min.messages", &ahead_records.to_string()),
            ("queued.max.messages.kbytes", &ahead_kib.to_string()),
            ("fetch.queue.backoff.ms", &pause_millis.to_string()),
            ("fetch.error.backoff.ms", "100"),
        ])
    }

    fn client(&self, own: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "herald")
            .set("log.connection.close", "false")
            // A broker that hangs is given up, and its partitions looked for elsewhere, well
            // before a record is.
            .set("socket.timeout.ms", "10000")
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "1000")
            .set_log_level(RDKafkaLogLevel::Info);
        for (key, value) in own {
            config.set(*key, *value);
        }
        for (key, value) in &self.properties.0 {
            config.set(key, value);
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_that_cannot_be_set_says_so() {
        for (line, because) in [
            ("hunter2", "is no key=value"),
            ("no.such.property=1", "No such configuration property"),
            ("acks=1", "in-sync replicas"),
            ("linger.ms=soon", "linger.ms"),
            ("ssl.key.pem=garbage\0", "ssl.key.pem"),
        ] {
            let problem = Properties::default().add(line).unwrap_err();
            assert!(problem.contains(because), "{line}: {problem}");
        }
        assert!(!Properties::default().add("hunter2").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn a_file_has_comments_and_each_wrong_line_is_named() {
        let mut properties = Properties::default();
        let text = "# for the test cluster\n\nsecurity.protocol = SASL_SSL\nsasl.password=a=b\n";
        properties.add_file(text).unwrap();
        assert_eq!(properties.0["security.protocol"], "SASL_SSL");
        assert_eq!(properties.0["sasl.password"], "a=b");
        let wrong = properties.add_file("x=1\nlinger.ms=1\ny").unwrap_err();
        assert_eq!(wrong.len(), 2);
        assert!(wrong[1].starts_with("line 3: "), "{wrong:?}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut properties = Properties::default();
        for key in ["sasl.password", "ssl.key.password", "ssl.keystore.password"] {
            properties.add(&format!("{key}=hunter2")).unwrap();
        }
        properties.add("sasl.username=herald").unwrap();
        let shown = format!("{properties:?}");
        assert!(shown.contains("herald") && !shown.contains("hunter2"), "{shown}");
    }
}
