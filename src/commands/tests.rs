//! The write path on good days and bad ones, with a log that does as it is told.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;

use super::*;
use crate::event_log::memory::{MemoryLog, Mood};
use crate::event_log::{AckDriver, EventLog, LogId, Position};
use crate::tasks::{Death, Tasks};

struct Fixture {
    log: Arc<MemoryLog>,
    players: Players,
    commands: Commands,
    /// The same, of a server whose catalogue has nothing but hats.
    others: Commands,
    _tasks: Tasks,
}

const PARTITIONS: u32 = 3;

fn fixture(options: Options) -> Fixture {
    let log = MemoryLog::new(PARTITIONS as usize);
    let mut registry = Registry::default();
    // The log's own clock begins then.
    let clock = Clock::manual(Timestamp::from_millis(10));
    let as_log = Arc::clone(&log) as Arc<dyn EventLog>;
    let feed = Feed::build(
        Arc::clone(&as_log),
        crate::feed::Options::default(),
        clock.clone(),
        &mut registry,
    );
    let players = Players::build(
        crate::players::Options::default(),
        PARTITIONS,
        clock.clone(),
        &mut registry,
    );
    players.restart(log.id(), Position::zero(PARTITIONS as usize));
    players.set_ready();
    let tasks = Tasks::new();
    let hats = "currency = 'gems'\n[[items]]\nid = 'hat'\nname = 'Hat'\nprice = 7";
    let [commands, others] = [Catalog::built_in(), Catalog::parse(hats).unwrap()].map(|catalog| {
        let (appender, acks): (Appender, AckDriver) = Appender::new(Arc::clone(&as_log));
        tasks.spawn("acknowledgements", Death::Fatal, acks.run());
        let catalog = Arc::new(ArcSwap::from_pointee(catalog));
        let (clock, feed, players) = (clock.clone(), feed.clone(), players.clone());
        let registry = &mut Registry::default();
        let builder =
            CommandsBuilder::build(options.clone(), catalog, clock, feed, players, registry);
        let (commands, settler) = builder.on(appender);
        tasks.spawn("settler", Death::Fatal, settler.run());
        commands
    });
    Fixture { log, players, commands, others, _tasks: tasks }
}

const ALICE: Caller = Caller::Anonymous { may_read_origin: false };

const ID: &str = "6f1c1d2e-8a3b-4c5d-9e0f-1a2b3c4d5e6f";

fn request(item: &str, quantity: i32) -> proto::PurchaseItemRequest {
    proto::PurchaseItemRequest {
        request_id: ID.into(),
        player_id: "alice".into(),
        item_id: item.into(),
        quantity: Some(quantity),
        ..Default::default()
    }
}

fn purchase(item: &str) -> Submission {
    request(item, 1).into()
}

impl Fixture {
    async fn execute(&self, submission: Submission) -> Result<Outcome, CommandError> {
        self.commands.execute(&ALICE, submission, Source::default(), None).await
    }

    /// Calls, and gives up after so long.
    async fn execute_for(
        &self,
        time: Duration,
        submission: Submission,
    ) -> Result<Outcome, CommandError> {
        let deadline = Some(Instant::now() + time);
        self.commands.execute(&ALICE, submission, Source::default(), deadline).await
    }

    fn receipt(&self) -> Result<proto::EventReceipt, CommandError> {
        let request = proto::GetReceiptRequest { player_id: "alice".into(), request_id: ID.into() };
        self.commands.receipt(&ALICE, request)
    }

    fn events(&self) -> Vec<proto::GameEvent> {
        let values = (0..PARTITIONS).flat_map(|partition| self.log.values(partition));
        values.map(|value| proto::GameEvent::decode(value).unwrap()).collect()
    }

    /// Players read the log, without duplicates.
    fn read(&self) {
        for partition in 0..PARTITIONS {
            let records = self.log.records(partition);
            let ids: Vec<_> = records
                .iter()
                .map(|record| proto::GameEvent::decode(record.value.clone()).unwrap())
                .map(|event| (event.event_id, event.checked_through_offset as usize))
                .collect();
            let first =
                |at: &usize| !ids[ids[*at].1.min(*at)..*at].iter().any(|e| e.0 == ids[*at].0);
            let events = (0..records.len()).filter(first).map(|at| &records[at]);
            let mut position = self.players.applied().unwrap().1;
            position.set(partition, records.len() as u64);
            self.players.apply(events, &position);
        }
    }
}

/// Lets everything else run that can.
async fn settle_down() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

