"""The jobs on a topic with everything on it that may be: they give what `herald export` gives."""

import copy
import datetime
import pathlib

import pytest
from google.protobuf import descriptor_pb2

import harness
import running
import stub
import tables
from herald_spark import cli, shell
from herald_spark.problems import Problem

FOREIGN = [b"\xff\xfe\x00garbage", b'{"event_id": "x"}', None, b"", b"\x78\x01"]

# How many records a batch of the stream has: so few that what belongs together is in several.
BATCH = 7


def full(pb, player):
    """An event with as much as there is in it, defaults too."""
    event = pb.GameEvent(
        event_id=f"00000000-0000-4000-8000-{abs(hash(player)) % 10**12:012}",
        event_type="item_purchased",
        player_id=player,
        item_purchased=pb.ItemPurchased(item_id="sword", quantity=3, total_price=1 << 40),
    )
    event.accept_time.FromJsonString("2026-11-21T10:00:00.123Z")
    event.origin.request_id = "a request"
    event.origin.headers["host"] = "game.example"
    event.origin.transport = pb.TRANSPORT_GRPC
    event.origin.client_context.build_version = "1.4.2"
    return event


def strange(pb, folder):
    """Events whose columns are not all that they hold, or hold less than usual."""
    newer = stub.newer_event(folder)(event_id="n", event_type="item_traded", player_id="alice")
    newer.item_traded.item_id = "horse"
    transport = full(pb, "transport")
    transport.origin.transport = 9
    fine = full(pb, "fine")
    fine.accept_time.nanos = 123_456_789
    micros = full(pb, "micros")
    micros.accept_time.nanos = 123_456_000
    refused = pb.GameEvent(event_id="r", event_type="request_rejected")
    refused.request_rejected.violations.add()
    bare = pb.GameEvent(event_id="b", event_type="session_started")
    bare.session_started.SetInParent()
    return [newer, transport, fine, micros, refused, bare]


@pytest.fixture
def filled(kafka, topic, pb, tmp_path):
    """The topic with events, two of which came twice, and with what is none."""
    between = [harness.event(pb, f"player-{n}", "owls" if n % 2 else "foxes") for n in range(20)]
    once = full(pb, "alice")
    # Its writer had seen both, and means it.
    anew = copy.deepcopy(once)
    anew.checked_through_offset = 22
    late = copy.deepcopy(between[19])
    late.checked_through_offset = 20
    kafka.put_events(topic, 3, [once, *between, once, anew, late])
    kafka.put_events(topic, 4, [once, *strange(pb, tmp_path)])
    kafka.put(topic, [(4, b"alice", value) for value in FOREIGN])
    kafka.put_events(topic, 4, [once])
    return topic


class Jobs:
    def __init__(self, spark, kafka, topic, descriptor_set, folder):
        self.spark = spark
        self.brokers = kafka.brokers
        self.topic = topic
        self.descriptor_set = descriptor_set
        self.folder = folder

    def where(self):
        return ["--kafka-brokers", self.brokers, "--topic", self.topic]

    def run(self, job, *arguments):
        words = [job, *map(str, arguments), *self.where(), "--descriptor-set", self.descriptor_set]
        options = cli.parser().parse_args(words)
        cli.RUN[job](self.spark, options)

    def herald(self, name, *flags):
        out = self.folder / f"herald-{name}"
        running.herald("export", "--out", out, *self.where(), "--layout", "flat", *flags)
        return out


@pytest.fixture
def jobs(spark, kafka, topic, descriptor_set, tmp_path):
    return Jobs(spark, kafka, topic, descriptor_set, tmp_path)


