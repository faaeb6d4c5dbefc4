//! The OpenAPI document: the routes, and the calls of the Connect protocol in JSON.
//!
//! It is made of what serves them, the table of routes and the schema, so that it cannot say
//! something else. What it tells in words are the comments of the schema; what a field has to
//! be, the rooms that check it say.
//!
//! It is of version 3.0, and not of 3.1, which some generators of clients do not read; nothing
//! would be said in 3.1 that is not said so.

mod comments;
mod errors;
mod messages;

use std::sync::OnceLock;

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{Method, Request, StatusCode};
use prost_reflect::{MethodDescriptor, ServiceDescriptor};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{Answer, Schema, connect, events, problem, rest, schema};
use messages::{Messages, Parameter};

/// Where it is.
const PATH: &str = "/openapi.json";

/// The package whose calls are in it; those of health checks are not.
const PACKAGE: &str = "game.v1";

const ABOUT: &str = "\
The actions of players, written to a durable log, and the log as a feed.

Each call comes in two forms. The routes below `/v1/` are for people and scripts: what is not in
the path is a query parameter or a member of the JSON body, each field once, and who accepts
`text/plain` is answered in one sentence. The paths with the name of a service are the calls of
the [Connect protocol](https://connectrpc.com) in JSON; its clients also send protobuf, and ask by
GET what only reads.

JSON is that of protobuf. Numbers of 64 bits are texts, and an answer leaves out what has its
default: 0, `false`, an empty text or list. Answers may get new members; a member of a request
that is not known is refused. Also read are members in `snake_case`, parameters in `camelCase`,
`null` for what is left out, and numbers as texts. Lengths are bounded in bytes of UTF-8, so that
`maxLength` is the bound of a text in ASCII.

Programs decide on the `reason` of an error, which stays; its text may change. The same action
with the same request id is carried out once, however often it is sent.
";

/// What can succeed later, as it is; where the server knows when, it says so.
const RETRIED: [u16; 3] = [409, 429, 503];

/// What is answered to pages that may not call.
const FOREIGN: StatusCode = StatusCode::FORBIDDEN;
const FOREIGN_PAGE: &str =
    "A page of another origin that may not call, or a host that is not known.";

/// Whether a request is for the document.
pub(super) fn takes<B>(request: &Request<B>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && request.uri().path() == PATH
}

/// The document. It is made once a process, when somebody asks for it.
pub(super) fn serve(schema: &Schema) -> Answer {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let made = || serde_json::to_vec(&document(schema)).unwrap_or_default().into();
    let mut answer = problem::success("application/json", DOCUMENT.get_or_init(made).clone());
    super::set(&mut answer, CACHE_CONTROL, "no-cache");
    answer
}

/// The JSON Schema, draft 2020-12, of a message that Herald writes as JSON; none where there is
/// no such message. What it says of the message is what the document says.
pub fn json_schema(schema: &Schema, name: &str) -> Option<Value> {
    let message = schema.message(name)?;
    let mut messages = Messages::new("#/$defs/", std::iter::empty());
    messages.message(&message);
    let mut schemas = messages.into_schemas();
    // At the top itself, as readers expect that does not follow references. No message of the
    // schema contains itself.
    let mut root = schemas.remove(message.name())?;
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!(message.name());
    root["$defs"] = json!(schemas);
    Some(root)
}

#[derive(Serialize)]
struct Document {
    openapi: &'static str,
    info: Value,
    servers: Value,
    tags: Vec<Value>,
    paths: Paths,
    components: Value,
}

/// Operations by path and method: the routes first, as people want those.
#[derive(Default)]
struct Paths(Vec<(String, Map<String, Value>)>);

impl Paths {
    fn add(&mut self, path: &str, method: &Method, operation: Value) {
        let method = method.as_str().to_ascii_lowercase();
        match self.0.iter_mut().find(|(known, _)| known == path) {
            Some((_, methods)) => drop(methods.insert(method, operation)),
            None => self.0.push((path.to_owned(), Map::from_iter([(method, operation)]))),
        }
    }
}

impl Serialize for Paths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(path, methods)| (path, methods)))
    }
}

