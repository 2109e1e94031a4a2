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
    assert [group.baseline(method) for method in group.methods] == [group.methods[1]] * 2
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
        {"config.model.width": 64},
        {"config.dataset._target_": "fedcl.data.vision.Mnist"},
    ],
)
def test_another_partition_model_or_data_is_another_group(make, change):
    make.save("fedavg", make.federated("fedavg"))
    make.save("one_shot", make.federated("one_shot", **change))
    found = groups(make)
    assert len(found) == 2
    lonely = next(group for group in found if group.methods[0].name == "one_shot")
    assert lonely.baselines == []
    assert times_fewer(lonely, lonely.methods[0]) is None


def test_verbs_stand_apart(make):
    make.save("a", make.federated("replay"))
    make.save("b", make.continual("replay"))
    make.save("c", make.distill())
    assert [group.verb for group in groups(make)] == ["federated", "continual", "distill"]


def test_where_the_data_lie_makes_no_difference(make):
    make.save("a", make.federated("fedavg"))
    make.save("b", make.federated("one_shot", **{"config.dataset.root": "elsewhere"}))
    assert len(groups(make)) == 1


def test_one_seed_on_two_partitions_is_never_one_method(make):
    make.save("old", make.federated(sha="a" * 64))
    make.save("new", make.federated(sha="b" * 64))
    assert [len(group.runs) for group in groups(make)] == [1, 1]


def test_names_say_only_what_tells_methods_apart(make):
    make.save("0", make.federated("fedavg"))
    make.save("1", make.federated("fedavg", **{"config.strategy.training.lr": 0.5}))
    make.save("2", make.federated("one_shot"))
    make.save("3", make.federated("one_shot", **{"config.distiller.ipc": 10}))
    (group,) = groups(make)
    lr = make.records["fedavg"]["config"]["strategy"]["training"]["lr"]
    assert {method.name for method in group.methods} == {
        f"fedavg · lr={lr}",
        "fedavg · lr=0.5",
        "one_shot · ipc=1",
        "one_shot · ipc=10",
    }


def test_names_say_what_differs_between_any_two(make):
    make.save("0", make.federated("fedavg", wire="float32"))
    make.save("1", make.federated("one_shot", wire="uint8"))
    make.save("2", make.federated("one_shot", wire="uint8", **{"config.clients_per_round": 1}))
    make.save("3", make.federated("feddm", wire="uint8", **{"config.clients_per_round": None}))
    (group,) = groups(make)
    assert {method.name for method in group.methods} == {
        "fedavg · float32 · all clients",  # alone of its name, and named all the same
        "one_shot · random · uint8 · all clients",
        "one_shot · random · uint8 · 1 of 2 clients",
        "feddm · dm · uint8 · all clients",
    }


def test_what_another_algorithm_has_no_use_for_is_not_said(make):
    """FedDM sets its own steps, so its record has no distiller.steps; those of one_shot are said beside one_shot's."""
    dm = {"config.choices.distiller": "dm", "config.distiller.name": "dm", "config.distiller.steps": 300}
    make.save("0", make.federated("one_shot", wire="uint8", **dm))
    make.save("1", make.federated("feddm", wire="uint8", **{"config.clients_per_round": None}))
    (group,) = groups(make)
    assert not [method.name for method in group.methods if "steps=300" in method.name]
    make.save("2", make.federated("one_shot", wire="uint8", **dm | {"config.distiller.steps": 20}))
    (group,) = groups(make)
    names = [method.name for method in group.methods]
    assert sorted("steps=300" in name for name in names) == sorted("steps=20" in name for name in names)
    assert sum("steps=300" in name for name in names) == 1


def test_as_many_clients_as_there_are_is_all_clients(make):
    make.save("0", make.federated(seed=0))
    make.save("1", make.federated(seed=1, **{"config.clients_per_round": 2}))
    make.save("x", make.federated("one_shot", seed=0))  # one partition links the seeds
    make.save("y", make.federated("one_shot", seed=1))
    (group,) = groups(make)
    assert [len(method.runs) for method in group.methods] == [2, 2]


