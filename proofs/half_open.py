"""A subscriber that has vanished without a word is noticed, and costs nothing after a minute.

Subscribers are stopped (SIGSTOP) while they stream: their connections stay open, and nothing
answers on them any more. The server lets go of all of them within 60 s, streams and
connections, while events go on. When they are woken again, each resumes by itself and gets
every event once.
"""

import contextlib
import pathlib
import signal
import tempfile
import time

import checks
import running

SIZES = {
    "small": {"subscribers": 3, "events": 5},
    "full": {"subscribers": 50, "events": 20},
}

# The server asks a silent peer for a sign of life after 20 s, and waits for it as long.
GONE_SECONDS = 60


def buy(server, events):
    for number in range(events):
        action = ["purchase", "--player", f"player-{number}", "--item", "sword"]
        running.herald(*action, "--server", server.url)


def proof(options):
    count, events = options["subscribers"], options["events"]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        folder = pathlib.Path(folder)
        server = stack.enter_context(running.Server(folder / "log"))
        subscribers = [
            stack.enter_context(running.Subscriber(server.url, folder / f"subscriber-{number}"))
            for number in range(count)
        ]

        def held():
            return server.metric("herald_feed_subscribers"), server.metric("herald_connections")

        running.wait_until(lambda: held() == (count, count), running.START_SECONDS, "all there")
        buy(server, events)
        for subscriber in subscribers:
            subscriber.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        buy(server, events)
        left = GONE_SECONDS - (time.monotonic() - stopped)
        running.wait_until(lambda: held() == (0, 0), left, "all streams and connections gone")
        gone_after = time.monotonic() - stopped
        buy(server, events)
        for subscriber in subscribers:
            subscriber.signal(signal.SIGCONT)
        log = checks.logged(running.whole_log(server.url))
        for subscriber in subscribers:
            feed = checks.logged(subscriber.all_events(3 * events))
            checks.check_feed_order(feed)
            checks.check_same_feed(log, feed)
            if subscriber.reconnects() == 0:
                raise checks.Broken("a subscriber was never let go of")
    return {"subscribers": count, "events": 3 * events, "gone_after_seconds": round(gone_after, 1)}


if __name__ == "__main__":
    running.prove("half_open", SIZES, proof)
