//! Runs the scenarios of `tests/clients/scenarios.py` with `herald::client`.

#![allow(clippy::print_stdout, reason = "that is where the harness listens")]
#![allow(clippy::disallowed_methods, reason = "those are rules for the server")]

use std::env;
use std::error::Error;
use std::io::stdin;
use std::time::Duration;

use futures_util::StreamExt as _;
use herald::client::tail::{Item, News, Tail};
use herald::client::{Client, ClientError, Code, ConnectOptions, Retry, reason};
use herald::proto::stream_events_request::Start;
use herald::proto::{
    EventFilter, EventReceipt, GameEvent, GetPlayerRequest, JoinGuildRequest, PurchaseItemRequest,
    PurchaseItemResponse, StartPosition, StreamEventsRequest,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

/// What takes longer hangs.
const LONGEST: Duration = Duration::from_secs(60);

/// The purchases around a restart, and after which of them it comes.
const PURCHASES: usize = 30;
const RESTART_AFTER: usize = 10;

/// The facts of a scenario, or why it failed.
type Outcome = Result<Value, Box<dyn Error>>;

/// Ends the scenario unless the condition holds.
macro_rules! check {
    ($condition:expr, $($shown:expr),*) => {
        if !$condition {
            return Err(format!("not {}: {:?}", stringify!($condition), ($(&$shown,)*)).into());
        }
    };
}

/// What each scenario has.
struct World {
    client: Client,
    run: String,
    /// Used by two scenarios.
    request_id: String,
}

impl World {
    fn player(&self, name: &str) -> String {
        format!("{}-{name}", self.run)
    }

    fn purchase(&self, player: &str, item: &str) -> PurchaseItemRequest {
        PurchaseItemRequest {
            player_id: self.player(player),
            item_id: item.to_owned(),
            ..Default::default()
        }
    }

    async fn send(
        &self,
        request: PurchaseItemRequest,
    ) -> Result<PurchaseItemResponse, ClientError> {
        Retry::default().call(request, |request| self.client.purchase_item(request)).await
    }

    async fn buy(&self, player: &str, item: &str) -> Result<EventReceipt, ClientError> {
        let bought = self.send(self.purchase(player, item)).await?;
        Ok(bought.receipt.unwrap_or_default())
    }

    fn tail(&self, request: StreamEventsRequest) -> Tail {
        let heartbeat = Duration::from_secs(1).try_into().ok();
        let request = StreamEventsRequest { heartbeat_interval: heartbeat, ..request };
        Tail::new(self.client.clone(), request)
    }

    fn filter(&self, player: &str) -> Option<EventFilter> {
        Some(EventFilter { player_ids: vec![self.player(player)], ..Default::default() })
    }
}

fn say(what: &Value) {
    println!("{what}");
}

/// Asks the harness for something, and waits until it is done.
async fn ask(what: &str) -> Result<(), Box<dyn Error>> {
    say(&json!({ "ask": what }));
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        stdin().read_line(&mut line).map(|_| line)
    });
    let answer: Value = serde_json::from_str(&answer.await??)?;
    check!(answer["ok"] == true, answer);
    Ok(())
}

/// What has to fail.
fn refused<T>(outcome: Result<T, ClientError>) -> Result<ClientError, Box<dyn Error>> {
    outcome.err().ok_or_else(|| "it succeeded".into())
}

/// The error that a tail ends with.
async fn failure(mut tail: Tail) -> Result<ClientError, Box<dyn Error>> {
    while let Some(item) = tail.next().await {
        if let Err(error) = item {
            return Ok(error);
        }
    }
    Err("it ended well".into())
}

/// The event of an item that is one.
fn event(item: Item) -> Option<GameEvent> {
    match item.news {
        News::Event(delivered) => delivered.event,
        _ => None,
    }
}

