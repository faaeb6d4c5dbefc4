//! The OpenAPI document, and whether the server checks what it tells.

use serde_json::{Map, Value, json};

use crate::harness::{TestServer, ask};

const JSON: &str = "content-type: application/json\r\n";
const PATH: &str = "/openapi.json";

/// What the catalogue and the player's possessions have against a value, which no schema can
/// know.
const BEYOND_SHAPE: [&str; 4] =
    ["not in the catalogue", "more than the player has", "the player is not in it", "not among"];

async fn document(server: &TestServer) -> Value {
    let answer = ask(server, "GET", PATH, "", b"").await;
    assert_eq!(answer.status, 200);
    answer.json()
}

#[tokio::test]
async fn the_document_is_served_and_not_kept_for_long() {
    let server = TestServer::start(&[]).await;
    let answer = ask(&server, "GET", PATH, "", b"").await;
    for line in ["content-type: application/json", "cache-control: no-cache"] {
        assert!(answer.head.contains(line), "{}", answer.head);
    }
    let document = answer.json();
    assert_eq!(document["openapi"], "3.0.3");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["servers"], json!([{ "url": "/" }]));
    let head = ask(&server, "HEAD", PATH, "", b"").await;
    assert!(head.status == 200 && head.body.is_empty());
    assert!(ask(&server, "POST", PATH, JSON, b"{}").await.status.is_client_error());
}

/// One field of a request: where it is, as in JSON and as in violations, and its schema.
struct Field {
    path: Vec<String>,
    name: String,
    is_required: bool,
    schema: Value,
}

/// What a reference leads to; the same when it is none.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let schema = schema["allOf"].get(0).unwrap_or(schema);
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap(),
        None => schema,
    }
}

fn fields(document: &Value, schema: &Value, path: &[String]) -> Vec<Field> {
    let mut found = Vec::new();
    for (name, schema_of) in schema["properties"].as_object().unwrap() {
        let path = [path, std::slice::from_ref(name)].concat();
        let inner = resolved(document, schema_of);
        if inner.get("properties").is_some() {
            found.extend(fields(document, inner, &path));
            continue;
        }
        let snake = |name: &String| {
            let parts = name.split(char::is_uppercase);
            let capitals =
                name.matches(char::is_uppercase).map(|c| format!("_{}", c.to_lowercase()));
            let capitals = std::iter::once(String::new()).chain(capitals);
            capitals.zip(parts).map(|(capital, rest)| capital + rest).collect::<String>()
        };
        let required = schema["required"].as_array().into_iter().flatten();
        found.push(Field {
            name: path.iter().map(snake).collect::<Vec<_>>().join("."),
            is_required: required.into_iter().any(|it| it == name),
            path,
            schema: inner.clone(),
        });
    }
    found
}

impl Field {
    /// Values at the bounds that the schema tells, inside of them and beyond.
    fn values(&self) -> (Vec<Value>, Vec<Value>) {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        if let Some(max) = self.schema["maxLength"].as_u64() {
            let max = usize::try_from(max).unwrap();
            good.extend([json!("x".repeat(max)), json!("é".repeat(max / 2)), json!("x y")]);
            bad.extend([json!("x".repeat(max + 1)), json!("é".repeat(max / 2 + 1))]);
            bad.extend([json!(" x"), json!("x\n"), json!("\u{2028}"), json!("x\u{7f}x")]);
        }
        if self.schema["format"] == "uuid" {
            good.push(json!("6f1c1d2e-8a3b-4c5d-9e0f-1a2b3c4d5e6f"));
            bad.extend([json!("sword"), json!("6f1c1d2e-8a3b-4c5d-9e0f")]);
        }
        for (bound, beyond) in [("minimum", -1), ("maximum", 1)] {
            if let Some(bound) = self.schema[bound].as_i64() {
                good.push(json!(bound));
                bad.push(json!(bound + beyond));
            }
        }
        if let Some(max) = self.schema["maxItems"].as_u64() {
            let one = self.schema["items"]["enum"].get(0).cloned().unwrap_or(json!("x"));
            let many = |count: u64| json!(vec![one.clone(); usize::try_from(count).unwrap()]);
            good.push(many(max));
            bad.extend([many(max + 1), json!([""])]);
            if self.schema["items"].get("enum").is_some() {
                bad.push(json!(["nothing"]));
            }
        }
        if self.is_required {
            bad.extend([json!(""), Value::Null]);
        }
        (good, bad)
    }

    fn put(&self, request: &mut Value, value: Value) {
        let (last, path) = self.path.split_last().unwrap();
        let mut object = request;
        for name in path {
            object = &mut object[name];
            if object.is_null() {
                *object = Value::Object(Map::new());
            }
        }
        object[last] = value;
    }
}

#[tokio::test]
async fn what_is_told_of_a_field_is_what_is_checked() {
    let server = TestServer::start(&[]).await;
    let document = document(&server).await;
    let mut checked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let body = &methods["post"]["requestBody"];
        // Those of the routes are the same.
        if body["required"] != true {
            continue;
        }
        let schema = &body["content"]["application/json"]["schema"];
        let fields = fields(&document, resolved(&document, schema), &[]);
        let mut least = json!({});
        for field in fields.iter().filter(|field| field.is_required) {
            field.put(&mut least, field.values().0.pop().unwrap());
        }
        if path.ends_with("PollEvents") {
            least["maxWait"] = json!("0s");
        }
        for field in &fields {
            let (good, bad) = field.values();
            let good = good.into_iter().map(|value| (value, true));
            for (value, is_good) in good.chain(bad.into_iter().map(|value| (value, false))) {
                let mut request = least.clone();
                field.put(&mut request, value);
                let text = request.to_string();
                let answer = ask(&server, "POST", path, JSON, text.as_bytes()).await;
                let found = if answer.status == 400 {
                    answer.detail("google.rpc.BadRequest")["fieldViolations"].clone()
                } else {
                    Value::Null
                };
                let found = found.as_array().into_iter().flatten();
                let about = found.into_iter().filter(|it| it["field"] == *field.name);
                let shape = about.filter(|it| {
                    let said = it["description"].as_str().unwrap();
                    BEYOND_SHAPE.iter().all(|beyond| !said.starts_with(beyond))
                });
                assert_eq!(shape.count() == 0, is_good, "{path} {text}: {}", answer.json());
                checked += 1;
            }
        }
    }
    assert!(checked > 200, "only {checked}: the document has lost its bounds");
}
