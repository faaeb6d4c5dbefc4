"""The page at /, in a real browser against the real server."""

import json
import subprocess
import urllib.request

from playwright.sync_api import expect

import running
from browsing import Game


def grpcurl(address, method, request):
    done = subprocess.run(
        ["grpcurl", "-plaintext", "-d", json.dumps(request), address, method],
        capture_output=True,
        text=True,
        check=True,
        timeout=running.COMMAND_SECONDS,
    )
    return json.loads(done.stdout)


def test_an_event_sent_by_grpcurl_shows(browser, log):
    with running.Server(log) as server, browser.page(server.url) as page:
        page.is_in("live")
        request = {"player_id": "alice", "item_id": "sword", "quantity": 2}
        answer = grpcurl(server.address, "game.v1.GameService/PurchaseItem", request)
        row = page.locator(f'[data-event="{answer["receipt"]["eventId"]}"]')
        expect(row).to_contain_text("alice")
        expect(row).to_contain_text("bought 2 sword for 200 gold")
        expect(page.locator('li[data-type="item_purchased"] output')).to_have_text("1")
        # By the mouse, and closed by the keyboard.
        row.click()
        expect(page.locator("#detail-text")).to_contain_text('"unit_price": "100"')
        page.keyboard.press("Escape")
        expect(page.locator("#detail")).to_be_hidden()
        expect(page.locator("#list")).to_be_focused()


def test_who_does_not_ask_for_html_gets_text(log):
    with running.Server(log) as server:
        with urllib.request.urlopen(server.url) as answer:
            assert answer.headers.get_content_type() == "text/plain"
            assert b"grpcurl" in answer.read()
        page = urllib.request.Request(server.url, headers={"accept": "text/html"})
        with urllib.request.urlopen(page) as answer:
            assert answer.headers.get_content_type() == "text/html"
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"


def test_a_pause_loses_nothing(browser, modules, log):
    with running.Server(log) as server, Game(modules, server.address) as game:
        with browser.page(server.url) as page:
            page.is_in("live")
            sent = [game.bought("alice") for _ in range(5)]
            page.has_read(5)
            page.get_by_role("button", name="Pause").click()
            page.is_in("paused")
            sent += [game.bought("bob") for _ in range(50)]
            assert page.rows() == sent[4::-1]
            page.get_by_role("button", name="Resume").click()
            page.is_in("live")
            page.has_read(55)
            sent.append(game.bought("alice"))
            page.has_read(56)
            assert page.rows() == sent[::-1]


def test_the_page_goes_on_after_a_kill(browser, modules, log):
    server = running.Server(log)
    sent = []

    def buy(count):
        with Game(modules, server.address) as game:
            sent.extend(game.bought("alice") for _ in range(count))

    try:
        with browser.page(server.url) as page:
            page.is_in("live")
            for _ in range(3):
                buy(40)
                server.kill()
                page.is_in("reconnecting")
                server = running.Server(log, listen=server.address)
                buy(20)
                page.is_in("live")
                page.has_read(len(sent))
            assert page.rows() == sent[::-1]
    finally:
        server.kill()
