//! Routes for people with curl, by one small table.
//!
//! The fields of a call come from the path, from the query and from a JSON body, each from one
//! of them; which there are, the schema says. Who accepts `text/plain` is answered in one
//! sentence.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_ENCODING, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};
use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _};
use serde_json::{Map, Value};

use super::words::{self, Words};
use super::{Answer, Call, Inner, Status, accept, body, content_type, problem, query, schema};
use crate::proto;

/// What is below belongs to the routes.
const PREFIX: &str = "/v1/";

/// A request id, where clients and proxies expect it.
/// Source: <https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The field that it is.
pub(super) const REQUEST_ID: &str = "request_id";

/// One route: a method and a path, whose parts in braces are fields of the call.
pub(super) struct Route {
    pub method: Method,
    pub path: &'static str,
    pub call: &'static str,
    says: Words,
}

const fn route(method: Method, path: &'static str, call: &'static str, says: Words) -> Route {
    Route { method, path, call, says }
}

const SESSIONS: &str = "/v1/players/{player_id}/sessions";
const PURCHASES: &str = "/v1/players/{player_id}/purchases";
const GUILD: &str = "/v1/players/{player_id}/guild";
const PLAYER: &str = "/v1/players/{player_id}";
const CATALOG: &str = "/v1/catalog";

/// GET never writes.
pub(super) static ROUTES: [Route; 6] = [
    route(Method::POST, SESSIONS, "/game.v1.GameService/StartSession", words::session),
    route(Method::POST, PURCHASES, "/game.v1.GameService/PurchaseItem", words::purchase),
    route(Method::POST, GUILD, "/game.v1.GameService/JoinGuild", words::joined),
    route(Method::DELETE, GUILD, "/game.v1.GameService/LeaveGuild", words::left),
    route(Method::GET, PLAYER, "/game.v1.GameService/GetPlayer", words::player),
    route(Method::GET, CATALOG, "/game.v1.GameService/GetCatalog", words::catalog),
];

impl Route {
    fn serves(&self, method: &Method) -> bool {
        self.method == *method || (self.method == Method::GET && method == Method::HEAD)
    }
}

/// Whether a request is for the routes.
pub(super) fn takes<B>(request: &Request<B>) -> bool {
    request.uri().path().starts_with(PREFIX)
}

/// Serves a request that was taken.
pub(super) async fn serve<B>(inner: &Inner, request: Request<B>) -> Answer
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let as_text = wants_text(request.headers());
    let needs_draining = body::needs_draining(&request);
    let (head, mut body) = request.into_parts();
    let (path, extensions) = (head.uri.path().to_owned(), head.extensions.clone());
    let asked_for = call_of(&head.method, &path).to_owned();
    let status = match asked(inner, head, &mut body).await {
        Ok(asked) => match call(inner, asked, as_text).await {
            Ok(answer) => return answer,
            Err(status) => status,
        },
        Err(status) => {
            inner.calls.refused(&asked_for, &extensions, &status);
            if needs_draining {
                body::drain(&mut body).await;
            }
            status
        }
    };
    let mut answer = problem::problem(&status, as_text);
    if answer.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = HeaderValue::try_from(allowed(&path)).ok();
        answer.headers_mut().extend(allowed.map(|allowed| (ALLOW, allowed)));
    }
    answer
}

/// The call that a request is for; its path when there is no such route.
pub(super) fn call_of<'a>(method: &Method, path: &'a str) -> &'a str {
    let served = routes(path).find(|(route, _)| route.serves(method));
    served.map_or(path, |(route, _)| route.call)
}

/// The route of a request, with the fields in its path.
fn find(method: &Method, path: &str) -> Result<(&'static Route, Fields), Status> {
    let mut found = routes(path).peekable();
    if found.peek().is_none() {
        return Err(Status::unknown_method("there is no such route"));
    }
    let served = found.find(|(route, _)| route.serves(method));
    let (route, fields) = served.ok_or_else(|| Status::wrong_method(&allowed(path)))?;
    Ok((route, fields?))
}

