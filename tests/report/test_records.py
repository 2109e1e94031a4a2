import json

import pytest

from fedcl.report import load_runs


def reasons(make):
    _, skipped = load_runs(make.root)
    return {one.path.name: one.reason for one in skipped}


def test_a_sweep_is_searched_and_sorted(make):
    for name in ("b/1", "b/0", "a"):
        make.save(name, make.federated())
    runs, skipped = load_runs(make.root)
    assert [run.path for run in runs] == [make.root / name for name in ("a", "b/0", "b/1")]
    assert skipped == []


def test_globs_files_and_folders_count_once(make):
    folder = make.save("a", make.federated())
    make.save("b", make.federated())
    runs, skipped = load_runs([folder, str(make.root / "*"), folder / "record.json"])
    assert [run.path.name for run in runs] == ["a", "b"]
    assert skipped == []


def test_curve_ends_at_the_total_and_starts_with_what_was_sent_once(make):
    record = make.federated(curve=((100, 0.5), (60, None), (40, 0.9)))
    record["communication"]["up"]["wire_bytes"] += 30  # outside every round
    record["communication"]["total_wire_bytes"] += 30
    make.save("a", record)
    (run,), _ = load_runs(make.root)
    assert [(p.round, p.wire_bytes, p.accuracy) for p in run.curve] == [(0, 130, 0.5), (2, 230, 0.9)]
    assert run.one_off_bytes == 30


def test_what_cannot_be_read_is_named_and_the_rest_is_reported(make):
    good = json.dumps(make.federated())
    make.save("good", good)
    make.save("truncated", good[:100])
    make.save("foreign", {"a": 1})
    make.save("a_list", "[]")
    make.save("future", make.federated(verb="unlearn"))
    make.save("going", make.federated(finished=False))
    make.save("not_a_number", good.replace("12.5", "NaN"))
    make.save("half_a_character", good.replace("12.5", '12.5, "x": "\\ud800"'))
    (make.root / "empty").mkdir()
    runs, _ = load_runs(make.root)
    assert [run.path.name for run in runs] == ["good"]
    found = reasons(make)
    expected = {
        "truncated": "cut off",
        "foreign": "not a record of fedcl",
        "a_list": "not a record of fedcl",
        "future": "'unlearn'",
        "going": "still going, or stopped after 2 round(s)",
        "not_a_number": "NaN",
        "half_a_character": "not readable text",
        "empty": "no record.json",
    }
    assert found.keys() == expected.keys()
    for name, words in expected.items():
        assert words in found[name]


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("communication__up", {"wire_bytes": 5}, "communication.up.payload_bytes"),
        ("communication__total_wire_bytes", 1, "contradicts itself"),
        ("accuracy__last", 97.0, "accuracy.last"),
        ("accuracy__last", True, "accuracy.last"),
        ("scenario", {"name": "x"}, "scenario.sha256"),
        ("rounds", {}, "rounds"),
        ("rounds", [{"round": 0}], "rounds[0].up.payload_bytes"),
        ("config", [], "config"),
        ("seed", "0", "seed"),
        ("memory", 3, "memory"),
        ("matrix", [[2.0]], "matrix[0]"),
    ],
)
def test_a_damaged_part_is_named(make, path, value, named):
    make.save("bad", make.federated(**{path: value}))
    assert named in reasons(make)["bad"]


def test_missing_paths_and_patterns(make):
    _, skipped = load_runs([make.root / "nowhere", str(make.root / "x*")])
    assert [one.reason for one in skipped] == [
        "there is no such file or folder",
        "nothing matches this pattern",
    ]


def test_an_earlier_report_is_no_run(make):
    make.save("a", make.federated())
    (make.root / "report" / "figures").mkdir(parents=True)
    (make.root / "report" / "report.html").write_text("")
    assert reasons(make) == {}
