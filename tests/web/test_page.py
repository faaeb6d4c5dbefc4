"""The page at /, in a real browser against the real server."""

import contextlib
import json
import re
import subprocess
import urllib.request

import pytest
from playwright.sync_api import expect

import running
from browsing import DRAWN, Game


def grpcurl(address, method, request):
    done = subprocess.run(
        ["grpcurl", "-plaintext", "-d", json.dumps(request), address, method],
        capture_output=True,
        text=True,
        check=True,
        timeout=running.COMMAND_SECONDS,
    )
    return json.loads(done.stdout)


def test_who_does_not_ask_for_html_gets_text(folder):
    with running.Server(folder) as server:
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


def test_an_event_sent_by_grpcurl_shows(browser, log):
    with running.Server(log) as server, browser.page(server.url) as page:
        page.is_in("live")
        request = {"player_id": "alice", "item_id": "sword", "quantity": 2}
        answer = grpcurl(server.address, "game.v1.GameService/PurchaseItem", request)
        row = page.locator(f'[data-event="{answer["receipt"]["eventId"]}"]')
        expect(row).to_contain_text("alice")
        expect(row).to_contain_text("bought 2 sword for 200 gold")
        expect(page.locator('li[data-type="item_purchased"] b')).to_have_text("1")


def test_a_pause_loses_nothing(browser, modules, log):
    with running.Server(log) as server, Game(modules, server.address) as game:
        with browser.page(server.url) as page:
            page.is_in("live")
            sent = [game.bought("alice") for _ in range(5)]
            page.has_read(5)
            page.get_by_role("button", name="Pause").click()
            page.is_in("paused")
            sent += [game.bought("alice") for _ in range(50)]
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


def test_a_server_that_stops_is_waited_for(browser, modules, folder):
    first = running.Server(folder)
    with contextlib.ExitStack() as stack:
        stack.callback(first.kill)
        page = stack.enter_context(browser.page(first.url))
        with Game(modules, first.address) as game:
            page.is_in("live")
            sent = [game.bought("alice")]
            page.has_read(1)
        first.stop()
        page.is_in("reconnecting")
        with running.Server(folder, listen=first.address) as second:
            page.is_in("live")
            with Game(modules, second.address) as game:
                sent.append(game.bought("alice"))
            page.has_read(2)
            assert page.rows() == sent[::-1]


def test_filters(browser, modules, folder):
    with running.Server(folder) as server, Game(modules, server.address) as game:
        alice, bob = game.bought("alice"), game.bought("bob")
        owls, mascots = game.joined("alice", "owls"), game.joined("bob", "mascots")
        with browser.page(f"{server.url}/?since=all") as page:

            def shows(*events, **fields):
                page.filter(**fields)
                page.is_in("live")
                page.has_read(len(events))
                assert page.rows() == list(events)

            page.has_read(4)
            shows(owls, alice, player="alice")
            later = [game.bought("bob"), game.bought("alice")]
            page.has_read(3)
            assert page.rows() == [later[1], owls, alice]
            shows(mascots, player="", guild="mascots")
            shows(mascots, owls, guild="", types=["guild_joined"])
            shows(owls, player="alice")
            # The address has it all.
            page.reload()
            page.has_read(1)
            assert page.rows() == [owls]
            page.get_by_role("button", name="Clear").click()
            page.has_read(6)
            assert page.rows() == [*later[::-1], mascots, owls, bob, alice]


def test_a_gap_is_a_row(browser, modules, folder):
    with running.Server(folder, "--retention-age=1ms") as server:
        with Game(modules, server.address) as game, browser.page(server.url) as page:
            page.is_in("live")
            page.get_by_role("button", name="Pause").click()
            page.is_in("paused")

            def is_trimmed():
                game.bought("alice")
                return game.first_offset() > 0

            running.wait_until(is_trimmed, running.START_SECONDS, "an effect of retention")
            page.get_by_role("button", name="Resume").click()
            page.is_in("live")
            gap = page.locator(".row.note").last
            expect(gap).to_contain_text(re.compile(r"\d+ records are missing in partition 0"))