/// The routes of a path, whatever the method, with the fields in it.
fn routes(path: &str) -> impl Iterator<Item = (&'static Route, Result<Fields, Status>)> {
    ROUTES.iter().filter_map(move |route| Some((route, fields_of_path(route.path, path)?)))
}

/// The methods of HTTP for a path.
fn allowed(path: &str) -> String {
    let methods = routes(path).map(|(route, _)| match route.method {
        Method::GET => "GET, HEAD",
        Method::DELETE => "DELETE",
        _ => "POST",
    });
    methods.collect::<Vec<_>>().join(", ")
}

/// Fields by their names, as texts.
pub(super) type Fields = Vec<(String, String)>;

/// A call as it was asked for.
struct Asked {
    route: &'static Route,
    call: Call,
    output: MessageDescriptor,
}

async fn asked<B>(inner: &Inner, head: Parts, body: &mut B) -> Result<Asked, Status>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let (route, mut fields) = find(&head.method, head.uri.path())?;
    fields.extend(query::pairs(head.uri.query())?);
    let method = inner.schema.method(route.call);
    let method = method.ok_or_else(|| Status::unknown_method("there is no such call"))?;
    let body = if schema::only_reads(&method) {
        Bytes::new()
    } else {
        fields.extend(idempotency_key(&head.headers)?);
        let body = body::read(body, inner.max_message_bytes).await?;
        check_type(&head.headers, &body)?;
        body
    };
    let message = message(method.input(), &fields, &body)?.encode_to_vec().into();
    let (path, came_by) = (route.call.to_owned(), proto::Transport::Http);
    let call = Call { path, head, message, timeout: None, came_by };
    Ok(Asked { route, call, output: method.output() })
}

async fn call(inner: &Inner, asked: Asked, as_text: bool) -> Result<Answer, Status> {
    let Asked { route, call, output } = asked;
    let message = call.message.clone();
    let answered = inner.calls.call(call).await?;
    Ok(if as_text {
        let said = (route.says)(&message, &answered).map_err(|_| Status::unreadable())?;
        problem::text(&said)
    } else {
        problem::success("application/json", schema::to_json(output, answered)?)
    })
}

/// The fields in a path; none when it is another one.
fn fields_of_path(pattern: &str, path: &str) -> Option<Result<Fields, Status>> {
    let (expected, parts) = (pattern.split('/'), path.split('/'));
    if expected.clone().count() != parts.clone().count() {
        return None;
    }
    let mut fields = Fields::new();
    let mut wrong = None;
    for (expected, part) in expected.zip(parts) {
        let name = expected.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
        match (name, query::unescaped(part)) {
            (None, _) if expected == part => {}
            (None, _) => return None,
            (Some(name), Some(value)) => fields.push((name.to_owned(), value)),
            (Some(name), None) => wrong = Some(Status::malformed_field(name, "is not UTF-8")),
        }
    }
    Some(wrong.map_or(Ok(fields), Err))
}

/// The names of the fields in a path of the table.
pub(super) fn names_in_path(pattern: &str) -> Vec<String> {
    let fields = fields_of_path(pattern, pattern).and_then(Result::ok).unwrap_or_default();
    fields.into_iter().map(|(name, _)| name).collect()
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<(String, String)>, Status> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = key.to_str().map_err(|_| Status::malformed("idempotency-key is not a UUID"))?;
    // The draft has it in quotes; hardly anybody writes them.
    Ok(Some((REQUEST_ID.to_owned(), key.trim_matches('"').to_owned())))
}

/// A body is JSON, or there is none: what `curl -d ''` says of an empty one does not matter.
fn check_type(headers: &HeaderMap, body: &[u8]) -> Result<(), Status> {
    if body.is_empty() {
        return Ok(());
    }
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Status::compressed());
    }
    let named = content_type(headers);
    if named == "application/json" {
        return Ok(());
    }
    let known = "application/json, if fields are not query parameters";
    Err(Status::wrong_type(&named, known))
}

