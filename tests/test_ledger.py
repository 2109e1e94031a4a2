from fedcl.ledger import Ledger, Transfer


def row(round, client, direction, payload, wire, **more):
    return Transfer(
        round=round,
        step=0,
        client=client,
        direction=direction,
        payload_bytes=payload,
        wire_bytes=wire,
        **more,
    )


LEDGER = Ledger().add(
    [
        row(0, 0, "down", 0, 10, kind="roll call"),
        row(0, 0, "down", 100, 110, parts={"weights": 100}),
        row(0, 0, "up", 50, 70, parts={"images": 40, "labels": 10}),
        row(1, 1, "up", 50, 65, parts={"images": 50}, delivered=False),
    ]
)


def test_totals_by_direction_and_round():
    assert LEDGER.totals("up") == {"payload_bytes": 100, "wire_bytes": 135}
    assert LEDGER.totals("up", round=0) == {"payload_bytes": 50, "wire_bytes": 70}
    assert LEDGER.totals("down") == {"payload_bytes": 100, "wire_bytes": 110}


def test_contents_and_framing_make_the_wire_bytes():
    part = LEDGER.communication()
    assert part["by_kind"] == {"framing": 45, "images": 90, "labels": 10, "weights": 100}
    assert sum(part["by_kind"].values()) == part["total_wire_bytes"] == 245
    assert part["not_counted_wire_bytes"] == 10  # the roll call stands apart
    assert part["messages"] == 3


def test_ledgers_are_values():
    before = len(LEDGER.rows)
    LEDGER.add([row(2, 0, "up", 1, 1)])
    assert len(LEDGER.rows) == before


def test_csv_has_one_line_a_message():
    lines = LEDGER.to_csv().splitlines()
    assert lines[0].startswith("round,step,client,direction,kind")
    assert lines[3] == "0,0,0,up,train,50,70,1,images:40;labels:10"
    assert lines[4].split(",")[7] == "0"
    assert len(lines) == 5
