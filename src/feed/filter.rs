//! Which events a subscriber wants.

use std::collections::HashSet;

use crate::domain::{EVENT_TYPES, Violations};
use crate::proto;

/// The most values in one field of a filter.
pub const MAX_FILTER_VALUES: usize = 100;

/// A checked filter: within a field one match is enough, and every field that is not
/// empty must match. The default wants every event.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    event_types: HashSet<String>,
    player_ids: HashSet<String>,
    guild_ids: HashSet<String>,
}

impl Filter {
    /// Checks a filter; notes what is wrong with it.
    pub fn parse(filter: Option<&proto::EventFilter>, violations: &mut Violations) -> Self {
        let Some(filter) = filter else { return Self::default() };
        for (field, values) in [
            ("filter.event_types", &filter.event_types),
            ("filter.player_ids", &filter.player_ids),
            ("filter.guild_ids", &filter.guild_ids),
        ] {
            if values.len() > MAX_FILTER_VALUES {
                violations.add(field, format!("more than {MAX_FILTER_VALUES} values"));
            }
            if values.iter().any(String::is_empty) {
                violations.add(field, "a value is empty, which no event matches");
            }
        }
        if filter.event_types.iter().any(|name| !EVENT_TYPES.contains(&name.as_str())) {
            violations.add(
                "filter.event_types",
                format!("not a type that this server knows: {}", EVENT_TYPES.join(", ")),
            );
        }
        if !violations.is_empty() {
            return Self::default();
        }
        let set = |values: &[String]| values.iter().cloned().collect();
        Self {
            event_types: set(&filter.event_types),
            player_ids: set(&filter.player_ids),
            guild_ids: set(&filter.guild_ids),
        }
    }

    /// Whether every event is wanted.
    pub fn is_all(&self) -> bool {
        self.event_types.is_empty() && self.player_ids.is_empty() && self.guild_ids.is_empty()
    }

    /// Whether an event is wanted, by its type, its player and the guild that it names.
    pub fn matches(&self, event_type: &str, player_id: &str, guild_id: Option<&str>) -> bool {
        let wants = |wanted: &HashSet<String>, value: Option<&str>| {
            wanted.is_empty() || value.is_some_and(|value| wanted.contains(value))
        };
        wants(&self.player_ids, Some(player_id))
            && wants(&self.guild_ids, guild_id)
            && wants(&self.event_types, Some(event_type))
    }

    /// The field by which to look for those who may want an event, and its values: no event
    /// is wanted that has none of them. The one that tells the most apart.
    pub(super) fn narrowest(&self) -> (Field, impl Iterator<Item = &str>) {
        let (field, values) = if !self.player_ids.is_empty() {
            (Field::Player, &self.player_ids)
        } else if !self.guild_ids.is_empty() {
            (Field::Guild, &self.guild_ids)
        } else {
            (Field::EventType, &self.event_types)
        };
        (field, values.iter().map(String::as_str))
    }
}

/// A field of the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    EventType,
    Player,
    Guild,
}