const SOON: Duration = Duration::from_millis(300);

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
    // A retry waits for the same answer.
    assert!(matches!(
        fixture.execute_for(SOON, submission.clone()).await,
        Err(CommandError::InProgress)
    ));
    assert!(matches!(fixture.receipt(), Err(CommandError::InProgress)));
    fixture.log.acknowledge();
    let retried = fixture.execute(submission).await.unwrap().receipt.unwrap();
    assert_eq!(retried.event_id, event_id.to_string());
    assert_eq!((retried.replayed, fixture.events().len()), (true, 1));
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

#[tokio::test]
async fn a_retry_gets_the_first_receipt_also_when_the_catalogue_has_changed() {
    let fixture = fixture(Options::default());
    let first = fixture.execute(purchase("sword")).await.unwrap();
    for _read in 0..2 {
        for commands in [&fixture.commands, &fixture.others] {
            let retry = commands.execute(&ALICE, purchase("sword"), Source::default(), None);
            let retry = retry.await.unwrap();
            assert_eq!(retry.payload, first.payload, "at the first price");
            let (first, retry) = (first.receipt.clone().unwrap(), retry.receipt.unwrap());
            assert!(retry.replayed && !first.replayed);
            let expected = proto::EventReceipt { replayed: true, ..first };
            assert_eq!(retry, proto::EventReceipt { cursor: retry.cursor.clone(), ..expected });
            assert_eq!(fixture.receipt().unwrap(), retry);
        }
        assert_eq!(fixture.events().len(), 1);
        // What is read from the log says the same.
        fixture.read();
    }
    let new = fixture.others.execute(&ALICE, purchase("hat"), Source::default(), None);
    assert!(matches!(new.await, Err(CommandError::Conflict)));
}