def test_extract_and_export_agree_and_what_is_no_event_is_beside(jobs, filled, capsys):
    out = jobs.folder / "extract"
    jobs.run("extract", "--out", out)
    said = capsys.readouterr().err
    # One that its writer meant is none; the same id in another partition is none either.
    assert f"37 records came: 29 events, 3 duplicates left out, {len(FOREIGN)} no events" in said
    tables.check_same(out, jobs.herald("all"), 29)
    assert (out / "_SUCCESS").is_file()
    # Spark cannot write again what is finer than a millisecond, or an enum that it does not know.
    kept, export = tables.records_kept(out), tables.records_kept(jobs.folder / "herald-all")
    assert sorted(kept) == [(4, 1), (4, 2), (4, 3), (4, 4)]
    assert export == {place: kept[place] for place in [(4, 1), (4, 3)]}
    side = tables.rows(f"{out}.undecodable", "SELECT partition, value FROM events ORDER BY \"offset\"")
    assert side == [(4, value) for value in FOREIGN]

    # Once more: it is refused, or the same.
    with pytest.raises(Problem, match="--mode overwrite"):
        jobs.run("extract", "--out", out)
    jobs.run("extract", "--out", out, "--mode", "overwrite", "--layout", "hive")
    assert list(out.glob("date=*/event_type=item_traded/*.parquet"))
    found = tables.rows(out, "SELECT count(*) FROM events")
    assert found == [(29,)]


def test_a_stream_is_exact_at_the_bounds_of_its_batches(jobs, filled, kafka, pb, capsys):
    out, checkpoint = jobs.folder / "stream", jobs.folder / "checkpoint"
    flags = ["--out", out, "--checkpoint", checkpoint, "--available-now", "--batch-records", BATCH]
    jobs.run("stream", *flags)
    assert len(list(out.glob("batch_id=*"))) > 3
    pattern = "batch_id=*/*.parquet"
    tables.check_same(out, jobs.herald("all"), 29, pattern)
    # What came since, a duplicate of an earlier batch among it.
    kafka.put_events(jobs.topic, 3, [full(pb, "alice"), full(pb, "zoë")])
    jobs.run("stream", *flags)
    # It was killed before Spark wrote that the last batch is done.
    newest = max((checkpoint / "commits").glob("[0-9]*"), key=lambda path: int(path.name))
    newest.unlink()
    (checkpoint / "commits" / f".{newest.name}.crc").unlink(missing_ok=True)
    capsys.readouterr()
    jobs.run("stream", *flags)
    assert f"batch {newest.name}: written before" in capsys.readouterr().err
    tables.check_same(out, jobs.herald("more"), 30, pattern)
    side = tables.rows(f"{out}.undecodable", "SELECT value FROM events ORDER BY \"offset\"", pattern)
    assert [value for (value,) in side] == FOREIGN
    assert not (out / "_herald_temporary").exists()

    with pytest.raises(Problem, match="another checkpoint"):
        jobs.run("stream", "--out", out, "--checkpoint", jobs.folder / "new", "--available-now")


def test_a_span_is_judged_by_what_lies_before_it(jobs, kafka, pb, capsys):
    once = full(pb, "alice")
    kafka.put_events(jobs.topic, 3, [once, harness.event(pb, "bob")])
    last = kafka.records(jobs.topic, "%T")[-1][0]
    harness.until(lambda: kafka.put_events(jobs.topic, 5, [harness.event(pb, "tick")])
                  and kafka.records(jobs.topic, "%T")[-1][0] > last, "a later time")  # fmt: skip
    kafka.put_events(jobs.topic, 3, [once, harness.event(pb, "carol")])
    at = datetime.datetime.fromtimestamp((int(last) + 1) / 1_000, datetime.timezone.utc)
    at = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    out = jobs.folder / "since"
    jobs.run("extract", "--out", out, "--from", at)
    assert "1 duplicates left out" in capsys.readouterr().err
    tables.check_same(out, jobs.herald("since", "--from", at))
    assert tables.rows(out, "SELECT player_id FROM events WHERE partition = 3") == [("carol",)]


FILTERS = [
    ["--type=item_purchased"],
    ["--player=player-1", "--player=player-2"],
    ["--guild=owls", "--type=guild_joined"],
]


def test_filters_are_those_of_the_feed_and_headers_are_rewritten(jobs, filled, capfd):
    whole = jobs.folder / "whole"
    jobs.run("extract", "--out", whole)
    for number, flags in enumerate(FILTERS):
        out = jobs.folder / f"filter-{number}"
        jobs.run("filter", "--input", whole, "--out", out, *flags)
        tables.check_same(out, jobs.herald(f"filter-{number}", *flags))
    # Another tool's files are as good.
    out = jobs.folder / "rewritten"
    capfd.readouterr()
    jobs.run(
        "filter", "--input", jobs.herald("all"), "--out", out, "--item", "sword", "--player",
        "alice", "--set-header", "Host=moon.example", "--set-header", "Cache-Control=no-cache",
        "--show-raw",
    )  # fmt: skip
    headers = tables.rows(out, "SELECT DISTINCT origin.headers FROM events")
    assert headers == [({"host": "moon.example", "cache-control": "no-cache"},)]
    shown = capfd.readouterr().out
    assert "game.example" in shown and "moon.example" in shown


