//! The write path on good days and bad ones, with a log that does as it is told.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;

use super::*;
use crate::event_log::memory::{MemoryLog, Mood};
use crate::event_log::{AckDriver, EventLog};
use crate::tasks::{Death, Tasks};

struct Fixture {
    log: Arc<MemoryLog>,
    commands: Commands,
    _tasks: Tasks,
}

fn fixture(options: Options) -> Fixture {
    let log = MemoryLog::new(3);
    let mut registry = Registry::default();
    let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
    let as_log = Arc::clone(&log) as Arc<dyn EventLog>;
    let feed = Feed::build(
        Arc::clone(&as_log),
        crate::feed::Options::default(),
        clock.clone(),
        &mut registry,
    );
    let (appender, acks): (Appender, AckDriver) = Appender::new(as_log);
    let tasks = Tasks::new();
    tasks.spawn("acknowledgements", Death::Fatal, acks.run());
    let catalog = Arc::new(ArcSwap::from_pointee(Catalog::built_in()));
    let commands =
        CommandsBuilder::build(options, catalog, clock, feed, &mut registry).on(appender);
    Fixture { log, commands, _tasks: tasks }
}

const ALICE: Caller = Caller::Anonymous { may_read_origin: false };

fn purchase(item: &str) -> Submission {
    proto::PurchaseItemRequest {
        request_id: "6f1c1d2e-8a3b-4c5d-9e0f-1a2b3c4d5e6f".into(),
        player_id: "alice".into(),
        item_id: item.into(),
        ..Default::default()
    }
    .into()
}

impl Fixture {
    async fn execute(&self, submission: Submission) -> Result<Outcome, CommandError> {
        self.commands.execute(&ALICE, submission, Source::default(), None).await
    }

    fn events(&self) -> Vec<proto::GameEvent> {
        let values = (0..3).flat_map(|partition| self.log.values(partition));
        values.map(|value| proto::GameEvent::decode(value).unwrap()).collect()
    }
}

#[tokio::test]
async fn an_event_lies_in_its_players_partition() {
    let fixture = fixture(Options::default());
    let receipt = fixture.execute(purchase("sword")).await.unwrap().receipt.unwrap();
    assert_eq!(receipt.partition as u32, partition_of_key(b"alice", 3));
    let events = fixture.events();
    assert_eq!(events[0].event_id, receipt.event_id);
    assert_eq!(events[0].checked_through_offset, 0);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_answer_leaves_the_outcome_unknown_at_the_deadline() {
    let fixture = fixture(Options::default());
    fixture.log.set_mood(Mood::Silent);
    let begun = Instant::now();
    let deadline = Some(begun + Duration::from_millis(300));
    let submission = purchase("sword");
    let error = fixture
        .commands
        .execute(&ALICE, submission.clone(), Source::default(), deadline)
        .await
        .unwrap_err();
    assert_eq!(begun.elapsed(), Duration::from_millis(300));
    let CommandError::OutcomeUnknown { event_id, request_id } = error else { panic!("{error:?}") };
    assert_eq!(request_id.to_string(), "6f1c1d2e-8a3b-4c5d-9e0f-1a2b3c4d5e6f");
    // It is there after all, under the id that was told.
    assert_eq!(fixture.events()[0].event_id, event_id.to_string());
    fixture.log.set_mood(Mood::Well);
    let retried = fixture.execute(submission).await.unwrap().receipt.unwrap();
    assert_eq!(retried.event_id, event_id.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_deadline_waits_for_the_write_timeout() {
    let write_timeout = Duration::from_secs(3);
    let fixture = fixture(Options { write_timeout, ..Options::default() });
    fixture.log.set_mood(Mood::Silent);
    let begun = Instant::now();
    let error = fixture.execute(purchase("sword")).await.unwrap_err();
    assert!(matches!(error, CommandError::OutcomeUnknown { .. }), "{error:?}");
    assert_eq!(begun.elapsed(), write_timeout);
}

#[tokio::test]
async fn what_the_log_refuses_is_known_not_to_be_written() {
    let fixture = fixture(Options::default());
    for refusal in [AppendError::Overloaded, AppendError::Unavailable("the disk is full".into())] {
        fixture.log.set_mood(Mood::Failing(refusal.clone()));
        match fixture.execute(purchase("sword")).await.unwrap_err() {
            CommandError::NotWritten(error) => assert_eq!(error, refusal),
            other => panic!("{other:?}"),
        }
    }
    assert!(fixture.events().is_empty());
}

#[tokio::test(start_paused = true)]
async fn recording_a_refusal_never_delays_or_changes_the_answer() {
    let fixture = fixture(Options::default());
    let bad_days = [Mood::Silent, Mood::Failing(AppendError::Unavailable("full".into()))];
    for mood in bad_days {
        fixture.log.set_mood(mood);
        let begun = Instant::now();
        let error = fixture.execute(purchase("dragon")).await.unwrap_err();
        assert!(matches!(error, CommandError::Rejected(_)), "{error:?}");
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}

#[tokio::test]
async fn refusals_are_recorded_up_to_their_rate() {
    let fixture = fixture(Options { rejections_per_second: 2, ..Options::default() });
    for _ in 0..5 {
        fixture.execute(purchase("dragon")).await.unwrap_err();
    }
    let events = fixture.events();
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event.event_type == "request_rejected"));
    assert_ne!(events[0].event_id, events[1].event_id, "each refusal is an event of its own");
}
