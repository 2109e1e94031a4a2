import json

import pytest

from fedcl.report import load_runs, write_report


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


def test_curve_is_of_evaluated_rounds_and_ends_at_the_total(make):
    make.save("a", make.federated(curve=((100, 0.5), (60, None), (40, 0.9))))
    (run,), _ = load_runs(make.root)
    assert [(p.round, p.wire_bytes, p.accuracy) for p in run.curve] == [(0, 100, 0.5), (2, 200, 0.9)]
    assert run.total_bytes == 200


def test_what_cannot_be_read_is_named_and_the_rest_is_reported(make):
    good = json.dumps(make.federated())
    make.save("good", good)
    make.save("truncated", good[:100])
    make.save("foreign", {"a": 1})
    make.save("a_list", "[]")
    make.save("future", make.federated(verb="unlearn"))
    make.save("going", make.federated(finished=False))
    make.save("failed", make.federated(finished=False, failure="the disk\nis full"))
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
        "failed": "the run failed after 2 round(s) (the disk is full)",
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
        ("communication.up", {"wire_bytes": 5}, "communication.up.payload_bytes"),
        ("communication.total_wire_bytes", 1, "contradicts itself"),
        ("accuracy.last", 97.0, "accuracy.last"),
        ("accuracy.last", True, "accuracy.last"),
        ("scenario", {"name": "x"}, "scenario.sha256"),
        ("rounds", {}, "rounds"),
        ("rounds", [{"round": 0}], "rounds[0].up"),
        ("config", [], "config"),
        ("seed", "0", "seed"),
        ("memory", 3, "memory"),
        ("matrix", [[2.0]], "matrix[0][0]"),
        ("matrix", [[0.5]], "scenario.groups"),
        ("rounds", [{"round": 0, "failed": ["x"]}], "rounds[0].failed[0]"),
    ],
)
def test_a_damaged_part_is_named(make, path, value, named):
    make.save("bad", make.federated(**{path: value}))
    assert named in reasons(make)["bad"]


@pytest.mark.parametrize("path", ["communication", "matrix", "rounds", "scenario", "memory", "config.compress"])
def test_a_part_that_the_verb_does_not_have_is_not_looked_at(make, path, tmp_path):
    make.save("plain", make.distill())
    make.save("strange", make.distill(seed=1, **{path: [3], "config.architectures": 3}))
    assert "strange" in write_report(make.root, tmp_path / "out").read_text()


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
