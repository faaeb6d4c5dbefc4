"""Starts and calls the real binary, as a user would.

Standard library only: the proofs run wherever Python does.
"""

import collections
import contextlib
import datetime
import json
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

# How long the server may take to start, to stop, and a command to end. Far more
# than is needed: what takes longer hangs.
START_SECONDS = 60
STOP_SECONDS = 60

# And how long until it has read its log.
READY_SECONDS = 600
COMMAND_SECONDS = 900
SCRIPT_SECONDS = 200

# How long a subscriber may lag behind.
SUBSCRIBER_SECONDS = 120


def binary():
    """The herald binary: HERALD_BIN, or the newest debug build."""
    if "HERALD_BIN" in os.environ:
        path = pathlib.Path(os.environ["HERALD_BIN"])
    else:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        target = os.environ.get("CARGO_TARGET_DIR") or f"{cache}/herald/target"
        path = pathlib.Path(target) / "debug" / "herald"
    if not path.is_file():
        raise FileNotFoundError(f"no herald binary at {path}; build it, or set HERALD_BIN")
    return str(path.resolve())


def environment():
    """This process's environment without what would configure herald."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HERALD_")}
    return clean | {"NO_COLOR": "1"}


def wait_until(condition, seconds, what):
    """Returns how long it took until `condition()` was true; the longest is `seconds`."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.01)
    return round(time.monotonic() - begun, 3)


class Server:
    """A running `herald serve`, on ports of its own unless told otherwise.

    `log` is where the events are: a folder for the embedded log, or a list of flags. `keep`
    is how many of its last lines are kept; None keeps all. Unless told otherwise it is `ready`
    to take actions once it is made.
    """

    def __init__(
        self,
        log,
        *flags,
        listen="127.0.0.1:0",
        admin_listen="127.0.0.1:0",
        keep=200,
        ready=True,
    ):
        log = log if isinstance(log, list) else ["--data-dir", str(log)]
        command = [binary(), "serve", *log]
        command += ["--listen", listen, "--admin-listen", admin_listen, *map(str, flags)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment(),
        )
        self.log = collections.deque(maxlen=keep)
        self._news = threading.Condition()
        self._ended = False
        # Reads on for as long as the server lives, so that its pipe never fills.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            # http://HOST:PORT, and the same for the admin address ("off": none).
            self.url, self.admin = self.line(
                r"grpc\"?[=:]\"?(http://[\w.:\[\]-]+).*?admin\"?[=:]\"?([\w.:/\[\]-]+)"
            ).groups()
            if ready:
                self.line(r"writes\"?[=:]true", READY_SECONDS)
        except BaseException:
            self.kill()
            raise

    def _read(self):
        for line in self.process.stderr:
            with self._news:
                self.log.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def line(self, pattern, seconds=START_SECONDS):
        """Waits for a line in which the pattern is found; one that was kept is as good."""

        def find():
            found = (re.search(pattern, line) for line in self.log)
            return next((match for match in found if match), None)

        with self._news:
            self._news.wait_for(lambda: self._ended or find(), seconds)
            if match := find():
                return match
            why = "ended" if self._ended else f"ran {seconds} s"
        raise RuntimeError(f"the server {why} without a line {pattern!r}:\n{self.said()}")

    @property
    def address(self):
        """Host and port, as gRPC clients want them."""
        return self.url.removeprefix("http://")

    def is_ready(self):
        """Whether it says that it takes actions and streams events."""
        try:
            with urllib.request.urlopen(f"{self.admin}/ready", timeout=START_SECONDS):
                return True
        except urllib.error.HTTPError as answer:
            with answer:
                if answer.code == 503:
                    return False
            raise

    def metric(self, name):
        """The value of a metric without labels."""
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=START_SECONDS) as answer:
            text = answer.read().decode()
        return int(float(re.search(rf"^{name} ([\d.]+)$", text, re.MULTILINE)[1]))

    def said(self):
        with self._news:
            return "".join(self.log)

    def stop(self):
        """Asks the server to end, which it does with success."""
        self.process.terminate()
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"the server does not stop:\n{self.said()}") from None
        self._reader.join()
        if code != 0:
            raise RuntimeError(f"the server ended with {code}:\n{self.said()}")

    def kill(self):
        """Ends the server at once, with SIGKILL."""
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is not None:
            if kind is None:
                raise RuntimeError(f"the server has died:\n{self.said()}")
        elif kind is None:
            self.stop()
        else:
            self.kill()
            print(f"the server at {self.url} said last:\n{self.said()}", file=sys.stderr)