def test_it_is_said_when_there_is_nothing(jobs, kafka, pb, capsys):
    out = jobs.folder / "empty"
    jobs.run("extract", "--out", out)
    assert "no records; nothing was written" in capsys.readouterr().err
    kafka.put_events(jobs.topic, 2, [harness.event(pb, "alice") for _ in range(3)])
    kafka.trim(jobs.topic, 2, 3)
    jobs.run("extract", "--out", out, "--mode", "overwrite")
    assert "retention has removed all 3 records" in capsys.readouterr().err
    kafka.put_events(jobs.topic, 2, [harness.event(pb, "alice")])
    jobs.run("extract", "--out", out, "--mode", "overwrite")
    said = capsys.readouterr().err
    assert "1 records came: 1 events" in said and "had removed 3 records" in said
    jobs.topic = "there-is-none"
    with pytest.raises(Problem, match="no topic there-is-none|cannot be read"):
        jobs.run("extract", "--out", out, "--mode", "overwrite")


def test_the_enums_of_the_schema_are_known(descriptor_set, spark):
    from herald_spark import events

    files = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(descriptor_set).read_bytes())
    messages = {f".{f.package}.{m.name}": m for f in files.file for m in f.message_type}
    enums = {f".{f.package}.{e.name}": e for f in files.file for e in f.enum_type}

    def found(name, path=()):
        for field in messages[name].field:
            if field.type_name in enums:
                yield ".".join([*path, field.name]), enums[field.type_name].value[0].name
            elif field.type_name in messages:
                yield from found(field.type_name, [*path, field.name])

    assert dict(found(".game.v1.GameEvent")) == events.ENUM_DEFAULTS


def test_a_report_counts_what_happened(jobs, kafka, pb):
    def guild(kind, player, name):
        event = harness.event(pb, player, name)
        if kind == "left":
            event.event_type = "guild_left"
            event.guild_left.guild_id = name
        return event

    bought = full(pb, "a<b>$x$")
    refund = pb.GameEvent(event_id="refund", event_type="purchase_refunded", player_id="zoë")
    refund.purchase_refunded.item_id = "sword"
    refund.purchase_refunded.quantity = 1
    moves = [
        guild("joined", "alice", "owls"), guild("joined", "bob", "owls"),
        guild("joined", "alice", "foxes"), guild("left", "bob", "owls"),
        guild("joined", "carol", "owls"),
    ]  # fmt: skip
    kafka.put_events(jobs.topic, 1, [bought, refund, *moves])
    out = jobs.folder / "report"
    jobs.run("report", "--out", out, "--every", "1h")
    page = (out / "index.html").read_text()
    assert "<td>sword</td><td>2</td>" in page
    assert "<td>owls</td><td>1</td>" in page and "<td>foxes</td><td>1</td>" in page
    assert f"<td>a&lt;b&gt;$x$</td><td>{1 << 40}</td><td>1</td>" in page
    for name in ("purchases", "guilds", "players"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f'src="{name}.png"' in page


def test_the_shell_has_the_events_at_hand(jobs, kafka, pb, monkeypatch, capsys):
    kafka.put_events(jobs.topic, 1, [full(pb, "alice"), harness.event(pb, "bob")])
    lines = [
        "print('swords', filters.chosen(events, items=['sword']).count())",
        "print('all', spark.sql('SELECT count(*) FROM events').first()[0])",
    ]

    def typed(_):
        if not lines:
            raise EOFError
        return lines.pop(0)

    monkeypatch.setattr("builtins.input", typed)
    flags = [*jobs.where(), "--descriptor-set", jobs.descriptor_set]
    shell.interact(jobs.spark, shell.options_of(flags))
    said = capsys.readouterr().out
    assert "swords 1" in said and "all 2" in said
