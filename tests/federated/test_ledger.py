import copy

import pytest

from fedcl.federated.ledger import HEADER, Ledger, Transfer


def row(round, client, direction, payload, wire, kind="train", **more):
    return Transfer(
        round=round,
        step=0,
        client=client,
        direction=direction,
        kind=kind,
        payload_bytes=payload,
        wire_bytes=wire,
        **more,
    )


ROWS = (
    row(0, 0, "down", 0, 10, kind="roll call"),
    row(0, 0, "down", 100, 110, parts={"weights": 100}),
    row(0, 0, "up", 50, 70, parts={"images": 40, "labels": 10}),
    row(1, 1, "up", 50, 65, parts={"images": 50}, delivered=False),
)
LEDGER = Ledger(rows=ROWS)


def test_totals_by_direction():
    assert LEDGER.totals("up") == {"payload_bytes": 100, "wire_bytes": 135}
    assert LEDGER.totals("down") == {"payload_bytes": 100, "wire_bytes": 110}


def test_contents_and_framing_make_the_wire_bytes():
    part = LEDGER.communication()
    assert part["by_kind"] == {"framing": 45, "images": 90, "labels": 10, "weights": 100}
    assert sum(part["by_kind"].values()) == part["total_wire_bytes"] == 245
    assert part["not_counted_wire_bytes"] == 10  # the roll call stands apart
    assert part["messages"] == 3


@pytest.mark.parametrize("cut", range(len(ROWS) + 1))
def test_running_totals_are_those_of_all_rows(cut):
    before = Ledger(rows=ROWS[:cut]).communication()
    kept = copy.deepcopy(before)
    assert Ledger(rows=ROWS[cut:]).communication(before) == LEDGER.communication()
    assert before == kept


def test_csv_has_one_line_a_message():
    lines = LEDGER.to_csv().splitlines()
    assert HEADER == "round,step,client,direction,kind,payload_bytes,wire_bytes,delivered,parts\n"
    assert lines[2] == "0,0,0,up,train,50,70,1,images:40;labels:10"
    assert lines[3].split(",")[7] == "0"
    assert len(lines) == 4
