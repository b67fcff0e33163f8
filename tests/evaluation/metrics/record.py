"""Records what seqeval and rouge-score say to random inputs: `python -m tests.evaluation.metrics.record`.

Both packages are needed only here: their last releases are of 2020 and 2022, and they bring nltk and an old build.
"""

import importlib.metadata
import json
import random
import warnings
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("references.json")
CASES = 60
TEXT = "the cat sat on a mat, The Cat's über-dog ran 3.5 km; café naïve don't 中文 x_y"
WORDS = TEXT.split()


def entities(chance: random.Random) -> dict[str, Any]:
    from seqeval.metrics import classification_report
    from seqeval.scheme import IOB2, IOBES

    scheme = chance.choice(["BIO", "BIOES"])
    types = ["PER", "LOC", "work-of-art"][: chance.randint(1, 3)]

    def tag() -> str:
        return "O" if chance.random() < 0.3 else f"{chance.choice(scheme.replace('O', ''))}-{chance.choice(types)}"

    golds = [[f"B-{types[0]}", *(tag() for _ in range(chance.randint(0, 7)))] for _ in range(chance.randint(1, 4))]
    answers = [[old if chance.random() < 0.7 else tag() for old in tags] for tags in golds]
    case: dict[str, Any] = {"golds": golds, "answers": answers, "scheme": scheme}
    for mode, strict in (
        ("conlleval", {}),
        ("strict", {"mode": "strict", "scheme": {"BIO": IOB2, "BIOES": IOBES}[scheme]}),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = classification_report(golds, answers, output_dict=True, zero_division=0, **strict)
        case[mode] = {name: [float(report[name][k]) for k in ("precision", "recall", "f1-score")] for name in report}
    return case


def rouge(chance: random.Random) -> dict[str, Any]:
    from rouge_score.rouge_scorer import RougeScorer

    number = chance.choice([1, 1, 2, 3])
    references = [" ".join(chance.choices(WORDS, k=chance.randint(0, 20))) for _ in range(number)]
    answer = " ".join(chance.choices(WORDS, k=chance.randint(0, 20)))
    found = RougeScorer(["rouge1", "rouge2", "rougeL"]).score_multi(references, answer)
    return {"references": references, "answer": answer, "figures": {name: list(found[name]) for name in found}}


if __name__ == "__main__":
    chance = random.Random(0)
    recorded = {
        "versions": {name: importlib.metadata.version(name) for name in ("seqeval", "rouge-score")},
        "entities": [entities(chance) for _ in range(CASES)],
        "rouge": [rouge(chance) for _ in range(CASES)],
    }
    PATH.write_text(json.dumps(recorded, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
