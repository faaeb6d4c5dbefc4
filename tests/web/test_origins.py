"""What pages of somebody else can do with a server that a browser reaches, in a real browser."""

import contextlib
import http.server
import json
import threading

import pytest
from playwright.sync_api import expect

import running

ALICE = "/v1/players/alice"
PURCHASE = f"{ALICE}/purchases?item_id=sword"
GUILD = f"{ALICE}/guild?guild_id=owls"
BUY = {"body": '{"playerId": "alice", "itemId": "sword"}'}

# Paths and how they are asked for. The browser asks before those with a type of their own, and
# before DELETE.
CALLS = [
    (PURCHASE, {"method": "POST"}),
    (
        "/game.v1.GameService/PurchaseItem",
        {"method": "POST", "headers": {"content-type": "application/json"}, **BUY},
    ),
    (GUILD, {"method": "POST", "headers": {"idempotency-key": "key"}}),
    (GUILD, {"method": "POST"}),
    (GUILD, {"method": "DELETE"}),
    (ALICE, {"method": "GET"}),
    ("/v1/catalog", {"method": "POST"}),
]

# Status, text and a header of an answer, as far as the page may read them.
ASK = """
async ([url, options]) => {
  try {
    const answer = await fetch(url, options);
    return [answer.status, await answer.text(), answer.headers.get("allow")];
  } catch (error) {
    return error.name;
  }
}
"""

SUBMIT = """
(action) => {
  const form = Object.assign(document.createElement("form"), { method: "post", action });
  document.body.append(form);
  form.submit();
}
"""

FOLLOW = "(href) => Object.assign(document.createElement('a'), { href }).click()"


class Handler(http.server.BaseHTTPRequestHandler):
    """An empty page, whatever is asked for; it names itself to nobody when it is at /quiet."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/html")
        if self.path == "/quiet":
            self.send_header("referrer-policy", "no-referrer")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>a page of somebody else</title>")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def port():
    """Where somebody else's pages are, on this machine under whatever name."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield site.server_port
        site.shutdown()
        thread.join()


@contextlib.contextmanager
def opened(browser, url):
    with browser.tab() as page:
        page.goto(url)
        yield page


def ask(page, base, calls=CALLS):
    return [page.evaluate(ASK, [base + path, options]) for path, options in calls]


def event_types(server):
    return [line["event"]["eventType"] for line in running.whole_log(server.url)]


@pytest.mark.parametrize(
    "host, flags",
    [
        ("shop.example", []),
        ("shop.example", ["--cors=https://shop.example"]),
        ("localhost", []),
    ],
)
def test_a_page_that_is_not_listed_does_nothing(browser, folder, port, host, flags):
    with running.Server(folder, *flags) as server:
        with opened(browser, f"http://{host}:{port}/") as page:
            assert ask(page, server.url) == ["TypeError"] * len(CALLS)
        assert event_types(server) == []


@pytest.mark.parametrize("host, by", [("shop.example", "its origin"), ("localhost", "loopback")])
def test_a_page_that_may_call_reads_the_answers(browser, folder, port, host, by):
    origin = f"http://{host}:{port}"
    cors = f"--cors={origin if by == 'its origin' else by}"
    with running.Server(folder, cors) as server, opened(browser, origin) as page:
        answers = ask(page, server.url)
        codes = [code for code, _, _ in answers]
        assert codes == [200, 200, 400, 200, 200, 200, 405]
        said = [json.loads(text) for _, text, _ in answers]
        assert said[0]["purchase"]["itemId"] == "sword"
        assert said[2]["violations"][0]["field"] == "request_id"
        assert said[5]["player"]["playerId"] == "alice"
        assert answers[6][2] == "GET, HEAD"
        acted = [event for event in event_types(server) if event != "request_rejected"]
        assert acted == ["item_purchased", "item_purchased", "guild_joined", "guild_left"]


@pytest.mark.parametrize("path", ["/", "/quiet"])
def test_a_form_of_another_page_writes_nothing(browser, folder, port, path):
    with running.Server(folder) as server:
        with opened(browser, f"http://shop.example:{port}{path}") as page:
            with page.expect_navigation() as navigation:
                page.evaluate(SUBMIT, server.url + PURCHASE)
            assert navigation.value.status == 403
            expect(page.locator("body")).to_contain_text("ORIGIN_DENIED")
        assert event_types(server) == []


def test_a_link_of_another_page_can_be_followed(browser, folder, port):
    with running.Server(folder) as server:
        with opened(browser, f"http://shop.example:{port}/") as page:
            with page.expect_navigation() as navigation:
                page.evaluate(FOLLOW, f"{server.url}/v1/catalog")
            assert navigation.value.status == 200
            expect(page.locator("body")).to_contain_text("currencyCode")


def test_a_name_that_was_made_to_lead_here_gets_nothing(browser, folder):
    with running.Server(folder) as server:
        # To the browser, all of this is one origin.
        base = server.url.replace("127.0.0.1", "evil.example")
        with browser.tab() as page:
            assert page.goto(base).status == 403
            expect(page.locator("body")).to_contain_text("--allowed-hosts")
            assert {code for code, _, _ in ask(page, base)} == {403}
        assert event_types(server) == []


def test_the_page_works_under_a_name_that_is_listed(browser, folder):
    with running.Server(folder, "--allowed-hosts=events.example") as server:
        with browser.page(server.url.replace("127.0.0.1", "events.example")) as page:
            page.is_in("live")
            page.locator("#player_id").fill("alice")
            page.locator("#guild_id").fill("owls")
            page.get_by_role("button", name="Join").click()
            expect(page.locator("#receipt")).to_contain_text("Joined owls")
            page.has_read(1)
