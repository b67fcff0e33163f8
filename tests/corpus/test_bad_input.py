"""Bad input through the whole build: each is told and counted, and the rest is used."""

import gzip
import json
import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundling.core.errors import UserError
from foundling.corpus.build import Config, build_corpus, preset
from foundling.corpus.encodings import guess_encoding_of
from foundling.corpus.folder import Corpus
from foundling.corpus.sniff import format_of
from foundling.corpus.work import open_work


def built(source: Path, out: Path, **settings: object) -> Corpus:
    values = {"workers": 1, "valid_fraction": 0, "steps": [], **settings}
    return build_corpus([source], out, Config.model_validate(values))


def texts(corpus: Corpus) -> list[str]:
    return [document.text for document in corpus.documents()]


def test_a_folder_of_everything_that_is_wrong(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    rng = random.Random(0)
    rows = ["".join(json.dumps({"text": f"{n} {rng.getrandbits(64)}"}) + "\n" for n in range(3000)) for _ in range(3)]
    members = [bytearray(gzip.compress(part.encode())) for part in rows]
    members[1][5000:5200] = rng.randbytes(200)
    (top / "a.jsonl.gz").write_bytes(b"".join(members))
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nfrom the archive"
    record = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http\r\nContent-Length: %d\r\n\r\n" % len(
        block
    )
    (top / "b.warc").write_bytes(record + block + b"\r\n\r\n" + record + block[:20])
    pq.write_table(pa.table({"n": [1], "left": ["a"], "right": ["b"]}), top / "c.parquet")
    pq.write_table(pa.table({"text": ["from parquet"]}), top / "d.csv")
    (top / "e.jsonl").write_text('{"text": "long ' + "x" * (33 << 20) + '"}\n{"text": "after the long one"}\n')
    (top / "loop").symlink_to(top)
    (top / "lost").symlink_to(top / "nothing")
    (top / "f.txt").write_bytes(b"")
    (top / "g.txt").write_bytes("带有字节序标记的文件".encode("utf-16"))
    (top / "h.txt").write_bytes(b"nul\0bytes" + b" and more" * 20)
    (top / "i.txt").write_bytes(gzip.compress(b"packed, which its name hides"))
    (top / "j.txt").write_bytes("人类社会发展的历史告诉我们，语言是思想的直接现实。".encode("gb18030"))
    (top / "k.csv").write_text("id,text\n1,from a table\n2\n")
    corpus = built(top, tmp_path / "out")
    found = texts(corpus)
    told = corpus.manifest["counts"]["problems"]
    lines = {json.loads(line)["text"] for part in (rows[0], rows[2]) for line in part.splitlines()}
    assert lines <= set(found)
    for text in (
        *("from the archive", "from parquet", "after the long one", "带有字节序标记的文件", "from a table", ""),
        *(
            "nulbytes" + " and more" * 20,
            "packed, which its name hides",
            "人类社会发展的历史告诉我们，语言是思想的直接现实。",
        ),
    ):
        assert found.count(text) == 1, text
    counted = {kind: entry["count"] for kind, entry in told.items() if kind != "malformed_line"}
    assert counted == {
        "damaged_archive": 1,
        "malformed_record": 1,
        "no_text_field": 1,
        "other_format": 2,
        "line_too_long": 1,
        "loop": 1,
        "unreadable": 1,
        "nul_bytes": 1,
        "malformed_row": 1,
    }
    examples = {kind: " ".join(map(str, entry["examples"])) for kind, entry in told.items()}
    assert "a.jsonl.gz" in examples["damaged_archive"]
    assert "c.parquet" in examples["no_text_field"]


