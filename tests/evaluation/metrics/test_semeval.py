"""SemEval-2010 task 8 against what the official scorer (version 1.2) printed for its own four examples: by its tables,
and from its files where they are.

The tables and figures are the task's (Hendrickx et al. 2010, CC BY 3.0).
"""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from foundling.core.errors import UserError
from foundling.evaluation.metrics.semeval import Config
from tests.evaluation.metrics import real

REFERENCE = real.TASKS / "semeval2010-task8" / "reference"
NAMES = {
    "C-E": "Cause-Effect",
    "C-W": "Component-Whole",
    "C-C": "Content-Container",
    "E-D": "Entity-Destination",
    "E-O": "Entity-Origin",
    "I-A": "Instrument-Agency",
    "M-C": "Member-Collection",
    "M-T": "Message-Topic",
    "P-P": "Product-Producer",
}

# The scorer's own tables: a line a gold label, a column an answer, in the last column the examples without one.
EXAMPLE_1 = """
        C-E1 C-E2 C-W1 C-W2 C-C1 E-D1 E-O1 I-A2 M-C1 M-C2 M-T1 M-T2 P-P1 P-P2  _O_ skip
 C-E1     1    1    0    0    0    0    0    0    0    0    0    0    0    0    0    1
 C-E2     0    1    0    0    0    0    0    0    0    0    0    0    0    0    1    1
 C-W1     0    0    1    0    0    0    0    0    0    0    0    0    0    0    0    1
 C-W2     0    0    1    0    0    0    0    0    0    0    0    0    0    0    1    1
 C-C1     0    0    0    0    1    0    0    0    0    0    0    0    0    0    0    0
 E-D1     0    0    0    0    0    2    0    0    0    0    0    0    0    0    0    1
 E-O1     0    0    0    0    0    0    1    0    0    0    0    0    0    0    0    1
 I-A2     0    0    0    0    0    0    0    2    0    0    0    0    0    0    1    1
 M-C1     0    0    0    0    0    0    0    0    1    0    0    0    0    0    1    0
 M-C2     0    0    0    0    0    0    0    0    0    2    0    0    0    0    1    0
 M-T1     0    0    0    0    0    0    0    0    0    0    3    1    0    0    0    0
 M-T2     0    0    0    0    0    0    0    0    0    0    0    0    0    0    0    1
 P-P1     0    0    0    0    0    0    0    0    0    0    0    0    0    0    0    1
 P-P2     0    0    0    0    0    0    0    0    0    0    0    0    0    1    0    0
  _O_     0    0    0    0    0    0    0    1    0    1    0    0    0    0    4    1
"""
EXAMPLE_2 = """
        C-E1 C-E2 C-W1 C-W2 C-C1 C-C2 E-D1 E-D2 E-O1 E-O2 I-A1 I-A2 M-C1 M-C2 M-T1 M-T2 P-P1 P-P2  _O_ skip
 C-E1    14   26   23   13   17    6   36    0   30    9    5   23    2   33   17    8   13   11   55    3
 C-E2    28   62   23   39   28   17   63    0   40    9    7   36    6   45   36   12   28   37  136    7
 C-W1    29   42   35   36   29    7   47    0   34   11    4   23    3   31   19    8   18   28   65    1
 C-W2    18   44   28   35   14   10   48    0   39    6    8   18    3   27   33   12   21   15   92    0
 C-C1    18   31   15   26   21    4   30    0   31    6    3   18    5   29   16    3   22   18   77    1
 C-C2     7   15   10   12    8    2   17    0   12    3    2   10    1   11    6    2    5   10   30    3
 E-D1    26   59   57   40   49   24   86    0   73   14    8   43   12   74   64   16   34   39  125    1
 E-D2     0    0    0    0    0    0    0    0    0    0    0    0    0    0    0    0    0    0    1    0
 E-O1    19   47   34   40   34    6   72    0   39   10    2   30    3   40   30   14   32   22   89    5
 E-O2     5   10    8    6    5    5   15    0    9    5    4    8    3    8    7    4    4   10   30    2
 I-A1     4    2    4    5    2    3   15    0   10    1    1    6    0    7    5    2    6    5   18    1
 I-A2    20   30   25   24   12   14   43    0   30    2    6   17    3   30   29    7   16   19   77    3
 M-C1     4    9    4    3    3    2    8    0    5    2    2    5    0    8    4    0    2    3   14    0
 M-C2    27   42   36   38   33   11   73    0   43   11   10   28    6   50   47   10   21   26  100    0
 M-T1    23   42   27   27   20    7   66    0   33    9    2   24    8   39   35    9   16   29   74    0
 M-T2     4   11   13   11    7    3   16    0    7    2    1    3    1   16   16    2    2    4   25    0
 P-P1    10   21   20   19   17    6   28    0   20    9    5   14    2   28   16    8   13   17   65    5
 P-P2    22   31   22   18   17    6   35    0   28    7    3   17    7   36   22   11   17   21   67    7
  _O_    62  130   83   74   57   32  145    1   81   27   23   84   13   98   88   16   52   75  255   14
"""
EXAMPLE_3 = """
        C-E1 C-E2 C-W2 C-C1 E-D1 I-A2 M-C1 M-T1  _O_ skip
 C-E2     1    0    0    0    0    0    0    0    0    0
 C-W2     0    0    0    0    0    0    0    0    1    0
 C-C1     0    0    0    0    0    0    0    0    0    1
 E-D1     0    0    0    0    1    0    0    0    0    1
 I-A2     0    0    0    0    0    0    0    0    1    0
 M-C1     0    0    0    0    0    1    0    0    0    0
  _O_     1    0    0    0    0    0    0    1    0    1
"""
EXAMPLE_5 = """
        C-E1 C-E2  _O_ skip
 C-E1     1    1    0    1
 C-E2     0    1    1    1
"""
PRINTED = [
    (EXAMPLE_1, [64.09, 81.48, 54.44, 59.26, 72.20, 52.50]),
    (EXAMPLE_2, [6.35, 6.37, 6.33, 6.67, 9.71, 8.84]),
    (EXAMPLE_3, [11.11, 16.67, 8.33, 18.18, 22.22, 20.00]),
    (EXAMPLE_5, [44.44, 66.67, 33.33, 44.44, 66.67, 33.33]),
]
FIGURES = ["f1_macro", "precision_macro", "recall_macro", "f1_micro", "f1_undirected", "accuracy"]


