"""Proofs in small size, run beside other tests, which leave a core idle as a rule."""

import concurrent.futures
import os
import subprocess
import threading

import running

# They mostly wait for a Kafka: with nothing beside them two take little longer than one.
AT_A_TIME = 2


class Proofs:
    """Some proofs, one at a time until it is said that there is room for more."""

    def __init__(self, names):
        self._room = threading.Semaphore(1)
        self._lock = threading.Lock()
        self._running = set()
        self._ended = False
        self._pool = concurrent.futures.ThreadPoolExecutor(AT_A_TIME)
        self._results = {name: self._pool.submit(self._prove, name) for name in names}

    def _prove(self, name):
        """How it ended, and what it said."""
        with self._room:
            with self._lock:
                if self._ended:
                    return None, ""
                process = subprocess.Popen(
                    [running.REPOSITORY / "scripts" / "prove", name, "small"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=os.environ | {"HERALD_BIN": running.binary()},
                )
                self._running.add(process)
            said, _ = process.communicate()
            with self._lock:
                self._running.remove(process)
            return process.returncode, said

    def have_room(self):
        """Nothing else is run from now on."""
        for _ in range(1, AT_A_TIME):
            self._room.release()

    def result(self, name):
        return self._results[name].result()

    def end(self):
        """Ends those that are running, which end what they have started, and starts no others."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.terminate()
        self._pool.shutdown(cancel_futures=True)
