"""The page as somebody sees it who opens it in Chromium."""

import contextlib
import os
import shutil
import uuid

import grpc
from playwright.sync_api import expect, sync_playwright

import stub

# How long the page may take to show what it is to show: far more than it takes.
PATIENCE_SECONDS = 30

# No sandbox, as in a container; nothing that asks other hosts. Names that end in .example lead
# to this machine, as anybody can have a name of theirs do.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP *.example 127.0.0.1",
]

# What breaks the policy is told to the document.
WATCH = """
globalThis.violations = [];
document.addEventListener("securitypolicyviolation", (e) =>
  violations.push(`${e.effectiveDirective} ${e.blockedURI}`));
"""

# By then what was to be done is done.
DRAWN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"

# All rows from the newest to the oldest, by their number: the id of the event, or the note.
# Only what can be seen is in the document, so that it has to be scrolled through.
ALL_ROWS = """
async () => {
  const list = document.querySelector("#list");
  const drawn = () => DRAWN;
  const rows = new Map();
  list.scrollTop = 0;
  for (;;) {
    await drawn();
    for (const row of list.querySelectorAll(".row:not([hidden])")) {
      const { number, event } = row.dataset;
      rows.set(Number(number), event ?? row.textContent);
    }
    if (list.scrollTop + list.clientHeight >= list.scrollHeight - 1) break;
    list.scrollTop += list.clientHeight;
  }
  list.scrollTop = 0;
  await drawn();
  return [...rows].sort(([a], [b]) => b - a).map(([, shown]) => shown);
}
""".replace("DRAWN", DRAWN)

# The ids of the events in the document, from the newest to the oldest.
DRAWN_ROWS = """
[...document.querySelectorAll("#list .row:not([hidden])")]
  .map((row) => row.dataset)
  .sort((a, b) => b.number - a.number)
  .map(({ event }) => event)
"""


def chromium():
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not path:
        raise FileNotFoundError("no chromium on the PATH; install it, or set CHROMIUM")
    return path


class Browser:
    """A running Chromium."""

    def __enter__(self):
        expect.set_options(timeout=PATIENCE_SECONDS * 1000)
        self._playwright = sync_playwright().start()
        try:
            self._chromium = self._playwright.chromium.launch(
                executable_path=chromium(), args=FLAGS
            )
        except BaseException:
            self._playwright.stop()
            raise
        return self

    def __exit__(self, *_):
        self._chromium.close()
        self._playwright.stop()

    @contextlib.contextmanager
    def tab(self, **options):
        """A tab that knows nothing of the others."""
        options = {"viewport": {"width": 1280, "height": 800}} | options
        context = self._chromium.new_context(**options)
        try:
            page = context.new_page()
            page.set_default_timeout(PATIENCE_SECONDS * 1000)
            yield page
        finally:
            context.close()

    @contextlib.contextmanager
    def page(self, url, **options):
        """The page at this address; what it must never do is looked for at the end."""
        with self.tab(**options) as page:
            page.add_init_script(WATCH)
            errors, asked = [], []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("request", lambda request: asked.append(request.url))
            page.goto(url)
            yield Page(page)
            assert page.evaluate("violations") == []
            assert errors == []
            origin = "/".join(url.split("/")[:3]) + "/"
            assert [other for other in asked if not other.startswith(origin)] == []


class Page:
    """What tests ask of the page over and over."""

    def __init__(self, page):
        self.page = page

    def __getattr__(self, name):
        return getattr(self.page, name)

    def is_in(self, state):
        expect(self.page.locator("#state")).to_have_text(state)

    def has_read(self, count):
        expect(self.page.locator("#total")).to_have_text(str(count))

    def rows(self):
        """What all rows show, the newest first."""
        return self.page.evaluate(ALL_ROWS)

    def drawn_rows(self):
        """Which events are to be seen, or nearly so; the newest first."""
        self.page.evaluate(DRAWN)
        return self.page.evaluate(DRAWN_ROWS)

    def filter(self, **fields):
        """Fills in the form of the filter and applies it."""
        for name, value in fields.items():
            if name == "types":
                for box in self.page.locator("#types input").all():
                    box.set_checked(box.get_attribute("value") in value)
            elif name == "since":
                self.page.locator("#start").select_option(value)
            else:
                self.page.locator(f"#filter-{name}").fill(value)
        self.page.get_by_role("button", name="Apply").click()


class Game:
    """A game client of a server: each call returns the id of its event."""

    def __init__(self, modules, address):
        self._channel = grpc.insecure_channel(address)
        self._stub = stub.Stub(modules, self._channel)
        self._pb = self._stub.pb

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._channel.close()

    def bought(self, player, item="sword", quantity=1):
        return self.buying(player, item, quantity).result().receipt.event_id

    def buying(self, player, item="sword", quantity=1):
        """The same, without waiting for it."""
        request = self._pb.PurchaseItemRequest(
            request_id=str(uuid.uuid4()), player_id=player, item_id=item, quantity=quantity
        )
        return self._stub.game.PurchaseItem.future(request, timeout=stub.DEADLINE)

    def joined(self, player, guild):
        request = self._pb.JoinGuildRequest(player_id=player, guild_id=guild)
        return self._stub.game.JoinGuild(request, timeout=stub.DEADLINE).receipt.event_id

    def first_offset(self):
        """The offset of the oldest event there is."""
        feed = self._stub.feed.GetFeed(self._pb.GetFeedRequest(), timeout=stub.DEADLINE)
        return feed.partitions[0].start_offset
