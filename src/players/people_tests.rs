//! What players have, held against a plain account of the same events.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt as _;
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::fact::Fact;
use super::guilds::Guilds;
use super::purchases::REFUNDABLE_PURCHASES;
use super::reserved::RESERVATION_AGE;
use super::*;
use crate::clock::Timestamp;
use crate::domain::{ItemId, Possessions as _};
use crate::event_log::{Bounds, Cursor, partition_of_key};
use crate::proto::{self, game_event::Payload};

/// Over how many partitions the players of these tests are spread.
pub(super) const PARTITIONS: u32 = 3;

/// Events and where they are, as a log would give them.
#[derive(Default)]
pub(super) struct Script {
    pub records: Vec<Record>,
    /// The purchases so far: player, event id, item, quantity.
    purchases: Vec<(String, Uuid, String, i32)>,
}

impl Script {
    /// Adds an event, accepted and appended so many seconds after 1970 as there are events.
    pub fn add(&mut self, player: &str, payload: Option<Payload>) -> Uuid {
        let number = self.records.len();
        let event_id = Uuid::from_u128(1000 + number as u128);
        let accept_time = Timestamp::from_millis(1000 * (number as i64 + 1));
        let partition = partition_of_key(player.as_bytes(), PARTITIONS);
        let event = proto::GameEvent {
            event_id: event_id.to_string(),
            player_id: player.to_owned(),
            accept_time: Some(accept_time.into()),
            payload,
            ..Default::default()
        };
        self.records.push(Record {
            partition,
            offset: self.end().get(partition),
            append_time: accept_time,
            key: Some(player.to_owned().into()),
            value: event.encode_to_vec().into(),
        });
        event_id
    }

    fn act(&mut self, (player, kind, item, quantity, which): Step) {
        let player = ["alice", "bob", "карл"][player];
        let item = ["sword", "horse", "saddle"][item].to_owned();
        let payload = match kind {
            0 => Some(session()),
            1 | 2 => {
                let event_id = self.add(player, Some(bought(&item, quantity)));
                self.purchases.push((player.to_owned(), event_id, item, quantity));
                return;
            }
            3 => Some(given(&item, quantity)),
            4 => Some(used(&item, quantity)),
            5 => Some(joined(&item)),
            6 => Some(left(&item)),
            7 => {
                let own = self.purchases.iter().filter(|(owner, ..)| owner == player);
                let own: Vec<_> = own.rev().take(REFUNDABLE_PURCHASES + 2).collect();
                let Some((_, event_id, item, quantity)) = own.get(which % own.len().max(1)) else {
                    return;
                };
                Some(refunded(*event_id, item, *quantity))
            }
            _ => None,
        };
        self.add(player, payload);
    }

    pub fn end(&self) -> Position {
        let mut end = Position::zero(PARTITIONS as usize);
        for record in &self.records {
            end.set(record.partition, record.offset + 1);
        }
        end
    }

    pub fn bounds(&self, log: LogId) -> Bounds {
        Bounds { log, start: Position::zero(PARTITIONS as usize), end: self.end() }
    }
}

pub(super) fn session() -> Payload {
    Payload::SessionStarted(proto::SessionStarted::default())
}

pub(super) fn bought(item: &str, quantity: i32) -> Payload {
    Payload::ItemPurchased(proto::ItemPurchased {
        item_id: item.to_owned(),
        quantity,
        unit_price: i64::from(quantity) * 7,
        total_price: 0,
        currency_code: "gold".to_owned(),
        catalog_version: "v1".to_owned(),
    })
}

pub(super) fn given(item: &str, quantity: i32) -> Payload {
    let reason = String::new();
    Payload::ItemGranted(proto::ItemGranted { item_id: item.to_owned(), quantity, reason })
}

fn used(item: &str, quantity: i32) -> Payload {
    Payload::ItemConsumed(proto::ItemConsumed { item_id: item.to_owned(), quantity })
}

fn refunded(purchase: Uuid, item: &str, quantity: i32) -> Payload {
    Payload::PurchaseRefunded(proto::PurchaseRefunded {
        purchase_event_id: purchase.to_string(),
        item_id: item.to_owned(),
        quantity,
        ..Default::default()
    })
}

pub(super) fn joined(guild: &str) -> Payload {
    Payload::GuildJoined(proto::GuildJoined { guild_id: guild.to_owned() })
}

