//! Who serves a request, by what it says of itself, and what is answered where nobody does:
//! the page, or where to go.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tonic::body::Body;

use super::page;
use crate::grpc::ServedBody;
use crate::http::host;

const PAGE: &str = "\
This is Herald, a game event service. It speaks gRPC and gRPC-web here.

  what there is     grpcurl -plaintext HOST list
  an action         grpcurl -plaintext -d '{\"player_id\":\"alice\",\"item_id\":\"sword\"}' HOST game.v1.GameService/PurchaseItem
  the live feed     grpcurl -plaintext HOST game.v1.EventFeedService/StreamEvents
  in plain HTTP     curl http://HOST/openapi.json

Health and metrics are on the admin address.
";

/// Whether a request that is no plain gRPC is gRPC-web, or gRPC over HTTP/1.1, which is told so.
pub(super) fn is_grpc_web<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The answer to a request that nobody else serves.
pub(super) fn answer<B>(request: &Request<B>) -> Response<ServedBody> {
    if let Some(page) = page::answer(request) {
        return page;
    }
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/") => {
            let host = Some(host(request.headers(), request.uri())).filter(|host| !host.is_empty());
            (StatusCode::OK, PAGE.replace("HOST", host.unwrap_or("127.0.0.1:50051")))
        }
        (&Method::POST, _) => (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the content type has to be application/json, or application/grpc\n".to_owned(),
        ),
        _ => (StatusCode::NOT_FOUND, "nothing is here; GET / says what there is\n".to_owned()),
    };
    plain(status, text)
}

fn plain(status: StatusCode, text: String) -> Response<ServedBody> {
    let body = Body::new(Full::new(Bytes::from(text)));
    let mut response = Response::new(ServedBody::unwatched(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