def test_rounds_may_be_said_by_the_job_or_by_the_strategy(make):
    own = make.records["fedavg"]["config"]["num_rounds"]
    make.save("0", make.federated())
    make.save("1", make.federated(**{"config.num_rounds": None, "config.strategy.num_rounds": own}))
    make.save("2", make.federated(**{"config.num_rounds": own + 3}))
    (group,) = groups(make)
    assert {method.name: len(method.repeats) for method in group.methods} == {
        f"fedavg · {own} rounds": 1,
        f"fedavg · {own + 3} rounds": 0,
    }


def test_settings_that_a_strategy_never_looks_at_tell_nothing_apart(make):
    make.save("0", make.federated("fedavg"))
    make.save("1", make.federated("fedavg", **{"config.distiller.ipc": 7, "config.objective.chunk": 1}))
    make.save("2", make.continual("finetune"))
    make.save("3", make.continual("finetune", **{"config.buffer.images": 7}))
    for group in groups(make):
        (method,) = group.methods
        assert len(method.repeats) == 1


def test_one_setting_is_one_method_whoever_asked_for_it(make):
    """Objects have other short names than options: conv_net and convnet."""
    python = make.records["one_shot-python"]
    assert python["command"] == []
    make.save("a", make.of("one_shot-python", {}))
    names = {"model": "convnet", "strategy": "federated/one_shot", "dataset": "digits", "scenario": "dirichlet"}
    typed = {f"config.choices.{group}": option for group, option in names.items()}
    typed |= {"config.choices.distiller": "random", "config.choices.wire": "uint8", "config.choices.networks": "fresh"}
    make.save("b", make.of("one_shot-python", typed | {"seed": 1, "config.seed": 1, "command": ["fedcl", "federated"]}))
    (group,) = groups(make)
    (method,) = group.methods
    assert [run.seed for run in method.runs] == [0, 1]
    assert (group.model, method.name) == ("convnet", "one_shot")


def test_a_repeated_run_is_in_no_mean(make):
    make.save("a", make.federated(curve=((100, 0.9),)))
    make.save("b", make.federated(curve=((100, 0.1),)))
    (group,) = groups(make)
    (method,) = group.methods
    assert method.spread(lambda run: run.record["accuracy"]["last"]).mean == 0.9
    assert [run.path.name for run in method.repeats] == ["b"]
    assert any("repeat a seed" in note for note in group.notes)


def test_the_yardstick_is_the_fedavg_of_the_same_wire_and_participation(make):
    make.save("0", make.federated("fedavg", wire="uint8", curve=((50, 0.96),)))
    make.save("1", make.federated("fedavg", wire="float32"))
    make.save("2", make.federated("one_shot", wire="uint8", curve=((25, 0.97),)))
    make.save("3", make.federated("one_shot", wire="float16", curve=((28, 0.97),)))
    (group,) = groups(make)
    ratio = {method.name: times_fewer(group, method) for method in group.methods}
    assert ratio["one_shot · uint8"].mean == 2  # of 50 bytes, not of the 200 in float32
    assert ratio["one_shot · float16"] is None
    assert ratio["fedavg · uint8"].mean == ratio["fedavg · float32"].mean == 1
    assert any("no ratio of bytes is taken between two wires" in note for note in group.notes)
    make.save("4", make.federated("one_shot", wire="uint8", curve=((25, 0.97),), **{"config.clients_per_round": 1}))
    (group,) = groups(make)
    (alone,) = (method for method in group.methods if method.participation == "1 of 2 clients")
    assert times_fewer(group, alone) is None


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
    group = next(g for g in groups(make) if g.baselines)
    price = cost(group.baselines[0], 0.95)
    assert (price.reached, price.seeds, price.always, price.bytes.mean) == (1, 2, False, 100)