/// The message of a call.
pub(super) fn message(
    of: MessageDescriptor,
    fields: &Fields,
    body: &[u8],
) -> Result<DynamicMessage, Status> {
    let mut whole = match body {
        [] => DynamicMessage::new(of.clone()),
        json => schema::from_json(of.clone(), json)?,
    };
    let mut named = Map::new();
    for (name, text) in fields {
        put(&of, &mut named, name, text).map_err(|why| Status::malformed_field(name, why))?;
    }
    let named = schema::from_value(of, Value::Object(named))?;
    if let Some(field) = in_both(&whole, &named) {
        return Err(Status::malformed_field(&field, TWICE));
    }
    whole.merge(&*named.encode_to_vec()).map_err(|_| Status::unreadable())?;
    Ok(whole)
}

const TWICE: &str = "is given twice: path, query, body and idempotency-key have to agree on one";

/// Puts a field, by either of its names, into an object: of a message in a message, by both
/// names with a dot between them.
fn put(
    of: &MessageDescriptor,
    object: &mut Map<String, Value>,
    name: &str,
    text: &str,
) -> Result<(), &'static str> {
    let (first, rest) = name.split_once('.').map_or((name, None), |(a, b)| (a, Some(b)));
    let field = schema::field(of, first).ok_or("there is no such field")?;
    let key = field.name().to_owned();
    if let Some(rest) = rest {
        let kind = field.kind();
        let inner = kind.as_message().filter(|_| !field.is_list() && !field.is_map());
        let inner = inner.ok_or("there is no such field")?;
        let known = object.entry(key).or_insert_with(|| Value::Object(Map::new()));
        return put(inner, known.as_object_mut().ok_or(TWICE)?, rest, text);
    }
    let value = match (field.kind(), text.parse()) {
        (Kind::Bool, Ok(value)) => Value::Bool(value),
        _ => Value::String(text.to_owned()),
    };
    match object.get_mut(&key) {
        None if field.is_list() => drop(object.insert(key, Value::Array(vec![value]))),
        None => drop(object.insert(key, value)),
        Some(Value::Array(values)) => values.push(value),
        Some(_) => return Err(TWICE),
    }
    Ok(())
}

/// A field that two messages of one type both have.
fn in_both(one: &DynamicMessage, other: &DynamicMessage) -> Option<String> {
    other.fields().find_map(|(field, value)| {
        if !one.has_field(&field) {
            return None;
        }
        let known = one.get_field(&field);
        match (known.as_message(), value.as_message()) {
            (Some(known), Some(value)) if !is_one_value(&value.descriptor()) => {
                in_both(known, value).map(|inner| format!("{}.{inner}", field.name()))
            }
            _ => Some(field.name().to_owned()),
        }
    })
}

/// Whether JSON writes a message of this type as one value.
pub(super) fn is_one_value(of: &MessageDescriptor) -> bool {
    of.package_name() == "google.protobuf"
}

