"""The checks of exports can fail: files made wrong in each way are found out."""

import datetime
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import checks
import destinations
import export_kill9
import exporting

TEXT, INT32, INT64 = pa.string(), pa.int32(), pa.int64()
TIME = pa.timestamp("us", "UTC")
ITEMS = [("item_id", TEXT), ("quantity", INT32)]
SCHEMA = pa.schema(
    [
        ("event_id", TEXT),
        ("event_type", TEXT),
        ("player_id", TEXT),
        ("accept_time", TIME),
        ("checked_through_offset", INT64),
        ("origin", pa.struct([("headers", pa.map_(TEXT, TEXT)), ("transport", TEXT)])),
        ("item_purchased", pa.struct([*ITEMS, ("total_price", INT64)])),
        ("guild_joined", pa.struct([("guild_id", TEXT)])),
        ("request_rejected", pa.struct([("fields", pa.list_(pa.struct([("field", TEXT)])))])),
        ("item_granted", pa.struct(ITEMS)),
        ("item_consumed", pa.struct(ITEMS)),
        ("purchase_refunded", pa.struct([*ITEMS, ("total_price", INT64)])),
        ("guild_id", TEXT),
        ("raw_value", pa.binary()),
        ("partition", INT32),
        ("offset", INT64),
        ("append_time", TIME),
    ]
)


def time(micros=0):
    return datetime.datetime(2026, 11, 29, 1, 2, 3, micros, datetime.timezone.utc)


def event(number, kind, guild=None, **payload):
    return {
        "event_id": f"e{number}",
        "event_type": kind,
        "player_id": f"player-{number % 2}",
        "accept_time": time(),
        "checked_through_offset": number // 2,
        "origin": {"headers": [("host", "there")], "transport": "TRANSPORT_GRPC"},
        "guild_id": guild,
        "raw_value": None,
        "partition": number % 2,
        "offset": number // 2,
        "append_time": time(1_000),
    } | payload


def events():
    sword = {"item_id": "sword", "quantity": 3}
    return [
        event(0, "item_purchased", item_purchased=sword | {"total_price": 300}),
        event(1, "guild_joined", guild="owls", guild_joined={"guild_id": "owls"}),
        event(2, "item_granted", item_granted=sword),
        event(3, "purchase_refunded", purchase_refunded=sword | {"total_price": 100}),
        event(4, "item_purchased", item_purchased=sword | {"total_price": 1 << 53}),
    ]


def table(rows):
    return pa.Table.from_pylist(rows, SCHEMA)


def write(folder, rows):
    """A folder for each type, as the layout by day and type has it."""
    for row in rows:
        where = folder / "date=2026-11-29" / f"event_type={row['event_type']}"
        where.mkdir(parents=True, exist_ok=True)
        pq.write_table(table([row]), where / f"part-{row['event_id']}-{row['offset']}.parquet")
    return folder


@pytest.fixture
def expected(tmp_path):
    """What jq makes of the lines of the tail."""
    file = tmp_path / "tail"
    file.write_text("".join(json.dumps(e) + "\n" for e in exporting.delivered(table(events()))))
    return exporting.figures_by_jq(file)


def test_a_row_is_a_line_of_the_tail():
    refused = event(0, "request_rejected", request_rejected={"fields": [{"field": "x"}]})
    rows = table([*events()[:2], refused | {"accept_time": time(120)}])
    bought, joined, refused = exporting.delivered(rows)
    assert bought == {
        "event": {
            "eventId": "e0",
            "eventType": "item_purchased",
            "playerId": "player-0",
            "acceptTime": "2026-11-29T01:02:03Z",
            "origin": {"headers": {"host": "there"}, "transport": "TRANSPORT_GRPC"},
            "itemPurchased": {"itemId": "sword", "quantity": 3, "totalPrice": "300"},
        },
        "appendTime": "2026-11-29T01:02:03.001Z",
    }
    assert joined["event"]["guildJoined"] == {"guildId": "owls"}
    assert joined["partition"] == 1
    assert refused["event"]["acceptTime"] == "2026-11-29T01:02:03.000120Z"
    assert refused["event"]["requestRejected"] == {"fields": [{"field": "x"}]}


BY = [exporting.figures_by_arrow, exporting.figures_by_duckdb]