fn left(guild: &str) -> Payload {
    Payload::GuildLeft(proto::GuildLeft { guild_id: guild.to_owned() })
}

pub(super) fn players(snapshot: Option<&std::path::Path>) -> Players {
    let snapshot = snapshot
        .map(|file| SnapshotOptions { file: file.to_owned(), interval: Duration::from_secs(300) });
    let options = Options { snapshot, ..Options::default() };
    let clock = Clock::manual(Timestamp::from_millis(1_000_000));
    Players::build(options, PARTITIONS, clock, &mut Registry::default())
}

pub(super) fn ask(players: &Players, player: &str) -> Result<proto::Player, PlayersError> {
    let request = proto::GetPlayerRequest { player_id: player.to_owned(), ..Default::default() };
    let answer =
        players.player(request, None).now_or_never().expect("there is nothing to wait for");
    answer.map(|answer| answer.player.unwrap())
}

/// All members of a guild, by pages of two.
pub(super) fn members(players: &Players, guild: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let guild_id = guild.to_owned();
        let request = proto::ListGuildMembersRequest { guild_id, page_size: 2, page_token };
        let page = players.guild_members(&request).unwrap();
        all.extend(page.player_ids);
        if page.next_page_token.is_empty() {
            assert_eq!(page.total_size, all.len() as i64);
            return all;
        }
        page_token = page.next_page_token;
    }
}

/// Player, kind, item or guild, quantity, and which of the purchases.
type Step = (usize, usize, usize, i32, usize);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0..3usize, 0..9usize, 0..3usize, 1..5i32, 0..18usize), 0..120)
}

/// The plain account.
#[derive(Default)]
struct Account {
    players: BTreeMap<String, proto::Player>,
    /// Player, event id, and whether it was refunded.
    purchases: Vec<(String, String, bool)>,
}

impl Account {
    fn take(&mut self, record: &Record) {
        let event = proto::GameEvent::decode(&record.value[..]).unwrap();
        let id = event.player_id.clone();
        let player = self.players.entry(id.clone()).or_insert_with(|| proto::Player {
            player_id: id.clone(),
            first_seen_time: event.accept_time,
            ..Default::default()
        });
        player.last_seen_time = event.accept_time;
        let mut add = |item: &str, quantity: i64| {
            let mut items: BTreeMap<_, _> =
                player.inventory.drain(..).map(|item| (item.item_id, item.quantity)).collect();
            let now = items.entry(item.to_owned()).or_insert(0);
            *now = (*now + quantity).max(0);
            let items = items.into_iter().filter(|(_, quantity)| *quantity > 0);
            player.inventory = items
                .map(|(item_id, quantity)| proto::InventoryItem { item_id, quantity })
                .collect();
        };
        match event.payload {
            Some(Payload::SessionStarted(_)) => {
                player.session_count += 1;
                player.last_session_id = event.event_id;
            }
            Some(Payload::ItemPurchased(bought)) => {
                add(&bought.item_id, bought.quantity.into());
                self.purchases.push((id, event.event_id, false));
            }
            Some(Payload::ItemGranted(given)) => add(&given.item_id, given.quantity.into()),
            Some(Payload::ItemConsumed(used)) => add(&used.item_id, -i64::from(used.quantity)),
            Some(Payload::PurchaseRefunded(refund)) => {
                let own = self.purchases.iter_mut().rev().filter(|(owner, ..)| *owner == id);
                let mut newest = own.take(REFUNDABLE_PURCHASES);
                let found = newest.find(|(_, event_id, _)| *event_id == refund.purchase_event_id);
                if !found.is_some_and(|(.., done)| std::mem::replace(done, true)) {
                    add(&refund.item_id, -i64::from(refund.quantity));
                }
            }
            Some(Payload::GuildJoined(joined)) => player.guild_id = joined.guild_id,
            Some(Payload::GuildLeft(left)) if left.guild_id == player.guild_id => {
                player.guild_id.clear();
            }
            _ => {}
        }
    }

    fn agrees_with(&self, players: &Players) {
        for name in ["alice", "bob", "карл"] {
            match self.players.get(name) {
                Some(player) => assert_eq!(ask(players, name).unwrap(), *player),
                None => assert!(matches!(ask(players, name), Err(PlayersError::Unknown(_)))),
            }
        }
        for guild in ["sword", "horse", "saddle"] {
            let of_it = self.players.values().filter(|player| player.guild_id == guild);
            let names: BTreeSet<_> = of_it.map(|player| player.player_id.clone()).collect();
            assert_eq!(members(players, guild), names.into_iter().collect::<Vec<_>>());
        }
    }
}

