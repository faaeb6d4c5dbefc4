//! What can happen, and how often it does.

use proptest::prelude::*;

use super::oracle::Wants;
use crate::proto;

/// What is in a record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    Event {
        player: u8,
        kind: u8,
        large: bool,
    },
    /// The event so many records before, once more, by a writer who had looked up to so many
    /// records before its place.
    Again {
        back: u8,
        unchecked: u8,
    },
    Garbage,
}

/// What happens to the log.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Append(u8, Content),
    /// An offset for no record.
    LeaveOut(u8),
    /// In this partition, so many records more.
    Trim(u8, u64),
    /// With a first record, or empty.
    AddPartition(Option<Content>),
    Replace,
}

/// Where somebody asks to start.
#[derive(Clone, Debug)]
pub(super) enum Begin {
    Latest,
    Earliest,
    Time(u64),
    /// One of the cursors that anybody was ever given.
    Seen(usize),
    /// One of the newest of those.
    Recent(usize),
    /// So far past the end of a partition.
    Ahead(u8, u64),
}

/// What somebody asks for.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub from: Begin,
    pub wants: Wants,
    pub max_events: u64,
    pub stop_when_caught_up: bool,
    pub policy: proto::ExpiredCursorPolicy,
    /// Happens between the first look at the log and the next.
    pub meanwhile: Option<Deed>,
}

/// What happens next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Do(Deed),
    /// So many records, each of them read by the tail before the next: nobody else reads,
    /// and a small ring overflows.
    Overflow(u8, u8),
    Subscribe(Ask),
    Poll(Ask),
    /// One message of one subscriber, if it comes within so many turns of the tail.
    Next(u8, u8, Option<Deed>),
    /// All that is ready for one subscriber.
    Drain(u8),
    /// Drop one and resume from its newest cursor.
    Resume(u8, proto::ExpiredCursorPolicy),
    /// Drop one for good.
    Leave(u8),
    /// Another feed over the same log; the streams of the old one are closed, or cut off.
    Restart {
        closed: bool,
    },
    StartTail,
    Turns(u8),
    /// So long that heartbeats are due.
    Wait,
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        1 => Just(Content::Garbage),
        12 => (0..3u8, 0..6u8, prop::bool::weighted(0.06))
            .prop_map(|(player, kind, large)| Content::Event { player, kind, large }),
        5 => (1..12u8, 0..14u8).prop_map(|(back, unchecked)| Content::Again { back, unchecked }),
    ]
}

fn append() -> impl Strategy<Value = Deed> {
    (any::<u8>(), content()).prop_map(|(partition, content)| Deed::Append(partition, content))
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        8 => append(),
        2 => any::<u8>().prop_map(Deed::LeaveOut),
        3 => (any::<u8>(), 1..6u64).prop_map(|(partition, by)| Deed::Trim(partition, by)),
        3 => any::<u8>().prop_map(|partition| Deed::Trim(partition, 1000)),
        2 => prop::option::of(content()).prop_map(Deed::AddPartition),
        2 => Just(Deed::Replace),
    ]
}

fn policy() -> impl Strategy<Value = proto::ExpiredCursorPolicy> {
    use proto::ExpiredCursorPolicy as Policy;
    prop_oneof![
        1 => Just(Policy::Unspecified),
        1 => Just(Policy::Fail),
        2 => Just(Policy::Earliest),
        2 => Just(Policy::Latest),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let from = prop_oneof![
        2 => Just(Begin::Latest),
        3 => Just(Begin::Earliest),
        3 => (0..14u64).prop_map(Begin::Time),
        3 => any::<usize>().prop_map(Begin::Seen),
        3 => (0..6usize).prop_map(Begin::Recent),
        1 => (any::<u8>(), 1..3u64).prop_map(|(partition, by)| Begin::Ahead(partition, by)),
    ];
    let wants = prop_oneof![
        5 => Just(Wants::All),
        1 => Just(Wants::Player),
        1 => Just(Wants::Guild),
        1 => Just(Wants::Types),
        1 => Just(Wants::PlayersAndType),
        1 => Just(Wants::Nothing),
    ];
    let max_events = prop_oneof![4 => Just(0u64), 2 => 1..5u64];
    let meanwhile = prop::option::weighted(0.4, deed());
    (from, wants, max_events, prop::bool::weighted(0.15), policy(), meanwhile).prop_map(
        |(from, wants, max_events, stop_when_caught_up, policy, meanwhile)| Ask {
            from,
            wants,
            max_events,
            stop_when_caught_up,
            policy,
            meanwhile,
        },
    )
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => append().prop_map(Step::Do),
        6 => deed().prop_map(Step::Do),
        3 => (any::<u8>(), 1..6u8).prop_map(|(partition, times)| Step::Overflow(partition, times)),
        5 => ask().prop_map(Step::Subscribe),
        3 => ask().prop_map(Step::Poll),
        16 => (any::<u8>(), 0..3u8, prop::option::weighted(0.15, deed()))
            .prop_map(|(reader, turns, meanwhile)| Step::Next(reader, turns, meanwhile)),
        3 => any::<u8>().prop_map(Step::Drain),
        3 => (any::<u8>(), policy()).prop_map(|(reader, policy)| Step::Resume(reader, policy)),
        1 => any::<u8>().prop_map(Step::Leave),
        1 => any::<bool>().prop_map(|closed| Step::Restart { closed }),
        2 => Just(Step::StartTail),
        8 => (1..4u8).prop_map(Step::Turns),
        1 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 1..100)
}
