"""The feed in a browser's own EventSource, which comes back by itself.

The script is the one that docs/web.md shows.
"""

import itertools
import re
import socket
import threading

import pytest

import running
from browsing import Game

SCRIPT = re.search(
    r"^```js\n(.*?)^```$",
    (running.REPOSITORY / "docs" / "web.md").read_text(),
    re.DOTALL | re.MULTILINE,
)[1]

# What the script calls, and what tests look at: what was shown, in turn, and how often the feed
# was opened.
AROUND = """
() => {
  globalThis.shown = [];
  globalThis.opened = 0;
  globalThis.noted = [];
  const show = ({ event, partition = 0, offset = 0 }) =>
    shown.push([event.eventId, partition, Number(offset)]);
  const note = (what) => noted.push(what);
  SCRIPT
  feed.addEventListener("opened", () => opened++);
  globalThis.feed = feed;
}
"""

ALL = "/v1/events?start=earliest"


def follow(page, address):
    """Runs the script, on another address."""
    script, count = re.subn(r'EventSource\(".*?"\)', f'EventSource("{address}")', SCRIPT)
    assert count == 1, SCRIPT
    page.evaluate(AROUND.replace("SCRIPT", script))


def has_shown(page, count):
    page.wait_for_function("(count) => shown.length >= count", arg=count)


def was_opened(page, times):
    page.wait_for_function("(times) => opened >= times", arg=times)


def each_once(page, sent):
    """Whether it has shown each event once, in the order of its partition."""
    shown = page.evaluate("shown")
    ends = {}
    for event, partition, offset in shown:
        assert offset > ends.get(partition, -1), f"{event} in partition {partition} at {offset}"
        ends[partition] = offset
    assert sorted(event for event, _, _ in shown) == sorted(sent)


@pytest.fixture
def a_page(browser):
    """A page of a server without anything on it."""
    return lambda url: browser.page(f"{url}/v1/catalog")


def bought(modules, address, count):
    with Game(modules, address) as game:
        calls = [game.buying(f"player-{n % 11}") for n in range(count)]
        return [call.result().receipt.event_id for call in calls]


def test_it_goes_on_by_itself_after_a_kill(a_page, modules, log):
    server = running.Server(log)
    try:
        sent = bought(modules, server.address, 300)
        with a_page(server.url) as page:
            follow(page, ALL)
            for times in range(1, 4):
                was_opened(page, times)
                sent += bought(modules, server.address, 40)
                server.kill()
                server = running.Server(log, listen=server.address)
                sent += bought(modules, server.address, 20)
                has_shown(page, len(sent))
            # It is live, and nothing else comes before what is new.
            sent += bought(modules, server.address, 1)
            has_shown(page, len(sent))
            each_once(page, sent)
            was_opened(page, 4)
            assert page.evaluate("noted") == []
    finally:
        server.kill()


class Cutting:
    """Stands before a server, and cuts the connection after so many bytes of each feed, in turn."""

    def __init__(self, address, lengths):
        self._host, self._port = address.split(":")
        self._lengths = itertools.cycle(lengths)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self._listener.getsockname()[1]
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            there = socket.create_connection((self._host, int(self._port)))
            left = [None]
            threading.Thread(target=self._up, args=(here, there, left), daemon=True).start()
            threading.Thread(target=self._down, args=(there, here, left), daemon=True).start()

    def _up(self, here, there, left):
        """Requests, each of which comes in one piece."""
        while data := received(here):
            if data.startswith(b"GET /v1/events"):
                left[0] = next(self._lengths)
            there.sendall(data)
        close(there)

    def _down(self, there, here, left):
        while data := received(there):
            if left[0] is not None and len(data) >= left[0]:
                here.sendall(data[: left[0]])
                self.cuts += 1
                break
            if left[0] is not None:
                left[0] -= len(data)
            here.sendall(data)
        close(here)
        close(there)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        close(self._listener)
        self._listener.close()


def received(connection):
    try:
        return connection.recv(1 << 16)
    except OSError:
        return b""


def close(connection):
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def test_wherever_it_is_cut_it_goes_on_exactly(a_page, modules, log):
    with running.Server(log) as server:
        sent = bought(modules, server.address, 60)
        # In the middle of an event, and each time further on.
        with Cutting(server.address, [3001, 7013, 12007]) as cutting, a_page(cutting.url) as page:
            follow(page, ALL)
            has_shown(page, len(sent))
            each_once(page, sent)
            assert cutting.cuts >= 3
            assert page.evaluate("opened") >= cutting.cuts


def test_it_ends_when_it_has_all_that_it_asked_for(a_page, modules, folder):
    with running.Server(folder) as server, Game(modules, server.address) as game:
        sent = [game.bought("alice") for _ in range(5)]
        with a_page(server.url) as page:
            follow(page, f"{ALL}&max_events=3")
            page.wait_for_function("() => feed.readyState === EventSource.CLOSED")
            each_once(page, sent[:3])
            assert page.evaluate("[opened, noted]") == [1, []]


def test_another_log_ends_it(a_page, modules, tmp_path):
    server = running.Server(tmp_path / "first")
    try:
        bought(modules, server.address, 1)
        with a_page(server.url) as page:
            follow(page, ALL)
            has_shown(page, 1)
            server.kill()
            server = running.Server(tmp_path / "second", listen=server.address)
            page.wait_for_function("() => noted.length > 0")
            assert page.evaluate("noted") == ["the feed has stopped"]
            assert page.evaluate("feed.readyState") == 2
    finally:
        server.kill()
