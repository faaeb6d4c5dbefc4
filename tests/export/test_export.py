"""`herald export`, the real binary, on logs that servers are writing to."""

import base64
import http.client
import http.server
import json
import signal
import socket
import threading
import uuid

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

import destinations
import exporting
import running
from exports import STRANGE_PLAYERS, Out, by_place
from given import given
from harness import SECONDS, event, field, until

TIME = pa.timestamp("us", "UTC")
ITEMS = {"item_id": pa.string(), "quantity": pa.int32()}
PRICES = {"unit_price": pa.int64(), "total_price": pa.int64(), "currency_code": pa.string()}


def struct(**fields):
    return pa.struct(list(fields.items()))


COLUMNS = {
    "event_id": pa.string(),
    "event_type": pa.string(),
    "player_id": pa.string(),
    "accept_time": TIME,
    "checked_through_offset": pa.int64(),
    "origin": struct(
        request_id=pa.string(),
        headers=pa.map_(pa.string(), pa.string()),
        remote_address=pa.string(),
        transport=pa.string(),
        client_context=struct(
            client_time=TIME,
            session_id=pa.string(),
            build_version=pa.string(),
            platform=pa.string(),
        ),
    ),
    "session_started": struct(session_id=pa.string()),
    "item_purchased": struct(**ITEMS, **PRICES, catalog_version=pa.string()),
    "guild_joined": struct(guild_id=pa.string()),
    "request_rejected": struct(
        method=pa.string(),
        violations=pa.list_(struct(field=pa.string(), description=pa.string())),
    ),
    "guild_left": struct(guild_id=pa.string()),
    "item_granted": struct(**ITEMS, reason=pa.string()),
    "item_consumed": struct(**ITEMS),
    "purchase_refunded": struct(purchase_event_id=pa.string(), **ITEMS, **PRICES),
    "guild_id": pa.string(),
    "raw_value": pa.binary(),
    "partition": pa.int32(),
    "offset": pa.int64(),
    "append_time": TIME,
}


# Those that say what happened.
PAYLOADS = [
    "session_started",
    "item_purchased",
    "guild_joined",
    "request_rejected",
    "guild_left",
    "item_granted",
    "item_consumed",
    "purchase_refunded",
]


# ---- what is in the files


def test_rows_are_the_events_of_the_tail(played, out):
    summary = out.export(played.log)
    exporting.check_finished(out.path, summary)
    events = played.events()
    assert out.events() == events
    assert summary["events"] == len(events)
    assert (summary["duplicates"], summary["foreign"]) == (0, 0)
    assert summary["cursor"] and summary["seconds"] > 0


def test_files_have_the_documented_columns(played, out):
    out.export(played.log)
    table = out.table()
    assert {each.name: each.type for each in table.schema} == COLUMNS
    assert all(each.nullable for each in table.schema)
    assert table["raw_value"].null_count == table.num_rows
    guilds = {
        (row["event_type"], row["guild_id"])
        for row in table.select(["event_type", "guild_id"]).to_pylist()
        if row["guild_id"] is not None
    }
    assert guilds == {("guild_joined", "owls"), ("guild_joined", "foxes"), ("guild_left", "owls")}


def test_folders_are_the_date_and_the_type(played, out):
    out.export(played.log)
    for name in out.files():
        date, kind, file = name.split("/")
        table = exporting.read(out.path / name, ["event_type", "append_time"])
        days = {f"date={time:%Y-%m-%d}" for time in table["append_time"].to_pylist()}
        kinds = {f"event_type={kind}" for kind in table["event_type"].to_pylist()}
        assert (days, kinds) == ({date}, {kind})
        assert file.startswith("part-") and file.endswith(".parquet")


def test_lines_of_json_are_those_of_the_tail(played, out):
    summary = out.export(played.log, "--format", "jsonl", "--compression", "none")
    exporting.check_finished(out.path, summary)
    lines = [json.loads(line) for text in out.files().values() for line in text.splitlines()]
    assert by_place(lines) == played.events()


def test_a_flat_export_has_no_folders(played, out):
    out.export(played.log, "--layout", "flat")
    assert not [name for name in out.files() if "/" in name]
    assert len(out.events()) == len(played.events())


