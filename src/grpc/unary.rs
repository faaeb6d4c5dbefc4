//! Calls with one message each way: the stubs' traits without the stubs' servers, which keep for
//! each call what streams need.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either};
use http::header::CONTENT_TYPE;
use prost::Message;
use tonic::body::Body;
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataMap};
use tonic::{Request, Response, Status};

use super::feed::EventFeed;
use super::game::Game;
use super::stubs::event_feed_service_server::EventFeedService as _;
use super::stubs::game_service_server::GameService as _;
use super::{ResponseBody, frames};

/// The services of one runtime. Cheap to clone.
#[derive(Clone)]
pub(super) struct Unary {
    pub game: Arc<Game>,
    pub feed: Arc<EventFeed>,
    pub max_message_bytes: usize,
}

macro_rules! methods {
    ($($path:literal => $service:ident.$method:ident,)*) => {
        /// The paths of the methods.
        pub(super) const METHODS: &[&str] = &[$($path),*];

        impl Unary {
            /// Serves a request, if it is for one of the methods.
            pub fn serve<B>(
                &self,
                request: http::Request<B>,
            ) -> Either<BoxFuture<'static, http::Response<ResponseBody>>, http::Request<B>>
            where
                B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
                B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
            {
                let max_bytes = self.max_message_bytes;
                match request.uri().path() {
                    $($path => {
                        let service = Arc::clone(&self.$service);
                        let answer = async move {
                            service.$method(read(request, max_bytes).await?).await
                        };
                        Either::Left(answer.map(respond).boxed())
                    })*
                    _ => Either::Right(request),
                }
            }
        }
    };
}

methods! {
    "/game.v1.GameService/StartSession" => game.start_session,
    "/game.v1.GameService/PurchaseItem" => game.purchase_item,
    "/game.v1.GameService/JoinGuild" => game.join_guild,
    "/game.v1.GameService/LeaveGuild" => game.leave_guild,
    "/game.v1.GameService/GrantItem" => game.grant_item,
    "/game.v1.GameService/ConsumeItem" => game.consume_item,
    "/game.v1.GameService/RefundPurchase" => game.refund_purchase,
    "/game.v1.GameService/GetPlayer" => game.get_player,
    "/game.v1.GameService/ListGuildMembers" => game.list_guild_members,
    "/game.v1.GameService/GetReceipt" => game.get_receipt,
    "/game.v1.GameService/GetCatalog" => game.get_catalog,
    "/game.v1.EventFeedService/GetFeed" => feed.get_feed,
    "/game.v1.EventFeedService/PollEvents" => feed.poll_events,
}

async fn read<B, T>(request: http::Request<B>, max_bytes: usize) -> Result<Request<T>, Status>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    T: Message + Default,
{
    let (head, body) = request.into_parts();
    let message = frames::decode(frames::read(body, max_bytes).await?)?;
    Ok(Request::from_parts(MetadataMap::from_headers(head.headers), head.extensions, message))
}

fn respond<T: Message>(answer: Result<Response<T>, Status>) -> http::Response<ResponseBody> {
    match answer {
        Ok(answer) => {
            let message = frames::frame(answer.get_ref());
            let mut response = http::Response::new(ResponseBody::Message(message));
            response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
            response
        }
        Err(status) => status.into_http::<Body>().map(ResponseBody::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;

    #[test]
    fn every_unary_method_of_the_schema_is_served() {
        let set = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
        let files = set.file.iter().filter(|file| file.package() == "game.v1");
        let services = files.flat_map(|file| &file.service);
        let mut paths: Vec<_> = services
            .flat_map(|service| service.method.iter().map(move |method| (service, method)))
            .filter(|(_, method)| !method.server_streaming())
            .map(|(service, method)| format!("/game.v1.{}/{}", service.name(), method.name()))
            .collect();
        let mut served = METHODS.to_vec();
        paths.sort_unstable();
        served.sort_unstable();
        assert_eq!(served, paths);
    }
}
