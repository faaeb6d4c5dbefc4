//! The topic: what it is, whether it is fit to be a log, and how it is made.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::OpenError;
use super::context::Context;
use super::ffi::{self, Identity};
use super::settings::{MAX_BATCH_BYTES, Options};
use crate::event_log::{LogId, Offset, Partition, Position};

/// How long the cluster may take for one answer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the look at the identity may take: so long after the regular look at the latest
/// it is known that the brokers do not answer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an answer is waited for although all brokers are known to be out of reach: they
/// are tried again all the time.
const HOPE: Duration = Duration::from_secs(1);

/// What an epoch is made of where the brokers give topics no identity.
const EPOCH_NAMESPACE: Uuid = Uuid::from_u128(0x6f1f_3c52_0b0e_5d0c_9d5a_54a3_3f0b_7c11);

/// The configuration that matters for a log, in the order in which it is shown.
const CONFIG: [&str; 7] = [
    "message.timestamp.type",
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
    "min.insync.replicas",
    "max.message.bytes",
    "compression.type",
];

/// Why something cannot be found out, or done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure(pub Arc<str>);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a topic cannot be described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    /// The brokers answer, and have no such topic.
    #[error("there is no topic {0}")]
    Missing(String),
    /// The brokers cannot be reached, or refuse to answer.
    #[error("{0}")]
    Unavailable(Arc<str>),
}

impl From<Failure> for DescribeError {
    fn from(failure: Failure) -> Self {
        Self::Unavailable(failure.0)
    }
}

/// A topic, as it is shown to an operator.
#[derive(Clone, Debug)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its identity, which is the epoch of the feed.
    pub id: LogId,
    /// Its partitions, in order.
    pub partitions: Vec<PartitionDescription>,
    /// What of its configuration matters to Herald; empty where it may not be read.
    pub config: Vec<(String, String)>,
    /// Why it is not fit to be Herald's log; empty when it is.
    pub problems: Vec<String>,
}

/// A partition, as it is shown to an operator.
#[derive(Clone, Debug)]
pub struct PartitionDescription {
    /// Its number.
    pub partition: Partition,
    /// The broker that leads it; none while there is none.
    pub leader: Option<i32>,
    /// The brokers that have it.
    pub replicas: Vec<i32>,
    /// Those of them that have all of it.
    pub in_sync: Vec<i32>,
    /// Its first record.
    pub start: Offset,
    /// The offset that its next record gets.
    pub end: Offset,
}

/// Where a partition is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    pub leader: Option<i32>,
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
}

/// What is known of the topic apart from its offsets.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub placements: Vec<Placement>,
    /// Empty where it may not be read.
    pub config: BTreeMap<String, String>,
}

/// Finds out about the topic, and makes it. All its methods block, for a few times
/// [`REQUEST_TIMEOUT`] at the most, and so it needs a thread of its own.
pub(super) struct Inspector {
    options: Options,
    context: Context,
    /// A consumer, as asking with a producer would make the topic where the cluster is set to
    /// make topics by itself.
    consumer: BaseConsumer<Context>,
    may_not_read_config: Cell<bool>,
    /// The last look at the identity had no answer.
    unanswered: Cell<bool>,
    /// Waits for admin clients.
    runtime: Runtime,
}

impl Inspector {
    /// The clients for it. Nothing is connected yet.
    pub fn new(options: Options, context: Context) -> Result<Self, OpenError> {
        let config = options.admin();
        let consumer = config.create_with_context(context.clone())?;
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        Ok(Self {
            options,
            context,
            consumer,
            may_not_read_config: Cell::new(false),
            unanswered: Cell::new(false),
            runtime: runtime.map_err(OpenError::Thread)?,
        })
    }

    /// A client for what a consumer cannot ask. It is not kept, as nobody would hear what
    /// librdkafka has to say through it.
    fn admin(&self) -> Result<AdminClient<Context>, Failure> {
        let made = self.options.admin().create_with_context(self.context.clone());
        made.map_err(|error| self.error(&error))
    }

