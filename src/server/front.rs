//! What is answered to somebody who does not speak gRPC: the page, or where to go.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tonic::body::Body;

use super::page;
use crate::grpc::ServedBody;

const PAGE: &str = "\
This is Herald, a game event service. It speaks gRPC and gRPC-web here.

  what there is     grpcurl -plaintext HOST list
  an action         grpcurl -plaintext -d '{\"player_id\":\"alice\",\"item_id\":\"sword\"}' HOST game.v1.GameService/PurchaseItem
  the live feed     grpcurl -plaintext HOST game.v1.EventFeedService/StreamEvents

Health and metrics are on the admin address.
";

/// The answer to a request that is neither gRPC nor gRPC-web nor a browser's question
/// before one; `None` for those.
pub(super) fn answer<B>(request: &Request<B>) -> Option<Response<ServedBody>> {
    let is_grpc = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if is_grpc || request.method() == Method::OPTIONS {
        return None;
    }
    if let Some(page) = page::answer(request) {
        return Some(page);
    }
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/") => {
            let host = request
                .headers()
                .get(http::header::HOST)
                .and_then(|host| host.to_str().ok())
                .or_else(|| request.uri().authority().map(|authority| authority.as_str()))
                .unwrap_or("127.0.0.1:50051");
            (StatusCode::OK, PAGE.replace("HOST", host))
        }
        (&Method::POST, _) => (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the content type has to be application/grpc or application/grpc-web\n".to_owned(),
        ),
        _ => (StatusCode::NOT_FOUND, "nothing is here; GET / says what there is\n".to_owned()),
    };
    let body = Body::new(Full::new(Bytes::from(text)));
    let mut response = Response::new(ServedBody::unwatched(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    Some(response)
}
