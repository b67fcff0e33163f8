"""The token store against plain concatenation, and what it does to damage."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from foundling.core.errors import UserError
from foundling.data import tokenize as tokenize_module
from foundling.data._shards import BLOCK_BYTES
from foundling.data.store import TokenStore, build_store
from foundling.data.tokenize import tokenize
from foundling.tokenizers.base import SpecialTokens, Tokenizer
from tests.tokenizers.conftest import trained
from tests.tokenizers.texts import ODD, texts


@dataclass(frozen=True)
class Doc:
    text: str
    source: str


@dataclass(frozen=True)
class FakeCorpus:
    """Documents of three sources, interleaved; `valid` is small."""

    key: str = "k"
    num_texts: int = 120

    def documents(self, split: str) -> Iterator[Doc]:
        chosen = [*texts(self.num_texts), *ODD] if split == "train" else texts(7, seed=1)
        for i, text in enumerate(chosen):
            yield Doc(text, "cab"[i % 3])


def expected(corpus: FakeCorpus, split: str, tokenizer: Tokenizer, end: list[int]) -> tuple[list[int], list[Doc]]:
    documents = sorted(corpus.documents(split), key=lambda document: document.source)  # stable: order within a source
    return [i for document in documents for i in (*tokenizer.encode(document.text), *end)], documents


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return build_store(FakeCorpus(), trained("bpe"), tmp_path / "store", workers=1, shard_tokens=500)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_store_is_the_concatenation_of_its_documents(store: TokenStore, split: str) -> None:
    bpe, stream = trained("bpe"), store.split(split)
    ids, documents = expected(FakeCorpus(), split, bpe, [0])
    assert stream.num_tokens == len(ids)
    assert stream.read(0, len(ids)).tolist() == ids
    assert stream.read(0, len(ids)).dtype == np.int64
    assert stream.num_documents == len(documents)
    assert stream.num_bytes == sum(len(document.text.encode()) for document in documents)
    assert stream.sources == ["a", "b", "c"]
    assert stream.document_bytes.tolist() == [len(document.text.encode()) for document in documents]
    assert [stream.sources[i] for i in stream.document_source] == [document.source for document in documents]
    lengths = stream.document_lengths
    assert stream.document_starts.tolist() == [0, *np.cumsum(lengths)[:-1]]
    for start, length, document in zip(stream.document_starts, lengths, documents, strict=True):
        assert stream.read(start, length).tolist() == [*bpe.encode(document.text), 0]
    ranges = [stream.source_range(source) for source in stream.sources]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == stream.num_tokens
    assert all(left[1] == right[0] for left, right in pairwise(ranges))
    assert ranges[1][0] == stream.document_starts[np.searchsorted(stream.document_source, 1)]


def test_any_range_can_be_read(store: TokenStore) -> None:
    stream = store.split("train")
    whole = stream.read(0, stream.num_tokens)
    rng = np.random.default_rng(0)
    for _ in range(200):
        start = int(rng.integers(stream.num_tokens + 1))
        length = int(rng.integers(stream.num_tokens - start + 1))
        assert np.array_equal(stream.read(start, length), whole[start : start + length])
    assert not stream.view(3, 5).flags.owndata  # mapped, not copied
    with pytest.raises(AssertionError):
        stream.read(stream.num_tokens, 1)


def test_shards_end_with_documents_unless_one_is_larger(store: TokenStore) -> None:
    stream = store.split("train")
    shards = sorted(store.folder.glob("train-*.bin"))
    assert len(shards) > 10
    ends = np.cumsum([path.stat().st_size // 2 for path in shards])
    assert max(np.diff(ends, prepend=0)) <= 500
    cut = set(ends.tolist()) - {*stream.document_starts.tolist(), stream.num_tokens}
    assert not cut
    assert {path.stat().st_size for path in shards} != {1000}


def test_a_document_larger_than_a_shard_is_cut(tmp_path: Path) -> None:
    store = build_store(FakeCorpus(), trained("bpe"), tmp_path / "s", workers=1, shard_tokens=16)
    stream = store.split("train")
    assert stream.read(0, stream.num_tokens).tolist() == expected(FakeCorpus(), "train", trained("bpe"), [0])[0]
    assert max(path.stat().st_size for path in store.folder.glob("*.bin")) == 32


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenize_module, "_SMALL_BYTES", 0)
    monkeypatch.setattr(tokenize_module, "_BATCH_BYTES", 3000)
    one = build_store(FakeCorpus(), trained("bpe"), tmp_path / "one", workers=1)
    two = build_store(FakeCorpus(), trained("bpe"), tmp_path / "two", workers=2)
    monkeypatch.setattr("foundling.data._shards._FLUSH_BYTES", 100)
    three = build_store(FakeCorpus(), trained("bpe"), tmp_path / "three", workers=0)
    assert _files(one.folder) == _files(two.folder) == _files(three.folder)


def test_end_ids(tmp_path: Path) -> None:
    wordpiece = trained("wordpiece")
    by_default = build_store(FakeCorpus(), wordpiece, tmp_path / "sep")
    assert by_default.end_id == wordpiece.sep_id
    none = build_store(FakeCorpus(), wordpiece, tmp_path / "none", end_id=None)
    assert none.end_id is None
    stream = none.split("train")
    assert stream.read(0, stream.num_tokens).tolist() == expected(FakeCorpus(), "train", wordpiece, [])[0]
    with pytest.raises(UserError, match="end_id"):
        build_store(FakeCorpus(), wordpiece, tmp_path / "bad", end_id=10**6)


def test_a_large_vocabulary_takes_32_bits(tmp_path: Path) -> None:
    vocabulary = {"<unk>": 0, "<e>": 1, **{chr(0x4E00 + i): i + 2 for i in range(0x3000)}, "x": 70_000}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    large = Tokenizer(raw, SpecialTokens({"eos": "<e>"}), kind="char")
    store = build_store(FakeCorpus(), large, tmp_path / "s", shard_tokens=1000)
    assert store.dtype == np.uint32
    stream = store.split("train")
    ids, _ = expected(FakeCorpus(), "train", large, [1])
    assert stream.read(0, stream.num_tokens).tolist() == ids
    assert 70_000 in ids


class Untouchable(FakeCorpus):
    def documents(self, split: str) -> Iterator[Doc]:
        raise AssertionError("the corpus was read")


def test_the_same_inputs_are_not_tokenized_again(tmp_path: Path) -> None:
    first = build_store(FakeCorpus(), trained("bpe"), tmp_path / "s")
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    again = build_store(Untouchable(), trained("bpe"), tmp_path / "s")
    assert again.key == first.key
    assert before == {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}


def test_other_inputs_replace_a_store_but_nothing_else(tmp_path: Path) -> None:
    build_store(FakeCorpus(), trained("bpe"), tmp_path / "s")
    other = build_store(FakeCorpus(key="other", num_texts=9), trained("bpe"), tmp_path / "s")
    assert other.split("train").num_documents == 9 + len(ODD)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="something else"):
        build_store(FakeCorpus(), trained("bpe"), tmp_path / "mine")


class Empty(FakeCorpus):
    def documents(self, split: str) -> Iterator[Doc]:
        return iter(())


def test_an_empty_corpus_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must hold documents"):
        build_store(Empty(), trained("bpe"), tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


class OnlyTrain(FakeCorpus):
    def documents(self, split: str) -> Iterator[Doc]:
        return super().documents(split) if split == "train" else iter(())


def test_an_empty_split_is_empty(tmp_path: Path) -> None:
    stream = build_store(OnlyTrain(), trained("bpe"), tmp_path / "s").split("valid")
    assert stream.num_tokens == stream.num_documents == len(stream.document_starts) == 0
    assert stream.read(0, 0).tolist() == []
    assert stream.sources == []


def test_another_tokenizer_is_refused(store: TokenStore) -> None:
    assert TokenStore.open(store.folder, trained("bpe").sha256).end_id == 0
    with pytest.raises(UserError, match="must have been made with the run's tokenizer"):
        TokenStore.open(store.folder, trained("char").sha256)


def test_a_truncated_or_missing_shard_is_named(store: TokenStore) -> None:
    path = store.folder / "train-00002.bin"
    data = path.read_bytes()
    path.write_bytes(data[:-2])
    with pytest.raises(UserError, match=r"train-00002\.bin must have \d+ bytes; got \d+"):
        TokenStore.open(store.folder)
    path.unlink()
    with pytest.raises(UserError, match=r"train-00002\.bin is missing"):
        TokenStore.open(store.folder)


@pytest.mark.parametrize("name", ["train-00003.bin", "valid-00000.bin", "train-documents.npy", "index.json"])
def test_a_flipped_byte_is_found_and_named(store: TokenStore, name: str) -> None:
    TokenStore.open(store.folder, verify="full")
    path = store.folder / name
    data = bytearray(path.read_bytes())
    place = data.index(b'"documents"') + 3 if name == "index.json" else len(data) // 2
    data[place] ^= 1
    path.write_bytes(data)
    TokenStore.open(store.folder) if name != "index.json" else None
    with pytest.raises(UserError, match=name):
        TokenStore.open(store.folder, verify="full")


def test_the_damaged_range_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert BLOCK_BYTES == 4 << 20
    for module in ("foundling.data._shards", "foundling.data.store"):
        monkeypatch.setattr(f"{module}.BLOCK_BYTES", 256)
    store = build_store(FakeCorpus(), trained("bpe"), tmp_path / "s")
    TokenStore.open(store.folder, verify="full")
    path = store.folder / "train-00000.bin"
    data = bytearray(path.read_bytes())
    data[1000] ^= 128
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"train-00000\.bin is damaged between bytes 768 and 1024"):
        TokenStore.open(store.folder, verify="full")


def test_other_folders_are_no_stores(tmp_path: Path, store: TokenStore) -> None:
    with pytest.raises(UserError, match="token store folder must exist"):
        TokenStore.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match="train, valid"):
        store.split("test")
    with pytest.raises(UserError, match="a, b, c"):
        store.split("train").source_range("z")


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    store = build_store(FakeCorpus(), trained("bpe"), tmp_path / "s", progress=lambda *done: told.append(done))
    both = [store.split("train"), store.split("valid")]
    assert told[-1] == (
        sum(s.num_documents for s in both),
        sum(s.num_bytes for s in both),
        sum(s.num_tokens for s in both),
    )


def remembered_processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """All processes that are started from here on."""
    crew: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def remember(*args: object, **kwargs: object) -> object:
        crew.append(start(*args, **kwargs))  # type: ignore[call-overload]
        return crew[-1]

    monkeypatch.setattr(subprocess, "Popen", remember)
    return crew


def test_a_dead_worker_is_an_error_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenize_module, "_SMALL_BYTES", 0)
    monkeypatch.setattr(tokenize_module, "_BATCH_BYTES", 2000)
    crew = remembered_processes(monkeypatch)

    @cache
    def documents() -> list[tuple[int, str]]:
        return list(enumerate(texts(400)))

    results = tokenize(documents(), trained("bpe"), workers=2)
    next(results)
    os.kill(crew[0].pid, signal.SIGKILL)
    with pytest.raises(UserError, match="status -9"):
        list(results)
    assert all(process.poll() is not None for process in crew)


def test_workers_end_when_the_reader_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenize_module, "_SMALL_BYTES", 0)
    monkeypatch.setattr(tokenize_module, "_BATCH_BYTES", 2000)
    crew = remembered_processes(monkeypatch)
    results = tokenize(enumerate(texts(400)), trained("bpe"), workers=2)
    next(results)
    assert len(crew) == 2
    assert any(process.poll() is None for process in crew), "there is more to read"
    results.close()  # type: ignore[attr-defined]
    assert all(process.poll() is not None for process in crew)


def test_the_worker_is_light() -> None:
    code = "import sys, foundling.data._worker; print(json.dumps([m for m in ('torch', 'daft') if m in sys.modules]))"
    answer = subprocess.run([sys.executable, "-c", "import json;" + code], capture_output=True, check=True)
    assert json.loads(answer.stdout) == []


def test_a_script_without_a_main_guard_works(tmp_path: Path) -> None:
    trained("bpe").save(tmp_path / "t")
    script = tmp_path / "script.py"
    script.write_text(
        "from foundling.data import tokenize as t\n"
        "from foundling.tokenizers.base import load_tokenizer\n"
        "t._SMALL_BYTES = 0\n"
        f"tokenizer = load_tokenizer({str(tmp_path / 't')!r})\n"
        "print(sum(len(b.ids) for b in t.tokenize(enumerate(['the fox'] * 10), tokenizer, workers=2)))\n"
    )
    root = str(Path(__file__).parent.parent.parent)
    answer = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
        cwd=tmp_path,
    )
    assert int(answer.stdout) == 10 * len(trained("bpe").encode("the fox"))
