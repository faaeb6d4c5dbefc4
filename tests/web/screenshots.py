"""Writes the pictures of docs/images/: scripts/screenshots runs this."""

import contextlib
import pathlib
import random
import tempfile
import time

from playwright.sync_api import expect

import running
import stub
from browsing import Browser, Game

FOLDER = running.REPOSITORY / "docs" / "images"

PICTURES = {
    "page": {"viewport": {"width": 1280, "height": 900}},
    "page-dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "page-phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
}

# For as long as there is to be something in the sparkline.
SECONDS = 30

PLAYERS = ["alice", "bob", "carol", "dora", "erik", "frida"]
ITEMS = ["sword", "knife", "shield", "horse"]
GUILDS = ["owls", "mascots"]


def play(game, chance):
    """Something happens for a while."""
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        for _ in range(chance.randint(0, 6)):
            player = chance.choice(PLAYERS)
            if chance.random() < 0.2:
                game.joined(player, chance.choice(GUILDS))
            else:
                game.bought(player, chance.choice(ITEMS), chance.randint(1, 3))
        time.sleep(0.1)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        browser = stack.enter_context(Browser())
        server = stack.enter_context(running.Server(scratch / "log"))
        game = stack.enter_context(Game(stub.modules(scratch), server.address))
        pages = {
            name: stack.enter_context(browser.page(server.url, **options))
            for name, options in PICTURES.items()
        }
        play(game, random.Random(1))
        for name, page in pages.items():
            page.is_in("live")
            if name != "page-phone":
                page.locator("#player_id").fill("alice")
                page.locator("#item_id").select_option("sword")
                page.get_by_role("button", name="Buy").click()
                expect(page.locator("#player")).to_contain_text("Inventory")
            page.screenshot(path=FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
