import pytest

from fedcl.report import compare, load_runs
from fedcl.report.costs import accuracy_at, budgets, bytes_to, cost, targets, times_fewer


def groups(make):
    runs, skipped = load_runs(make.root)
    assert skipped == []
    return compare(runs).groups


def test_seeds_of_one_method_belong_together(three_seeds):
    (group,) = groups(three_seeds)
    assert [(method.name, [run.seed for run in method.runs]) for method in group.methods] == [
        ("one_shot", [0, 1, 2]),
        ("fedavg", [0, 1, 2]),
    ]
    assert group.baseline is group.methods[1]
    assert group.notes == ()


def test_ratios_are_taken_seed_by_seed(three_seeds):
    (group,) = groups(three_seeds)
    ratio = times_fewer(group, group.methods[0])  # 10, 8, 5
    assert ratio.mean == pytest.approx(23 / 3)
    assert ratio.std == pytest.approx((38 / 3 / 2) ** 0.5)  # squares: 49/9 + 1/9 + 64/9
    assert times_fewer(group, group.methods[1]).mean == 1


@pytest.mark.parametrize(
    "change",
    [
        {"sha": "f" * 64},
        {"config__model": {"width": 64}},
        {"config__dataset": {"_target_": "fedcl.data.vision.Mnist"}},
    ],
)
def test_another_partition_model_or_data_is_another_group(make, change):
    make.save("fedavg", make.federated("fedavg"))
    make.save("one_shot", make.federated("one_shot", **change))
    found = groups(make)
    assert len(found) == 2
    lonely = next(group for group in found if group.methods[0].name == "one_shot")
    assert lonely.baseline is None
    assert times_fewer(lonely, lonely.methods[0]) is None


def test_verbs_stand_apart(make):
    make.save("a", make.federated("replay"))
    make.save("b", make.continual("replay"))
    make.save("c", make.distill())
    assert [group.verb for group in groups(make)] == ["federated", "continual", "distill"]


def test_where_the_data_lie_makes_no_difference(make):
    make.save("a", make.federated("fedavg"))
    make.save("b", make.federated("one_shot", config__dataset__root="elsewhere"))
    assert len(groups(make)) == 1


def test_one_seed_on_two_partitions_is_never_one_method(make):
    make.save("old", make.federated(sha="a" * 64))
    make.save("new", make.federated(sha="b" * 64))
    assert [len(group.runs) for group in groups(make)] == [1, 1]


def test_names_say_only_what_tells_methods_apart(make):
    make.save("0", make.federated("fedavg"))
    make.save("1", make.federated("one_shot", wire="float32"))
    make.save("2", make.federated("one_shot", wire="uint8", config__ipc=1))
    make.save("3", make.federated("one_shot", wire="uint8", config__ipc=10))
    (group,) = groups(make)
    assert {method.name for method in group.methods} == {
        "fedavg",
        "one_shot · float32",
        "one_shot · uint8 · ipc=1",
        "one_shot · uint8 · ipc=10",
    }


def test_a_repeated_run_is_in_no_mean(make):
    make.save("a", make.federated(curve=((100, 0.9),)))
    make.save("b", make.federated(curve=((100, 0.1),)))
    (group,) = groups(make)
    (method,) = group.methods
    assert method.spread(lambda run: run.record["accuracy"]["last"]).mean == 0.9
    assert [run.path.name for run in method.repeats] == ["b"]
    assert any("repeat a seed" in note for note in group.notes)


def test_float32_fedavg_is_the_yardstick(make):
    make.save("0", make.federated("fedavg", wire="uint8"))
    make.save("1", make.federated("fedavg", wire="float32"))
    (group,) = groups(make)
    assert group.baseline.name == "fedavg · float32"


def test_costs_by_hand(make):
    make.save("a", make.federated(curve=((100, 0.5), (100, 0.92), (100, 0.91))))
    (group,) = groups(make)
    (run,) = group.methods[0].runs
    assert [bytes_to(run, target) for target in (0.5, 0.51, 0.92, 0.93)] == [100, 200, 200, None]
    assert [accuracy_at(run, budget) for budget in (99, 100, 299, 300)] == [None, 0.5, 0.92, 0.91]
    assert targets(group) == [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    assert budgets(group) == [100, 300]


def test_a_seed_that_never_gets_there_is_counted(make):
    make.save("0", make.federated(seed=0, curve=((100, 0.96),)))
    make.save("1", make.federated(seed=1, curve=((100, 0.94),)))
    make.save("x", make.federated("one_shot", seed=0))  # links nothing new
    group = next(g for g in groups(make) if g.baseline)
    price = cost(group.baseline, 0.95)
    assert (price.reached, price.seeds, price.always, price.bytes.mean) == (1, 2, False, 100)
