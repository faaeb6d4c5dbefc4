"""A game whose log is exported, and where it is exported to."""

import contextlib
import json
import subprocess

import grpc

import exporting
import harness
import running
import stub

# Names that are no names of folders, and not of one letter in UTF-8 either.
STRANGE_PLAYERS = ["../a/b=c d%2F", "ørjan"]


class Game:
    """A running server on an embedded log, as a game client has it, and its log."""

    def __init__(self, modules, data_dir):
        self.log = ["--data-dir", data_dir]
        self.server = running.Server(data_dir, "--access-log", "off")
        self.channel = grpc.insecure_channel(self.server.address)
        self.stub = stub.Stub(modules, self.channel)
        self.pb = self.stub.pb

    def act(self, method, **fields):
        request = getattr(self.pb, f"{method}Request")(**fields)
        return getattr(self.stub.game, method)(request, timeout=stub.DEADLINE)

    def buy(self, player, count=1, item="sword"):
        """Buys one by one; the last receipt."""
        for _ in range(count):
            receipt = self.act("PurchaseItem", player_id=player, item_id=item).receipt
        return receipt

    def join(self, player, guild):
        return self.act("JoinGuild", player_id=player, guild_id=guild).receipt

    def events(self, *flags):
        """What the tail gives, by place."""
        return by_place(running.whole_log(self.server.url, *flags))

    def play(self):
        """Something of everything."""
        pb = self.pb
        session = self.act("StartSession", player_id="alice").session_id
        context = pb.ClientContext(session_id=session, build_version="1.4.2", platform="android")
        context.client_time.FromSeconds(1_800_000_000)
        for player in ("alice", "bob", *STRANGE_PLAYERS):
            receipt = self.act(
                "PurchaseItem",
                player_id=player,
                item_id="sword",
                quantity=3,
                client_context=context,
            ).receipt
            self.join(player, "owls" if player == "alice" else "foxes")
        self.act("GrantItem", player_id="bob", item_id="knife", quantity=2, reason="reward")
        self.act("ConsumeItem", player_id="bob", item_id="knife")
        self.act("RefundPurchase", player_id=player, purchase_event_id=receipt.event_id)
        self.act("LeaveGuild", player_id="alice", guild_id="owls")
        request = pb.PurchaseItemRequest(player_id="bob", item_id="dragon")
        stub.refused(self.stub.game.PurchaseItem, request)
        # A refusal is recorded a little later.
        refusals = ["--type", "request_rejected"]
        running.wait_until(lambda: self.events(*refusals), harness.SECONDS, "a refusal")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.channel.close()
        self.server.__exit__(*error)


def by_place(events):
    """DeliveredEvents in JSON, by partition and offset; each is there once."""
    found = {}
    for event in events:
        place = event.get("partition", 0), int(event.get("offset", "0"))
        assert place not in found, f"twice: {event}"
        found[place] = event
    return found


class Out:
    """A destination, and what is exported there."""

    def __init__(self, destination):
        self.destination = destination

    @property
    def path(self):
        return self.destination.look()

    def command(self, log, *flags):
        words = [running.binary(), "export", "--json", *log, "--out", self.destination.url, *flags]
        return [str(word) for word in words]

    def env(self):
        return running.environment() | self.destination.env

    def export(self, log, *flags):
        """Exports, and returns the summary."""
        done = self.tries(log, *flags)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def tries(self, log, *flags):
        """Exports, whatever becomes of it."""
        return subprocess.run(
            self.command(log, *flags),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self.env(),
            timeout=harness.SECONDS,
        )

    def follows(self, log, *flags):
        """An export that goes on until it is ended."""
        return self.runs(log, "--follow", *flags)

    @contextlib.contextmanager
    def runs(self, log, *flags):
        """An export that is not waited for."""
        with subprocess.Popen(
            self.command(log, *flags),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env(),
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def files(self):
        """All that readers see, by name."""
        folder = self.path
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in exporting.visible_files(folder)
        }

    def everything(self):
        """Every file, by name."""
        folder = self.path
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    def table(self):
        return exporting.read_all(self.path)

    def events(self):
        """The rows as events, by place."""
        return by_place(exporting.delivered(self.table()))
