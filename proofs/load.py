"""`herald bench write` beside a proof: many players buy, and their receipts are kept."""

import json
import subprocess

import checks
import running

# How long what is waited for may take. Far more than is needed.
PATIENCE_SECONDS = 120


class Load:
    """A running load. Each player's calls are made one after the other."""

    def __init__(self, server, receipts_file, *flags):
        self._receipts_file = receipts_file
        self._lines = running.LineCount(receipts_file)
        command = [
            running.binary(), "bench", "write", "--server", server.url, "--ordered",
            "--tolerate-errors", "--json", "--receipts", receipts_file, *flags,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=running.environment(),
        )

    def received(self):
        """How many receipts are in the file; some more are on their way to it."""
        return self._lines.now()

    def wait_for(self, receipts):
        """Waits until so many receipts have come."""

        def there():
            if self.received() >= receipts:
                return True
            if self._process.poll() is not None:
                raise RuntimeError(f"the load ended early:\n{self._process.stderr.read()}")
            return False

        running.wait_until(there, PATIENCE_SECONDS, f"{receipts} receipts")

    def finish(self, seconds=PATIENCE_SECONDS):
        """Waits for the end; None if it does not come, else what failed, by code."""
        try:
            said, complaints = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            return None
        if self._process.returncode != 0:
            raise RuntimeError(f"the load ended with {self._process.returncode}:\n{complaints}")
        return json.loads(said)["targets"][0]["rounds"][0]["failed"]

    def stop(self):
        """Ends it, with calls under way that nobody waits for any more."""
        self._process.terminate()
        self._process.communicate()

    def receipts(self):
        """What was acknowledged, in the order of each player's calls."""
        receipts = checks.read_receipts(self._receipts_file)
        checks.check_player_order(receipts)
        return receipts

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