fn document(schema: &Schema) -> Document {
    let services: Vec<_> = schema.services(PACKAGE).collect();
    let calls = services.iter().flat_map(ServiceDescriptor::methods);
    let calls: Vec<_> = calls.filter(|call| !connect::streams(call)).collect();
    let feed = schema.method(events::CALL);
    let sent = calls.iter().chain(&feed).map(MethodDescriptor::input);
    let mut messages = Messages::new("#/components/schemas/", sent);
    let mut paths = Paths::default();
    for route in &rest::ROUTES {
        if let Some(call) = schema.method(route.call) {
            paths.add(route.path, &route.method, of_route(route, &call, &mut messages));
        }
    }
    if let Some(feed) = &feed {
        paths.add(events::PATH, &Method::GET, of_feed(feed, &mut messages));
    }
    for call in &calls {
        let path = format!("/{}/{}", call.parent_service().full_name(), call.name());
        paths.add(&path, &Method::POST, of_connect(call, &mut messages));
    }
    let tags = services.iter().map(
        |service| json!({ "name": service.name(), "description": comments::of_service(service) }),
    );
    Document {
        openapi: "3.0.3",
        info: json!({
            "title": "Herald",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {
                "name": env!("CARGO_PKG_LICENSE"),
                "url": "https://www.apache.org/licenses/LICENSE-2.0",
            },
        }),
        servers: json!([{ "url": "/" }]),
        tags: tags.collect(),
        paths,
        components: json!({ "schemas": messages.into_schemas() }),
    }
}

/// The operation of a route.
fn of_route(route: &rest::Route, call: &MethodDescriptor, messages: &mut Messages) -> Value {
    let has_body = route.method == Method::POST;
    let path = rest::names_in_path(route.path);
    let input = call.input();
    let fields = messages.parameters(&input).into_iter();
    let (in_path, others): (Vec<_>, Vec<_>) = fields.partition(|it| path.contains(&it.name));
    let mut parameters: Vec<_> = in_path.into_iter().map(|it| it.at("path", true)).collect();
    parameters.extend(others.into_iter().map(|it| {
        // Where there is a body, that may have it.
        let must_be_sent = it.must_be_sent && !has_body;
        it.at("query", must_be_sent)
    }));
    if !schema::only_reads(call) {
        parameters.extend(idempotency_key(messages, call));
    }
    let body = has_body.then(|| {
        let body = messages.body(&format!("{}Body", call.name()), &input, &path);
        json!({ "content": { "application/json": { "schema": body } } })
    });
    let problem = messages.named("Problem", |_| problem::problem_schema());
    Operation {
        id: id(call),
        call,
        parameters,
        body,
        success: json!({
            "application/json": { "schema": messages.message(&call.output()) },
            "text/plain": text(),
        }),
        failure: json!({ "application/problem+json": { "schema": problem }, "text/plain": text() }),
    }
    .into_json()
}

/// The header that is the request id of an action.
fn idempotency_key(messages: &mut Messages, call: &MethodDescriptor) -> Option<Value> {
    let parameters = messages.parameters(&call.input());
    let key = parameters.into_iter().find(|parameter| parameter.name == rest::REQUEST_ID)?;
    let description = format!("The same as `{}`. {}", key.name, key.description);
    let name = "Idempotency-Key".to_owned();
    Some(Parameter { name, description, ..key }.at("header", false))
}

/// The operation of the feed, whose answer goes on.
fn of_feed(call: &MethodDescriptor, messages: &mut Messages) -> Value {
    let text_parameter = |name: &str, description: &str| Parameter {
        name: name.to_owned(),
        description: description.to_owned(),
        schema: json!({ "type": "string" }),
        must_be_sent: false,
    };
    let start = text_parameter("start", &format!("Where to start: {}.", events::START_FORMS));
    let fields = messages.parameters(&call.input()).into_iter().map(|mut field| {
        let short = events::SHORT_NAMES.iter().find(|(_, full)| *full == field.name);
        field.name = short.map_or(field.name, |(short, _)| (*short).to_owned());
        field
    });
    let mut parameters: Vec<_> =
        std::iter::once(start).chain(fields).map(|it| it.at("query", false)).collect();
    let resumes = "The cursor behind what was seen, which wins over every start in the query.";
    parameters.push(text_parameter("Last-Event-ID", resumes).at("header", false));
    let problem = messages.named("Problem", |_| problem::problem_schema());
    let failure =
        json!({ "application/problem+json": { "schema": problem }, "text/plain": text() });
    let types = events::TYPES.iter().map(|it| ((*it).to_owned(), text()));
    let mut operation = Operation {
        id: id(call),
        call,
        parameters,
        body: None,
        success: Value::Object(types.collect()),
        failure: failure.clone(),
    }
    .into_json();
    let refused = format!("{}: `ACCEPT_UNSUPPORTED`.", phrase(406));
    operation["responses"]["406"] = json!({ "description": refused, "content": failure });
    operation
}