@pytest.mark.parametrize("codec", ["snappy", "zstd", "none"])
def test_pages_are_compressed_as_asked_for(played, out, codec):
    out.export(played.log, "--layout", "flat", "--compression", codec)
    expected = {"none": "UNCOMPRESSED"}.get(codec, codec.upper())
    for path in exporting.visible_files(out.path):
        group = pq.read_metadata(path).row_group(0)
        assert {group.column(n).compression for n in range(group.num_columns)} == {expected}


def without_origin(events):
    for event in events.values():
        del event["event"]["origin"]
    return events


def test_origins_can_be_left_out(played, out):
    out.export(played.log, "--no-origin")
    table = out.table()
    assert table["origin"].null_count == table.num_rows
    assert out.events() == without_origin(played.events())


def test_origins_can_be_left_out_of_lines_too(played, out):
    out.export(played.log, "--no-origin", "--format", "jsonl", "--compression", "none")
    lines = [json.loads(line) for text in out.files().values() for line in text.splitlines()]
    assert by_place(lines) == without_origin(played.events())


@pytest.mark.parametrize(
    "flags",
    [
        ["--type=guild_joined"],
        ["--type=guild_joined", "--type=guild_left"],
        ["--player=alice", "--player=bob"],
        ["--guild=owls", "--type=guild_left"],
        ["--guild=owls", "--player=bob"],
        ["--player=nobody"],
        [f"--player={STRANGE_PLAYERS[0]}"],
    ],
    ids=" ".join,
)
def test_filters_are_those_of_the_tail(played, out, flags):
    summary = out.export(played.log, *flags)
    expected = played.events(*flags)
    assert summary["events"] == len(expected)
    if expected:
        assert out.events() == expected
    else:
        assert out.files() == {}


@pytest.mark.parametrize(
    "by,column,values",
    [
        ("player", "player_id", ["alice", *STRANGE_PLAYERS]),
        ("guild", "guild_id", ["owls", "foxes"]),
        ("type", "event_type", ["item_purchased", "guild_left"]),
    ],
    ids=["player", "guild", "type"],
)
def test_each_value_of_a_filter_has_its_folder(played, out, by, column, values):
    flags = [f"--{by}={value}" for value in values]
    out.export(played.log, "--split-by", by, *flags)
    assert out.events() == played.events(*flags)
    assert len({name.split("/")[0] for name in out.files()}) == len(values)
    # Other tools find the values in the names.
    whole = pa.dataset.dataset(out.path, format="parquet", partitioning="hive").to_table()
    assert set(whole[column].to_pylist()) == set(values)
    source = f"read_parquet('{out.path}/**/*.parquet', hive_partitioning = true)"
    found = duckdb.sql(f"SELECT DISTINCT {column} FROM {source}").fetchall()
    assert {value for (value,) in found} == set(values)


def test_an_empty_log_makes_no_files(game, out):
    summary = out.export(game.log)
    exporting.check_finished(out.path, summary)
    assert (summary["events"], out.files()) == (0, {})


# ---- from where and to where


def test_an_export_ends_where_it_is_told(game, out):
    first = game.buy("alice")
    last = game.buy("alice", count=2)
    out.export(game.log, "--from", "earliest", "--to", first.cursor)
    assert list(out.events()) == [(first.partition, first.offset)]
    out.export(game.log, "--from", first.cursor, "--to", "now", "--mode", "append")
    assert out.events() == game.events()
    assert max(out.events()) == (last.partition, last.offset)