def label(short: str) -> str:
    """`C-E2` as it stands in the data; an example without an answer has the empty one."""
    if short in ("_O_", "skip"):
        return "Other" if short == "_O_" else ""
    return f"{NAMES[short[:3]]}({'e1,e2' if short[3] == '1' else 'e2,e1'})"


def read(table: str) -> tuple[list[str], list[str]]:
    head, *lines = table.strip().splitlines()
    pairs = [
        (label(name), label(answer))
        for name, *counts in map(str.split, lines)
        for answer, count in zip(head.split(), counts, strict=True)
        for _ in range(int(count))
    ]
    golds, said = zip(*pairs, strict=True)
    return list(golds), list(said)


@pytest.mark.parametrize(("table", "printed"), PRINTED, ids=["1", "2", "3", "5"])
def test_figures_are_those_that_the_official_scorer_printed(table: str, printed: Sequence[float]) -> None:
    figures = Config().build().score(*read(table)).figures()
    assert [round(100 * figures[name], 2) for name in FIGURES] == list(printed)


def labels(path: Path) -> dict[str, str]:
    """Number of an example -> its label."""
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {number.strip(): label.strip() for number, label in rows}


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the scorer's files (../shared/data/tasks) are not here")
@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_macro_figures_are_those_of_the_official_scorer_s_files(number: int) -> None:
    """In any order, and with answers that are left out; example 4 is one that its format checker refuses."""
    key = labels(REFERENCE / "keys" / f"answer_key{number}.txt")
    said = labels(REFERENCE / "examples" / f"proposed_answer{number}.txt")
    printed = (REFERENCE / "examples" / f"result_scores{number}.txt").read_text(encoding="utf-8")
    assert said.keys() < key.keys()
    found = Config().build().score(list(key.values()), [said.get(one, "") for one in key]).figures()
    each = re.findall(r"MACRO-averaged .*\nP = +([\d.]+)%\s+R = +([\d.]+)%\s+F1 = +([\d.]+)%", printed)
    names = ("precision_macro", "recall_macro", "f1_macro")
    assert [f"{100 * found[name]:.2f}" for name in names] == list(each[2]), "with direction: the official ones"
    assert f"{100 * found['f1_undirected']:.2f}" == each[1][2]


def test_the_tables_hold_as_many_examples_as_the_keys() -> None:
    assert [len(read(table)[0]) for table, _ in PRINTED] == [40, 8000, 10, 6]


def test_the_wrong_direction_is_wrong_and_counts_as_said() -> None:
    golds = ["Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)"]
    figures = Config().build().score(golds, [golds[0], golds[0]]).figures()
    assert figures["precision_macro"] == figures["recall_macro"] == figures["f1_macro"] == 0.5
    assert figures["f1_undirected"] == 1


def test_a_gold_of_another_task_is_refused() -> None:
    for wrong in ("positive", "Cause-Effect", "Cause-Effect(e1)", ""):
        with pytest.raises(UserError, match=re.escape(f"with (e1,e2) or (e2,e1); got {wrong!r}")):
            Config().build().score([wrong], ["Other"])