def herald(*arguments, env=None):
    """What `herald ARGUMENTS` writes to stdout, with `env` in its environment too. An exit code
    but 0 is an error.
    """
    done = subprocess.run(
        [binary(), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment() | (env or {}),
        timeout=COMMAND_SECONDS,
    )
    if done.returncode != 0:
        raise RuntimeError(f"herald {arguments[0]} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def script(name, *arguments):
    """What `scripts/NAME ARGUMENTS` writes to stdout. An exit code but 0 is an error."""
    done = subprocess.run(
        [REPOSITORY / "scripts" / name, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SCRIPT_SECONDS,
    )
    if done.returncode != 0:
        raise RuntimeError(f"scripts/{name} {arguments[0]} failed:\n{done.stderr}")
    return done.stdout


def values(lines):
    """What a script says of what it has started, by name."""
    return dict(line.split("=", 1) for line in lines.splitlines())


@contextlib.contextmanager
def started(name, folder):
    """What `scripts/NAME` says of what it has started in a folder; stopped in the end."""
    lines = script(name, "start", "--dir", folder)
    try:
        yield values(lines)
    finally:
        script(name, "stop", "--dir", folder)


def tail_command(url, *flags):
    """All events from the first one on, one line of JSON each."""
    command = [binary(), "tail", "--json", "--include-origin", "--from", "earliest"]
    return [*command, "--server", url, *flags]


def whole_log(url, *flags):
    """Every event that the log holds, as the feed delivers them."""
    with tempfile.TemporaryFile("w+") as complaints:
        with subprocess.Popen(
            tail_command(url, "--until-caught-up", *map(str, flags)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=environment(),
        ) as tail:
            for line in tail.stdout:
                yield json.loads(line)
        if tail.returncode != 0:
            complaints.seek(0)
            raise RuntimeError(f"herald tail ended with {tail.returncode}:\n{complaints.read()}")


class Subscriber:
    """A `herald tail` from the first event on, which keeps what it gets in a file."""

    def __init__(self, url, file):
        self._file = file
        self._lines = LineCount(file)
        self._notes = file.with_suffix(".notes")
        with open(file, "w") as events, open(self._notes, "w") as notes:
            self._process = subprocess.Popen(
                tail_command(url, "--heartbeat", "1s"),
                stdin=subprocess.DEVNULL,
                stdout=events,
                stderr=notes,
                env=environment(),
            )

    def all_events(self, count):
        """Waits until so many events have come, ends it, and yields all that came."""
        wait_until(lambda: self._lines.now() >= count, SUBSCRIBER_SECONDS, f"{count} events")
        self._process.terminate()
        self._process.wait(STOP_SECONDS)
        with open(self._file, encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)

    def signal(self, number):
        """Sends it a signal."""
        self._process.send_signal(number)

    def reconnects(self):
        """How often it had to resume."""
        return self._notes.read_text().count("reconnecting")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class LineCount:
    """Counts the lines of a growing file, which need not be there yet."""

    def __init__(self, path):
        self._path = path
        self._bytes = 0
        self._lines = 0

    def now(self):
        if self._path.exists():
            with open(self._path, "rb") as file:
                file.seek(self._bytes)
                for chunk in iter(lambda: file.read(1 << 16), b""):
                    self._bytes += len(chunk)
                    self._lines += chunk.count(b"\n")
        return self._lines


def machine():
    """What a result depends on. No names of people or hosts."""
    info = {"cpu": "unknown", "cores": os.cpu_count(), "memory_bytes": None}
    try:
        cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
        info["cpu"] = cpu[1] if cpu else platform.machine()
        memory = re.search(r"MemTotal:\s*(\d+) kB", pathlib.Path("/proc/meminfo").read_text())
        info["memory_bytes"] = int(memory[1]) * 1024 if memory else None
    except OSError:
        info["cpu"] = platform.machine()
    return info | {"system": f"{platform.system()} {platform.release()}"}


def versions():
    def output(*command):
        try:
            done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
        except OSError:
            return "unknown"
        return done.stdout.strip() or "unknown"

    return {
        "herald": output(binary(), "--version"),
        "commit": output("git", "describe", "--always", "--dirty"),
        "rustc": output("rustc", "--version"),
        "python": platform.python_version(),
    }


def prove(name, sizes, proof):
    """Runs `proof(options)` with the options of the size named on the command line.

    The proof returns what it measured and raises what is wrong. The raw result
    goes to benches/runs/ in full size, else to a temporary folder.
    """
    size = sys.argv[1] if len(sys.argv) > 1 else "full"
    if size not in sizes:
        sys.exit(f"{name}: the sizes are {', '.join(sizes)}, not {size!r}")
    # Whoever ends a proof ends what it has started too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    begun = datetime.datetime.now(datetime.timezone.utc)
    result = proof(sizes[size])
    took = datetime.datetime.now(datetime.timezone.utc) - begun
    run = {
        "proof": name,
        "size": size,
        "began": begun.isoformat(timespec="seconds"),
        "seconds": round(took.total_seconds(), 1),
        "options": sizes[size],
        "machine": machine(),
        "versions": versions(),
        "result": result,
    }
    if size == "full":
        folder = REPOSITORY / "benches" / "runs"
    else:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="herald-proof-"))
    path = folder / f"{begun:%Y-%m-%d}-{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    missed = [gate for gate in result.get("gates", []) if not gate["met"]]
    if missed:
        sys.exit(f"{name}, {size}: gates not met: {json.dumps(missed)}; {path}")
    print(f"{name}, {size}: holds; {run['seconds']} s; {path}")
