"""What the README tells users to type, and what it says of a stream."""

import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading

import pytest

import running

README = (running.REPOSITORY / "README.md").read_text()
DEFAULT_LISTEN = "127.0.0.1:50051"
STREAM = "### What a stream says"
# What takes longer hangs: something small, and a whole block.
SECONDS = 60
BLOCK_SECONDS = 120


def block_of(readme, heading="## Quick start"):
    """The text of the first sh block below the heading."""
    found = re.search(
        rf"^{re.escape(heading)}$.*?^```sh\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE
    )
    assert found, f"no sh block below {heading!r}"
    assert "\n## " not in found[0], f"the sh block is not in {heading!r}"
    return found[1]


def is_whole(statement):
    """Whether bash would run these lines, or ask for more."""
    if statement.rstrip("\n").endswith("\\"):
        return False
    check = subprocess.run(["bash", "-n"], input=statement, text=True, capture_output=True)
    return check.returncode == 0


def statements_of(block):
    """The statements, each with what its output contains."""
    statements, pending = [], ""
    for line in block.splitlines():
        if not pending and line.startswith("# → "):
            assert statements, f"an expectation without a command: {line}"
            statements[-1][1].append(line.removeprefix("# → ").strip())
        elif not pending and (not line.strip() or line.startswith("#")):
            continue
        else:
            pending += line + "\n"
            if is_whole(pending):
                statements.append((pending, []))
                pending = ""
    assert not pending, f"not a whole statement: {pending}"
    return statements


def run(statements, folder, environment, seconds=BLOCK_SECONDS):
    """Runs the statements in one shell, in a folder; the output of each."""
    with tempfile.TemporaryDirectory() as scratch:
        outputs = [pathlib.Path(scratch, f"output-{number}") for number in range(len(statements))]
        script = "set -eo pipefail\n"
        for (statement, _), output in zip(statements, outputs):
            script += f"exec >'{output}' 2>&1\n{statement}"
        done = subprocess.run(
            ["bash"], input=script, text=True, cwd=folder, env=environment, timeout=seconds
        )
        said = [output.read_text() if output.exists() else None for output in outputs]
    if done.returncode != 0:
        last = max(n for n, text in enumerate(said) if text is not None)
        pytest.fail(f"ended with {done.returncode}:\n{statements[last][0]}{said[last]}")
    return said


def check(statements, outputs):
    """Whether each statement has said what it is said to say."""
    for (statement, expected), output in zip(statements, outputs):
        for text in expected:
            assert text in output, f"{statement}does not say {text!r}, but:\n{output}"


def states():
    """The rows of the tables about a stream: each state by the last word of what is seen."""
    section = README.split(f"\n{STREAM}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (?!state )(.*) \| (.*) \| .* \|$", section, re.MULTILINE)
    found = {}
    for _, seen in rows:
        # What follows is told in words too.
        words = re.findall(r"`(\w+)`", seen.split(";")[0])
        assert words[-1] not in found, f"two rows for {words[-1]}"
        found[words[-1]] = words
    return found


FOLLOW, CURSOR, RESUME, GO_ON, POLL = (text for text, _ in statements_of(block_of(README, STREAM)))


def changed(statement, old, new):
    """A statement with other words in one place."""
    assert statement.count(old) == 1, f"{old!r} in {statement}"
    return statement.replace(old, new)


class Typed:
    """A statement of the README that is run in a shell, at a server, with $cursor.

    What it prints is read in the background, unless it is paused.
    """

    def __init__(self, server, statement, cursor=""):
        here = changed(statement, DEFAULT_LISTEN, server.address)
        self._process = subprocess.Popen(
            ["bash", "-c", f"set -o pipefail\n{here}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=running.environment() | {"cursor": cursor},
            text=True,
            start_new_session=True,
            # Ctrl-C ends it also where these tests were started in the background of a shell,
            # which has all that it starts there ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self._lines = []
        self._ended = False
        self._news = threading.Condition()
        self._reads = threading.Event()
        self._reads.set()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
            self._reads.wait()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def said(self):
        with self._news:
            return "".join(self._lines)

    def until(self, text):
        """Waits until it says that."""
        with self._news:
            self._news.wait_for(lambda: self._ended or text in self.said(), SECONDS)
        assert text in self.said(), f"no {text!r} in:\n{self.said()}"
        return self

    def pause(self):
        self._reads.clear()

    def go_on(self):
        self._reads.set()

    def result(self):
        """All that it says; it has to end by itself."""
        with self._news:
            assert self._news.wait_for(lambda: self._ended, SECONDS), self.said()
        return self.said()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Ends it as Ctrl-C does."""
        self.go_on()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
        self._process.wait(SECONDS)


def typed(server, statement, cursor=""):
    """What a statement says, errors too; it has to end by itself."""
    with Typed(server, statement, cursor) as one:
        return one.result()
