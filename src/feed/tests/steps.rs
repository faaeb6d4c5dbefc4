//! Who passes events on one by one can be resumed behind each of them.

use super::*;
use crate::feed::Step;

const MATCHING: &str = "alice";

/// What is written: an event of whom, or nothing that is one.
fn record() -> impl Strategy<Value = (u32, Option<&'static str>)> {
    let whose = prop_oneof![6 => Just(Some(MATCHING)), 3 => Just(Some("bob")), 1 => Just(None)];
    (0..3u32, whose)
}

/// Where an event is, and the cursor behind it.
type Passed = ((i32, i64), String);

/// What somebody gets who passes events on one by one, until the stream ends.
async fn passed_on(reader: &mut Reader) -> Vec<Passed> {
    let mut passed = Vec::new();
    let mut before = String::new();
    while let Some(message) = std::future::poll_fn(|cx| reader.poll_message(cx)).await {
        let message = written::look_into(&message.unwrap()).unwrap();
        let events = message.batch.map(|batch| batch.events).unwrap_or_default();
        for step in Steps::new(&before, events, message.cursor.clone()).unwrap() {
            let Step { cursor, event } = step.unwrap();
            let event = proto::DeliveredEvent::decode(event).unwrap();
            passed.push(((event.partition, event.offset), cursor));
        }
        before = message.cursor;
    }
    passed
}

fn places(passed: &[Passed]) -> Vec<(i32, i64)> {
    passed.iter().map(|(place, _)| *place).collect()
}

fn subscription(start: Subscription, is_filtered: bool) -> Subscription {
    let player_ids = vec![MATCHING.to_owned()];
    let filter = proto::EventFilter { player_ids, ..Default::default() };
    Subscription { filter: is_filtered.then_some(filter), ..start }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Wherever the stream was cut: what comes is what was missing, in every partition, in order,
    /// and nothing else.
    #[test]
    fn a_stream_goes_on_exactly_behind_each_event(
        records in prop::collection::vec(record(), 1..30),
        is_filtered in any::<bool>(),
        is_live in any::<bool>(),
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let fixture = Fixture::new(3, 1 << 20);
            let write = || for (partition, whose) in &records {
                match whose {
                    Some(player) => fixture.push(*partition, player),
                    None => drop(fixture.log.push(*partition, b"\xff".to_vec())),
                }
            };
            let is_wanted = |whose: &Option<&str>| match whose {
                Some(player) => !is_filtered || *player == MATCHING,
                None => false,
            };
            let count = records.iter().filter(|(_, whose)| is_wanted(whose)).count();
            let all = if is_live && count > 0 {
                let first = subscription(earliest(), is_filtered);
                let first = Subscription { max_events: count as i64, ..first };
                let mut reader = fixture.subscribe(first).await;
                fixture.feed.live().wait_for(|live| *live).await.unwrap();
                write();
                passed_on(&mut reader).await
            } else {
                write();
                let first = subscription(earliest(), is_filtered);
                let first = Subscription { stop_when_caught_up: true, ..first };
                passed_on(&mut fixture.subscribe(first).await).await
            };
            assert_eq!(all.len(), count);
            for (index, (_, cursor)) in all.iter().enumerate() {
                let rest = subscription(after(cursor), is_filtered);
                let rest = Subscription { stop_when_caught_up: true, ..rest };
                let rest = passed_on(&mut fixture.subscribe(rest).await).await;
                let mut missing = places(&all[index + 1..]);
                let mut came = places(&rest);
                // Partitions have no order among each other; within each one it is kept.
                missing.sort_by_key(|(partition, _)| *partition);
                came.sort_by_key(|(partition, _)| *partition);
                assert_eq!(came, missing, "behind event {index}");
            }
        });
    }
}
