//! `GameService`: messages to actions and back.

use std::sync::Arc;

use futures_util::TryFutureExt as _;
use tonic::{Request, Response, Status};

use super::stubs::game_service_server::GameService;
use super::{Options, request};
use crate::commands::{Commands, Outcome};
use crate::domain::Submission;
use crate::players::Players;
use crate::proto::{self, game_event::Payload};

/// The service of one runtime.
pub(super) struct Game {
    commands: Commands,
    players: Players,
    options: Arc<Options>,
}

impl Game {
    pub fn new(commands: Commands, players: Players, options: Arc<Options>) -> Self {
        Self { commands, players, options }
    }

    /// Begins at once; see [`Commands::execute`].
    fn act<T: Into<Submission>>(
        &self,
        request: Request<T>,
    ) -> impl Future<Output = Result<Outcome, Status>> + Send + use<'_, T> {
        let caller = request::caller(&self.options);
        let source = request::source(&request, &self.options);
        let deadline = request::answer_by(request.metadata());
        let submission = request.into_inner().into();
        self.commands.execute(&caller, submission, source, deadline).err_into()
    }
}

#[tonic::async_trait]
impl GameService for Game {
    async fn start_session(
        &self,
        request: Request<proto::StartSessionRequest>,
    ) -> Result<Response<proto::StartSessionResponse>, Status> {
        let Outcome { receipt, .. } = self.act(request).await?;
        let session_id = receipt.as_ref().map(|r| r.event_id.clone()).unwrap_or_default();
        Ok(Response::new(proto::StartSessionResponse { receipt, session_id }))
    }

    async fn purchase_item(
        &self,
        request: Request<proto::PurchaseItemRequest>,
    ) -> Result<Response<proto::PurchaseItemResponse>, Status> {
        let Outcome { receipt, payload, owned: owned_quantity } = self.act(request).await?;
        let purchase = match payload {
            Payload::ItemPurchased(purchase) => Some(purchase),
            _ => None,
        };
        Ok(Response::new(proto::PurchaseItemResponse { receipt, purchase, owned_quantity }))
    }

    async fn join_guild(
        &self,
        request: Request<proto::JoinGuildRequest>,
    ) -> Result<Response<proto::JoinGuildResponse>, Status> {
        let Outcome { receipt, .. } = self.act(request).await?;
        Ok(Response::new(proto::JoinGuildResponse { receipt }))
    }

    async fn leave_guild(
        &self,
        request: Request<proto::LeaveGuildRequest>,
    ) -> Result<Response<proto::LeaveGuildResponse>, Status> {
        let Outcome { receipt, .. } = self.act(request).await?;
        Ok(Response::new(proto::LeaveGuildResponse { receipt }))
    }

    async fn grant_item(
        &self,
        request: Request<proto::GrantItemRequest>,
    ) -> Result<Response<proto::GrantItemResponse>, Status> {
        let Outcome { receipt, owned: owned_quantity, .. } = self.act(request).await?;
        Ok(Response::new(proto::GrantItemResponse { receipt, owned_quantity }))
    }

    async fn consume_item(
        &self,
        request: Request<proto::ConsumeItemRequest>,
    ) -> Result<Response<proto::ConsumeItemResponse>, Status> {
        let Outcome { receipt, owned: owned_quantity, .. } = self.act(request).await?;
        Ok(Response::new(proto::ConsumeItemResponse { receipt, owned_quantity }))
    }

    async fn refund_purchase(
        &self,
        request: Request<proto::RefundPurchaseRequest>,
    ) -> Result<Response<proto::RefundPurchaseResponse>, Status> {
        let Outcome { receipt, payload, owned: owned_quantity } = self.act(request).await?;
        let refund = match payload {
            Payload::PurchaseRefunded(refund) => Some(refund),
            _ => None,
        };
        Ok(Response::new(proto::RefundPurchaseResponse { receipt, refund, owned_quantity }))
    }

    async fn get_player(
        &self,
        request: Request<proto::GetPlayerRequest>,
    ) -> Result<Response<proto::GetPlayerResponse>, Status> {
        let deadline = request::answer_by(request.metadata());
        Ok(Response::new(self.players.player(request.into_inner(), deadline).await?))
    }

    async fn list_guild_members(
        &self,
        request: Request<proto::ListGuildMembersRequest>,
    ) -> Result<Response<proto::ListGuildMembersResponse>, Status> {
        Ok(Response::new(self.players.guild_members(request.get_ref())?))
    }

    async fn get_receipt(
        &self,
        request: Request<proto::GetReceiptRequest>,
    ) -> Result<Response<proto::GetReceiptResponse>, Status> {
        let caller = request::caller(&self.options);
        let receipt = Some(self.commands.receipt(&caller, request.into_inner())?);
        Ok(Response::new(proto::GetReceiptResponse { receipt }))
    }

    async fn get_catalog(
        &self,
        _: Request<proto::GetCatalogRequest>,
    ) -> Result<Response<proto::GetCatalogResponse>, Status> {
        Ok(Response::new(self.commands.catalog().to_response()))
    }
}
