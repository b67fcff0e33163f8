"""Masked language modelling: what is hidden, what stands in its place, and what is asked about pairs."""

import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from torch.nn import functional as F

from foundling.core.config import validate
from foundling.core.errors import UserError
from foundling.core.log import warn_once
from foundling.core.registry import load_part
from foundling.data.batch import Batch
from foundling.data.pairs import LENGTH_STEP
from foundling.data.rows import Row
from foundling.models.hub import format_for
from foundling.objectives._words import word_starts
from foundling.objectives.base import Scale
from foundling.objectives.mlm import Config, Mlm
from foundling.tokenizers.base import SpecialTokens, Tokenizer
from tests.tiny import FIRST_ORDINARY, SPECIAL, ArrayStream, tiny_model, tiny_tokenizer

VOCAB = 1000
WORDS = [f"w{i}" for i in range(VOCAB - len(SPECIAL))]
CLS, SEP, MASK = (list(SPECIAL).index(role) for role in ("cls", "sep", "mask"))


def wordpiece(*words: str) -> Tokenizer:
    """Special tokens, then `words`, as a WordPiece vocabulary."""
    names = [*SPECIAL.values(), *words]
    model = tokenizers.models.WordPiece({name: i for i, name in enumerate(names)}, unk_token=SPECIAL["unk"])
    raw = tokenizers.Tokenizer(model)
    raw.add_special_tokens(list(SPECIAL.values()))
    return Tokenizer(raw, SpecialTokens(dict(SPECIAL)), kind="wordpiece")


def in_pieces() -> Tokenizer:
    """Words of one to five tokens: a beginning and its continuations."""
    return wordpiece(*(f"w{i}" if i % 3 == 0 else f"##c{i}" for i in range(VOCAB - len(SPECIAL))))


def objective(tokenizer: Tokenizer | None = None, **keys: Any) -> Mlm:
    return validate(Config, keys, "objective").build(tokenizer or tiny_tokenizer(VOCAB))


def stream(documents: int = 100, length: int = 500, seed: int = 0) -> ArrayStream:
    tokens = np.random.default_rng(seed).integers(FIRST_ORDINARY, VOCAB, documents * length)
    return ArrayStream(tokens, documents)


