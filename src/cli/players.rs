//! `herald player` and `guild`: what players have, and who is where.

use clap::Args;

use super::exit::{Exit, UsageError};
use super::output::Output;
use super::remote::Remote;
use super::{json, words};
use crate::event_log::Cursor;
use crate::proto;

/// How many members of a guild are asked for at a time.
const PAGE_SIZE: i32 = 1000;

/// Arguments of `herald player`.
#[derive(Debug, Args)]
pub struct Player {
    /// Who.
    #[arg(value_name = "ID")]
    player: String,
    /// Wait until all before this cursor is taken into account, such as that of a receipt.
    #[arg(long, value_name = "CURSOR", default_value = "", hide_default_value = true)]
    at_least: String,
    #[command(flatten)]
    remote: Remote,
}

impl Player {
    /// Shows what a player has.
    pub async fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let Self { player, at_least, remote } = self;
        if !at_least.is_empty() {
            Cursor::decode(&at_least).map_err(|why| UsageError(format!("--at-least: {why}")))?;
        }
        let request = proto::GetPlayerRequest { player_id: player, at_least_cursor: at_least };
        let response = remote.connect().await?.player(request).await?;
        if remote.json {
            output.line(json::canonical("GetPlayerResponse", &response)?)?;
            return Ok(Exit::Done);
        }
        let player = response.player.unwrap_or_default();
        output.line(format_args!("player      {}", words::name(&player.player_id)))?;
        match player.guild_id.as_str() {
            "" => output.line("guild       none")?,
            guild => output.line(format_args!("guild       {}", words::name(guild)))?,
        }
        let newest = match player.last_session_id.as_str() {
            "" => String::new(),
            id => format!(", the newest is {}", words::name(id)),
        };
        output.line(format_args!("sessions    {}{newest}", player.session_count))?;
        for (name, time) in [
            ("first seen", player.first_seen_time),
            ("last seen", player.last_seen_time),
            ("known since", player.history_start_time),
        ] {
            if time.is_some() {
                output.line(format_args!("{name:<11} {}", words::time(time.as_ref())))?;
            }
        }
        for item in &player.inventory {
            output.line(format_args!("{:>11} {}", item.quantity, words::name(&item.item_id)))?;
        }
        Ok(Exit::Done)
    }
}

/// Arguments of `herald guild`.
#[derive(Debug, Args)]
pub struct Guild {
    /// Which guild.
    #[arg(value_name = "ID")]
    guild: String,
    #[command(flatten)]
    remote: Remote,
}

impl Guild {
    /// Shows who is in a guild.
    pub async fn run(self, output: &mut Output) -> anyhow::Result<Exit> {
        let Self { guild, remote } = self;
        let client = remote.connect().await?;
        let mut page_token = String::new();
        loop {
            let request = proto::ListGuildMembersRequest {
                guild_id: guild.clone(),
                page_size: PAGE_SIZE,
                page_token,
            };
            let page = client.guild_members(request).await?;
            if remote.json {
                output.line(json::canonical("ListGuildMembersResponse", &page)?)?;
            } else {
                for player in &page.player_ids {
                    output.line(words::name(player))?;
                }
            }
            if page.next_page_token.is_empty() {
                return Ok(Exit::Done);
            }
            page_token = page.next_page_token;
        }
    }
}