/// The operation of a call by the Connect protocol.
fn of_connect(call: &MethodDescriptor, messages: &mut Messages) -> Value {
    let failed = messages.named("ConnectError", |_| problem::connect_schema());
    let body = json!({ "schema": messages.message(&call.input()) });
    Operation {
        id: format!("Connect_{}", id(call)),
        call,
        parameters: Vec::new(),
        body: Some(json!({ "required": true, "content": { "application/json": body } })),
        success: json!({ "application/json": { "schema": messages.message(&call.output()) } }),
        failure: json!({ "application/json": { "schema": failed } }),
    }
    .into_json()
}

/// A call in one of its forms.
struct Operation<'a> {
    /// Generators name what they make after it.
    id: String,
    call: &'a MethodDescriptor,
    parameters: Vec<Value>,
    body: Option<Value>,
    /// What is answered, by its type.
    success: Value,
    /// The same for every error of the call.
    failure: Value,
}

impl Operation<'_> {
    fn into_json(self) -> Value {
        let said = comments::of_method(self.call);
        let mut responses = self.errors();
        let answered = comments::of_message(&self.call.output());
        responses.insert("200".into(), json!({ "description": answered, "content": self.success }));
        let mut operation = json!({
            "operationId": self.id,
            "tags": [self.call.parent_service().name()],
            "summary": comments::summary(&said),
            "description": said,
            "parameters": self.parameters,
            "responses": responses,
        });
        if let Some(body) = self.body {
            operation["requestBody"] = body;
        }
        operation
    }

    /// What is answered to what fails, by HTTP's code.
    fn errors(&self) -> Map<String, Value> {
        let mut responses = Map::new();
        for (code, reasons) in errors::of(self.call, self.body.is_some()) {
            let reasons: Vec<_> = reasons.iter().map(|reason| format!("`{reason}`")).collect();
            let description = format!("{}: {}.", phrase(code), reasons.join(", "));
            let mut response = json!({ "description": description, "content": self.failure });
            if RETRIED.contains(&code) {
                response["headers"] = retry_after();
            }
            responses.insert(code.to_string(), response);
        }
        let foreign = responses.entry(FOREIGN.as_str()).or_insert_with(|| json!({}));
        foreign["description"] = json!(match foreign["description"].as_str() {
            Some(reasons) => format!("{reasons} {FOREIGN_PAGE}"),
            None => format!("{}. {FOREIGN_PAGE}", phrase(FOREIGN.as_u16())),
        });
        foreign["content"] = self.failure.clone();
        responses
    }
}

impl Parameter {
    fn at(self, place: &str, required: bool) -> Value {
        json!({
            "name": self.name,
            "in": place,
            "required": required,
            "description": self.description,
            "schema": self.schema,
        })
    }
}

/// A sentence.
fn text() -> Value {
    json!({ "schema": { "type": "string" } })
}

fn phrase(code: u16) -> &'static str {
    StatusCode::from_u16(code).ok().and_then(|code| code.canonical_reason()).unwrap_or_default()
}

fn retry_after() -> Value {
    json!({ "Retry-After": {
        "description": "After how many seconds it is worth trying again, where that is known.",
        "schema": { "type": "integer", "minimum": 0 },
    } })
}

