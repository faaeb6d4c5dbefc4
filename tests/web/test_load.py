"""The page while many events come: nothing missed, and no more kept than it says.

PAGE_LOAD_SECONDS has it last longer than the few seconds of a test; `-s` shows what was
measured.
"""

import json
import os
import time

import running
from browsing import Game

RATE = 1_000
SECONDS = int(os.environ.get("PAGE_LOAD_SECONDS", "5"))

# Of web/src/ring.ts.
MAX_ROWS = 10_000

# A list of this height shows less than this.
MAX_LINES = 60

# The times between frames, from now on.
START = """
globalThis.frames = [];
requestAnimationFrame(function frame(now) { frames.push(now); requestAnimationFrame(frame); });
"""


def buy(game, count, seconds):
    """Buys at an even rate; the ids of the events, in any order."""
    begun = time.monotonic()
    calls = []
    for number in range(count):
        wait = begun + seconds * number / count - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        calls.append(game.buying(f"player-{number % 100}"))
    return [call.result().receipt.event_id for call in calls]


def test_a_thousand_events_a_second(browser, modules, folder):
    with running.Server(folder) as server, Game(modules, server.address) as game:
        with browser.page(server.url) as page:
            page.is_in("live")
            page.evaluate(START)
            begun = time.monotonic()
            sent = buy(game, RATE * SECONDS, SECONDS)
            took = time.monotonic() - begun
            frames = page.evaluate("frames.splice(0)")
            page.has_read(len(sent))
            assert page.locator(".row").count() < MAX_LINES
            heap = page.heap_bytes()
            # Less to scroll.
            page.set_viewport_size({"width": 1280, "height": 4000})
            holds_the_newest(page, server)

            # Beyond the bound the oldest ones go.
            sent += buy(game, MAX_ROWS, 1)
            page.has_read(len(sent))
            holds_the_newest(page, server)
            page.is_in("live")
    measured = {"events_per_second": round(RATE * SECONDS / took), "heap_bytes": heap}
    print(json.dumps(measured | frame_times(frames)))


def holds_the_newest(page, server):
    """The rows are the end of the log."""
    written = [delivered["event"]["eventId"] for delivered in running.whole_log(server.url)]
    assert page.rows() == written[:-MAX_ROWS - 1:-1]


def frame_times(frames):
    """How long frames took, in milliseconds."""
    took = sorted(later - earlier for earlier, later in zip(frames, frames[1:]))
    parts = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1}
    return {
        f"frame_{name}_ms": round(took[int(part * (len(took) - 1))], 1)
        for name, part in parts.items()
    }