    /// Handles what librdkafka has to say.
    pub fn listen(&self) {
        while self.context.hears(|| self.consumer.poll(Duration::ZERO).is_some()) {}
    }

    /// The topic's identity; none where there is no such topic.
    pub fn identify(&self) -> Result<Option<Identity>, Failure> {
        // librdkafka tries on; when it is known what is wrong, that is the answer.
        let hopeless = |waited| {
            self.listen();
            waited >= HOPE && self.context.has_lost_all()
        };
        let (client, topic) = (self.consumer.client(), &self.options.topic);
        if self.unanswered.get() {
            // librdkafka asks the broker that was the controller when it last fetched metadata,
            // which it does every five minutes: should that one have died, it asks in vain.
            // Metadata comes from any broker. Source: rd_kafka_admin_request_op_new in
            // rdkafka_admin.c of librdkafka 2.12.
            if let Err(error) = self.consumer.fetch_metadata(Some(topic), HOPE) {
                tracing::debug!(%error, "no broker says where the topic is");
            }
        }
        let found = ffi::identify(client, topic, LOOK_TIMEOUT, hopeless);
        self.unanswered.set(found.is_err());
        found.map_err(|code| self.failure(code))
    }

    /// The identity of the log that the topic is.
    pub fn log_id(&self, identity: &Identity) -> LogId {
        LogId(identity.id.unwrap_or_else(|| {
            let cluster = self.consumer.client().fetch_cluster_id(REQUEST_TIMEOUT);
            let cluster = cluster.unwrap_or_else(|| self.options.brokers.clone());
            tracing::warn!(
                "the brokers give topics no identity, so a topic that is deleted and made anew \
                 is not noticed; Kafka 2.8 and later do"
            );
            let name = format!("{}:{cluster}:{}", cluster.len(), self.options.topic);
            Uuid::new_v5(&EPOCH_NAMESPACE, name.as_bytes())
        }))
    }