def test_times_and_ages_are_places_too(played, out):
    events = played.events()
    times = sorted(event["appendTime"] for event in events.values())
    middle = times[len(times) // 2]
    out.export(played.log, "--to", middle)
    out.export(played.log, "--from", middle, "--mode", "append")
    assert out.events() == events
    before = {place for place, event in events.items() if event["appendTime"] < middle}
    assert 0 < len(before) < len(events)
    out.export(played.log, "--from", "1000h", "--to", middle, "--mode", "overwrite")
    assert out.events().keys() == before


def test_a_cursor_of_another_log_is_refused(game, played, out):
    cursor = out.export(played.log)["cursor"]
    before = out.everything()
    done = out.tries(game.log, "--from", cursor, "--mode", "append")
    assert done.returncode == 5, done.stderr
    assert out.everything() == before


def test_an_expired_cursor_is_refused_unless_told_otherwise(kafka, topic, modules, out):
    pb, _ = modules
    log = ["--kafka-brokers", kafka.brokers, "--topic", topic]
    kafka.put_events(topic, 2, [event(pb, "alice") for _ in range(3)])
    cursor = out.export(log, "--to", "earliest")["cursor"]
    kafka.trim(topic, 2, 2)
    append = ["--from", cursor, "--mode", "append"]
    done = out.tries(log, *append)
    assert done.returncode == 5, done.stderr
    assert out.files() == {}
    summary = out.export(log, *append, "--if-expired", "earliest")
    assert (summary["events"], list(out.events())) == (1, [(2, 2)])


# ---- what is there already


def test_a_folder_with_something_in_it_is_refused(played, out):
    out.export(played.log)
    before = out.everything()
    done = out.tries(played.log)
    assert done.returncode == 1, done.stderr
    assert "--mode" in done.stderr
    assert out.everything() == before


def test_an_empty_folder_is_as_good_as_none(played, out):
    assert not any(out.path.iterdir())
    out.export(played.log)


def test_append_adds_files(played, out):
    out.export(played.log)
    before = out.files()
    summary = out.export(played.log, "--mode", "append")
    after = out.files()
    assert before.items() <= after.items()
    assert len(after) == len(before) + summary["files"]
    assert out.table().num_rows == 2 * summary["events"]


def test_overwrite_replaces_what_an_export_wrote(played, out):
    out.export(played.log)
    out.export(played.log, "--mode", "append", "--layout", "flat")
    summary = out.export(played.log, "--mode", "overwrite", "--type", "guild_joined")
    exporting.check_finished(out.path, summary)
    assert out.events() == played.events("--type", "guild_joined")


@pytest.mark.parametrize("name", ["notes.txt", "date=2026-01-01/notes.txt", "mine.parquet"])
def test_overwrite_spares_the_files_of_others(played, out, name):
    out.export(played.log)
    path = out.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    before = out.everything()
    done = out.tries(played.log, "--mode", "overwrite")
    assert done.returncode == 1, done.stderr
    assert name.rsplit("/", 1)[-1] in done.stderr
    assert out.everything() == before


# ---- cursor files


def test_a_cursor_file_goes_on_where_the_last_export_ended(game, out, tmp_path):
    cursor = tmp_path / "cursor"
    for count in (3, 0, 2):
        if count:
            game.buy("alice", count=count)
        before = out.files()
        summary = out.export(game.log, "--cursor-file", cursor)
        assert summary["events"] == count
        assert before.items() <= out.files().items()
        assert len(out.files()) - len(before) == (1 if count else 0)
        assert cursor.read_text() == summary["cursor"] + "\n"
        assert (out.path / "_SUCCESS").exists()
    assert not (tmp_path / "cursor.pending").exists()
    assert out.events() == game.events()


def test_a_damaged_cursor_file_is_refused(game, out, tmp_path):
    game.buy("alice")
    out.export(game.log, "--cursor-file", tmp_path / "cursor")
    before = out.everything()
    (tmp_path / "cursor").write_text("garbage\n")
    done = out.tries(game.log, "--cursor-file", tmp_path / "cursor")
    assert done.returncode == 1, done.stderr
    assert "cursor" in done.stderr
    assert out.everything() == before


# ---- following


def test_following_closes_files_by_age_and_commits_when_it_is_ended(game, out, tmp_path):
    cursor = tmp_path / "cursor"
    game.buy("alice", count=2)
    flags = ["--cursor-file", cursor, "--file-age", "1s"]
    with out.follows(game.log, *flags) as process:
        until(lambda: out.files() and len(out.events()) == 2, "files of what was there")
        game.buy("bob", count=3)
        until(lambda: len(out.events()) == 5, "files of what came")
        committed = cursor.read_text()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    assert committed.endswith("\n")
    assert out.events() == game.events()
    assert not [name for name in out.everything() if name.startswith("_herald_temporary/")]


def test_what_was_read_is_committed_when_it_is_ended(long_game, out, tmp_path):
    flags = ["--cursor-file", tmp_path / "cursor", "--file-age", "1h"]
    with out.follows(long_game.log, *flags) as process:
        until(lambda: any(name.startswith("_herald_temporary/") for name in out.everything()), "a file")
        assert out.files() == {}
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    assert out.events()
    # What was not read by then comes next.
    long_game.buy("bob")
    out.export(long_game.log, "--cursor-file", tmp_path / "cursor")
    assert out.events() == long_game.events()


def test_an_export_that_is_ended_early_leaves_nothing_behind(long_game, out, tmp_path):
    with out.runs(long_game.log) as process:
        until(lambda: process.poll() is not None or out.everything(), "a file")
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=SECONDS)
    # On a fast machine it may have come to its end.
    if process.returncode == 143:
        assert not [name for name in out.everything() if not name.startswith("_herald_temporary/")], said
        out.export(long_game.log)
    else:
        assert process.returncode == 0, said
    assert out.events() == long_game.events()


