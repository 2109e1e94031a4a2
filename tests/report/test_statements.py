from fedcl.report import compare, comparison_markdown, comparison_table, formats, load_runs, statements
from fedcl.report.formats import Spread


def said(make):
    return statements(compare(load_runs(make.root)[0]))


def test_fewest_bytes_and_times_fewer_with_spread(three_seeds):
    (text,) = said(three_seeds)
    assert text == (
        "On digits, convnet, dirichlet(niid_bench, alpha=0.5), 2 clients, all clients a round, wire float32, "
        "one_shot needs the fewest bytes for 95 % accuracy: "
        "28.3 ± 10.4 B on the wire, up and down (3 seeds), 7.67 ± 2.52 times fewer than fedavg (200 B). "
        "Next comes fedavg with 200 B."
    )


def test_fedavg_that_never_gets_there_gives_a_bound_that_is_not_rounded_up(make):
    make.save("a", make.federated("fedavg", curve=((100, 0.5), (100, 0.8))))
    make.save("b", make.federated("one_shot", curve=((36, 0.96),)))
    (text,) = said(make)
    assert "while fedavg spends 200 B, more than 5.5 times as many, without getting there" in text  # 5.55...


def test_nobody_at_95_says_so_and_takes_the_next_target(make):
    make.save("a", make.federated("fedavg", curve=((100, 0.92),)))
    make.save("b", make.federated("one_shot", curve=((50, 0.91),)))
    (text,) = said(make)
    assert "no method reaches 95 % accuracy under every seed. For 90 %, one_shot needs the fewest" in text
    assert "2.00 times fewer than fedavg (100 B)" in text


def test_no_fedavg_no_factor(make):
    make.save("a", make.federated("one_shot"))
    (text,) = said(make)
    assert "with no FedAvg run to compare it with" in text
    assert "times fewer" not in text


def test_who_needs_as_many_is_not_second(make):
    make.save("a", make.federated("one_shot", curve=((50_000, 0.97),)))
    make.save("b", make.federated("feddm", curve=((50_001, 0.99),), **{"config.clients_per_round": None}))
    (text,) = said(make)
    assert "one_shot · random needs the fewest bytes for 95 % accuracy: 50.0 kB" in text
    assert "feddm · dm needs about as many." in text


def test_bytes_of_two_wires_are_not_divided(make):
    make.save("a", make.federated("fedavg", wire="float32"))
    make.save("b", make.federated("one_shot", wire="uint8", curve=((20, 0.97),)))
    (text,) = said(make)
    assert "one_shot · uint8 needs the fewest bytes" in text
    assert "with no FedAvg run on uint8 to compare it with" in text
    assert "times fewer" not in text
    lines = comparison_markdown(load_runs(make.root)[0]).splitlines()
    assert any("| one_shot · uint8 |" in line and "| – (no FedAvg run on uint8) |" in line for line in lines)
    make.save("c", make.federated("fedavg", wire="uint8", curve=((50, 0.96),)))
    (text,) = said(make)
    assert "one_shot · uint8 needs the fewest bytes for 95 % accuracy: 20 B" in text
    assert "2.50 times fewer than fedavg · uint8 (50 B)" in text


def test_bytes_of_fewer_clients_are_not_divided(make):
    make.save("a", make.federated("fedavg"))
    make.save("b", make.federated("one_shot", curve=((20, 0.97),), **{"config.clients_per_round": 1}))
    (text,) = said(make)
    assert "one_shot · 1 of 2 clients needs the fewest bytes" in text
    assert "with no FedAvg run with 1 of 2 clients a round to compare it with" in text


def test_continual_and_distill(make):
    make.save("a", make.continual("replay"))
    make.save("b", make.continual("finetune", matrix=((0.9, None), (0.1, 0.7))))
    make.save("c", make.distill("dm"))
    continual, distill = said(make)
    assert "replay ends with the highest accuracy, 60.00 % (1 seed) with 6.40 kB of memory" in continual
    assert "next is finetune with 40.00 %" in continual
    assert "dm gives the highest accuracy, 88.00 %, from 1 image a class (640 B; 1 seed)" in distill
    assert "Controls of as many bytes: kmeans 75.00 %, random 60.00 %" in distill


def test_a_control_that_is_better_is_the_highest_accuracy(make):
    make.save("a", make.distill("random", mean=0.4222, kmeans=0.6389, random=0.4))
    (text,) = said(make)
    assert "the highest accuracy is 63.89 %, of kmeans, a control of as many bytes as random." in text
    assert "Of the methods, random gives the most, 42.22 %" in text
    make.save("b", make.distill("dm", mean=0.7, kmeans=0.5))
    (text,) = said(make)
    assert "dm gives the highest accuracy, 70.00 %" in text


def test_nothing_to_say(make):
    assert "nothing to compare" in said(make)[0]


def test_words():
    assert [formats.size(float(n)) for n in (0, 7, 999, 12_345, 5_000_000)] == [
        "0 B",
        "7 B",
        "999 B",
        "12.3 kB",
        "5.00 MB",
    ]
    assert formats.percent(0.97214) == "97.21 %"
    assert formats.percent(Spread(mean=0.97214, std=0.0031, count=3)) == "97.2 ± 0.3 %"
    assert formats.size(Spread(mean=12_345, std=1.0, count=3)) == "12.3 kB"
    assert [formats.three(x) for x in (1234, 99.96, 0.9999, 0.0123)] == ["1,234", "100", "1.00", "0.0123"]


def test_terminal_and_readme_tables(three_seeds):
    runs, _ = load_runs(three_seeds.root)
    table = comparison_table(runs)
    assert [column.header for column in table.columns][:2] == ["method", "accuracy"]
    assert list(table.columns[0].cells) == ["one_shot", "fedavg"]
    assert list(table.columns[5].cells) == ["7.67 ± 2.52", "1.00"]
    line = "| fedavg | 96.0 % | 50 B | 150 B | 200 B | 1.00 | 12.5 s |"
    assert line in comparison_markdown(runs).splitlines()