/// Whether a caller would rather read a sentence than JSON. One that names neither has JSON,
/// and so has one that names both alike, as some libraries do unasked.
pub(super) fn wants_text(headers: &HeaderMap) -> bool {
    let (mut text, mut json, mut any) = (0.0, 0.0, 0.0);
    for (name, quality) in accept::ranges(headers) {
        match name.as_str() {
            "text/plain" | "text/*" => text = quality.max(text),
            "application/json" | "application/problem+json" => json = quality.max(json),
            "*/*" | "application/*" => any = quality.max(any),
            _ => {}
        }
    }
    text > json && text >= any
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;
    use crate::http::Schema;
    use crate::proto::{ClientContext, PurchaseItemRequest};

    #[test]
    fn each_route_is_a_call_with_its_fields_and_get_never_writes() {
        let schema = Schema::build(&[]).unwrap();
        for route in &ROUTES {
            let method = schema.method(route.call).unwrap();
            assert_eq!(schema::only_reads(&method), route.method == Method::GET, "{}", route.call);
            assert!(route.path.starts_with(PREFIX));
            for name in names_in_path(route.path) {
                assert!(method.input().get_field_by_name(&name).is_some(), "{}", route.path);
            }
        }
    }

    #[test]
    fn a_path_is_taken_apart() {
        let fields = |path| fields_of_path(PURCHASES, path);
        let player = |name: &str| vec![("player_id".to_owned(), name.to_owned())];
        assert_eq!(fields("/v1/players/a%2Fb%20+c/purchases").unwrap().unwrap(), player("a/b +c"));
        assert_eq!(fields("/v1/players//purchases").unwrap().unwrap(), player(""));
        assert!(fields("/v1/players/%ff/purchases").unwrap().is_err());
        for other in ["/v1/players/a", "/v1/players/a/b/purchases", "/v1/players/a/guild", "/v1/"] {
            assert!(fields(other).is_none(), "{other}");
        }
    }

    fn purchase(fields: &str, body: &str) -> Result<PurchaseItemRequest, String> {
        let schema = Schema::build(&[]).unwrap();
        let of = schema.method("/game.v1.GameService/PurchaseItem").unwrap().input();
        let message = message(of, &query::pairs(Some(fields)).unwrap(), body.as_bytes());
        let message = message.map_err(|status| status.message)?;
        Ok(PurchaseItemRequest::decode(&*message.encode_to_vec()).unwrap())
    }

    #[test]
    fn fields_come_from_query_and_body_by_either_name() {
        let platform = "android".to_owned();
        let context = ClientContext { platform, session_id: "s".into(), ..Default::default() };
        let expected = PurchaseItemRequest {
            player_id: "alice".into(),
            item_id: "sword".into(),
            quantity: Some(2),
            validate_only: true,
            client_context: Some(context),
            ..Default::default()
        };
        for (fields, body) in [
            (
                "player_id=alice&itemId=sword&quantity=2&validateOnly=true\
                 &client_context.platform=android&clientContext.session_id=s",
                "",
            ),
            (
                "player_id=alice&client_context.platform=android",
                r#"{"item_id":"sword","quantity":2,"validateOnly":true,
                    "clientContext":{"sessionId":"s"}}"#,
            ),
        ] {
            assert_eq!(purchase(fields, body).unwrap(), expected, "{fields}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_field_is_said_with_its_name() {
        for (fields, body, says) in [
            ("item=sword", "", "item: there is no such field"),
            ("item_id.x=sword", "", "item_id.x: there is no such field"),
            ("client_context.x=1", "", "client_context.x: there is no such field"),
            ("client_context=x", "", "client_context: invalid type"),
            ("quantity=two", "", "quantity: invalid digit"),
            ("validate_only=yes", "", "validate_only: invalid type"),
            ("client_context.client_time=noon", "", "client_context.client_time: "),
            ("item_id=a&itemId=b", "", "itemId: is given twice"),
            ("item_id=a", r#"{"itemId":"b"}"#, "item_id: is given twice"),
            (
                "client_context.platform=a",
                r#"{"clientContext":{"platform":"b"}}"#,
                "client_context.platform: is given twice",
            ),
            ("", "{", "EOF while parsing"),
        ] {
            let message = purchase(fields, body).unwrap_err();
            assert!(message.contains(says), "{fields} {body}: {message}");
        }
    }

    #[test]
    fn a_sentence_is_for_who_would_rather_read_one() {
        for (accept, text) in [
            ("text/plain", true),
            ("text/plain, */*", true),
            ("application/json;q=0.5, text/plain", true),
            ("Text/Plain; q=0.9; charset=utf-8, */*;q=0.1", true),
            ("*/*", false),
            ("", false),
            ("application/json, text/plain, */*", false),
            ("text/html,application/xhtml+xml,*/*;q=0.8", false),
            ("text/plain;q=0.5, */*", false),
            ("text/plain;q=0", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(wants_text(&headers), text, "{accept}");
        }
        assert!(!wants_text(&HeaderMap::new()));
    }
}