proptest! {
    /// However the log is cut: read at once, read twice, or read on from a snapshot that was
    /// written in between, with or without what lies before it.
    #[test]
    fn what_players_have_is_what_the_events_say(
        steps in steps(),
        cut in 0..120usize,
        horizon in 0..40u64,
    ) {
        let mut script = Script::default();
        for step in steps {
            script.act(step);
        }
        let mut account = Account::default();
        script.records.iter().for_each(|record| account.take(record));
        let log = LogId(Uuid::from_u128(7));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("players");

        let first = players(Some(&file));
        first.restart(log, Position::zero(PARTITIONS as usize));
        let (before, after) = script.records.split_at(cut.min(script.records.len()));
        let mut middle = Position::zero(PARTITIONS as usize);
        before.iter().for_each(|record| middle.set(record.partition, record.offset + 1));
        first.apply(before.iter(), &middle);
        first.save_now(&CancellationToken::new());
        first.apply(after.iter(), &script.end());
        account.agrees_with(&first);
        first.apply(script.records.iter(), &script.end());
        account.agrees_with(&first);

        let second = players(Some(&file));
        let horizon = Position::from(vec![horizon; PARTITIONS as usize]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let from = runtime.block_on(second.begin_at(&script.bounds(log), &horizon));
        let expected = middle.iter().map(|(partition, offset)| offset.min(horizon.get(partition)));
        prop_assert_eq!(&from, &expected.collect::<Position>());
        second.apply(script.records.iter(), &script.end());
        account.agrees_with(&second);
    }

    /// Whatever becomes of what is under way, a player has no less than the least and no more
    /// than the most.
    #[test]
    fn the_bounds_hold_whatever_is_written(
        had in prop::collection::vec((0..3usize, 1..5i32), 0..6),
        under_way in prop::collection::vec((0..4usize, 0..3usize, 1..5i32, any::<bool>()), 0..12),
    ) {
        let items = ["sword", "horse", "saddle"];
        let mut people = nobody();
        let mut offset = 0;
        let mut purchases = Vec::new();
        let mut next = || { offset += 1; offset };
        for (item, quantity) in had {
            let fact = fact(next(), bought(items[item], quantity));
            purchases.push((fact.event_id, item, quantity));
            people.apply(people.key("alice").hash, &fact);
        }
        let now = Timestamp::from_millis(1);
        let mut facts = Vec::new();
        for (kind, item, quantity, is_written) in under_way {
            let payload = match (kind, purchases.pop()) {
                (0, _) => bought(items[item], quantity),
                (1, _) => given(items[item], quantity),
                (2, Some((purchase, item, quantity))) => refunded(purchase, items[item], quantity),
                _ => used(items[item], quantity),
            };
            let fact = fact(next(), payload);
            people.reserve(people.key("alice").hash, fact.event_id, fact.payload.as_ref().unwrap(), now);
            facts.push((fact, is_written));
        }
        let ids = items.map(|item| ItemId::parse(item.to_owned()).unwrap());
        let standing = people.standing(people.key("alice"), now);
        let bounds = ids.each_ref().map(|id| (standing.least(id), standing.most(id)));
        for (fact, is_written) in facts {
            if is_written {
                people.apply(people.key("alice").hash, &fact);
            } else {
                people.release(people.key("alice").hash, fact.event_id);
            }
            let standing = people.standing(people.key("alice"), now);
            for (id, (least, most)) in ids.iter().zip(bounds) {
                prop_assert!(standing.least(id) >= least && standing.most(id) <= most);
            }
        }
        let standing = people.standing(people.key("alice"), now);
        for id in &ids {
            prop_assert_eq!(standing.least(id), standing.most(id));
        }
    }
}

fn nobody() -> People {
    People::new(Arc::new(Guilds::new()), Gauge::default(), RandomState::new())
}

/// An event of alice's.
fn fact(offset: u64, payload: Payload) -> Fact<'static> {
    Fact {
        partition: 0,
        offset,
        append_time: Timestamp::default(),
        accept_time: Timestamp::default(),
        event_id: Uuid::from_u128(offset.into()),
        request_id: None,
        player_id: "alice",
        payload: Some(payload),
    }
}

