//! `LeaveGuild`.

use uuid::Uuid;

use super::{Deed, Violations};
use crate::domain::{Catalog, GuildId, Possessions, Terms};
use crate::proto::{self, game_event::Payload};

/// Leave the guild that one is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveGuild {
    guild: GuildId,
}

impl LeaveGuild {
    pub(super) fn read(
        request: proto::LeaveGuildRequest,
        violations: &mut Violations,
    ) -> Option<Self> {
        let guild = violations.take("guild_id", GuildId::parse(request.guild_id))?;
        Some(Self { guild })
    }
}

impl Deed for LeaveGuild {
    fn event_type(&self) -> &'static str {
        "guild_left"
    }

    fn decide(&self, _: &Catalog, player: &dyn Possessions, violations: &mut Violations) -> Terms {
        if player.guild() != Some(self.guild.as_str()) {
            violations.add("guild_id", "the player is not in it");
        }
        Terms::None
    }

    fn payload(&self, _: Uuid, _: &Terms) -> Payload {
        Payload::GuildLeft(proto::GuildLeft { guild_id: self.guild.as_str().to_owned() })
    }

    fn content(&self, field: &mut dyn FnMut(&str, &str)) {
        field("guild_id", self.guild.as_str());
    }
}