def test_another_log_is_not_taken_for_the_same(browser, modules, tmp_path):
    server = running.Server(tmp_path / "first")
    try:
        with browser.page(server.url) as page:
            page.is_in("live")
            server.kill()
            server = running.Server(tmp_path / "second", listen=server.address)
            page.is_in("stopped")
            page.get_by_role("button", name="Start again").click()
            page.is_in("live")
            with Game(modules, server.address) as game:
                bought = game.bought("alice")
            page.has_read(1)
            assert page.rows() == [bought]
    finally:
        server.kill()


def test_a_purchase_and_a_guild(browser, folder):
    with running.Server(folder) as server, browser.page(server.url) as page:
        page.is_in("live")
        page.locator("#player_id").fill("alice")
        page.locator("#item_id").select_option("sword")
        page.locator("#quantity").fill("3")
        page.get_by_role("button", name="Buy").click()
        expect(page.locator("#receipt")).to_contain_text("Bought 3 sword for 300 gold; 3 owned now")
        expect(page.locator("#player li")).to_have_text(["3 sword"])
        page.locator("#guild_id").fill("owls")
        page.get_by_role("button", name="Join").click()
        expect(page.locator("#receipt")).to_contain_text("Joined owls")
        expect(page.locator("#player dd").first).to_have_text("owls")
        # The same again is another purchase: the first one has its receipt.
        page.get_by_role("button", name="Buy").click()
        expect(page.locator("#player li")).to_have_text(["6 sword"])
        page.has_read(3)
        event = page.rows()[0]
        expect(page.locator("#receipt dd").first).to_have_text(event)


def test_an_invalid_purchase_shows_what_is_wrong(browser, folder):
    with running.Server(folder) as server, browser.page(server.url) as page:
        expect(page.locator("#item_id option")).to_have_count(4)
        page.locator("#quantity").fill("-1")
        page.get_by_role("button", name="Buy").click()
        player, quantity = page.locator("#player_id"), page.locator("#quantity")
        expect(page.locator("#player_id-error")).to_have_text("missing")
        expect(page.locator("#quantity-error")).not_to_be_empty()
        expect(player).to_have_attribute("aria-invalid", "true")
        expect(player).to_be_focused()
        # The refusal is an event too.
        expect(page.locator('li[data-type="request_rejected"] b')).to_have_text("1")
        player.fill("alice")
        page.get_by_role("button", name="Join").click()
        expect(page.locator("#guild_id-error")).not_to_be_empty()
        expect(page.locator("#player_id-error")).to_be_empty()
        expect(quantity).not_to_have_attribute("aria-invalid", "true")
        page.get_by_role("button", name="Show player").click()
        expect(page.locator("#act-error")).not_to_be_empty()


def test_an_action_is_tried_again_with_its_request_id(browser, modules, folder):
    server = running.Server(folder)
    try:
        with browser.page(server.url) as page:
            page.is_in("live")
            expect(page.locator("#item_id option")).to_have_count(4)
            page.locator("#player_id").fill("alice")
            page.locator("#item_id").select_option("knife")

            def lose(route):
                # The server has carried it out, and nobody hears of it.
                route.fetch()
                route.abort()

            page.route("**/PurchaseItem", lose, times=1)
            page.get_by_role("button", name="Buy").click()
            expect(page.locator("#receipt")).to_contain_text("written before")
            expect(page.locator("#player li")).to_have_text(["1 knife"])
            # A server that is away is waited for.
            server.kill()
            page.is_in("reconnecting")
            page.get_by_role("button", name="Buy").click()
            expect(page.locator("#receipt")).to_contain_text("trying again")
            server = running.Server(folder, listen=server.address)
            expect(page.locator("#player li")).to_have_text(["2 knife"])
            page.has_read(2)
    finally:
        server.kill()


