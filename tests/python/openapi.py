"""Calls operations of the OpenAPI document, and compares their answers with what it says."""

import json
import urllib.error
import urllib.parse
import urllib.request

from openapi_schema_validator import OAS30Validator, oas30_format_checker

SECONDS = 60
JSON = "application/json"


def load(server):
    """The document of a server."""
    with urllib.request.urlopen(f"{server.url}/openapi.json", timeout=SECONDS) as answer:
        return json.load(answer)


def operations(document):
    """Path, method and operation by operationId."""
    return {
        operation["operationId"]: (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def closed(schema):
    """A schema without room for members that it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        inner["additionalProperties"] = False
    return inner


def check(document, response, content_type, body):
    """Fails unless an answer is as one of the document's responses says."""
    kind = content_type.split(";")[0]
    assert kind in response["content"], f"{kind} is not among {list(response['content'])}"
    value = json.loads(body) if kind.endswith(("/json", "+json")) else body
    schema = {**response["content"][kind]["schema"], "components": document["components"]}
    OAS30Validator(closed(schema), format_checker=oas30_format_checker).validate(value)
    return value


class Api:
    """A server, called by what its document says."""

    def __init__(self, server):
        self._server = server
        self.document = load(server)
        self.operations = operations(self.document)
        self.called = set()

    def call(self, operation_id, body=None, status=200, accept=JSON, **parameters):
        """The answer of an operation, once it is as the document says; parameters go by name."""
        self.called.add(operation_id)
        path, method, operation = self.operations[operation_id]
        query, headers = {}, {"accept": accept}
        for parameter in operation["parameters"]:
            name = parameter["name"]
            value = parameters.pop(name.replace(".", "_").replace("-", "_").lower(), None)
            assert value is not None or not parameter["required"], name
            if value is None:
                continue
            if parameter["in"] == "path":
                path = path.replace(f"{{{name}}}", urllib.parse.quote(value, safe=""))
            else:
                {"query": query, "header": headers}[parameter["in"]][name] = value
        assert not parameters, f"{operation_id} has no {list(parameters)}"
        data = None
        if body is not None:
            assert JSON in operation["requestBody"]["content"]
            headers["content-type"] = JSON
            data = json.dumps(body).encode()
        url = f"{self._server.url}{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, data, headers, method=method.upper())
        try:
            answer = urllib.request.urlopen(request, timeout=SECONDS)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            text = answer.read().decode()
        assert answer.status == status, text
        response = operation["responses"][str(status)]
        return check(self.document, response, answer.headers["content-type"], text)