    /// Makes the topic. That somebody else was faster is as good.
    pub fn create(&self) -> Result<(), Failure> {
        let Options { topic, replication_factor, min_insync_replicas, .. } = &self.options;
        let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        // -1 is the cluster's default. Source: KIP-464.
        let replication = TopicReplication::Fixed(replication_factor.map_or(-1, count));
        let min_insync = min_insync_replicas.map(|number| number.to_string());
        let mut new = NewTopic::new(topic, count(self.options.key_partitions()), replication)
            .set("message.timestamp.type", "LogAppendTime")
            .set("cleanup.policy", "delete")
            .set("retention.ms", "-1")
            .set("retention.bytes", "-1");
        if let Some(number) = &min_insync {
            new = new.set("min.insync.replicas", number);
        }
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST_TIMEOUT))
            .operation_timeout(Some(REQUEST_TIMEOUT));
        let made = self.runtime.block_on(self.admin()?.create_topics([&new], &options));
        match made.map_err(|error| self.error(&error))?.pop() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code))) => {
                let advice = match code {
                    RDKafkaErrorCode::InvalidReplicationFactor => {
                        "; are there as many brokers as --topic-replication-factor asks for?"
                    }
                    RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::ClusterAuthorizationFailed => {
                        "; allow Create on it, or make it with 6 partitions and \
                         message.timestamp.type=LogAppendTime"
                    }
                    _ => "",
                };
                let why = code_text(code);
                Err(Failure(format!("cannot create topic {topic}: {why}{advice}").into()))
            }
            _ => {
                tracing::info!(topic, partitions = self.options.key_partitions(), "made the topic");
                Ok(())
            }
        }
    }

    /// Where the partitions are, and the configuration.
    pub fn state(&self) -> Result<State, Failure> {
        let topic = self.options.topic.as_str();
        let metadata = self
            .consumer
            .fetch_metadata(Some(topic), REQUEST_TIMEOUT)
            .map_err(|error| self.error(&error))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Err(self.failure(RDKafkaErrorCode::UnknownTopicOrPartition));
        };
        if let Some(error) = found.error() {
            return Err(self.failure(error.into()));
        }
        let mut partitions: Vec<_> = found.partitions().iter().collect();
        partitions.sort_by_key(|partition| partition.id());
        let placements = partitions
            .iter()
            .map(|partition| Placement {
                leader: Some(partition.leader()).filter(|leader| *leader >= 0),
                replicas: partition.replicas().to_vec(),
                in_sync: partition.isr().to_vec(),
            })
            .collect();
        Ok(State { placements, config: self.config()? })
    }

    fn config(&self) -> Result<BTreeMap<String, String>, Failure> {
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let topic = ResourceSpecifier::Topic(&self.options.topic);
        let described = self.runtime.block_on(self.admin()?.describe_configs([&topic], &options));
        match described.map_err(|error| self.error(&error))?.pop() {
            Some(Ok(resource)) => {
                let known = resource.entries.into_iter();
                Ok(known.filter_map(|entry| Some((entry.name, entry.value?))).collect())
            }
            Some(Err(RDKafkaErrorCode::TopicAuthorizationFailed)) => {
                if !self.may_not_read_config.replace(true) {
                    tracing::warn!(
                        "the topic's configuration may not be read, and so is not checked; allow \
                         DescribeConfigs on it"
                    );
                }
                Ok(BTreeMap::new())
            }
            Some(Err(code)) => Err(self.failure(code)),
            None => Err(self.failure(RDKafkaErrorCode::BadMessage)),
        }
    }

    /// The first offset of each partition, and the one behind the last.
    pub fn bounds(&self, partitions: u32) -> Result<(Position, Position), Failure> {
        let start = self.offsets(partitions, KafkaOffset::Beginning)?;
        let end = self.offsets(partitions, KafkaOffset::End)?;
        // A partition that was trimmed in between.
        let start = start.iter().map(|(partition, offset)| offset.min(end.get(partition)));
        Ok((start.collect(), end))
    }

    /// The first offset of each partition with a time of `millis` or later; the end that the
    /// partition had before it was asked, where there is none.
    pub fn position_at(&self, partitions: u32, millis: i64) -> Result<Position, Failure> {
        let end = self.offsets(partitions, KafkaOffset::End)?;
        // Negative times stand for ends and beginnings.
        let found = self.offsets(partitions, KafkaOffset::Offset(millis.max(0)))?;
        Ok(end
            .iter()
            .map(|(partition, end)| match found.get(partition) {
                NONE => end,
                offset => offset.min(end),
            })
            .collect())
    }

    /// Asks for an offset in each partition; [`NONE`] where there is none.
    fn offsets(&self, partitions: u32, which: KafkaOffset) -> Result<Position, Failure> {
        let topic = self.options.topic.as_str();
        let mut asked = TopicPartitionList::with_capacity(partitions as usize);
        for partition in 0..partitions {
            asked
                .add_partition_offset(topic, kafka_partition(partition), which)
                .map_err(|error| self.error(&error))?;
        }
        let found = self
            .consumer
            .offsets_for_times(asked, REQUEST_TIMEOUT)
            .map_err(|error| self.error(&error))?;
        let mut position = Position::zero(partitions as usize);
        for element in found.elements() {
            element.error().map_err(|error| self.error(&error))?;
            let offset = match element.offset() {
                KafkaOffset::Offset(offset) => u64::try_from(offset).unwrap_or(NONE),
                _ => NONE,
            };
            position.set(u32::try_from(element.partition()).unwrap_or(0), offset);
        }
        Ok(position)
    }

    /// Everything about the topic.
    pub fn describe(&self) -> Result<TopicDescription, DescribeError> {
        let Some(identity) = self.identify()? else {
            return Err(DescribeError::Missing(self.options.topic.clone()));
        };
        let state = self.state()?;
        let problems = state.problems(&self.options);
        let (start, end) = self.bounds(identity.partitions)?;
        let State { placements, mut config } = state;
        Ok(TopicDescription {
            name: self.options.topic.clone(),
            id: self.log_id(&identity),
            partitions: (0..)
                .zip(placements)
                .map(|(partition, Placement { leader, replicas, in_sync })| PartitionDescription {
                    partition,
                    leader,
                    replicas,
                    in_sync,
                    start: start.get(partition),
                    end: end.get(partition),
                })
                .collect(),
            config: CONFIG
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), config.remove(*name)?)))
                .collect(),
            problems,
        })
    }

    fn error(&self, error: &KafkaError) -> Failure {
        match error.rdkafka_error_code().or(match error {
            KafkaError::AdminOp(code) => Some(*code),
            _ => None,
        }) {
            Some(code) => self.failure(code),
            None => Failure(error.to_string().into()),
        }
    }

    /// A failure in words: where the brokers could not be talked to, why.
    fn failure(&self, code: RDKafkaErrorCode) -> Failure {
        self.listen();
        let Options { brokers, topic, .. } = &self.options;
        Failure(match (code, self.context.cause()) {
            (RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic, _) => {
                format!("there is no topic {topic}").into()
            }
            (
                RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::SSL,
                Some(cause),
            ) => format!("no broker of {brokers} can be used: {cause}").into(),
            (
                RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown,
                None,
            ) => format!("the brokers at {brokers} do not answer").into(),
            (code, _) => format!("the brokers at {brokers} answer: {}", code_text(code)).into(),
        })
    }
}