async fn purchase(world: &World) -> Outcome {
    let request = PurchaseItemRequest { quantity: Some(2), ..world.purchase("purchase", "sword") };
    let bought = world.send(request).await?;
    let what = bought.purchase.unwrap_or_default();
    check!(what.unit_price > 0 && what.total_price == 2 * what.unit_price, what);
    let receipt = bought.receipt.unwrap_or_default();
    let request = GetPlayerRequest {
        player_id: world.player("purchase"),
        at_least_cursor: receipt.cursor.clone(),
    };
    let player = Retry::default().call(request, |request| world.client.player(request)).await?;
    let inventory = player.player.unwrap_or_default().inventory;
    let has: Vec<_> = inventory.iter().map(|item| (&*item.item_id, item.quantity)).collect();
    check!(has == [("sword", 2)], has);
    Ok(json!({ "event_id": receipt.event_id, "request_id": receipt.request_id }))
}

async fn unknown_item(world: &World) -> Outcome {
    let error = refused(world.buy("purchase", "dragon").await)?;
    check!(error.code() == Code::InvalidArgument, error);
    check!(error.reason() == Some(reason::VALIDATION_FAILED), error);
    let fields: Vec<_> = error.violations().iter().map(|violation| &*violation.field).collect();
    check!(fields == ["item_id"], fields);
    check!(!error.is_retryable() && !error.outcome_unknown(), error);
    Ok(json!({}))
}

async fn retry(world: &World) -> Outcome {
    let request = PurchaseItemRequest {
        request_id: world.request_id.clone(),
        ..world.purchase("retry", "knife")
    };
    let first = world.send(request.clone()).await?.receipt.unwrap_or_default();
    let second = world.send(request).await?.receipt.unwrap_or_default();
    check!(first.event_id == second.event_id, first, second);
    check!(!first.replayed && second.replayed, first, second);
    Ok(json!({ "event_id": first.event_id }))
}

async fn conflict(world: &World) -> Outcome {
    let request = PurchaseItemRequest {
        request_id: world.request_id.clone(),
        quantity: Some(3),
        ..world.purchase("retry", "horse")
    };
    let error = refused(world.send(request).await)?;
    check!(error.code() == Code::AlreadyExists, error);
    check!(error.reason() == Some(reason::REQUEST_ID_CONFLICT), error);
    check!(error.request_id() == Some(&*world.request_id) && !error.outcome_unknown(), error);
    Ok(json!({}))
}

async fn feed_filter(world: &World) -> Outcome {
    world.buy("filter", "sword").await?;
    let request = JoinGuildRequest {
        player_id: world.player("filter"),
        guild_id: "owls".to_owned(),
        ..Default::default()
    };
    let joined = Retry::default().call(request, |request| world.client.join_guild(request)).await?;
    world.buy("filter", "knife").await?;
    let filter = EventFilter {
        event_types: vec!["guild_joined".to_owned()],
        player_ids: vec![world.player("filter")],
        ..Default::default()
    };
    let mut tail = world.tail(StreamEventsRequest {
        start: Some(Start::StartPosition(StartPosition::Earliest.into())),
        filter: Some(filter),
        stop_when_caught_up: true,
        ..Default::default()
    });
    let mut ids = Vec::new();
    while let Some(item) = tail.next().await {
        ids.extend(event(item?).map(|event| event.event_id));
    }
    check!(ids == [joined.receipt.unwrap_or_default().event_id], ids);
    Ok(json!({ "event_ids": ids }))
}

async fn resume(world: &World) -> Outcome {
    let (opened, is_open) = oneshot::channel();
    let request = StreamEventsRequest { filter: world.filter("resume"), ..Default::default() };
    let mut tail = world.tail(request);
    let reading = tokio::spawn(async move {
        let (mut ids, mut reconnects, mut opened) = (Vec::new(), 0, Some(opened));
        while let Some(item) = tail.next().await {
            let item = item?;
            match &item.news {
                News::Opened => {
                    let _ = opened.take().map(|opened| opened.send(()));
                }
                News::Reconnecting { .. } => reconnects += 1,
                // Whatever came twice would have come before a heartbeat.
                News::Quiet if ids.len() >= PURCHASES => break,
                _ => {}
            }
            ids.extend(event(item).map(|event| event.event_id));
        }
        Ok::<_, ClientError>((ids, reconnects))
    });
    is_open.await?;
    let mut receipts = Vec::new();
    for number in 1..=PURCHASES {
        receipts.push(world.buy("resume", "sword").await?.event_id);
        if number == RESTART_AFTER {
            ask("restart").await?;
        }
    }
    let (ids, reconnects) = reading.await??;
    check!(ids == receipts, ids, receipts);
    check!(reconnects > 0,);
    Ok(json!({ "event_ids": ids }))
}

