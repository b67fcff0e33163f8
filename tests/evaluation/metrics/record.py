"""Records what others' programs say: `python -m tests.evaluation.metrics.record SCRIPTS`.

seqeval and rouge-score are needed only here: their last releases are of 2020 and 2022, and they bring nltk and an old
build. SCRIPTS is a folder with the evaluation scripts that SQuAD (evaluate-v1.1.py, evaluate-v2.0.py) and MLQA
(mlqa_evaluation_v1.py) publish; they are run as they are. Random inputs are recorded whole. Of real ones, which must be
there, the figures are, and a hash of what they are of.
"""

import hashlib
import importlib.metadata
import json
import random
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

from tests.evaluation.metrics import real

PATH = Path(__file__).with_name("references.json")
CASES = 60
TEXT = "the cat sat on a mat, The Cat's über-dog ran 3.5 km; café naïve don't 中文 x_y"
WORDS = TEXT.split()
ENGLISH = ["\u00a0", "\n", "twenty-one", "Broncos", "broncos,", "10%", "€", "3.5", "“big”", "don't", "É", "café", "—"]
ENGLISH += ["the", "a", "An", "THE", "theatre", "U.S.", "and", "x_y", "$"]
CHINESE = [*"公共部门贪腐 ，。《》—", "IBM", "ibm ", "3.5%", "new york", "the ", "\n", "€", "々"]
SCRIPTS = ("evaluate-v1.1.py", "evaluate-v2.0.py", "mlqa_evaluation_v1.py")


def seqeval_figures(golds: list[list[str]], answers: list[list[str]], scheme: str) -> dict[str, Any]:
    """Precision, recall and F1 of each type and on average, in both modes."""
    from seqeval.metrics import classification_report
    from seqeval.scheme import IOB2, IOBES

    found = {}
    for mode, strict in (
        ("conlleval", {}),
        ("strict", {"mode": "strict", "scheme": {"BIO": IOB2, "BIOES": IOBES}[scheme]}),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = classification_report(golds, answers, output_dict=True, zero_division=0, **strict)
        found[mode] = {name: [float(report[name][k]) for k in ("precision", "recall", "f1-score")] for name in report}
    return found


def entities(chance: random.Random) -> dict[str, Any]:
    scheme = chance.choice(["BIO", "BIOES"])
    types = ["PER", "LOC", "work-of-art"][: chance.randint(1, 3)]

    def tag() -> str:
        return "O" if chance.random() < 0.3 else f"{chance.choice(scheme.replace('O', ''))}-{chance.choice(types)}"

    golds = [[f"B-{types[0]}", *(tag() for _ in range(chance.randint(0, 7)))] for _ in range(chance.randint(1, 4))]
    answers = [[old if chance.random() < 0.7 else tag() for old in tags] for tags in golds]
    return {"golds": golds, "answers": answers, "scheme": scheme, **seqeval_figures(golds, answers, scheme)}


def rouge_figures(references: list[str], answer: str) -> dict[str, list[float]]:
    """Precision, recall and F1 of each measure."""
    from rouge_score.rouge_scorer import RougeScorer

    found = RougeScorer(["rouge1", "rouge2", "rougeL"]).score_multi(references, answer)
    return {name: list(found[name]) for name in found}


def rouge(chance: random.Random) -> dict[str, Any]:
    number = chance.choice([1, 1, 2, 3])
    references = [" ".join(chance.choices(WORDS, k=chance.randint(0, 20))) for _ in range(number)]
    answer = " ".join(chance.choices(WORDS, k=chance.randint(0, 20)))
    return {"references": references, "answer": answer, "figures": rouge_figures(references, answer)}


class Squad:
    """The published scripts, asked for exact match and F1 over questions, of 1."""

    def __init__(self, folder: Path) -> None:
        self.one, self.two, self.mlqa = (runpy.run_path(str(folder / name)) for name in SCRIPTS)

    def figures(self, script: str, golds: list[list[str]], answers: list[str]) -> list[float]:
        """1.1 and mlqa fail on questions without a gold, and count an accepted text of which nothing is left as 2.0
        does not."""
        questions = [{"id": str(n), "answers": [{"text": text} for text in texts]} for n, texts in enumerate(golds)]
        data = [{"paragraphs": [{"qas": questions}]}]
        said = {str(n): answer for n, answer in enumerate(answers)}
        if script == "2.0":
            both: Any = self.two["make_eval_dict"](*self.two["get_raw_scores"](data, said))
            return [both["exact"] / 100, both["f1"] / 100]
        both = self.one["evaluate"](data, said) if script == "1.1" else self.mlqa["evaluate"](data, said, "zh")
        return [both["exact_match"] / 100, both["f1"] / 100]

    def random(self, chance: random.Random, script: str) -> dict[str, Any]:
        words, gap = (CHINESE, "") if script == "mlqa" else (ENGLISH, " ")
        text = lambda least: gap.join(chance.choices(words, k=chance.randint(least, 6)))
        left = lambda said: self.mlqa["normalize_answer"](said, "zh" if script == "mlqa" else "en")
        golds = [text(1) for _ in range(chance.choice([0, 1, 1, 2, 3]))]
        if script != "2.0":
            golds = [said for said in golds if left(said)] or ["公共" if script == "mlqa" else "Broncos"]
        answer = chance.choice([*golds, ""])
        answer = [answer, f" {answer.upper()}.", gap.join([answer, text(0)]), text(0)][chance.randrange(4)]
        return {"golds": golds, "answer": answer, "figures": self.figures(script, [golds], [answer])}

    def real(self, name: str) -> dict[str, Any]:
        golds, answers = real.short_answers(name)
        found: dict[str, Any] = {"hash": real.hash_of(golds, answers)}
        if name == "xquad-en":
            found["2.0"] = self.figures("2.0", golds, answers)
        known = [number for number, texts in enumerate(golds) if texts]
        asked = [golds[number] for number in known], [answers[number] for number in known]
        script = "1.1" if name == "xquad-en" else "mlqa"
        return {**found, script: self.figures(script, *asked)}


def real_entities() -> dict[str, Any]:
    golds, answers = real.entity_tags()
    return {"hash": real.hash_of(golds, answers), **seqeval_figures(golds, answers, "BIO")}


def real_rouge() -> dict[str, Any]:
    """With all references their F1 alone: of two with the same, rounding chooses the precision and recall."""
    golds, answers = real.summaries()
    several = [rouge_figures(texts, answer) for texts, answer in zip(golds, answers, strict=True)]
    single = [rouge_figures(texts[:1], answer) for texts, answer in zip(golds, answers, strict=True)]
    mean = lambda found, name, k: sum(one[name][k] for one in found) / len(found)
    return {
        "hash": real.hash_of(golds, answers),
        "several": {name: mean(several, name, 2) for name in several[0]},
        "single": {name: [mean(single, name, k) for k in range(3)] for name in single[0]},
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    squad, chance, other = Squad(folder), random.Random(0), random.Random(5)
    recorded = {
        "versions": {
            **{name: importlib.metadata.version(name) for name in ("seqeval", "rouge-score")},
            **{name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in SCRIPTS},
        },
        "entities": [entities(chance) for _ in range(CASES)],
        "rouge": [rouge(chance) for _ in range(CASES)],
        "squad": {script: [squad.random(other, script) for _ in range(CASES)] for script in ("1.1", "2.0", "mlqa")},
        "real": {
            "wnut17": real_entities(),
            "dialogsum": real_rouge(),
            **{name: squad.real(name) for name in ("xquad-en", "xquad-zh")},
        },
    }
    PATH.write_text(json.dumps(recorded, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
