"""The example page of clients/typescript, in a browser."""

import functools
import http.server
import threading

from playwright.sync_api import expect

import running
from in_chromium import Quiet
from programs import CLIENTS


def test_the_example_page_plays_and_follows(built, browser, tmp_path):
    built("typescript")
    handler = functools.partial(Quiet, directory=CLIENTS / "typescript" / "pages")
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site,
        running.Server(tmp_path / "log", "--cors=loopback") as server,
        browser.tab() as page,
    ):
        threading.Thread(target=site.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{site.server_port}/example/index.html?server={server.url}"
        said = page.locator("#said")

        def play(name):
            page.get_by_label("Player").fill(name)
            page.get_by_role("button", name="Play").click()
            expect(said).to_contain_text(f"{name} joined owls")

        page.goto(address)
        play("ann")
        for text in ("bought a sword for 100", "refused (VALIDATION_FAILED): item_id"):
            expect(said).to_contain_text(text)
        # The page goes on behind what it has seen.
        page.goto(address)
        play("bea")
        expect(said).not_to_contain_text("ann")
        site.shutdown()
