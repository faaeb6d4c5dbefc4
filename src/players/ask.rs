//! Questions about players, and their answers.

use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::time::{Instant, timeout_at};

use super::Players;
use crate::domain::{FieldRule, Form, GuildId, PlayerId, Violations};
use crate::event_log::partition_of_key;
use crate::event_log::{Cursor, CursorMalformed, LogId, Offset, Partition, Position};
use crate::proto;

/// How many members a page has, when it is not told and at the most.
const PAGE_SIZE: (usize, usize) = (100, 1000);

/// How long a call without a deadline waits for its cursor.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// The version of page tokens. Behind it comes the last id of the page.
const TOKEN_VERSION: u8 = 1;

/// What a field of a question has to be that is checked here, by the names of message and field.
pub fn field_rule(message: &str, field: &str) -> Option<FieldRule> {
    match (message, field) {
        ("ListGuildMembersRequest", "page_size") => {
            FieldRule::optional(Form::Number { min: 0, max: None })
        }
        _ => None,
    }
}

/// Why a question has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlayersError {
    /// Fields of the request are wrong.
    #[error("the request is not valid")]
    Invalid(Violations),
    /// The cursor is none.
    #[error("{0}")]
    CursorMalformed(#[from] CursorMalformed),
    /// The cursor is of another log.
    #[error("the cursor is of another log than the one that is served")]
    EpochChanged,
    /// There is no event of the player.
    #[error("the log holds no event of the player")]
    Unknown(PlayerId),
    /// The log has not been read so far as it was when the server began to.
    #[error("the log has not been read so far yet")]
    NotRead,
    /// What was asked for was not read in time.
    #[error("what lies before the cursor was not read in time; the same call goes on waiting")]
    Behind,
}

impl Players {
    /// What a player has. Waits until what lies before `at_least_cursor` in the player's own
    /// partition is applied, up to `deadline`.
    pub async fn player(
        &self,
        request: proto::GetPlayerRequest,
        deadline: Option<Instant>,
    ) -> Result<proto::GetPlayerResponse, PlayersError> {
        let mut violations = Violations::default();
        let player_id = violations.take("player_id", PlayerId::parse(request.player_id));
        let Some(player_id) = player_id else { return Err(PlayersError::Invalid(violations)) };
        let partition = partition_of_key(player_id.as_str().as_bytes(), self.0.key_partitions);
        if !request.at_least_cursor.is_empty() {
            let cursor = Cursor::decode(&request.at_least_cursor)?;
            let deadline = deadline.unwrap_or_else(|| Instant::now() + DEFAULT_WAIT);
            let offset = cursor.position.get(partition);
            let reached = self.reached(cursor.epoch, partition, offset);
            timeout_at(deadline, reached).await.map_err(|_| PlayersError::Behind)??;
        }
        // Before the player is looked at, so that it is no further than the player.
        let (log, mut position) =
            self.readable(|end, applied| applied.get(partition) >= end.get(partition))?;
        let key = self.key(player_id.as_str());
        let found = self.lock(key.hash.shard()).people.player(key);
        let Some((mut player, next_offset)) = found else {
            return Err(PlayersError::Unknown(player_id));
        };
        // The player may be further than the batch that is being applied.
        position.set(partition, next_offset.max(position.get(partition)));
        let now = self.0.clock.now();
        let history = self.progress().history.start(partition, now);
        player.history_start_time = history.map(Into::into);
        let cursor = Cursor::of(log, &position, now);
        Ok(proto::GetPlayerResponse { player: Some(player), cursor })
    }

    /// A page of a guild's members. A guild without members is as good as none.
    pub fn guild_members(
        &self,
        request: &proto::ListGuildMembersRequest,
    ) -> Result<proto::ListGuildMembersResponse, PlayersError> {
        let mut violations = Violations::default();
        let guild = violations.take("guild_id", GuildId::parse(request.guild_id.clone()));
        let size = match usize::try_from(request.page_size) {
            Ok(0) => PAGE_SIZE.0,
            Ok(size) => size.min(PAGE_SIZE.1),
            Err(_) => {
                violations.add("page_size", "negative; 0 means 100");
                PAGE_SIZE.0
            }
        };
        let after = read_token(&request.page_token);
        if after.is_none() {
            violations.add("page_token", "not a token; pass on next_page_token as it came");
        }
        let (Some(guild), Some(after), true) = (guild, after, violations.is_empty()) else {
            return Err(PlayersError::Invalid(violations));
        };
        self.readable(|end, applied| applied.covers(end))?;
        let after = Some(after.as_str()).filter(|after| !after.is_empty());
        let page = self.0.guilds.page(guild.as_str(), after, size);
        let last = page.members.last().filter(|_| page.more);
        Ok(proto::ListGuildMembersResponse {
            next_page_token: last.map(|last| token(last)).unwrap_or_default(),
            player_ids: page.members.iter().map(|id| id.as_ref().to_owned()).collect(),
            total_size: i64::try_from(page.total).unwrap_or(i64::MAX),
        })
    }

    /// Whether everything is applied that the log held when it was begun with.
    pub fn has_caught_up(&self) -> bool {
        self.readable(|end, applied| applied.covers(end)).is_ok()
    }

    /// Up to where what is known is true, if that is `enough`.
    fn readable(
        &self,
        enough: impl Fn(&Position, &Position) -> bool,
    ) -> Result<(LogId, Position), PlayersError> {
        let (log, applied) = self.applied().ok_or(PlayersError::NotRead)?;
        if enough(&self.progress().end, &applied) {
            Ok((log, applied))
        } else {
            Err(PlayersError::NotRead)
        }
    }

    /// Returns when all before `offset` is applied, and all that there was at the start.
    async fn reached(
        &self,
        log: LogId,
        partition: Partition,
        offset: Offset,
    ) -> Result<(), PlayersError> {
        let _waiting = Waiting::new(self);
        loop {
            let moved = self.0.moved.notified();
            tokio::pin!(moved);
            // Before the look, so that what is applied after it is noticed.
            moved.as_mut().enable();
            match self.applied() {
                Some((applied, _)) if applied != log => return Err(PlayersError::EpochChanged),
                Some((_, position)) => {
                    let end = self.progress().end.get(partition);
                    if position.get(partition) >= offset.max(end) {
                        return Ok(());
                    }
                }
                None => {}
            }
            moved.await;
        }
    }
}

/// One who waits, and has to be woken.
struct Waiting<'a>(&'a Players);

impl<'a> Waiting<'a> {
    fn new(players: &'a Players) -> Self {
        players.0.waiting.fetch_add(1, Ordering::Relaxed);
        // Before the look at what is applied; see there.
        fence(Ordering::SeqCst);
        Self(players)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

fn token(last: &str) -> String {
    let mut bytes = vec![TOKEN_VERSION];
    bytes.extend_from_slice(last.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The id that a token was made of, empty for none; nothing when it is no token.
fn read_token(token: &str) -> Option<String> {
    if token.is_empty() {
        return Some(String::new());
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (&TOKEN_VERSION, id) = bytes.split_first()? else { return None };
    let id = String::from_utf8(id.to_vec()).ok()?;
    PlayerId::parse(id).ok().map(PlayerId::into_string)
}