def test_a_file_without_permission(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("one")
    secret = tmp_path / "in" / "b.jsonl"
    secret.write_text('{"text": "two"}')
    secret.chmod(0)
    if os.access(secret, os.R_OK):
        pytest.skip("this user may read everything")
    corpus = built(tmp_path / "in", tmp_path / "out")
    assert texts(corpus) == ["one"]
    assert corpus.manifest["counts"]["problems"]["unreadable"]["count"] == 1


def test_a_parquet_file_without_text_alone(tmp_path: Path) -> None:
    pq.write_table(pa.table({"left": ["a"], "right": ["b"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"at least one readable document.*the fields left, right; set text_field=KEY"):
        built(tmp_path / "a.parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert texts(built(tmp_path / "a.parquet", tmp_path / "out", text_field="right")) == ["b"]


def test_settings_reach_the_readers(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes("one;字\n".encode("big5"))
    settings = {
        "encoding": "big5",
        "format": {"kind": "csv", "delimiter": ";", "header": False},
        "text_field": "column_2",
    }
    assert texts(built(tmp_path / "a.dat", tmp_path / "out", **settings)) == ["字"]
    with pytest.raises(ValueError, match="one that Python knows"):
        Config.model_validate({"encoding": "no-such-encoding"})


def test_tags_from_fields(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "one", "topic": "law"}\n{"text": "two"}\n{"text": "three", "topic": "art"}\n'
    )
    corpus = built(tmp_path / "a.jsonl", tmp_path / "out", domain="field:topic")
    assert [(document.text, document.domain) for document in corpus.documents()] == [
        ("one", "law"),
        ("two", "a"),
        ("three", "art"),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"hi\n", "none left: quality took 1"), (b"\x00\x01" * 2000, "at least one readable document")],
)
def test_nothing_reaches_the_last_step_of_crawl(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=told):
        build_corpus([tmp_path / "a.txt"], tmp_path / "out", Config())
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_dead_link_that_goes_between_two_starts_costs_no_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foundling.corpus.work.CHUNK_BYTES", 1)
    monkeypatch.setattr("foundling.corpus.rows.BATCH_ROWS", 1)
    top = tmp_path / "in"
    top.mkdir()
    (top / "a.jsonl").write_text("".join(f'{{"text": "text {n}"}}\n' for n in range(20)))
    (top / "lost").symlink_to(top / "nothing")

    def stop(done: int, total: int, kept: int) -> None:
        if kept == 5:
            raise KeyboardInterrupt

    config = Config(steps=preset("plain"), valid_fraction=0)
    with pytest.raises(KeyboardInterrupt):
        build_corpus([top], tmp_path / "out", config, progress=stop)
    (top / "lost").unlink()
    corpus = build_corpus([top], tmp_path / "out", config)
    assert set(texts(corpus)) == {f"text {n}" for n in range(20)}


def test_work_of_a_longer_name_stays_and_one_builds_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_work(tmp_path / "wiki.zh", "x") as work:  # noqa: PT012
        (work.folder(0) / "chunk-000000.arrow").write_bytes(b"x")
        raise KeyboardInterrupt
    with open_work(tmp_path / "wiki", "y"):
        pass
    assert list(tmp_path.glob(".wiki.zh.*.work"))
    with open_work(tmp_path / "out", "a"):
        with pytest.raises(UserError, match="another one, with other settings"), open_work(tmp_path / "out", "b"):
            pass
        assert len(list(tmp_path.glob(".out.*.work"))) == 1


def test_odd_records_cost_themselves_alone(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one", "who": "cut \\ud83d"}\n')
    corpus = built(tmp_path / "a.jsonl", tmp_path / "out", domain="field:who")
    assert [document.domain for document in corpus.documents()] == ["cut \ufffd"]
    assert format_of(b'{"a":' + b"[" * 5000, "jsonl", is_suffix=True) in (None, "json", "jsonl")
    assert guess_encoding_of("café".encode("latin-1"), is_whole=True, declared="hex").name != "hex"


def test_an_evaluation_table_does_not_bound_the_corpus(tmp_path: Path) -> None:
    long = "word " * 2000
    (tmp_path / "a.csv").write_text("id,text\n" + "".join(f"{n},{n} {long}\n" for n in range(300)))
    (tmp_path / "bench.csv").write_text("q,a\nwhat is it,a short one\n")
    steps = [{"kind": "decontaminate", "against": [str(tmp_path / "bench.csv")]}]
    corpus = build_corpus([tmp_path / "a.csv"], tmp_path / "out", Config(steps=steps, workers=1))  # type: ignore[arg-type]
    assert corpus.num_documents() == 300