/// No offset.
const NONE: Offset = Offset::MAX;

/// How librdkafka says it, without its name for it.
pub(super) fn code_text(code: RDKafkaErrorCode) -> String {
    let text = code.to_string();
    match text.split_once(" (") {
        Some((_, words)) => words.trim_end_matches(')').to_owned(),
        None => text,
    }
}

/// A partition as Kafka counts it.
pub(super) fn kafka_partition(partition: Partition) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

impl State {
    /// Why the topic is not fit to be the log, and what to do about each.
    pub fn problems(&self, options: &Options) -> Vec<String> {
        let Options { brokers, topic, .. } = options;
        let alter = |setting: &str| {
            format!(
                "kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics --entity-name {topic} \
                 --add-config {setting}"
            )
        };
        let mut problems = Vec::new();
        let config = |name| self.config.get(name).map(String::as_str);
        if config("message.timestamp.type").is_some_and(|kind| kind != "LogAppendTime") {
            problems.push(format!(
                "its records carry the time of their producer, which need not be in order; set \
                 message.timestamp.type: {}",
                alter("message.timestamp.type=LogAppendTime")
            ));
        }
        if config("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
            problems.push(format!(
                "it is compacted, which removes all but the newest event of each player; set \
                 cleanup.policy: {}",
                alter("cleanup.policy=delete")
            ));
        }
        let largest: Option<u64> = config("max.message.bytes").and_then(|text| text.parse().ok());
        if let Some(largest) = largest
            && largest < MAX_BATCH_BYTES
        {
            problems.push(format!(
                "it takes no more than {largest} bytes at a time, and herald sends up to \
                 {MAX_BATCH_BYTES}; set max.message.bytes: {}",
                alter(&format!("max.message.bytes={MAX_BATCH_BYTES}"))
            ));
        }
        let partitions = u32::try_from(self.placements.len()).unwrap_or(u32::MAX);
        match options.key_partitions {
            Some(wanted) if partitions < wanted => problems.push(format!(
                "it has {partitions} partitions, and --key-partitions asks for {wanted}; add \
                 partitions, or ask for {partitions}"
            )),
            None if partitions != options.key_partitions() => problems.push(format!(
                "it has {partitions} partitions; say with --key-partitions over how many of them \
                 players are spread: {partitions} for a topic that herald has not written to, else \
                 what it was when the first event was written ({} unless it was given)",
                options.key_partitions()
            )),
            _ => {}
        }
        let fewest = self.placements.iter().map(|placement| placement.replicas.len()).min();
        if let (Some(wanted), Some(fewest)) = (options.replication_factor, fewest)
            && fewest < wanted as usize
        {
            problems.push(format!(
                "it has a partition with {fewest} replicas, and --topic-replication-factor asks \
                 for {wanted}; reassign its partitions, or ask for {fewest}"
            ));
        }
        let in_sync: Option<u32> = config("min.insync.replicas").and_then(|text| text.parse().ok());
        if let (Some(wanted), Some(in_sync)) = (options.min_insync_replicas, in_sync)
            && in_sync < wanted
        {
            problems.push(format!(
                "its min.insync.replicas is {in_sync}, and --topic-min-insync-replicas asks for \
                 {wanted}: {}",
                alter(&format!("min.insync.replicas={wanted}"))
            ));
        }
        problems
    }

