"""The checks can fail: a log made wrong in each way is found out."""

import dataclasses

import pytest

import checks
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