#[test]
fn what_is_under_way_counts_against_the_player() {
    let mut people = nobody();
    let now = Timestamp::from_millis(1_000_000);
    let sword = ItemId::parse("sword".to_owned()).unwrap();
    let purchase = fact(0, bought("sword", 3));
    people.apply(people.key("alice").hash, &purchase);
    people.apply(people.key("alice").hash, &fact(1, joined("owls")));
    let seen = |people: &People, now| {
        let alice = people.standing(people.key("alice"), now);
        let purchase = alice.purchase(purchase.event_id).map(|purchase| purchase.quantity);
        (alice.least(&sword), alice.most(&sword), purchase, alice.guild().map(str::to_owned))
    };
    let owls = || Some("owls".to_owned());
    assert_eq!(seen(&people, now), (3, 3, Some(3), owls()));

    let begun = [given("sword", 2), used("sword", 1), joined("bats"), left("bats"), left("owls")];
    for (number, payload) in begun.iter().enumerate() {
        people.reserve(
            people.key("alice").hash,
            Uuid::from_u128(100 + number as u128),
            payload,
            now,
        );
        people.reserve(people.key("bob").hash, Uuid::from_u128(200 + number as u128), payload, now);
    }
    assert_eq!(seen(&people, now), (2, 5, Some(3), None));
    assert_eq!(people.standing(people.key("alice"), now).owned("sword"), 4);
    let refund = refunded(purchase.event_id, "sword", 3);
    people.reserve(people.key("alice").hash, Uuid::from_u128(105), &refund, now);
    assert_eq!(seen(&people, now), (0, 5, None, None));

    // One was not written, and one was.
    people.release(people.key("alice").hash, Uuid::from_u128(105));
    people.release(people.key("alice").hash, Uuid::from_u128(103));
    people.apply(
        people.key("alice").hash,
        &Fact { event_id: Uuid::from_u128(100), ..fact(2, begun[0].clone()) },
    );
    assert_eq!(seen(&people, now), (4, 5, Some(3), Some("bats".to_owned())));

    // The log takes its time with the others, which count meanwhile.
    let age = RESERVATION_AGE.as_millis() as i64;
    let given_up = Timestamp::from_millis(now.as_millis() + 2 * age);
    assert_eq!(seen(&people, given_up), (4, 5, Some(3), Some("bats".to_owned())));

    // Nobody will ever know of them, and after a while they are forgotten.
    for number in [101, 102, 104] {
        people.unanswered(people.key("alice").hash, Uuid::from_u128(number), given_up);
    }
    let later = Timestamp::from_millis(given_up.as_millis() + age);
    assert_eq!(seen(&people, later.minus(Duration::from_millis(1))).0, 4);
    assert_eq!(seen(&people, later), (5, 5, Some(3), owls()));
}