@pytest.mark.parametrize("by", BY)
def test_all_come_to_the_same_figures(tmp_path, expected, by):
    found = by(write(tmp_path / "out", events()))
    exporting.check_figures("a reader", found, expected)
    assert found["types"][2] == ("item_purchased", 2, 6, 300 + (1 << 53))


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize(
    "change, found",
    [
        (lambda rows: rows[:-1], "whole"),
        (lambda rows: [*rows, rows[0] | {"offset": 9}], "whole"),
        (lambda rows: [*rows[:-1], rows[-1] | {"offset": 9}], "partitions"),
        (lambda rows: [*rows[:-1], rows[-1] | {"event_id": "e0"}], "whole"),
        (lambda rows: [*rows[:-1], rows[-1] | {"event_type": "guild_left"}], "types"),
        (lambda rows: [rows[0] | {"item_purchased": None}, *rows[1:]], "types"),
        (lambda rows: [rows[0], rows[1] | {"guild_id": "foxes"}, *rows[2:]], "guilds"),
    ],
)
def test_other_rows_come_to_others(tmp_path, expected, by, change, found):
    wrong = by(write(tmp_path / "out", change(events())))
    with pytest.raises(checks.Broken, match=f"a reader, {found}"):
        exporting.check_figures("a reader", wrong, expected)


def finished(folder):
    (folder / "_SUCCESS").touch()
    files = exporting.visible_files(folder)
    return {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def test_what_an_export_leaves_is_what_it_says(tmp_path):
    out = write(tmp_path, events())
    summary = finished(out)
    exporting.check_finished(out, summary)
    with pytest.raises(checks.Broken, match="the summary says"):
        exporting.check_finished(out, summary | {"files": 1})
    (out / "_herald_temporary").mkdir()
    exporting.check_finished(out, summary)
    (out / "_herald_temporary" / "x").touch()
    with pytest.raises(checks.Broken, match="left behind"):
        exporting.check_finished(out, summary)
    (out / "_SUCCESS").unlink()
    with pytest.raises(checks.Broken, match="no empty _SUCCESS"):
        exporting.check_finished(out, summary)


def killed(tmp_path):
    """What a proof has seen of a destination."""
    out = write(tmp_path / "out", events())
    destination = destinations.Folder(out)
    case = export_kill9.Case("a case", None, destination, tmp_path / "cursor", random.Random(1))
    case.look()
    return case, out


def test_new_whole_files_are_fine(tmp_path):
    case, out = killed(tmp_path)
    write(out, [event(5, "guild_joined")])
    (out / "_herald_temporary").mkdir()
    (out / "_herald_temporary" / "part-1.parquet.tmp").write_bytes(b"PAR1")
    case.look()
    assert case.places().num_rows == 6
    case.check_complete()
    case.check(sorted(export_kill9.row_hash(n % 2, n // 2, f"e{n}") for n in range(6)))
    with pytest.raises(checks.Broken, match="6 rows, 5 events in the log, 5 in both"):
        case.check(sorted(export_kill9.row_hash(n % 2, n // 2, f"e{n}") for n in range(5)))


def test_half_files_are_found(tmp_path):
    case, out = killed(tmp_path)
    whole = exporting.visible_files(out)[0]
    (out / "part-7.parquet").write_bytes(whole.read_bytes()[:-10])
    with pytest.raises(checks.Broken, match="no whole file"):
        case.look()


def test_files_that_change_or_vanish_are_found(tmp_path):
    case, out = killed(tmp_path)
    first, second, *_ = exporting.visible_files(out)
    data = first.read_bytes()
    first.write_bytes(data + b"x")
    with pytest.raises(checks.Broken, match="bytes, now"):
        case.look()
    first.write_bytes(data)
    second.unlink()
    with pytest.raises(checks.Broken, match="now None"):
        case.look()


def test_rows_that_are_twice_or_missing_are_found(tmp_path):
    case, out = killed(tmp_path)
    write(out, [event(9, "guild_joined")])
    case.look()
    with pytest.raises(checks.Broken, match="rows are missing"):
        case.check_complete()
    write(out, [event(2, "guild_joined")])
    with pytest.raises(checks.Broken, match="1 rows are there twice"):
        case.look()
