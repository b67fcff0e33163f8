"""Raw text to a corpus folder: what is kept, what is told, and that nothing else is."""

import gzip
import json
import logging
import os
import random
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import zstandard

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.corpus.build import Config, build_corpus, preset
from foundling.corpus.document import Document
from foundling.corpus.folder import Corpus, open_corpus
from foundling.corpus.shards import dropped_rows, problem_rows

DATA = Path(__file__).parents[3] / "shared" / "data" / "corpora"


def config(**values: Any) -> Config:
    return validate(Config, {"workers": 1, "steps": "plain", **values}, "corpus")


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def texts(corpus: Corpus, split: str | None = None) -> list[str]:
    return [document.text for document in corpus.documents(split)]


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with every kind of input, duplicates and an empty file."""
    rng = random.Random(0)
    words = [f"word{i}" for i in range(200)]
    rows = [{"text": " ".join(rng.choices(words, k=rng.randint(1, 30))), "n": i} for i in range(300)]
    top = tmp_path / "mixed"
    write(top / "a.jsonl", jsonl(*rows, *rows[:40]))
    write(top / "deep" / "b.jsonl.gz", gzip.compress(jsonl(*rows[20:50], {"text": "only here"}).encode()))
    write(top / "deep" / "c.txt.zst", zstandard.compress(b"a file of its own\r\nwith two lines"))
    write(top / "notes.md", "# Notes\n\ncafe\u0301\n")
    write(top / "code.py", "def f():\n\treturn 1\n")
    write(top / "empty.txt", "")
    write(top / "picture.png", b"\x89PNG\0\0")
    write(top / ".hidden.txt", "hidden")
    return top


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="foundling"):
        yield caplog


def test_everything_is_read_once_and_counted(mixed: Path, tmp_path: Path) -> None:
    corpus = build_corpus([mixed], tmp_path / "out", config())
    counts = corpus.manifest["counts"]
    assert counts["num_documents_read"] == 340 + 31 + 4
    dropped = {(step["step"], reason): n for step in counts["steps"] for reason, n in step["dropped"].items()}
    rows = list(dropped_rows(corpus.dir))
    assert {key: sum((r["step"], r["reason"]) == key for r in rows) for key in dropped} == dropped
    assert dropped[("length", "too_short")] == 1
    assert counts["num_documents_read"] - len(rows) == corpus.num_documents() == len(texts(corpus))
    assert corpus.num_documents("train") + corpus.num_documents("valid") == corpus.num_documents()
    assert corpus.num_bytes() == sum(len(text.encode()) for text in texts(corpus))
    assert len(set(texts(corpus))) == len(texts(corpus))
    assert sum(count for _, count in counts["lengths"]) == corpus.num_documents()
    for before, after in zip(counts["steps"], counts["steps"][1:], strict=False):
        assert (before["num_documents"], before["num_bytes"]) == (after["num_documents_in"], after["num_bytes_in"])


def test_documents_carry_text_tags_and_meta(mixed: Path, tmp_path: Path) -> None:
    corpus = build_corpus([mixed], tmp_path / "out", config())
    found = {document.id: document for document in corpus.documents()}
    assert found["mixed/deep/c.txt.zst"].text == "a file of its own\nwith two lines"
    assert found["mixed/notes.md"].text == "# Notes\n\ncafé\n"
    assert found["mixed/code.py"].text == "def f():\n\treturn 1\n"
    assert found["mixed/a.jsonl:3"].meta == {"n": 2}
    only = found["mixed/deep/b.jsonl.gz:31"]
    assert only == Document(only.id, "only here", "mixed", "mixed", None, only.split, {})


def test_same_result_for_any_workers_place_and_run(mixed: Path, tmp_path: Path) -> None:
    first = build_corpus([mixed], tmp_path / "one", config(workers=1))
    second = build_corpus([mixed], tmp_path / "two", config(workers=3))
    moved = mixed.rename(tmp_path / "elsewhere")
    (tmp_path / "deeper").mkdir()
    moved = moved.rename(tmp_path / "deeper" / "mixed")
    third = build_corpus([moved], tmp_path / "three", config(workers=2))
    assert hashes(first.dir) == hashes(second.dir) == hashes(third.dir)
    assert first.key == second.key == third.key


def test_the_order_does_not_depend_on_batch_size(mixed: Path, tmp_path: Path) -> None:
    corpus = build_corpus([mixed], tmp_path / "out", config())
    assert list(corpus.documents(batch_size=1)) == list(corpus.documents(batch_size=1000))


def test_done_is_done(mixed: Path, tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out"
    first = build_corpus([mixed], out, config())
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.rglob("*")}
    again = build_corpus([mixed], out, config(workers=2))
    assert again.key == first.key
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.rglob("*")} == before
    assert "up to date" in told.text


def test_a_fraction_that_holds_nothing_back_is_told(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    """One text stands on one side whole; as soon as there are two, one is held back."""
    build_corpus([write(tmp_path / "one.txt", "all in one")], tmp_path / "one", config(valid_fraction=0.5))
    assert told.text.count("holds nothing back") == 1
    build_corpus([write(tmp_path / "none.txt", "as asked")], tmp_path / "none", config(valid_fraction=0))
    write(tmp_path / "two" / "a.txt", "one text")
    write(tmp_path / "two" / "b.txt", "another")
    assert texts(build_corpus([tmp_path / "two"], tmp_path / "out", config(valid_fraction=0.001)), "valid")
    assert told.text.count("holds nothing back") == 1


def test_other_inputs_or_settings_need_replace(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = build_corpus([mixed], out, config())
    before = hashes(out)
    with pytest.raises(UserError, match="--replace"):
        build_corpus([mixed], out, config(seed=1))
    write(mixed / "new.txt", "something new")
    with pytest.raises(UserError, match="--replace"):
        build_corpus([mixed], out, config())
    assert hashes(out) == before
    assert build_corpus([mixed], out, config(), replace=True).key != first.key
    assert "something new" in texts(open_corpus(out))


def test_a_folder_that_is_not_ours_stays(mixed: Path, tmp_path: Path) -> None:
    mine = write(tmp_path / "out" / "thesis.doc", "my life's work").parent
    for replace in (False, True):
        with pytest.raises(UserError, match="must be empty, a corpus folder or not exist"):
            build_corpus([mixed], mine, config(), replace=replace)
    with pytest.raises(UserError, match="got a file"):
        build_corpus([mixed], mine / "thesis.doc", config())
    assert hashes(mine) == {"thesis.doc": sha256(b"my life's work").hexdigest()}


def test_a_damaged_corpus_is_named(mixed: Path, tmp_path: Path) -> None:
    out = build_corpus([mixed], tmp_path / "out", config()).dir
    shard = next((out / "documents").glob("train-*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=shard.name):
        open_corpus(out)


def test_what_a_killed_build_left_is_cleared(mixed: Path, tmp_path: Path) -> None:
    write(tmp_path / ".out.999999999.tmp" / "documents" / "train-00000.parquet", "half")
    build_corpus([mixed], tmp_path / "out", config())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mixed", "out"]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_build_leaves_nothing(mixed: Path, tmp_path: Path, workers: int) -> None:
    def interrupt(done: int, total: int, kept: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_corpus([mixed], tmp_path / "out", config(workers=workers), progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["mixed"]


def test_progress_ends_at_the_total(mixed: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    corpus = build_corpus([mixed], tmp_path / "out", config(), progress=lambda *figures: seen.append(figures))
    assert seen == sorted(seen)
    assert seen[-1] == (seen[-1][1], seen[-1][1], corpus.num_documents())


def test_steps_after_a_corpus_step(mixed: Path, tmp_path: Path) -> None:
    """A step after `exact` runs in a segment of its own, and finds what is left there."""
    steps = ["exact", "unicode", {"kind": "length", "min_characters": 30}, "exact"]
    corpus = build_corpus([mixed], tmp_path / "out", config(steps=steps))
    wanted = build_corpus([mixed], tmp_path / "two", config(steps=["unicode", steps[2], "exact"]))
    assert list(corpus.documents()) == list(wanted.documents())
    steps_seen = corpus.manifest["counts"]["steps"]
    assert [step["step"] for step in steps_seen] == ["exact", "unicode", "length", "exact"]
    assert steps_seen[0]["dropped"] == {"duplicate": 70}
    assert steps_seen[3]["num_documents"] == corpus.num_documents()
    assert sorted(path.name for path in corpus.dir.iterdir()) == [
        "documents",
        "dropped",
        "manifest.json",
        "report.html",
    ]


def test_no_steps_keep_everything(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "x\r\ny\x00"[:4])
    write(tmp_path / "b.jsonl", jsonl({"text": ""}, {"text": "x\r\ny"}))
    corpus = build_corpus([tmp_path / "a.txt", tmp_path / "b.jsonl"], tmp_path / "out", config(steps=[]))
    assert sorted(texts(corpus)) == ["", "x\r\ny", "x\r\ny"]


def test_every_input_is_found(tmp_path: Path) -> None:
    top = tmp_path / "top"
    write(top / "a" / "x.txt", "one")
    write(top / "b" / "x.txt", "two")
    write(top / "b" / "y.strange", "three")
    given = [str(top / "*" / "x.txt"), top, top / "a" / "x.txt"]
    corpus = build_corpus(given, tmp_path / "out", config(valid_fraction=0))
    assert [(d.id, d.source) for d in corpus.documents()] == [("a/x.txt", "x"), ("b/x.txt", "x")]
    with pytest.raises(UserError, match="format=text"):
        build_corpus([top / "b" / "y.strange"], tmp_path / "two", config())
    strange = build_corpus([top / "b" / "y.strange"], tmp_path / "two", config(format="text"))
    assert texts(strange) == ["three"]


def test_tags(tmp_path: Path) -> None:
    top = tmp_path / "top"
    write(top / "law" / "old" / "x.txt", "one")
    write(top / "y.txt", "two")
    corpus = build_corpus([top], tmp_path / "out", config(source="archive", domain="from:folder"))
    assert sorted((d.source, d.domain) for d in corpus.documents()) == [("archive", "law"), ("archive", "top")]
    assert set(corpus.manifest["counts"]["domains"]) == {"law", "top"}
    corpus = build_corpus([top], tmp_path / "two", config(domain="from:file"))
    assert sorted((d.source, d.domain) for d in corpus.documents()) == [("top", "x"), ("top", "y")]
    with pytest.raises(UserError, match="must be from:folder or from:file"):
        config(domain="from:title")


def test_a_symlink_loop_ends(tmp_path: Path) -> None:
    top = write(tmp_path / "top" / "sub" / "a.txt", "one").parents[1]
    os.symlink(top, top / "sub" / "loop")
    assert texts(build_corpus([top], tmp_path / "out", config())) == ["one"]


def test_bytes_that_are_not_utf8(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "in" / "latin.txt", "Das Caf\xe9 liegt an der Stra\xdfe.".encode("latin-1"))
    write(tmp_path / "in" / "l.jsonl", b'{"text": "caf\xe9 au lait"}\n')
    write(tmp_path / "in" / "stray.txt", b"good \xff text" + b" and more" * 20)
    corpus = build_corpus([tmp_path / "in"], tmp_path / "out", config(steps="plain"))
    assert sorted(texts(corpus)) == [
        "Das Café liegt an der Straße.",
        "café au lait",
        "good \ufffd text" + " and more" * 20,
    ]
    assert corpus.manifest["counts"]["problems"]["not_utf8"]["count"] == 1
    assert "in/stray.txt: 1 bytes are not UTF-8" in told.text
    assert "in/latin.txt: the encoding 'cp1252' is a guess (encoding=... sets it)" in told.text


def test_a_binary_file_is_left_out(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    binary = write(tmp_path / "in" / "b.txt", b"\x7fELF\0\0\0")
    write(tmp_path / "in" / "c.jsonl", b"\0\1\2")
    write(tmp_path / "in" / "a.txt", "text")
    corpus = build_corpus([tmp_path / "in"], tmp_path / "out", config())
    assert texts(corpus) == ["text"]
    assert corpus.manifest["counts"]["problems"]["binary"]["count"] == 2
    assert "in/b.txt: it is binary" in told.text
    with pytest.raises(UserError, match=r"at least one readable document; got b\.txt: it is binary"):
        build_corpus([binary], tmp_path / "two", config())
    assert not (tmp_path / "two").exists()


def test_bad_lines_are_told_and_the_rest_used(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    bad = ["{'text': 'python'}", "[1, 2]", '{"text": 3}', '{"other": "x"}', '{"text": "cut']
    content = (
        jsonl({"text": "one"}) + "\n".join(bad) + "\n\n" + jsonl({"text": "a\ud800b"}).replace("\ud800", "\\ud800")
    )
    path = write(tmp_path / "a.jsonl", content)
    corpus = build_corpus([path], tmp_path / "out", config(steps=[]))
    assert sorted(texts(corpus)) == ["a\ufffdb", "one"]
    problems = corpus.manifest["counts"]["problems"]
    assert (problems["malformed_line"]["count"], problems["no_text"]["count"]) == (3, 2)
    assert problems["malformed_line"]["lines"] == {"a.jsonl": "2-3, 6"}
    assert problems["no_text"]["lines"] == {"a.jsonl": "4-5"}
    assert "a.jsonl: 3 lines left out: not a JSON object (lines 2-3, 6)" in told.text
    rows = list(problem_rows(corpus.dir))
    assert [(row["file"], row["line"], row["kind"]) for row in rows] == [
        ("a.jsonl", line, kind)
        for line, kind in zip(
            range(2, 7), ["malformed_line", "malformed_line", "no_text", "no_text", "malformed_line"], strict=True
        )
    ]
    assert [row["line"] for row in problem_rows(corpus.dir, "no_text")] == [4, 5]


def test_many_bad_lines_do_not_flood(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    for name in "abcdefgh":
        write(tmp_path / "in" / f"{name}.jsonl", jsonl({"text": "one"}) + 'bad\n{"text": "two"}\n' * 1000)
    corpus = build_corpus([tmp_path / "in"], tmp_path / "out", config())
    problem = corpus.manifest["counts"]["problems"]["malformed_line"]
    assert (problem["count"], len(problem["examples"])) == (8000, 20)
    assert problem["lines"]["in/c.jsonl"] == ", ".join(str(line) for line in range(2, 2001, 2))
    assert sum(1 for row in problem_rows(corpus.dir) if row["file"] == "in/h.jsonl") == 1000
    assert told.text.count("(lines 2, 4, 6") == 5
    assert "and 980 more)" in told.text
    assert "8000 lines left out: not a JSON object, in all" in told.text


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_truncated_archive(tmp_path: Path, told: pytest.LogCaptureFixture, suffix: str) -> None:
    rng = random.Random(0)
    rows = [{"text": rng.randbytes(100).hex()} for _ in range(3000)]
    raw = jsonl(*rows).encode()
    data = gzip.compress(raw) if suffix == ".gz" else zstandard.compress(raw)
    path = write(tmp_path / f"a.jsonl{suffix}", data[: len(data) // 2])
    corpus = build_corpus([path], tmp_path / "out", config(valid_fraction=0))
    got = texts(corpus)
    assert got == [row["text"] for row in rows[: len(got)]]
    assert 1000 < len(got) < 2000
    assert f"a.jsonl{suffix}: the archive is damaged (it ends too early)" in told.text


def test_the_text_field(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.jsonl", "broken\n" + jsonl({"title": "T", "content": "one"}))
    assert texts(build_corpus([path], tmp_path / "out", config())) == ["one"]
    assert "a.jsonl: the text field 'content' is a guess (text_field=... sets it)" in told.text
    assert texts(build_corpus([path], tmp_path / "two", config(text_field="title"))) == ["T"]
    unclear = write(tmp_path / "b.jsonl", jsonl({"left": "one", "right": "two"}))
    with pytest.raises(UserError, match=r"got the fields left, right; set text_field=KEY"):
        build_corpus([unclear], tmp_path / "three", config())


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    for sources, word in [
        ([tmp_path / "empty"], "must hold files of a known kind"),
        ([tmp_path / "missing"], "a source must exist"),
        ([str(tmp_path / "*.txt")], "a glob must match something"),
        ([], "at least one source"),
        ([write(tmp_path / "a.jsonl", "")], "at least one readable document"),
    ]:
        with pytest.raises(UserError, match=word):
            build_corpus(sources, out, config())
    assert not out.exists()


def test_all_dropped_says_which_step_took_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", jsonl({"text": ""}, {"text": "short"}, {"text": "short"}))
    steps = [{"kind": "length", "min_characters": 10}]
    with pytest.raises(UserError, match=r"3 read, none left: length took 3 \(too_short 3\)"):
        build_corpus([path], tmp_path / "out", config(steps=steps))
    assert not (tmp_path / "out").exists()


def test_several_faults_in_a_config_are_told_at_once() -> None:
    with pytest.raises(UserError, match="2 faults") as error:
        config(valid_fraction=2, steps=["unicod"])
    assert "did you mean 'unicode'" in str(error.value)


def test_a_file_larger_than_a_document_may_be_is_cut_at_lines(
    tmp_path: Path, told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foundling.corpus.readers.text.MAX_BYTES", 1000)
    content = "".join(f"line {i} 字\n" for i in range(400)) + "字" * 1000
    path = write(tmp_path / "a.txt", content)
    corpus = build_corpus([path], tmp_path / "out", config(valid_fraction=0, steps=[]))
    documents = list(corpus.documents())
    assert "".join(document.text for document in documents) == content
    assert all(len(document.text.encode()) <= 1000 for document in documents)
    assert documents[1].id == "a.txt:2"
    assert "cut at line ends" in told.text


def test_an_unreadable_file_is_told(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "in" / "a.txt", "one")
    secret = write(tmp_path / "in" / "b.txt", "two")
    secret.chmod(0)
    if os.access(secret, os.R_OK):
        pytest.skip("this user may read everything")
    assert texts(build_corpus([tmp_path / "in"], tmp_path / "out", config())) == ["one"]
    assert "in/b.txt: it could not be read" in told.text


@pytest.mark.skipif(not DATA.is_dir(), reason="the real corpora (../shared/data/corpora) are not here")
def test_real_text_stays_as_it_is(tmp_path: Path) -> None:
    path = DATA / "news.jsonl.gz"
    corpus = build_corpus([path], tmp_path / "out", config())
    with gzip.open(path, "rt", encoding="utf-8") as file:
        given = [json.loads(line)["text"] for line in file]
    assert sorted(texts(corpus)) == sorted(set(given))
    assert 0.003 < corpus.num_documents("valid") / corpus.num_documents() < 0.02


@pytest.mark.skipif(not DATA.is_dir(), reason="the real corpora (../shared/data/corpora) are not here")
def test_real_dirty_lines_are_counted(tmp_path: Path) -> None:
    path = DATA / "dirty.jsonl"
    counts = build_corpus([path], tmp_path / "out", config()).manifest["counts"]
    assert counts["problems"]["malformed_line"]["count"] == 3
    assert counts["steps"][1]["dropped"] == {"too_short": 6}
    assert counts["steps"][2]["dropped"] == {"duplicate": 12}


def test_a_preset_may_stand_among_steps() -> None:
    kinds = [step.kind for step in Config.model_validate({"steps": ["plain", {"kind": "whitespace"}]}).steps]
    assert kinds == [*(step.kind for step in preset("plain")), "whitespace"]