#[test]
fn who_leaves_a_guild_and_joins_it_again_is_in_it() {
    let mut people = nobody();
    people.apply(people.key("alice").hash, &fact(0, joined("owls")));
    let now = Timestamp::from_millis(1);
    let guild =
        |people: &People| people.standing(people.key("alice"), now).guild().map(str::to_owned);
    people.reserve(people.key("alice").hash, Uuid::from_u128(101), &left("owls"), now);
    assert_eq!(guild(&people), None);
    people.reserve(people.key("alice").hash, Uuid::from_u128(100), &joined("owls"), now);
    assert_eq!(guild(&people), Some("owls".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn who_names_a_cursor_waits_for_it() {
    let mut script = Script::default();
    script.add("alice", Some(bought("sword", 1)));
    script.add("alice", Some(bought("sword", 1)));
    let alices = script.records[0].partition;
    let (log, players) = (LogId(Uuid::from_u128(7)), players(None));
    let cursor = |log, offset| {
        // The other partitions do not matter.
        let mut position = Position::from(vec![1 << 40; PARTITIONS as usize]);
        position.set(alices, offset);
        Cursor::of(log, &position, Timestamp::default())
    };
    let ask = |at_least_cursor: String| {
        let player_id = "alice".to_owned();
        players.player(proto::GetPlayerRequest { player_id, at_least_cursor }, None)
    };
    assert!(matches!(ask(String::new()).await, Err(PlayersError::NotRead)));
    assert!(matches!(ask(cursor(log, 0)).await, Err(PlayersError::Behind)));

    let begun = Bounds { end: Position::zero(3), ..script.bounds(log) };
    players.begin_at(&begun, &begun.end).await;
    assert!(matches!(ask(String::new()).await, Err(PlayersError::Unknown(_))));
    assert!(matches!(ask("x".to_owned()).await, Err(PlayersError::CursorMalformed(_))));
    let other = LogId(Uuid::from_u128(8));
    assert!(matches!(ask(cursor(other, 0)).await, Err(PlayersError::EpochChanged)));
    assert!(matches!(ask(cursor(log, 1)).await, Err(PlayersError::Behind)));

    let one_by_one = async {
        for record in &script.records {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut position = players.applied().unwrap().1;
            position.set(alices, record.offset + 1);
            players.apply([record].into_iter(), &position);
        }
    };
    let (answer, ()) = tokio::join!(ask(cursor(log, 2)), one_by_one);
    let answer = answer.unwrap();
    assert_eq!(answer.player.unwrap().inventory[0].quantity, 2);
    assert_eq!(Cursor::decode(&answer.cursor).unwrap().position, script.end());
}

#[test]
fn nothing_is_said_before_the_log_is_read_as_far_as_it_went() {
    let mut script = Script::default();
    script.add("alice", Some(joined("owls")));
    let (log, players) = (LogId(Uuid::from_u128(7)), players(None));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bounds = script.bounds(log);
    let from = runtime.block_on(players.begin_at(&bounds, &bounds.end));
    assert_eq!(from, bounds.start);
    let request = proto::ListGuildMembersRequest { guild_id: "owls".into(), ..Default::default() };
    assert!(matches!(ask(&players, "alice"), Err(PlayersError::NotRead)));
    assert!(matches!(players.guild_members(&request), Err(PlayersError::NotRead)));
    assert!(!players.has_caught_up());
    players.apply(script.records.iter(), &bounds.end);
    assert!(players.has_caught_up());
    assert_eq!(ask(&players, "alice").unwrap().guild_id, "owls");
    assert_eq!(members(&players, "owls"), ["alice"]);
}

#[test]
fn wrong_pages_are_refused_and_large_ones_cut() {
    let players = players(None);
    players.restart(LogId(Uuid::from_u128(7)), Position::zero(PARTITIONS as usize));
    let mut script = Script::default();
    for number in 0..1001 {
        script.add(&format!("player-{number:04}"), Some(joined("owls")));
    }
    players.apply(script.records.iter(), &script.end());
    let page = |size, token: &str| {
        players.guild_members(&proto::ListGuildMembersRequest {
            guild_id: "owls".to_owned(),
            page_size: size,
            page_token: token.to_owned(),
        })
    };
    assert_eq!(page(0, "").unwrap().player_ids.len(), 100);
    let largest = page(5000, "").unwrap();
    assert_eq!((largest.player_ids.len(), largest.total_size), (1000, 1001));
    let last = page(5000, &largest.next_page_token).unwrap();
    assert_eq!((last.player_ids, last.next_page_token), (vec!["player-1000".into()], "".into()));
    for token in ["x", "!", "AA", "Ag", "AQ", "AQAK"] {
        let Err(PlayersError::Invalid(violations)) = page(-1, token) else { panic!("{token}") };
        let fields: Vec<_> = violations.into_vec().into_iter().map(|v| v.field).collect();
        assert_eq!(fields, ["page_size", "page_token"], "{token}");
    }
}

#[test]
fn what_retention_removed_is_told() {
    let mut script = Script::default();
    for _ in 0..3 {
        script.add("alice", Some(given("sword", 1)));
    }
    let alices = script.records[0].partition;
    let players = players(None);
    let mut start = Position::zero(PARTITIONS as usize);
    start.set(alices, 1);
    players.restart(LogId(Uuid::from_u128(7)), start);
    players.apply(script.records.iter(), &script.end());
    let alice = ask(&players, "alice").unwrap();
    assert_eq!(alice.inventory[0].quantity, 2);
    assert_eq!(alice.history_start_time, Some(Timestamp::from_millis(2000).into()));
    players.missed(&[Trimmed { partition: alices, from: 3, to: 5 }]);
    let alice = ask(&players, "alice").unwrap();
    assert_eq!(alice.history_start_time, Some(Timestamp::from_millis(1_000_000).into()));
}