async fn expired_cursor(world: &World) -> Outcome {
    let first = world.buy("expired", "sword").await?;
    world.buy("expired", "sword").await?;
    ask("expire").await?;
    let start = Some(Start::AfterCursor(first.cursor));
    let error = failure(world.tail(StreamEventsRequest { start, ..Default::default() })).await?;
    check!(error.code() == Code::OutOfRange, error);
    check!(error.reason() == Some(reason::CURSOR_EXPIRED) && !error.is_retryable(), error);
    let news = world.buy("expired", "sword").await?.event_id;
    let earliest = error.metadata().get("earliest_cursor").ok_or("no earliest_cursor")?;
    let mut tail = world.tail(StreamEventsRequest {
        start: Some(Start::AfterCursor(earliest.clone())),
        filter: world.filter("expired"),
        max_events: 1,
        ..Default::default()
    });
    let mut ids = Vec::new();
    while let Some(item) = tail.next().await {
        ids.extend(event(item?).map(|event| event.event_id));
    }
    check!(ids == [news], ids);
    Ok(json!({ "event_ids": ids }))
}

async fn deadline(world: &World) -> Outcome {
    let request_id = Uuid::new_v4().to_string();
    let request = PurchaseItemRequest { request_id, ..world.purchase("deadline", "horse") };
    let hasty = world.client.with_call_timeout(Duration::from_secs(2));
    ask("pause").await?;
    let outcome =
        Retry { attempts: 1 }.call(request.clone(), |request| hasty.purchase_item(request)).await;
    ask("resume").await?;
    let error = refused(outcome)?;
    check!(error.code() == Code::DeadlineExceeded, error);
    check!(error.reason() == Some(reason::WRITE_OUTCOME_UNKNOWN), error);
    check!(error.outcome_unknown(), error);
    check!(error.to_string().contains("may have been carried out"), error);
    let receipt = world.send(request).await?.receipt.unwrap_or_default();
    Ok(json!({ "event_id": receipt.event_id, "request_id": receipt.request_id }))
}

async fn epoch_change(world: &World) -> Outcome {
    let start = Some(Start::AfterCursor(world.buy("epoch", "sword").await?.cursor));
    ask("replace").await?;
    let error = failure(world.tail(StreamEventsRequest { start, ..Default::default() })).await?;
    check!(error.code() == Code::FailedPrecondition, error);
    check!(error.reason() == Some(reason::FEED_EPOCH_CHANGED) && !error.is_retryable(), error);
    Ok(json!({}))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let world = World {
        client: Client::connect(&env::var("HERALD_SERVER")?, ConnectOptions::default()).await?,
        run: env::var("HERALD_RUN")?,
        request_id: Uuid::new_v4().to_string(),
    };
    macro_rules! run {
        ($($name:literal: $scenario:ident),+ $(,)?) => {$(
            let (facts, why) = match timeout(LONGEST, $scenario(&world)).await {
                Ok(Ok(facts)) => (facts, None),
                Ok(Err(error)) => (json!({}), Some(error.to_string())),
                Err(_) => (json!({}), Some(format!("it takes longer than {LONGEST:?}"))),
            };
            say(&json!({ "scenario": $name, "passed": why.is_none(), "why": why, "facts": facts }));
        )+};
    }
    run! {
        "purchase": purchase,
        "unknown item": unknown_item,
        "retry": retry,
        "conflict": conflict,
        "feed filter": feed_filter,
        "resume": resume,
        "expired cursor": expired_cursor,
        "deadline": deadline,
        "epoch change": epoch_change,
    }
    Ok(())
}