def test_the_keyboard_is_enough(browser, modules, folder):
    with running.Server(folder) as server, Game(modules, server.address) as game:
        sent = [game.bought("alice") for _ in range(100)]
        with browser.page(f"{server.url}/?since=all") as page:
            page.has_read(100)
            chosen = page.locator('.row[aria-selected="true"]:not([hidden])')
            detail = page.locator("#detail-text")
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            # Whoever looks at older events keeps them while others come.
            page.keyboard.press("ArrowDown")
            page.keyboard.press("ArrowDown")
            expect(chosen).to_have_attribute("data-event", sent[-2])
            sent.append(game.bought("alice"))
            expect(page.locator("#newer")).to_have_text("▲ 1 newer")
            expect(chosen).to_have_attribute("data-event", sent[-3])
            page.keyboard.press("End")
            expect(chosen).to_have_attribute("data-event", sent[0])
            expect(chosen).to_be_in_viewport()
            page.keyboard.press("PageUp")
            page.keyboard.press("Enter")
            expect(detail).to_be_visible()
            expect(detail).to_contain_text(chosen.get_attribute("data-event"))
            page.keyboard.press("Escape")
            expect(detail).to_be_hidden()
            expect(page.locator("#list")).to_be_focused()
            page.keyboard.press("Home")
            expect(page.locator("#newer")).to_be_hidden()
            expect(chosen).to_have_count(0)
            # By the mouse, too.
            page.locator(f'[data-event="{sent[-1]}"]').click()
            expect(detail).to_contain_text(f'"event_id": "{sent[-1]}"')
            page.get_by_role("button", name="Close").click()
            expect(detail).to_be_hidden()


def test_what_a_player_is_called_stays_text(browser, modules, folder):
    name = "<img src=x onerror=alert(1)>"
    with running.Server(folder) as server, Game(modules, server.address) as game:
        with browser.page(server.url) as page:
            page.is_in("live")
            game.bought(name)
            expect(page.locator(".row .player")).to_have_text(name)
            page.locator(".row").click()
            expect(page.locator("#detail-text")).to_contain_text(name)


@pytest.mark.parametrize(
    "breach",
    [
        "document.body.setAttribute('style', 'color: red')",
        "document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.1:9/x.png' }))",
        "setTimeout(() => { throw new Error('breach') })",
    ],
)
def test_what_the_page_must_not_do_is_noticed(browser, folder, breach):
    with running.Server(folder) as server, pytest.raises(AssertionError):
        with browser.page(server.url) as page:
            page.is_in("live")
            page.evaluate(breach)
            page.evaluate(DRAWN)


def test_a_narrow_page_does_not_scroll_sideways(browser, modules, folder):
    with running.Server(folder) as server, Game(modules, server.address) as game:
        game.bought("w" * 128)
        narrow = {"width": 360, "height": 640}
        with browser.page(server.url, viewport=narrow, has_touch=True) as page:
            page.has_read(1)
            for summary in page.locator("summary").all():
                summary.tap()
            page.locator("#player_id").fill("w" * 128)
            page.get_by_role("button", name="Show player").tap()
            expect(page.locator("#player li")).to_have_text(["1 sword"])
            page.locator(".row").tap()
            expect(page.locator("#detail")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_what_happened_is_legible_at_every_width(browser, modules, folder):
    with running.Server(folder) as server, Game(modules, server.address) as game:
        game.bought("w" * 64, "horse", 2)
        with browser.page(f"{server.url}/?since=all") as page:
            page.has_read(1)
            for width in [320, 640, 700, 900, 960, 1100, 1280, 1920]:
                page.set_viewport_size({"width": width, "height": 800})
                page.evaluate(DRAWN)
                words = page.locator(".row .words")
                assert words.text_content() == "bought 2 horse for 1000 gold"
                assert words.evaluate("(it) => it.scrollWidth <= it.clientWidth"), width