# ---- other destinations


def test_objects_and_files_of_hdfs_are_those_of_a_folder(played, elsewhere, tmp_path):
    elsewhere.destination.look()
    summary = elsewhere.export(played.log)
    exporting.check_finished(elsewhere.path, summary)
    assert elsewhere.events() == played.events()
    done = elsewhere.tries(played.log)
    assert done.returncode == 1 and "--mode" in done.stderr
    before = elsewhere.files()
    elsewhere.export(played.log, "--mode", "append")
    assert before.items() < elsewhere.files().items()
    flags = ["--player", STRANGE_PLAYERS[0]]
    elsewhere.export(played.log, "--mode", "overwrite", "--split-by", "player", *flags)
    assert elsewhere.events() == played.events(*flags)


def test_cursor_files_work_elsewhere_too(game, elsewhere, tmp_path):
    for player in ("alice", "bob"):
        game.buy(player, count=2)
        elsewhere.export(game.log, "--cursor-file", tmp_path / "cursor")
        assert elsewhere.events() == game.events()


def test_the_shell_of_hdfs_shows_the_files(played, tmp_path):
    values = given("hdfs")
    path = f"/test-{uuid.uuid4()}"
    out = Out(destinations.Hdfs(values, path.removeprefix("/"), tmp_path / "mirror"))
    out.export(played.log, "--layout", "flat")

    def fs(*words):
        return running.script("hdfs", "fs", *words, "--dir", values["dir"])

    assert f"{path}/_SUCCESS" in fs("-ls", "-R", path)
    fs("-get", path, tmp_path / "got")
    events = by_place(exporting.delivered(exporting.read_all(tmp_path / "got")))
    assert events == played.events()


def test_folders_that_a_browser_made_are_no_files(played, tmp_path):
    prefix = f"test-{uuid.uuid4()}/events"
    out = Out(destinations.S3(given("s3"), prefix, tmp_path / "mirror"))
    # An empty object each, whose key ends in a slash.
    out.destination.files.create_dir(f"{given('s3')['bucket']}/{prefix}/mine")
    out.export(played.log)
    assert out.events() == played.events()
    out.export(played.log, "--mode", "overwrite")
    assert out.events() == played.events()