#[tokio::test(start_paused = true)]
async fn a_request_id_stands_for_one_action() {
    let fixture = fixture(Options::default());
    fixture.log.set_mood(Mood::Silent);
    fixture.execute_for(SOON, purchase("sword")).await.unwrap_err();
    for other in [request("knife", 1), request("sword", 2)] {
        let pending = fixture.execute(other.clone().into()).await;
        assert!(matches!(pending, Err(CommandError::Conflict)), "{pending:?}");
    }
    fixture.log.acknowledge();
    settle_down().await;
    for other in [request("knife", 1), request("sword", 2)] {
        let written = fixture.execute(other.into()).await;
        assert!(matches!(written, Err(CommandError::Conflict)), "{written:?}");
    }
    let of_bob = proto::PurchaseItemRequest { player_id: "bob".into(), ..request("knife", 1) };
    fixture.log.set_mood(Mood::Well);
    fixture.execute(of_bob.into()).await.unwrap();
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_a_request_that_is_settled_all_the_same() {
    let fixture = fixture(Options::default());
    fixture.log.set_mood(Mood::Holding);
    drop(fixture.execute(purchase("sword")));
    // Begun by being called, and not by being waited for.
    let call = fixture.commands.execute(&ALICE, purchase("sword"), Source::default(), None);
    drop(call);
    settle_down().await;
    assert!(matches!(fixture.receipt(), Err(CommandError::InProgress)));
    fixture.log.let_go(Mood::Well);
    settle_down().await;
    let receipt = fixture.receipt().unwrap();
    let retry = fixture.execute(purchase("sword")).await.unwrap().receipt.unwrap();
    assert_eq!(retry, receipt);
    assert_eq!(fixture.events().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_call_that_is_not_written_writes_anew() {
    let fixture = fixture(Options::default());
    fixture.log.set_mood(Mood::Holding);
    let first = fixture.execute_for(SOON, purchase("sword")).await;
    assert!(matches!(first, Err(CommandError::OutcomeUnknown { .. })));
    let mut waiting = Box::pin(fixture.execute(purchase("sword")));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    fixture.log.let_go(Mood::Failing(AppendError::Overloaded));
    fixture.log.set_mood(Mood::Well);
    let receipt = waiting.await.unwrap().receipt.unwrap();
    assert!(!receipt.replayed);
    assert_eq!(fixture.events().len(), 1);
}

#[tokio::test]
async fn what_is_known_not_to_be_written_can_be_asked_for_anew() {
    let fixture = fixture(Options::default());
    fixture.log.set_mood(Mood::Failing(AppendError::Overloaded));
    fixture.execute(purchase("sword")).await.unwrap_err();
    assert!(matches!(fixture.receipt(), Err(CommandError::ReceiptUnknown { .. })));
    fixture.log.set_mood(Mood::Well);
    // With other fields, as the first was none.
    assert!(!fixture.execute(purchase("knife")).await.unwrap().receipt.unwrap().replayed);
    // Nor does it count against what the player may own.
    let another = proto::PurchaseItemRequest { request_id: String::new(), ..request("sword", 1) };
    assert_eq!(fixture.execute(another.into()).await.unwrap().owned, 1);
}

#[tokio::test(start_paused = true)]
async fn after_an_unknown_outcome_the_event_that_is_first_in_the_log_counts() {
    // The first try is in the log, or it is not.
    for (mood, copies) in
        [(Mood::Vague, 2), (Mood::Failing(AppendError::OutcomeUnknown("x".into())), 1)]
    {
        let fixture = fixture(Options::default());
        fixture.execute(of("carol")).await.unwrap();
        fixture.log.set_mood(mood);
        let first = fixture.execute(purchase("sword")).await;
        assert!(matches!(first, Err(CommandError::OutcomeUnknown { .. })), "{first:?}");
        assert!(matches!(fixture.receipt(), Err(CommandError::InProgress)));
        fixture.log.set_mood(Mood::Well);
        // The rules are not asked again.
        let mut retry =
            Box::pin(fixture.others.execute(&ALICE, purchase("sword"), Source::default(), None));
        for _ in 0..5 {
            assert!(futures_util::poll!(&mut retry).is_pending(), "the log was not read yet");
            settle_down().await;
        }
        let conflict = fixture.execute(purchase("knife")).await;
        assert!(matches!(conflict, Err(CommandError::Conflict)));
        fixture.read();
        let receipt = retry.await.unwrap().receipt.unwrap();
        let events: Vec<_> =
            fixture.events().into_iter().filter(|event| event.player_id == "alice").collect();
        assert_eq!(events.len(), copies);
        assert!(events.iter().all(|event| event.event_id == receipt.event_id));
        let records = fixture.log.records(receipt.partition as u32);
        let is_it = |record: &&crate::event_log::Record| {
            let event = proto::GameEvent::decode(record.value.clone()).unwrap();
            event.event_id == receipt.event_id
        };
        let offset = records.iter().find(is_it).unwrap().offset;
        assert_eq!(receipt.offset, offset as i64, "the first of them");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_try_that_fails_leaves_the_first_unsettled() {
    let fixture = fixture(Options::default());
    fixture.log.set_mood(Mood::Vague);
    fixture.execute(purchase("sword")).await.unwrap_err();
    fixture.log.set_mood(Mood::Failing(AppendError::Overloaded));
    let second = fixture.execute(purchase("sword")).await;
    assert!(matches!(second, Err(CommandError::OutcomeUnknown { .. })), "{second:?}");
    fixture.read();
    let third = fixture.execute(purchase("sword")).await.unwrap().receipt.unwrap();
    assert!(third.replayed);
    assert_eq!(fixture.events().len(), 1);
}

#[tokio::test]
async fn an_event_says_how_far_the_log_was_known_when_it_was_written() {
    let fixture = fixture(Options::default());
    let first = fixture.execute(of("alice")).await.unwrap().receipt.unwrap();
    fixture.execute(of("alice")).await.unwrap();
    fixture.read();
    fixture.execute(of("alice")).await.unwrap();
    let checked: Vec<_> = fixture
        .log
        .values(first.partition as u32)
        .into_iter()
        .map(|value| proto::GameEvent::decode(value).unwrap().checked_through_offset)
        .collect();
    assert_eq!(checked, [0, 0, 2]);
}

#[tokio::test]
async fn a_refused_action_can_be_corrected_under_its_request_id() {
    let fixture = fixture(Options::default());
    let refused = fixture.execute(purchase("dragon")).await;
    assert!(matches!(refused, Err(CommandError::Rejected(_))));
    fixture.read();
    let receipt = fixture.execute(purchase("sword")).await.unwrap().receipt.unwrap();
    assert!(!receipt.replayed);
}

#[tokio::test(start_paused = true)]
async fn checking_only_looks_and_leaves_nothing_behind() {
    let fixture = fixture(Options::default());
    let check = |item: &str| -> Submission {
        proto::PurchaseItemRequest { validate_only: true, ..request(item, 1) }.into()
    };
    assert!(fixture.execute(check("sword")).await.unwrap().receipt.is_none());
    assert!(matches!(fixture.receipt(), Err(CommandError::ReceiptUnknown { .. })));
    fixture.execute(purchase("knife")).await.unwrap();
    assert!(matches!(fixture.execute(check("sword")).await, Err(CommandError::Conflict)));
    let first = fixture.others.execute(&ALICE, check("knife"), Source::default(), None);
    assert!(first.await.unwrap().receipt.is_none());
    assert_eq!(fixture.events().len(), 1);
}

#[tokio::test]
async fn nothing_is_written_before_the_log_was_read() {
    let fixture = fixture(Options::default());
    fixture.players.restart(fixture.log.id(), Position::zero(PARTITIONS as usize));
    let refused = |error: CommandError| {
        assert!(
            matches!(error, CommandError::NotWritten(AppendError::Unavailable(_))),
            "{error:?}"
        );
    };
    refused(fixture.execute(purchase("sword")).await.unwrap_err());
    refused(fixture.receipt().unwrap_err());
    assert!(fixture.events().is_empty());
    fixture.players.set_ready();
    fixture.execute(purchase("sword")).await.unwrap();
}

#[tokio::test]
async fn what_a_caller_gave_no_request_id_can_be_asked_for_by_the_one_it_got() {
    let fixture = fixture(Options::default());
    let receipt = fixture.execute(of("alice")).await.unwrap().receipt.unwrap();
    let request = proto::GetReceiptRequest {
        player_id: "alice".into(),
        request_id: receipt.request_id.clone(),
    };
    let asked = fixture.commands.receipt(&ALICE, request).unwrap();
    assert_eq!((asked.offset, asked.replayed), (receipt.offset, true));
    let wrong = proto::GetReceiptRequest { player_id: String::new(), request_id: "x".into() };
    let Err(CommandError::Rejected(violations)) = fixture.commands.receipt(&ALICE, wrong) else {
        panic!("it is not valid")
    };
    let fields: Vec<_> = violations.into_vec().into_iter().map(|v| v.field).collect();
    assert_eq!(fields, ["player_id", "request_id"]);
}

/// Some action of a player's, under no request id.
fn of(player: &str) -> Submission {
    proto::StartSessionRequest { player_id: player.into(), ..Default::default() }.into()
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_read_before_the_log_has_answered_is_no_retry() {
    let fixture = fixture(Options::default());
    fixture.log.set_mood(Mood::Silent);
    let mut call = Box::pin(fixture.execute(purchase("sword")));
    assert!(futures_util::poll!(&mut call).is_pending());
    fixture.read();
    fixture.log.acknowledge();
    assert!(!call.await.unwrap().receipt.unwrap().replayed);
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_can_be_used_before_it_was_read_from_the_log() {
    let fixture = fixture(Options::default());
    let consume = || {
        let (player_id, item_id) = ("alice".into(), "sword".into());
        proto::ConsumeItemRequest { player_id, item_id, ..Default::default() }
    };
    fixture.log.set_mood(Mood::Silent);
    let mut call = Box::pin(fixture.execute(purchase("sword")));
    assert!(futures_util::poll!(&mut call).is_pending());
    let refused = fixture.execute(consume().into()).await;
    assert!(matches!(refused, Err(CommandError::Rejected(_))), "it may still fail: {refused:?}");
    fixture.log.acknowledge();
    call.await.unwrap();
    fixture.log.set_mood(Mood::Well);
    fixture.execute(consume().into()).await.unwrap();
    let refused = fixture.execute(consume().into()).await;
    assert!(matches!(refused, Err(CommandError::Rejected(_))), "there was one: {refused:?}");

    let horse = proto::PurchaseItemRequest {
        player_id: "bob".into(),
        item_id: "horse".into(),
        ..Default::default()
    };
    let receipt = fixture.execute(horse.into()).await.unwrap().receipt.unwrap();
    let refund = || {
        let (player_id, purchase_event_id) = ("bob".into(), receipt.event_id.clone());
        proto::RefundPurchaseRequest { player_id, purchase_event_id, ..Default::default() }
    };
    let refunded = fixture.execute(refund().into()).await.unwrap();
    let Payload::PurchaseRefunded(refunded) = refunded.payload else { panic!("no refund") };
    assert_eq!((&*refunded.item_id, refunded.total_price), ("horse", 500));
    let refused = fixture.execute(refund().into()).await;
    assert!(matches!(refused, Err(CommandError::Rejected(_))), "once: {refused:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_written_to_a_log_that_was_replaced_is_unknown_in_the_new_one() {
    let fixture = fixture(Options::default());
    fixture.log.set_mood(Mood::Silent);
    let mut call = Box::pin(fixture.execute(purchase("sword")));
    assert!(futures_util::poll!(&mut call).is_pending());
    let new = LogId(Uuid::from_u128(1));
    fixture.players.restart(new, Position::zero(PARTITIONS as usize));
    fixture.players.set_ready();
    fixture.log.acknowledge();
    call.await.unwrap();
    assert!(matches!(fixture.receipt(), Err(CommandError::ReceiptUnknown { .. })));
}