def drawn(mlm: Mlm, num_tokens: int = 100_000, row_length: int = 128) -> tuple[list[Row], Batch]:
    """Rows of some 100,000 tokens and what becomes of them."""
    samples = mlm.samples([stream()], None, row_length=row_length, seed=3)
    rows = [samples[i] for i in range(-(-num_tokens // row_length))]
    return rows, mlm.collate(rows)


@pytest.mark.parametrize("unit", ["token", "word", "span"])
@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_rates_are_what_they_say(unit: str, rate: float) -> None:
    """The mask rate, whose mean over rows is exact, within 0.2 % of itself; of the targets, four in five masked within
    1 % of that and a tenth each kept and random within half a percentage point; over 300,000 tokens."""
    tokenizer = wordpiece(*WORDS) if unit == "span" else in_pieces()
    rows, batch = drawn(objective(tokenizer, unit=unit, mask_rate=rate), 300_000)
    before = torch.from_numpy(np.concatenate([row.tokens for row in rows]))
    assert batch.target_index_M is not None
    ordinary = (before != CLS) & (before != SEP)
    assert ordinary.sum() >= 295_000
    assert batch.num_targets / ordinary.sum().item() == pytest.approx(rate, rel=0.002)
    now = batch.tokens_N[batch.target_index_M]
    assert torch.equal(batch.targets_M, before[batch.target_index_M])
    masked = (now == MASK).float().mean().item()
    assert masked == pytest.approx(0.8, rel=0.01)
    kept = (now == batch.targets_M).float().mean().item()
    tenth = pytest.approx(0.1, abs=0.01 if unit == "span" else 0.005)  # a span is one draw: fewer of them
    assert kept == tenth
    assert 1 - kept - masked == tenth
    assert not (batch.tokens_N[ordinary] < FIRST_ORDINARY).logical_and(batch.tokens_N[ordinary] != MASK).any()
    untouched = torch.ones(batch.num_tokens, dtype=torch.bool)
    untouched[batch.target_index_M] = False
    assert torch.equal(batch.tokens_N[untouched], before[untouched])
    assert ordinary[batch.target_index_M].all(), "what frames a row is never asked for"


def test_targets_lie_evenly_over_places_and_masks_are_dynamic() -> None:
    mlm = objective()
    samples = mlm.samples([stream(documents=10)], None, row_length=128, seed=0)
    assert samples.num_rows == 40
    seen = Counter[int]()
    for epoch in range(3):
        rows = [samples[i] for i in range(40 * epoch, 40 * (epoch + 1))]
        for row in rows:
            index = mlm.collate([row]).target_index_M
            assert index is not None
            seen.update(index.tolist())
    assert set(seen) == set(range(1, 127))
    assert max(seen.values()) < 4 * 120 * 0.15
    first = {samples[i].start: mlm.collate([samples[i]]) for i in range(40)}
    again = [(samples[i].start, mlm.collate([samples[i]])) for i in range(40, 80)]
    assert sum(torch.equal(first[start].tokens_N, batch.tokens_N) for start, batch in again) == 0


def test_each_row_has_a_target_however_low_the_rate() -> None:
    mlm = objective(mask_rate=1e-6)
    samples = mlm.samples([stream()], None, row_length=32, seed=0)
    batch = mlm.collate([samples[i] for i in range(50)])
    assert batch.target_index_M is not None
    found = torch.searchsorted(batch.bounds_R1[1:].long(), batch.target_index_M, right=True)
    assert found.tolist() == list(range(50))


def test_a_row_of_unknown_words_has_a_target() -> None:
    mlm = objective()
    row = Row(0, 0, 0, np.array([CLS, 1, 1, 1, 1, SEP]), key=5)
    assert mlm.collate([row]).targets_M.tolist() == [1]


def test_words_are_masked_whole() -> None:
    tokenizer = in_pieces()
    mlm = objective(tokenizer, unit="word")
    rows, batch = drawn(mlm, 20_000)
    starts = np.array([not (tokenizer.token_of(i) or "").startswith("##") for i in range(VOCAB)])
    index, bounds = batch.target_index_M, batch.bounds_R1.tolist()
    assert index is not None
    several = 0
    for number, row in enumerate(rows):
        chosen = np.zeros(len(row.tokens), dtype=bool)
        inside = (index >= bounds[number]) & (index < bounds[number + 1])
        chosen[index[inside].numpy() - bounds[number]] = True
        begins = starts[row.tokens]
        begins[:2] = begins[-1] = True
        words = np.split(chosen, np.flatnonzero(begins)[1:])
        assert all(word.all() or not word.any() for word in words)
        several += sum(len(word) > 1 and bool(word.all()) for word in words)
    assert several > 200


def test_spans_are_geometric_in_words_and_replaced_alike() -> None:
    """Runs of chosen words come in many lengths, and the tokens of a run are all masked, all random or all kept."""
    tokenizer = wordpiece(*WORDS)
    rows, batch = drawn(objective(tokenizer, unit="span", mask_rate=0.05), 100_000)
    assert batch.target_index_M is not None
    index = batch.target_index_M.numpy()
    runs = np.split(index, np.flatnonzero(np.diff(index) > 1) + 1)
    lengths = Counter(len(run) for run in runs)
    assert sum(len(run) for run in runs) / len(runs) > 2
    assert lengths[1] > 0
    assert lengths[4] > 0
    tokens, before = batch.tokens_N.numpy(), np.concatenate([row.tokens for row in rows])
    whole = [len({"mask" if tokens[i] == MASK else "kept" if tokens[i] == before[i] else "random" for i in run}) == 1
             for run in runs]  # fmt: skip
    assert np.mean(whole) > 0.95, "but where two spans touch"


def test_chinese_words_are_those_of_jieba(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jieba", reason="the extra `chinese` is not installed")
    text = "人工智能正在改变世界"
    tokenizer = wordpiece(*dict.fromkeys(text), "a", "##b")
    ids = [CLS, *(tokenizer.id_of(c) for c in text), tokenizer.id_of("a"), tokenizer.id_of("##b"), SEP]
    words = [range(1, 5), range(5, 7), range(7, 9), range(9, 11), range(11, 13)]
    mlm = objective(tokenizer, unit="word", mask_rate=0.4, chinese_words=True)
    seen = set()
    for key in range(200):
        index = mlm.collate([Row(0, 0, 0, np.array(ids), key=key)]).target_index_M
        assert index is not None
        chosen = set(index.tolist())
        assert all(chosen >= set(word) or not chosen & set(word) for word in words)
        seen |= chosen
    assert seen == set(range(1, 13))
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(UserError, match=r'needs the package jieba; got none; pip install "foundling\[chinese\]"'):
        objective(tokenizer, unit="word", chinese_words=True)


def sentences(documents: int = 60, per_document: int = 30, seed: int = 0) -> tuple[Tokenizer, ArrayStream]:
    """Documents of sentences: the first token of each tells document and sentence, the last is a full stop."""
    ordinary = documents * per_document
    tokenizer = wordpiece(*(f"w{i}" for i in range(ordinary)), ".")
    stop = tokenizer.id_of(".")
    rng = np.random.default_rng(seed)
    texts = []
    for document in range(documents):
        tokens: list[int] = []
        for sentence in range(per_document):
            name = len(SPECIAL) + document * per_document + sentence
            tokens += [name] * int(rng.integers(3, 9)) + [stop]  # type: ignore[list-item]
        texts.append(np.array([*tokens, SPECIAL_END]))
    longest = max(map(len, texts))
    padded = [np.concatenate([t[:-1], np.resize(t[:-1], longest - len(t)), t[-1:]]) for t in texts]
    return tokenizer, ArrayStream(np.concatenate(padded), documents)


SPECIAL_END = list(SPECIAL).index("eos")


def halves(row: Row) -> tuple[np.ndarray, np.ndarray]:
    assert row.segments is not None
    first, second = row.tokens[row.segments == 0], row.tokens[row.segments == 1]
    assert first[0] == CLS
    assert first[-1] == second[-1] == SEP
    return first[1:-1], second[:-1]


@pytest.mark.parametrize("kind", ["nsp", "sop"])
def test_pairs_are_balanced_and_told_truly(kind: str) -> None:
    """Half are as they stand in the text; a false second segment is never the true next one."""
    tokenizer, text = sentences()
    samples = objective(tokenizer, next={"kind": kind}).samples([text], None, row_length=64, seed=0)
    rows = [samples[i] for i in range(600)]
    assert sum(row.label or 0 for row in rows) == 300
    assert 0.4 < np.mean([row.label == rows[i + 2].label for i, row in enumerate(rows[:-2])]) < 0.6
    whole = text.tokens.tolist()
    at_sentence = 0
    for row in rows:
        first, second = halves(row)
        together = [*first, *second] if row.label == 0 else [*second, *first]
        assert len(row.tokens) <= 64
        if row.label == 0 or kind == "sop":
            assert whole[row.start : row.start + len(together)] == together
        else:
            names = [set((part[part != tokenizer.id_of(".")] - len(SPECIAL)) // 30) for part in (first, second)]
            assert len(names[0] | names[1]) <= 2
            assert not names[0] & names[1], "another document"
        at_sentence += first[-1] == tokenizer.id_of(".")
    assert at_sentence > 550, "cut at the end of a sentence"


@pytest.mark.parametrize("kind", ["nsp", "sop"])
def test_where_segments_begin_and_end_does_not_tell_the_label(kind: str) -> None:
    """Nor how long the row is: what could be read off without understanding either segment."""
    tokenizer, text = sentences()
    stop, whole = tokenizer.id_of("."), text.tokens.tolist()
    lengths = Counter(whole)
    samples = objective(tokenizer, next={"kind": kind}).samples([text], None, row_length=64, seed=0)
    told: list[list[tuple[bool, ...]]] = [[], []]
    for row in (samples[i] for i in range(1200)):
        first, second = halves(row)
        begins = [int((part[: lengths[part[0]]] == part[0]).sum()) == lengths[part[0]] for part in (first, second)]
        ends = [part[-1] == stop for part in (first, second)]
        assert row.label is not None
        told[row.label].append(
            (*begins[kind == "nsp" :], *ends[: 1 if kind == "nsp" else 2], len(row.tokens) % 16 == 0)
        )
    true, false = (np.mean(side, axis=0) for side in told)
    assert np.abs(true - false).max() < 0.08, (true, false)


def test_a_tenth_of_the_pairs_are_short_and_lengths_come_in_steps() -> None:
    tokenizer, text = sentences()
    samples = objective(tokenizer, next={"kind": "nsp"}).samples([text], None, row_length=64, seed=0)
    lengths = Counter(len(samples[i].tokens) for i in range(2000))
    per_document = -(-(len(text.tokens) // text.num_documents - 1) // 61)
    full = lengths[64] / 2000
    assert full == pytest.approx(0.9 * (1 - 1 / per_document) + 0.1 / 4 * (1 - 1 / per_document), abs=0.03)
    assert all(length % LENGTH_STEP == 0 for length in lengths)
    assert min(lengths) <= 16


def test_every_token_of_the_text_is_read_once_an_epoch() -> None:
    text = ArrayStream(np.arange(10, 10 + 7 * 83), documents=7)
    samples = objective(tiny_tokenizer(1000)).samples([text], None, row_length=34, seed=1)
    seen = Counter[int]()
    for i in range(samples.num_rows):
        seen.update(samples[i].tokens[1:-1].tolist())
    assert set(seen) == set(text.tokens.tolist())
    assert sum(count - 1 for count in seen.values()) <= 7 * (LENGTH_STEP - 1), "a document's last piece reaches back"


@pytest.mark.parametrize("kind", [None, "nsp", "sop"])
def test_a_row_says_where_its_text_lies(kind: str | None) -> None:
    """So that a bad row can be looked up: of a false pair both documents."""
    tokenizer, text = sentences()
    changes = {} if kind is None else {"next": {"kind": kind, "short_rate": 0.5}}
    samples = objective(tokenizer, **changes).samples([text], None, row_length=64, seed=0)
    for row in (samples[i] for i in range(200)):
        found = [text.read(start, length).tolist() for start, length in row.stretches]
        documents = {start // int(text.document_lengths[0]) for start, _ in row.stretches}
        assert len(documents) == (2 if kind == "nsp" and row.label else 1)
        own = [i for i in row.tokens.tolist() if i not in (tokenizer.cls_id, tokenizer.sep_id)]
        if kind == "sop":
            assert sorted(own) == sorted(found[0])
        else:
            whole = [i for part in found for i in part]
            assert own == whole[len(whole) - len(own) :], "of a first segment the beginning may be left out"
            assert len(whole) - len(own) < LENGTH_STEP


def test_a_sample_is_a_function_of_the_seed_and_its_number() -> None:
    tokenizer, text = sentences()
    make = lambda seed: objective(tokenizer, next={"kind": "nsp"}).samples([text], None, row_length=64, seed=seed)
    one, two, other = make(0), make(0), make(1)
    order = np.random.default_rng(0).permutation(80)
    late = {int(i): two[int(i)] for i in order}
    for i in range(80):
        first, second = one[i], late[i]
        assert np.array_equal(first.tokens, second.tokens)
        assert (first.label, first.key, first.start) == (second.label, second.key, second.start)
    assert any(not np.array_equal(one[i].tokens, other[i].tokens) for i in range(5))


def test_packed_is_unpacked_is_padded() -> None:
    """Loss and gradients of a batch are the sums of those of its rows, and those of transformers on padded rows."""
    transformers = pytest.importorskip("transformers")
    tokenizer, text = sentences(documents=4)
    mlm = objective(tokenizer, next={"kind": "nsp", "short_rate": 1.0, "weight": 0.7})
    samples = mlm.samples([text], None, row_length=48, seed=0)
    rows = [samples[i] for i in range(12)]
    batch = mlm.collate(rows)
    assert len(set(batch.bounds_R1.diff().tolist())) > 1
    model = tiny_model("bert", tokenizer.vocab_size, top="pretraining", max_positions=48, norm_eps=1e-12)
    scale = Scale(1 / batch.num_targets, 1 / batch.num_rows)

    def run(batches: list[Batch]) -> tuple[float, list[torch.Tensor]]:
        model.zero_grad()
        total = torch.stack([part for b in batches for part in mlm.loss(model, b, scale, False).parts.values()]).sum()
        total.backward()
        return total.item(), [p.grad.clone() for p in model.parameters()]

    packed, grads = run([batch])
    alone, alone_grads = run([mlm.collate([row]) for row in rows])
    assert alone == pytest.approx(packed, abs=1e-6)
    for one, two in zip(grads, alone_grads, strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5)

    theirs = transformers.BertForPreTraining(transformers.BertConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=48, pad_token_id=None,
    )).eval()  # fmt: skip
    state: dict[str, torch.Tensor] = {}
    for weight in format_for(model.config).weights(model.config):
        parts = weight.split(model.get_parameter(weight.ours).detach())
        state |= dict(zip(weight.theirs, parts, strict=True))
    theirs.load_state_dict(state, strict=False)
    assert batch.target_index_M is not None
    assert batch.segments_N is not None
    assert batch.labels_R is not None
    mask = torch.arange(48)[None] < batch.bounds_R1.diff()[:, None]
    ids, segments, labels = (torch.full(mask.shape, fill) for fill in (0, 0, -100))
    targets_N = torch.full((batch.num_tokens,), -100)
    targets_N[batch.target_index_M] = batch.targets_M
    ids[mask], segments[mask], labels[mask] = batch.tokens_N, batch.segments_N, targets_N
    answer = theirs(input_ids=ids, token_type_ids=segments, attention_mask=mask.long())
    reference = F.cross_entropy(answer.prediction_logits.flatten(0, 1), labels.flatten())
    reference = reference + 0.7 * F.cross_entropy(answer.seq_relationship_logits, batch.labels_R)
    assert packed == pytest.approx(reference.item(), abs=1e-5)
    reference.backward()
    mine, their = model.embedding.weight.grad, theirs.bert.embeddings.word_embeddings.weight.grad
    torch.testing.assert_close(alone_grads[0] if mine is None else mine, their, atol=1e-5, rtol=1e-5)


def test_scores_tell_both_accuracies() -> None:
    tokenizer, text = sentences(documents=4)
    mlm = objective(tokenizer, next={"kind": "sop"})
    samples = mlm.samples([text], None, row_length=16, seed=0)
    batch = mlm.collate([samples[i] for i in range(8)])
    model = tiny_model("bert", tokenizer.vocab_size, top="pretraining")
    scores = mlm.scores(model, batch)
    assert set(scores) == {"loss", "mlm_accuracy", "next_loss", "next_accuracy"}
    assert scores["mlm_accuracy"].shape == scores["loss"].shape
    assert scores["next_accuracy"].shape == (8,)
    out = model(batch)
    assert torch.equal(scores["mlm_accuracy"], (out.logits().argmax(-1) == batch.targets_M).float())
    assert torch.equal(scores["next_accuracy"], (out.next_logits_RC.argmax(-1) == batch.labels_R).float())


def without(role: str) -> Tokenizer:
    names = [v for k, v in SPECIAL.items() if k != role]
    model = tokenizers.models.WordLevel({n: i for i, n in enumerate([*names, "a"])}, unk_token="[UNK]")
    return Tokenizer(
        tokenizers.Tokenizer(model), SpecialTokens({k: v for k, v in SPECIAL.items() if k != role}), kind="wordlevel"
    )


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"mask_rate": 0.0}, "mask_rate.*greater than 0"),
        ({"mask_rate": 1.5}, "mask_rate.*less than 1"),
        ({"mask_share": 0.9, "random_share": 0.2}, "must not exceed 1 together; got 0.9"),
        ({"chinese_words": True}, "needs unit: word or span"),
        ({"next": {"kind": "nps"}}, "next must be one of nsp, sop; got 'nps'; did you mean 'nsp'"),
        ({"mask_probability": 0.1}, "mask_probability"),
        ({"unit": "word"}, "needs a tokenizer that marks them"),
    ],
)
def test_faults_of_the_config_are_told(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        objective(**keys)


@pytest.mark.parametrize("role", ["mask", "cls", "sep"])
def test_a_tokenizer_without_the_special_tokens_is_refused(role: str) -> None:
    with pytest.raises(UserError, match=rf"needs a tokenizer with the special tokens.*got none for {role}; train one"):
        objective(without(role))


def test_documents_of_one_sentence_make_no_pairs() -> None:
    tokenizer = wordpiece("a", "b", ".")
    text = ArrayStream(np.tile([6, 7, 7, 8, SPECIAL_END], 40), documents=40)
    for kind in ("nsp", "sop"):
        mlm = objective(tokenizer, next={"kind": kind})
        with pytest.raises(
            UserError, match=r"several sentences.*one sentence in each of 40 documents.*leave objective"
        ):
            mlm.samples([text], None, row_length=16, seed=0)
    objective(tokenizer).samples([text], None, row_length=16, seed=0)


def test_documents_of_which_most_are_one_sentence_are_told(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = wordpiece("a", "b", ".")
    one, two = [6, 7, 7, 8, SPECIAL_END], [6, 8, 7, 8, SPECIAL_END]
    warn_once.cache_clear()
    for shares, told in (((30, 10), True), ((10, 30), False)):
        text = ArrayStream(np.concatenate([np.tile(one, shares[0]), np.tile(two, shares[1])]), documents=40)
        caplog.clear()
        for _ in range(2):
            objective(tokenizer, next={"kind": "nsp"}).samples([text], None, row_length=16, seed=0)
        assert caplog.text.count("30 of 40 documents looked at have one alone") == int(told), (
            "once, where they are most"
        )
    caplog.clear()
    objective(wordpiece("a", "b", "c"), next={"kind": "sop"}).samples([text], None, row_length=16, seed=0)
    assert "no token that ends a sentence" in caplog.text


def test_a_rate_below_a_token_a_row_is_told(caplog: pytest.LogCaptureFixture) -> None:
    warn_once.cache_clear()
    for _ in range(2):
        objective(mask_rate=0.001).samples([stream()], None, row_length=128, seed=0)
    assert caplog.text.count("less than one token of a row of 128") == 1


def test_one_document_has_no_other() -> None:
    tokenizer, text = sentences(documents=1)
    with pytest.raises(UserError, match=r"at least two documents in each source.*got 1; .*sop"):
        objective(tokenizer, next={"kind": "nsp"}).samples([text], None, row_length=32, seed=0)
    objective(tokenizer, next={"kind": "sop"}).samples([text], None, row_length=32, seed=0)


def test_rows_too_short_for_a_pair_are_refused() -> None:
    tokenizer, text = sentences(documents=2)
    with pytest.raises(UserError, match="sequence_length must be at least 5"):
        objective(tokenizer, next={"kind": "nsp"}).samples([text], None, row_length=4, seed=0)


def test_pieces_of_chinese_are_words_where_no_spaces_stand() -> None:
    text = "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。" * 30
    unigram = load_part("tokenizers", "unigram").Config(vocab_size=330).build().train([text])
    ids = unigram.encode(text)[:100]
    row = Row(0, 0, 0, np.array([unigram.cls_id, *ids, unigram.sep_id]), key=1)
    assert objective(unigram, unit="word").collate([row]).num_targets <= 30


def test_punctuation_is_no_part_of_a_word() -> None:
    text = 'He said, "hello" to the others (Ann, Bob).\n\nShe left.'
    tokenizer = load_part("tokenizers", "bpe").Config(vocab_size=280).build().train([text] * 40)
    ids = np.array(tokenizer.encode(text))
    first = np.flatnonzero(word_starts(tokenizer)(ids))
    words = [tokenizer.decode(piece.tolist()).strip() for piece in np.split(ids, first) if len(piece)]
    assert "".join(words) == text.replace(" ", "").replace("\n", "")
    letters = ["He", "said", "hello", "to", "the", "others", "Ann", "Bob", "She", "left"]
    assert [w for w in words if w.isalpha()] == letters
    assert not [w for w in words if not w.isalpha() and any(c.isalpha() for c in w)]