    /// Partitions that take no writes now, of the first `partitions`.
    pub fn unwritable(&self, partitions: u32) -> Vec<Partition> {
        let least = self.config.get("min.insync.replicas").and_then(|text| text.parse().ok());
        let least = least.unwrap_or(1);
        let placements = (0..partitions).zip(&self.placements);
        placements
            .filter(|(_, at)| at.leader.is_none() || at.in_sync.len() < least)
            .map(|(partition, _)| partition)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_log::kafka::settings::Properties;

    fn options() -> Options {
        Options {
            brokers: "127.0.0.1:1".into(),
            topic: "game-events".into(),
            properties: Properties::default(),
            key_partitions: None,
            replication_factor: None,
            min_insync_replicas: None,
        }
    }

    fn state(partitions: usize, config: &[(&str, &str)]) -> State {
        let placement = Placement { leader: Some(1), replicas: vec![1, 2], in_sync: vec![1, 2] };
        let config = config.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        State { placements: vec![placement; partitions], config: config.collect() }
    }

    #[test]
    fn what_is_unfit_is_named_with_what_to_do() {
        let fit = state(6, &[("message.timestamp.type", "LogAppendTime")]);
        assert_eq!(fit.problems(&options()), [""; 0]);
        let explicit = |partitions| Options { key_partitions: Some(partitions), ..options() };
        assert_eq!(state(12, &[]).problems(&explicit(6)), [""; 0]);
        for (state, options, says) in [
            (state(6, &[("message.timestamp.type", "CreateTime")]), options(), "LogAppendTime"),
            (state(6, &[("cleanup.policy", "compact,delete")]), options(), "cleanup.policy=delete"),
            (state(12, &[]), options(), "12 for a topic"),
            (state(6, &[("max.message.bytes", "500000")]), options(), "max.message.bytes=1048588"),
            (state(3, &[]), explicit(6), "ask for 3"),
            (state(6, &[]), Options { replication_factor: Some(3), ..options() }, "2 replicas"),
            (
                state(6, &[("min.insync.replicas", "1")]),
                Options { min_insync_replicas: Some(2), ..options() },
                "min.insync.replicas=2",
            ),
        ] {
            let problems = state.problems(&options);
            assert!(problems.len() == 1 && problems[0].contains(says), "{says}: {problems:?}");
        }
    }

    #[test]
    fn partitions_without_leader_or_replicas_in_sync_take_no_writes() {
        let mut state = state(3, &[("min.insync.replicas", "2")]);
        assert_eq!(state.unwritable(3), [0; 0]);
        state.placements[0].leader = None;
        state.placements[2].in_sync = vec![2];
        assert_eq!(state.unwritable(3), [0, 2]);
        assert_eq!(state.unwritable(2), [0]);
    }
}
