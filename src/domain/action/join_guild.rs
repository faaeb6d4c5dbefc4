//! `JoinGuild`.

use uuid::Uuid;

use super::{Deed, NOT_IN_CATALOG, Violations};
use crate::domain::{Catalog, GuildId, Terms};
use crate::proto::{self, game_event::Payload};

/// Join a guild, and leave the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinGuild {
    guild: GuildId,
}

impl JoinGuild {
    pub(super) fn read(
        request: proto::JoinGuildRequest,
        violations: &mut Violations,
    ) -> Option<Self> {
        let guild = violations.take("guild_id", GuildId::parse(request.guild_id))?;
        Some(Self { guild })
    }
}

impl Deed for JoinGuild {
    fn event_type(&self) -> &'static str {
        "guild_joined"
    }

    fn check(&self, catalog: &Catalog, violations: &mut Violations) {
        if !catalog.has_guild(&self.guild) {
            violations.add("guild_id", NOT_IN_CATALOG);
        }
    }

    fn payload(&self, _: Uuid, _: &Terms) -> Payload {
        Payload::GuildJoined(proto::GuildJoined { guild_id: self.guild.as_str().to_owned() })
    }

    fn content(&self, field: &mut dyn FnMut(&str, &str)) {
        field("guild_id", self.guild.as_str());
    }
}
