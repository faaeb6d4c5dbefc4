"""The checks can fail: a log made wrong in each way is found out."""

import base64
import dataclasses

import pytest

import accounts
import calling
import checks
import kafka_feed
import page
import throughput


def receipts():
    return [
        checks.Receipt(f"r{n}", f"player-{n % 2}", n // 2 + 1, f"e{n}", n % 2, n // 2)
        for n in range(6)
    ]


def logged(receipts):
    return [checks.Logged(r.event_id, r.player_id, r.sequence, r.partition, r.offset) for r in receipts]


def check(receipts, events):
    checks.check_feed_order(events)
    checks.check_receipts(receipts, events)
    checks.check_player_order(receipts, players_start_at_one=True)


def test_a_log_as_it_should_be_passes():
    check(receipts(), logged(receipts()))


@pytest.mark.parametrize(
    "taken, found",
    [
        (["e0", "e1", "e2", "e3", "e4", "e5"], None),
        (["e1", "e0", "e3", "e2"], None),
        (["e1"], None),
        (["e0", "e1", "e4"], "partition 0, event 1"),
        (["e0", "e1", "e1", "e2"], "partition 1, event 1"),
        (["e0", "e1", "e4", "e2"], "partition 0, event 1"),
        (["e2", "e1"], "partition 0, event 0"),
        (["e0", "e1", "e2", "e3", "e4", "e5", "e5"], "partition 1, event 3"),
        (["e0", "3 records are missing"], "1 are not in the log"),
    ],
)
def test_what_a_reader_took_is_the_beginning_of_each_partition(taken, found):
    if not found:
        return checks.check_taken(taken, logged(receipts()))
    with pytest.raises(checks.Broken, match=found):
        checks.check_taken(taken, logged(receipts()))


def replaced(items, index, **changes):
    return [
        dataclasses.replace(item, **changes) if n == index else item
        for n, item in enumerate(items)
    ]


@pytest.mark.parametrize(
    "change, found",
    [
        (lambda log: log[:-1], "0 times"),
        (lambda log: [*log, dataclasses.replace(log[0], offset=9)], "2 times"),
        (lambda log: replaced(log, 5, offset=7), "another offset"),
        (lambda log: replaced(log, 5, partition=2), "another partition"),
        (lambda log: replaced(log, 0, player_id="mallory"), "another player_id"),
        (lambda log: replaced(log, 0, sequence=9), "another sequence"),
        (lambda log: [log[2], log[0], *log[3:], log[1]], "came after"),
        (lambda log: [log[0], log[0], *log[1:]], "came after"),
    ],
)
def test_a_wrong_log_is_found_out(change, found):
    with pytest.raises(checks.Broken, match=found):
        check(receipts(), change(logged(receipts())))


def test_a_wrong_order_and_a_hole_are_found_out():
    swapped = replaced(replaced(receipts(), 0, sequence=2), 2, sequence=1)
    with pytest.raises(checks.Broken, match="another order"):
        check(swapped, logged(swapped))
    hole = [r for r in receipts() if r.event_id != "e2"]
    with pytest.raises(checks.Broken, match="missing"):
        check(hole, logged(hole))
    scattered = replaced(receipts(), 0, partition=5)
    with pytest.raises(checks.Broken, match="several partitions"):
        check(scattered, logged(scattered))


def test_a_last_receipt_that_was_cut_off_is_none(tmp_path):
    file = tmp_path / "receipts"
    file.write_text("r0\talice\t1\te0\t0\t0\nr1\talice\t2\te1\t0")
    assert checks.read_receipts(file) == [checks.Receipt("r0", "alice", 1, "e0", 0, 0)]
    file.write_text(
        '{"request_id":"r0","player_id":"alice","sequence":1,"event_id":"e0","partition":0,'
        '"offset":0,"replayed":false}\n{"request_id":'
    )
    assert checks.read_receipts(file) == [checks.Receipt("r0", "alice", 1, "e0", 0, 0)]
    file.write_text("r0\talice\n")
    with pytest.raises(checks.Broken, match="not a receipt"):
        checks.read_receipts(file)


def test_events_are_read_from_json_that_leaves_out_zeros():
    delivered = {
        "event": {"eventId": "e0", "playerId": "alice", "itemPurchased": {"quantity": 3}},
        "offset": "7",
    }
    assert checks.Logged.of(delivered) == checks.Logged("e0", "alice", 3, 0, 7)


def test_the_gates_can_be_missed():
    def met(calls, cpu):
        ratio = {"to": "echo", "calls_per_second": calls, "server_cpu_per_call": cpu}
        return [gate["met"] for gate in throughput.gates({"ratios": [ratio]})]

    assert met(0.54, 1.7) == [False, False]
    assert met(0.56, 1.5) == [True, True]
    assert met(0.56, None) == [True, False]
    with pytest.raises(checks.Broken, match="does not compare"):
        throughput.gates({"ratios": []})


def test_the_gates_of_the_page_can_be_missed():
    def missed(full=True, rate=1_000, rows=34, nodes=750, heaps=(8e6, 8.1e6), process=0,
               under_load=True, busy=0.3, p95=17):
        memory = [
            {"rows_drawn": rows, "nodes": nodes, "heap_bytes": heap, "process_bytes": grown}
            for heap, grown in zip(heaps, (1e8, 1e8 + process))
        ]
        measured = {
            "spans": [
                {"memory": each, "events_per_second": rate, "busy_share": busy} for each in memory
            ],
            "under_load_to_the_end": under_load,
            "alone": {"frame_ms": {"p95": p95}},
        }
        found = page.gates({"rate": 1_000, "gates": full}, measured)
        return [gate["what"] for gate in found if not gate["met"]]

    assert missed() == []
    assert missed(rows=10_000, nodes=90_000) == [
        "rows in the document",
        "elements and texts in the document",
    ]
    assert missed(heaps=(8e6, 80e6)) == ["objects of the page, bytes", "growth of these, bytes"]
    assert missed(heaps=(8e6, 9e6)) == ["growth of these, bytes"]
    assert missed(process=2e7) == ["growth of its process, bytes"]
    assert missed(rate=950) == ["events a second"]
    assert missed(under_load=False) == ["under load to the end"]
    assert missed(busy=0.9) == ["CPU time of the page, of one core"]
    assert missed(p95=100) == ["frame, 95th percentile, ms"]
    # What speed decides does not count in small size.
    assert missed(full=False, rate=1, under_load=False, busy=1, p95=1_000) == []


def test_percentiles_are_of_what_was_measured():
    assert page.percentiles([]) is None
    expected = {"count": 101, "p50": 50, "p95": 95, "p99": 99, "max": 100}
    assert page.percentiles(range(100, -1, -1)) == expected


def call(code, reason="", number=0, took=1.0, retry=True):
    return checks.Call(f"r{number}", 2.0, 0.0, took, code, reason, retry, None)


def told(*calls):
    """Checks calls against a log that has r0 to r5."""
    log = enumerate(logged(receipts()))
    log = [dataclasses.replace(event, request_id=f"r{n}") for n, event in log]
    return checks.check_answers(calls, log)


def test_answers_are_counted():
    unknown = ("DEADLINE_EXCEEDED", "WRITE_OUTCOME_UNKNOWN")
    assert told(
        call("OK"),
        call("UNAVAILABLE", "LOG_UNAVAILABLE", 7),
        call(*unknown, 1, retry=False),
        call(*unknown, 8, retry=False),
    ) == {
        "DEADLINE_EXCEEDED WRITE_OUTCOME_UNKNOWN": 2,
        "DEADLINE_EXCEEDED WRITE_OUTCOME_UNKNOWN, in the log": 1,
        "OK": 1,
        "UNAVAILABLE LOG_UNAVAILABLE": 1,
    }


@pytest.mark.parametrize(
    "answer, found",
    [
        (call("UNAVAILABLE", "LOG_UNAVAILABLE", 3), "said not to be"),
        (call("RESOURCE_EXHAUSTED", "OVERLOADED", 3), "said not to be"),
        (call("RESOURCE_EXHAUSTED", "OVERLOADED", 9, retry=False), "time to come back"),
        (call("UNAVAILABLE"), "not an answer"),
        (call("DEADLINE_EXCEEDED"), "not an answer"),
        (call("no answer: timed out"), "not an answer"),
    ],
)
def test_a_wrong_answer_is_found_out(answer, found):
    with pytest.raises(checks.Broken, match=found):
        told(answer)


def test_an_answer_that_comes_late_or_too_early_is_found_out():
    assert checks.check_deadlines([call("OK", took=1.0), call("OK", took=0.5)]) == 0.5
    with pytest.raises(checks.Broken, match="too late"):
        checks.check_deadlines([call("OK", took=3.5)])
    with pytest.raises(checks.Broken, match="without a log"):
        checks.check_nothing_acknowledged([call("OK")])
    checks.check_unacknowledged(3, 3)
    with pytest.raises(checks.Broken, match="never acknowledged"):
        checks.check_unacknowledged(4, 3)
    with pytest.raises(checks.Broken, match="Internal"):
        checks.check_failures({"Unavailable": 1, "Internal": 1})


def test_readers_that_do_not_agree_are_found_out():
    log = logged(receipts())
    places = [(event.partition, event.offset) for event in log]
    checks.check_places(log, places)
    for wrong, found in [
        (places[:-1], "6 events in the feed, 5 records"),
        ([*places[:-1], (1, 9)], "2 places differ"),
        ([*places[:-1], places[0]], "1 places differ"),
    ]:
        with pytest.raises(checks.Broken, match=found):
            checks.check_places(log, wrong)

    # Partitions have no order among each other.
    checks.check_same_feed(log, sorted(log, key=lambda event: event.partition))
    for other in log[:-1], [log[2], log[1], log[0], *log[3:]]:
        with pytest.raises(checks.Broken, match="partition ., event"):
            checks.check_same_feed(log, other)


def test_an_event_that_is_there_twice_is_found_out():
    log = logged(receipts())
    checks.check_no_repeats(log)
    with pytest.raises(checks.Broken, match="twice"):
        checks.check_no_repeats([*log, dataclasses.replace(log[0], offset=9)])


def test_answers_are_read_from_grpc_web():
    def message(number, data):
        return calling.varint(number << 3 | 2) + calling.varint(len(data)) + data

    info = message(1, b"OVERLOADED") + message(2, b"herald")
    status = b"\x08\x08" + message(2, b"too much")
    for kind, value in ("google.rpc.ErrorInfo", info), ("google.rpc.RetryInfo", b""):
        any_ = message(1, f"type.googleapis.com/{kind}".encode()) + message(2, value)
        status += message(3, any_)
    encoded = base64.b64encode(status).decode().rstrip("=")
    assert calling.details(encoded) == ("OVERLOADED", True)
    assert calling.details("") == ("", False)

    framed = b"\0\0\0\0\x02\x38\x07" + b"\x80\0\0\0\x0fgrpc-status:0\r\n"
    assert list(calling.frames(framed)) == [(False, b"\x38\x07"), (True, b"grpc-status:0\r\n")]
    assert calling.fields(b"\x38\xac\x02") == {7: [300]}


def log_and_account():
    """Of the log, and a copy to change."""
    log = logged(receipts())
    return log, accounts.account_of(log)


def test_an_account_of_other_events_is_found_out():
    log, expected = log_and_account()
    # Partitions have no order among each other.
    other_way = sorted(log, key=lambda event: event.partition)
    assert checks.check_account("she", accounts.account_of(other_way), expected) == len(log)
    for wrong, found in [
        (log[1:], "she, partition 0: 2 events up to offset 3, 3 up to 3 are in the topic$"),
        (log[:-1], "partition 1: 2 events up to offset 2, 3 up to 3"),
        ([event for event in log if event.partition == 0], "partition 1: 0 events"),
        ([*log, dataclasses.replace(log[0], partition=2)], "partition 2: 1 events"),
        (replaced(log, 3, event_id="e9"), "partition 1: .*, and not the same ones"),
        (replaced(replaced(log, 0, event_id="e2"), 2, event_id="e0"), "not the same ones"),
        ([], "partition 0: 0 events"),
    ]:
        with pytest.raises(checks.Broken, match=found):
            checks.check_account("she", accounts.account_of(wrong), expected)


def test_an_event_that_comes_again_or_is_left_out_is_found_out_at_once():
    account = accounts.Account()
    account.take(0, 0, b"e0", all_come=True)
    with pytest.raises(checks.Broken, match="offset 0 came again, 1 is due"):
        account.take(0, 0, b"e0", all_come=False)
    with pytest.raises(checks.Broken, match="offset 2 came, 1 is due"):
        account.take(0, 2, b"e2", all_come=True)
    account.take(0, 2, b"e2", all_come=False)
    assert account.dues() == {0: 3} and account.events() == 2


def test_a_stream_that_starts_elsewhere_is_found_out():
    _, account = log_and_account()
    checks.check_start(account, {0: 3, 1: 3, 2: 0}, exactly=True)
    checks.check_start(account, {0: 3, 1: 9}, exactly=False)
    for starts, exactly, found in [
        ({0: 3, 1: 2}, False, "partition 1: a stream starts at 2, 3 is due"),
        ({0: 4, 1: 3}, True, "partition 0: a stream starts at 4, 3 is due"),
        ({0: 3}, False, "without partitions {1}"),
    ]:
        with pytest.raises(checks.Broken, match=found):
            checks.check_start(account, starts, exactly)


def test_the_filter_is_that_of_the_schema():
    purchase = checks.Logged("e0", "alice", 1, 0, 0, event_type="item_purchased")
    joined = checks.Logged("e1", "bob", 0, 0, 1, event_type="guild_joined", guild_id="owls")

    def wanted(**lists):
        filter_ = accounts.Filter(**lists)
        return [event.event_id for event in (purchase, joined) if filter_.wants(event)]

    assert wanted() == ["e0", "e1"]
    assert wanted(types=("guild_joined",)) == ["e1"]
    assert wanted(players=("alice", "bob"), types=("item_purchased",)) == ["e0"]
    assert wanted(guilds=("owls", "foxes")) == ["e1"]
    assert wanted(guilds=("owls",), players=("alice",)) == []
    message = accounts.Filter(types=("a",), guilds=("b", "c")).message()
    assert calling.fields(message) == {1: [b"a"], 3: [b"b", b"c"]}


def test_a_record_is_the_event_that_the_feed_delivers():
    purchase = calling.text_field(1, "e0") + calling.text_field(2, "item_purchased")
    purchase += calling.text_field(3, "alice") + calling.bytes_field(17, b"\x10\x07")
    delivered = {
        "event": {
            "eventId": "e0",
            "eventType": "item_purchased",
            "playerId": "alice",
            "itemPurchased": {"quantity": 7},
        },
        "partition": 2,
        "offset": "5",
    }
    assert kafka_feed.logged(2, 5, purchase) == checks.Logged.of(delivered)


def test_what_a_subscriber_does_follows_from_its_seed():
    options = kafka_feed.SIZES["full"]
    one, other = (list(kafka_feed.plans(options, "", None)) for _ in range(2))
    assert [plan.acts() for plan in one] == [plan.acts() for plan in other]
    assert len(one) == 50
    assert sum(plan.resumes + plan.heartbeat_resumes for plan in one) == 1_000
    assert len({tuple(plan.acts()) for plan in one}) == len(one)