/// `GameService_PurchaseItem`, as is usual where a document is made of protobuf. With the name of
/// the call alone, what generators make of it would have the names of messages.
fn id(call: &MethodDescriptor) -> String {
    format!("{}_{}", call.parent_service().name(), call.name())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    fn made() -> Value {
        serde_json::to_value(document(&Schema::build(&[]).unwrap())).unwrap()
    }

    /// Method, path and operation.
    fn operations(document: &Value) -> Vec<(String, String, &Value)> {
        let paths = document["paths"].as_object().unwrap().iter();
        let operations = paths.flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().iter();
            methods.map(|(method, it)| (method.to_uppercase(), path.clone(), it))
        });
        operations.collect()
    }

    #[test]
    fn each_route_each_call_with_one_answer_and_the_feed_are_in_it_and_nothing_else() {
        let document = made();
        let found: BTreeSet<_> =
            operations(&document).into_iter().map(|(method, path, _)| (method, path)).collect();
        let routes = rest::ROUTES.iter().map(|it| (it.method.to_string(), it.path.to_owned()));
        let file = prost_types::FileDescriptorSet::decode(crate::proto::DESCRIPTORS).unwrap();
        let game = file.file.into_iter().find(|file| file.package() == PACKAGE).unwrap();
        let calls = game.service.iter().flat_map(|service| {
            let methods = service.method.iter().filter(|method| !method.server_streaming());
            methods.map(move |it| format!("/{PACKAGE}.{}/{}", service.name(), it.name()))
        });
        let calls = calls.map(|path| ("POST".to_owned(), path));
        let feed = ("GET".to_owned(), events::PATH.to_owned());
        assert_eq!(found, routes.chain(calls).chain([feed]).collect());
        let has = |call: &str| found.iter().any(|(_, path)| path.ends_with(call));
        assert!(has("/PollEvents") && !has("/StreamEvents") && !has("/Check"));
    }

    #[test]
    fn the_feed_has_its_short_names() {
        let document = made();
        let feed = &document["paths"][events::PATH]["get"];
        let names = feed["parameters"].as_array().unwrap().iter().map(|it| it["name"].as_str());
        let names: BTreeSet<_> = names.flatten().collect();
        for name in ["start", "type", "player", "guild", "max_events", "Last-Event-ID"] {
            assert!(names.contains(name), "{name}: {names:?}");
        }
        assert!(!names.iter().any(|name| name.starts_with("filter.")));
        let types = feed["responses"]["200"]["content"].as_object().unwrap();
        assert!(events::TYPES.iter().all(|it| types.contains_key(*it)), "{types:?}");
    }

    #[test]
    fn the_routes_come_first() {
        let text = serde_json::to_string(&document(&Schema::build(&[]).unwrap())).unwrap();
        let place = |path: &str| text.find(&format!("\"{path}\"")).unwrap();
        assert!(place("/v1/catalog") < place("/game.v1.GameService/StartSession"));
    }

    #[test]
    fn operations_have_names_of_their_own_and_parameters_for_their_paths() {
        let document = made();
        let mut ids = BTreeSet::new();
        for (method, path, operation) in operations(&document) {
            let id = operation["operationId"].as_str().unwrap();
            // Generators drop what is no letter, and change the case.
            assert!(ids.insert(id.replace('_', "").to_lowercase()), "{id}");
            let parameters = operation["parameters"].as_array().unwrap();
            let mut named = BTreeSet::new();
            for parameter in parameters {
                let name = (parameter["in"].to_string(), parameter["name"].to_string());
                assert!(named.insert(name), "{id}: {parameter}");
            }
            let in_path = parameters.iter().filter(|it| it["in"] == "path");
            let in_path = in_path.map(|it| it["name"].as_str().unwrap().to_owned());
            assert_eq!(in_path.collect::<Vec<_>>(), rest::names_in_path(&path), "{method} {path}");
        }
        let name = "gameservicepurchaseitem";
        assert!(ids.contains(name) && ids.contains(&format!("connect{name}")));
        // A client's types for requests and answers are called after the operation.
        let schemas = document["components"]["schemas"].as_object().unwrap().keys();
        let schemas = schemas.map(|name| name.to_lowercase());
        for name in schemas.filter(|name| !name.ends_with("body")) {
            let of = |end: &str| name.strip_suffix(end).is_some_and(|id| ids.contains(id));
            assert!(!of("request") && !of("response"), "{name}");
        }
    }

    #[test]
    fn all_that_is_named_is_there_and_described() {
        fn walk<'a>(at: &str, value: &'a Value, named: &mut BTreeSet<&'a str>) {
            for (key, inner) in value.as_object().into_iter().flatten() {
                if key == "$ref" {
                    named.insert(inner.as_str().unwrap());
                }
                if key == "description" && inner.is_string() {
                    let words = inner.as_str().unwrap();
                    assert!(words.len() > 3 && !words.contains("As in "), "{at}: {words:?}");
                }
                walk(&format!("{at}/{key}"), inner, named);
            }
            for (index, inner) in value.as_array().into_iter().flatten().enumerate() {
                walk(&format!("{at}/{index}"), inner, named);
            }
        }
        let document = made();
        let mut named = BTreeSet::new();
        walk("", &document, &mut named);
        let there = document["components"]["schemas"].as_object().unwrap().keys();
        let there: BTreeSet<_> = there.map(|key| format!("#/components/schemas/{key}")).collect();
        assert_eq!(named.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), there);
    }

    #[test]
    fn a_json_schema_holds_all_that_it_names_and_is_open_for_more() {
        let schema = json_schema(&Schema::build(&[]).unwrap(), "game.v1.DeliveredEvent").unwrap();
        assert_eq!(schema["properties"]["offset"]["type"], "string");
        let text = schema.to_string();
        let defined = schema["$defs"].as_object().unwrap();
        for name in text.split("\"#/$defs/").skip(1) {
            let name = name.split('"').next().unwrap();
            assert!(defined.contains_key(name), "{name}");
        }
        assert!(defined.contains_key("Origin") && defined.contains_key("PurchaseRefunded"));
        assert!(
            !text.contains("#/components/") && !text.contains("\"additionalProperties\":false")
        );
        assert_eq!(json_schema(&Schema::build(&[]).unwrap(), "game.v1.Nothing"), None);
    }

    #[test]
    fn json_is_that_of_protobuf_with_the_bounds_of_the_rooms() {
        let document = made();
        let schemas = &document["components"]["schemas"];
        let purchase = &schemas["PurchaseItemRequest"];
        assert_eq!(purchase["required"], json!(["playerId", "itemId"]));
        assert_eq!(purchase["additionalProperties"], false);
        let quantity = &purchase["properties"]["quantity"];
        assert_eq!((&quantity["type"], &quantity["maximum"]), (&json!("integer"), &json!(1000000)));
        assert_eq!(purchase["properties"]["itemId"]["maxLength"], 64);
        assert_eq!(purchase["properties"]["requestId"]["format"], "uuid");
        let body = &schemas["PurchaseItemBody"];
        assert!(body.get("required").is_none() && body["properties"].get("playerId").is_none());
        let receipt = &schemas["EventReceipt"]["properties"];
        assert_eq!(
            (&receipt["offset"]["type"], &receipt["offset"]["format"]),
            (&json!("string"), &json!("int64"))
        );
        assert_eq!(receipt["acceptTime"]["format"], "date-time");
        assert!(schemas["EventReceipt"].get("additionalProperties").is_none());
        let filter = &schemas["EventFilter"]["properties"];
        assert_eq!(filter["playerIds"]["maxItems"], 100);
        assert_eq!(filter["eventTypes"]["items"]["enum"][0], "session_started");
        assert_eq!(
            schemas["Origin"]["properties"]["headers"]["additionalProperties"]["type"],
            "string"
        );
        assert!(
            schemas["GapReason"]["description"]
                .as_str()
                .unwrap()
                .contains("* `GAP_REASON_RETENTION`: Retention")
        );
    }

    #[tokio::test]
    async fn it_is_made_once_and_has_a_sane_size() {
        use http_body_util::BodyExt as _;
        let schema = Schema::build(&[]).unwrap();
        let ask = async || serve(&schema).into_body().collect().await.unwrap().to_bytes();
        let (one, other) = (ask().await, ask().await);
        assert!(std::ptr::eq(one.as_ptr(), other.as_ptr()));
        assert!((10_000..150_000).contains(&one.len()), "{}", one.len());
    }
}
