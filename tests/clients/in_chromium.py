"""Runs the scenarios of clients/typescript in Chromium, as scenarios/node.ts does in Node: the
same lines on stdout and stdin. The page comes from an origin of its own.

Usage: in_chromium.py FOLDER   FOLDER is where the built pages are
"""

import functools
import http.server
import json
import os
import pathlib
import sys
import threading

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / name) for name in ("web", "python", "../proofs")]

from browsing import Browser  # noqa: E402


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def say(line):
    print(json.dumps(line), flush=True)


def ask(what):
    """The page's promise is kept when the answer is here."""
    say({"ask": what})
    answer = sys.stdin.readline()
    if not answer or json.loads(answer).get("ok") is not True:
        raise RuntimeError(f"{what} was not done: {answer!r}")


def main(folder):
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        with Browser() as browser, browser.tab() as page:
            page.on("console", lambda message: print(message.text, file=sys.stderr))
            page.expose_function("askOutside", ask)
            page.expose_function("tellOutside", say)
            page.goto(f"http://127.0.0.1:{site.server_port}/scenarios/index.html")
            server = [os.environ["HERALD_SERVER"], os.environ["HERALD_RUN"]]
            page.evaluate("([server, run]) => runScenarios(server, run)", server)
        site.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