class Between:
    """A way to S3 on which the answers to completed uploads get lost, the first `lost` ones."""

    def __init__(self, endpoint, lost):
        self.completed = 0
        between, target = self, endpoint.removeprefix("http://")

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = http.client.HTTPConnection(target, timeout=SECONDS)
                # Signed with the host as the client knows it.
                asked.request(self.command, self.path, body, dict(self.headers))
                answer = asked.getresponse()
                status, headers, text = answer.status, answer.getheaders(), answer.read()
                asked.close()
                if self.command == "POST" and "uploadId=" in self.path:
                    between.completed += 1
                    if between.completed <= lost:
                        status, headers, text = 500, [], b""
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                length = dict(headers).get("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def test_an_upload_whose_completion_was_not_answered_is_completed(played, tmp_path):
    values = given("s3")
    out = Out(destinations.S3(values, f"test-{uuid.uuid4()}/events", tmp_path / "mirror"))
    with Between(values["endpoint"], lost=1) as between:
        out.destination.env["AWS_ENDPOINT_URL_S3"] = between.url
        out.export(played.log, "--layout", "flat", "--cursor-file", tmp_path / "cursor")
        assert between.completed >= 2
    assert out.events() == played.events()


def test_an_upload_that_the_store_has_removed_is_explained(game, tmp_path):
    values = given("s3")
    out = Out(destinations.S3(values, f"test-{uuid.uuid4()}/events", tmp_path / "mirror"))
    cursor, journal = tmp_path / "cursor", tmp_path / "cursor.pending"
    flags = ["--layout", "flat", "--cursor-file", cursor]
    game.buy("alice", count=2)
    out.export(game.log, *flags)
    game.buy("alice", count=2)
    # A killed run has left a journal, and its upload was removed since.
    path = f"part-{uuid.uuid4()}-00000.parquet"
    multipart = {"id": str(uuid.uuid4()), "parts": ["0" * 32]}
    pending = {
        "version": 1,
        "target": out.destination.url,
        "before": cursor.read_text().strip(),
        "after": "never reached",
        "files": [{"path": path, "bytes": 1000, "place": {"multipart": multipart}}],
    }
    journal.write_text(json.dumps(pending))
    done = out.tries(game.log, *flags)
    assert done.returncode == 1, done.stderr
    batch = path.rsplit("-", 1)[0]
    for said in (path, "lifecycle rule", ".pending", f"{batch}-*"):
        assert said in done.stderr
    # What it says to do is right.
    journal.unlink()
    out.export(game.log, *flags)
    assert out.events() == game.events()


def test_a_second_signal_ends_it_at_once(played, out, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        out.destination.url = "s3://bucket/events"
        out.destination.env = {
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        for first, second, code in [
            (signal.SIGTERM, signal.SIGINT, 130),
            (signal.SIGINT, signal.SIGTERM, 143),
        ]:
            with out.runs(played.log, "--cursor-file", tmp_path / "cursor") as process:
                # It has begun an upload, of which it hears nothing more.
                silent.settimeout(SECONDS)
                connection, _ = silent.accept()
                process.send_signal(first)
                until(lambda: "second signal" in process.stderr.readline(), "a note")
                process.send_signal(second)
                assert process.wait(SECONDS) == code
                connection.close()


# ---- what a later Herald wrote


def test_an_event_of_a_later_herald_is_exported_whole(kafka, topic, modules, newer, out):
    pb, _ = modules
    trade = newer(event_id=str(uuid.uuid4()), event_type="item_traded", player_id="alice")
    trade.item_traded.item_id = "horse"
    trade.item_traded.for_item_id = "sword"
    known, more = event(pb, "alice"), event(pb, "bob")
    values = [trade.SerializeToString(), known.SerializeToString()]
    values.append(more.SerializeToString() + field(900, b"a season"))
    kafka.put(topic, [(1, b"alice", value) for value in values])
    log = ["--kafka-brokers", kafka.brokers, "--topic", topic]
    summary = out.export(log)
    assert (summary["events"], summary["foreign"]) == (3, 0)
    rows = {row["event_id"]: row for row in out.table().to_pylist()}
    unknown = rows[trade.event_id]
    assert (unknown["event_type"], unknown["player_id"]) == ("item_traded", "alice")
    assert {unknown[name] for name in PAYLOADS} == {None}
    # Who has the newer schema finds all of it.
    decoded = newer.FromString(unknown["raw_value"])
    assert decoded == trade
    assert decoded.item_traded.for_item_id == "sword"
    assert rows[known.event_id]["raw_value"] is None
    assert rows[more.event_id]["guild_joined"] == {"guild_id": "owls"}
    assert rows[more.event_id]["raw_value"] == values[2]
    # It is in a folder of its own, and found by its type.
    assert [name for name in out.files() if "event_type=item_traded/" in name]


def test_a_line_of_such_an_event_has_its_bytes(kafka, topic, modules, newer, out):
    trade = newer(event_id=str(uuid.uuid4()), event_type="item_traded", player_id="alice")
    trade.item_traded.for_item_id = "sword"
    value = trade.SerializeToString()
    kafka.put(topic, [(1, b"alice", value)])
    log = ["--kafka-brokers", kafka.brokers, "--topic", topic]
    out.export(log, "--format", "jsonl", "--layout", "flat")
    ((name, text),) = out.files().items()
    assert name.endswith(".jsonl")
    line = json.loads(text)
    assert line["event"]["eventType"] == "item_traded"
    assert base64.b64decode(line["rawValue"]) == value


def test_what_is_no_event_is_counted_and_what_came_twice_comes_once(kafka, topic, modules, out):
    pb, _ = modules
    once = event(pb, "alice").SerializeToString()
    values = [once, b"garbage\xff", once, b""]
    kafka.put(topic, [(1, b"alice", value) for value in values])
    log = ["--kafka-brokers", kafka.brokers, "--topic", topic]
    summary = out.export(log)
    counts = [summary[name] for name in ("events", "foreign", "duplicates")]
    assert (counts, list(out.events())) == ([1, 2, 1], [(1, 0)])
    # Also when the first of them was exported before.
    kafka.put(topic, [(1, b"alice", once)])
    summary = out.export(log, "--from", summary["cursor"], "--mode", "append")
    assert (summary["events"], summary["duplicates"]) == (0, 1)


# ---- what is refused

EMBEDDED = ["--data-dir", "nowhere"]


@pytest.mark.parametrize(
    "flags,why",
    [
        ([*EMBEDDED, "--format", "csv"], "csv"),
        ([*EMBEDDED, "--compression", "gzip"], "gzip"),
        ([*EMBEDDED, "--layout", "deep"], "deep"),
        ([*EMBEDDED, "--mode", "replace"], "replace"),
        ([*EMBEDDED, "--from", "yesterday"], "earliest"),
        ([*EMBEDDED, "--to", "tomorrow"], "--to: "),
        ([*EMBEDDED, "--from", "tomorrow"], "--from: "),
        ([*EMBEDDED, "--kafka-brokers", "127.0.0.1:1"], "--kafka-brokers"),
        ([*EMBEDDED, "--type", "item_bought"], "--type"),
        ([*EMBEDDED, "--player", ""], "--player"),
        ([*EMBEDDED, "--split-by", "player"], "--player"),
        ([*EMBEDDED, "--split-by", "guild", "--player", "alice"], "--guild"),
        ([*EMBEDDED, "--file-size", "1KiB"], "1MiB"),
        ([*EMBEDDED, "--file-age", "soon"], "--file-age"),
        ([*EMBEDDED, "--follow"], "--cursor-file"),
        ([*EMBEDDED, "--cursor-file", "x", "--follow", "--to", "now"], "--to"),
        ([*EMBEDDED, "--cursor-file", "cursor", "--mode", "overwrite"], "--cursor-file"),
        ([*EMBEDDED, "--if-expired", "latest"], "latest"),
        ([*EMBEDDED, "--split-by", "type", "--layout", "flat"], "--layout"),
        ([*EMBEDDED, "--format", "jsonl", "--compression", "snappy"], "--compression"),
    ],
    ids=lambda value: " ".join(value[-4:]) if isinstance(value, list) else value,
)
def test_bad_flags_are_refused(out, tmp_path, flags, why):
    done = out.tries(flags)
    assert done.returncode == 2, done.stderr
    assert why in done.stderr and done.stdout == ""
    assert not out.everything()


@pytest.mark.parametrize(
    "url", ["ftp://host/folder", "s3://", "hdfs://", "", "s3://bucket/a//b", "hdfs://host/a//b"]
)
def test_a_destination_that_is_none_is_refused(played, out, url):
    out.destination.url = url
    done = out.tries(played.log)
    assert done.returncode == 2, done.stderr
    assert "--out" in done.stderr


def test_a_file_has_no_more_parts_than_s3_takes(out):
    out.destination.url = "s3://bucket/events"
    done = out.tries([*EMBEDDED, "--file-size", "65GiB"])
    assert done.returncode == 2, done.stderr
    assert "64GiB" in done.stderr


def test_brokers_that_do_not_answer_are_named_once(out):
    done = out.tries(["--kafka-brokers", "127.0.0.1:1"])
    assert done.returncode == 3, done.stderr
    assert "127.0.0.1:1" in done.stderr and "cannot reach" not in done.stderr


def test_a_folder_without_a_log_is_refused_and_stays_as_it_is(out, tmp_path):
    done = out.tries(["--data-dir", tmp_path / "nothing"])
    assert done.returncode not in (0, 101), done.stderr
    assert str(tmp_path / "nothing") in done.stderr
    assert not (tmp_path / "nothing").exists()
    assert not out.everything()


def test_a_bucket_that_does_not_answer_is_named(played, out):
    out.destination.url = "s3://nowhere/events"
    out.destination.env = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
        # Nobody listens there.
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ALLOW_HTTP": "true",
    }
    done = out.tries(played.log)
    assert done.returncode in (1, 3), done.stderr
    assert "127.0.0.1:1" in done.stderr or "nowhere" in done.stderr
