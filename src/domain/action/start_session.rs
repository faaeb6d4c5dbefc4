//! `StartSession`.

use uuid::Uuid;

use super::{Deed, Violations};
use crate::domain::Terms;
use crate::proto::{self, game_event::Payload};

/// Start a play session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartSession;

impl StartSession {
    #[allow(clippy::unnecessary_wraps, reason = "as for every action")]
    pub(super) fn read(_: proto::StartSessionRequest, _: &mut Violations) -> Option<Self> {
        Some(Self)
    }
}

impl Deed for StartSession {
    fn event_type(&self) -> &'static str {
        "session_started"
    }

    fn payload(&self, event_id: Uuid, _: &Terms) -> Payload {
        Payload::SessionStarted(proto::SessionStarted { session_id: event_id.to_string() })
    }
}
