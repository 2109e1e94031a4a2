from fedcl.report import compare, comparison_markdown, comparison_table, load_runs, statements, words
from fedcl.report.words import Spread


def said(make):
    return statements(compare(load_runs(make.root)[0]))


def test_fewest_bytes_and_times_fewer_with_spread(three_seeds):
    (text,) = said(three_seeds)
    assert text == (
        "On digits, convnet, dirichlet(0.5), 2 clients, one_shot needs the fewest bytes for 95 % accuracy: "
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
    assert "with no FedAvg run on the same data" in text
    assert "times fewer" not in text


def test_continual_and_distill(make):
    make.save("a", make.continual("replay"))
    make.save("b", make.continual("finetune", matrix=((0.9, None), (0.1, 0.7))))
    make.save("c", make.distill("dm"))
    continual, distill = said(make)
    assert "replay ends with the highest accuracy, 60.00 % (1 seed) with 6.40 kB of memory" in continual
    assert "next is finetune with 40.00 %" in continual
    assert "dm gives the highest accuracy, 88.00 %, from 1 image a class (640 B; 1 seed)" in distill
    assert "Controls: kmeans 75.00 %, random 60.00 %" in distill


def test_nothing_to_say(make):
    assert "nothing to compare" in said(make)[0]


def test_words():
    assert [words.size(float(n)) for n in (0, 7, 999, 12_345, 5_000_000)] == [
        "0 B",
        "7 B",
        "999 B",
        "12.3 kB",
        "5.00 MB",
    ]
    assert words.percent(0.97214) == "97.21 %"
    assert words.percent(Spread(mean=0.97214, std=0.0031, count=3)) == "97.2 ± 0.3 %"
    assert words.size(Spread(mean=12_345, std=1.0, count=3)) == "12.3 kB"
    assert [words.three(x) for x in (1234, 99.96, 0.9999, 0.0123)] == ["1,234", "100", "1.00", "0.0123"]


def test_terminal_and_readme_tables(three_seeds):
    runs, _ = load_runs(three_seeds.root)
    table = comparison_table(runs)
    assert [column.header for column in table.columns][:2] == ["method", "accuracy"]
    assert list(table.columns[0].cells) == ["one_shot", "fedavg"]
    assert list(table.columns[5].cells) == ["7.67 ± 2.52", "1.00"]
    line = "| fedavg | 96.0 % | 50 B | 150 B | 200 B | 1.00 | 12.5 s |"
    assert line in comparison_markdown(runs).splitlines()
