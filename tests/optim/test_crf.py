"""Conditional random fields against sums and maxima over every sequence of tags, written out."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from foundling.optim.losses import _crf_kernel, crf
from foundling.optim.losses.crf import Transitions

C = 4
LENGTHS = (3, 1, 5, 0, 2, 4, 5, 1)
Constrain = Callable[[Transitions], Transitions]


def chain(
    lengths: tuple[int, ...] = LENGTHS, *, spread: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor, Transitions]:
    """Emissions, bounds and transitions in fp64, drawn."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: (spread * torch.randn(*shape, generator=generator, dtype=torch.float64)).requires_grad_()
    bounds = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    return draw(sum(lengths), C), bounds, Transitions(draw(C, C), draw(C), draw(C))


MASKS = (
    torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1], [1, 1, 1, 0], [0, 1, 0, 1]], dtype=torch.bool),
    torch.tensor([1, 1, 0, 1], dtype=torch.bool),
    torch.tensor([1, 1, 1, 0], dtype=torch.bool),
)
"""Of O, B, I and a fourth: I follows B or I and begins no row; the fourth goes on to B or itself and ends no row."""


@pytest.fixture(params=["free", "held"])
def constrain(request: pytest.FixtureRequest) -> Callable[[Transitions], Transitions]:
    return (lambda raw: raw) if request.param == "free" else (lambda raw: raw.allowing(*MASKS))


@pytest.fixture(params=["native", "torch"], autouse=True)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """C++ where there is a compiler, and as on a machine without one; with a proof that it is this one."""
    if request.param == "torch":
        monkeypatch.setattr(_crf_kernel, "_native", lambda name: None)
    elif _crf_kernel._native("crf_forward") is None:
        pytest.skip("no C++ compiler here that makes the kernels")
    called = []
    flat = _crf_kernel._flat
    monkeypatch.setattr(_crf_kernel, "_flat", lambda *given: (called.append("native"), flat(*given))[1])
    yield request.param
    assert (len(called) > 0) == (request.param == "native")


@pytest.fixture(params=["scaled", "logarithms"])
def recursion(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kernels: str) -> str:
    """Both ways to the same numbers, and a proof that it is this one."""

    def not_this_one(*_: object) -> None:
        raise AssertionError(request.param)

    if kernels == "native":
        way = _crf_kernel._Recursion.of
        if request.param == "logarithms":
            monkeypatch.setattr(_crf_kernel, "LEAST", torch.inf)

        def watched(emissions: Tensor, bounds: Tensor, *given: Any, **named: Any) -> Any:
            found = way(emissions, bounds, *given, **named)
            assert torch.equal(found.in_logs_R, (bounds.diff() > 0) & (request.param == "logarithms"))
            return found

        monkeypatch.setattr(_crf_kernel._Recursion, "of", watched)
    elif request.param == "scaled":
        monkeypatch.setattr(crf, "_log_partition_of_logarithms", not_this_one)
    else:
        monkeypatch.setattr(crf, "_messages", lambda *_: None)
    return request.param


def rows_of(bounds: Tensor) -> list[slice]:
    return [slice(first, end) for first, end in itertools.pairwise(bounds.tolist())]


def leaves(emissions: Tensor, transitions: Transitions) -> tuple[Tensor, ...]:
    return emissions, transitions.between_CC, transitions.start_C, transitions.end_C


def paths(emissions: Tensor, transitions: Transitions) -> tuple[Tensor, Tensor]:
    """Every allowed sequence of tags of one row, [paths, T], and its score."""
    if len(emissions) == 0:
        return torch.zeros(1, 0, dtype=torch.int64), emissions.new_zeros(1)
    every = torch.tensor(list(itertools.product(range(C), repeat=len(emissions))))
    scores = transitions.start_C[every[:, 0]] + transitions.end_C[every[:, -1]]
    for place in range(len(emissions)):
        scores = scores + emissions[place, every[:, place]]
        if place:
            scores = scores + transitions.between_CC[every[:, place - 1], every[:, place]]
    allowed = scores > -torch.inf
    return every[allowed], scores[allowed]


def some_tags(emissions: Tensor, bounds: Tensor, transitions: Transitions) -> Tensor:
    """Allowed tags of all rows: of each row the sequence in the middle of all."""
    found = [paths(emissions[row], transitions)[0] for row in rows_of(bounds)]
    return torch.cat([every[len(every) // 2] for every in found])


def test_likelihood_and_gradient_are_those_of_all_sequences(constrain: Constrain, recursion: str) -> None:
    emissions, bounds, raw = chain()
    transitions = constrain(raw)
    tags = some_tags(emissions, bounds, transitions)
    wanted = []
    for row in rows_of(bounds):
        every, scores = paths(emissions[row], transitions)
        wanted.append(scores.logsumexp(0) - scores[(every == tags[row]).all(1)][0])
    factors = torch.arange(1.0, 1 + len(LENGTHS), dtype=torch.float64)
    found = crf.negative_log_likelihood(emissions, bounds, tags, transitions)
    torch.testing.assert_close(found, torch.stack(wanted), atol=1e-12, rtol=1e-12)
    theirs = torch.autograd.grad(torch.stack(wanted) @ factors, leaves(emissions, raw), retain_graph=True)
    for one, two in zip(torch.autograd.grad(found @ factors, leaves(emissions, raw)), theirs, strict=True):
        torch.testing.assert_close(one, two, atol=1e-12, rtol=1e-12)


def test_log_partition_is_the_sum_over_all_sequences(constrain: Constrain, recursion: str) -> None:
    emissions, bounds, raw = chain(seed=1)
    wanted = torch.stack([paths(emissions[row], constrain(raw))[1].logsumexp(0) for row in rows_of(bounds)])
    torch.testing.assert_close(crf.log_partition(emissions, bounds, constrain(raw)), wanted, atol=1e-12, rtol=1e-12)


def test_marginals_are_sums_over_the_sequences_with_the_tag(constrain: Constrain, recursion: str) -> None:
    emissions, bounds, raw = chain(seed=2)
    wanted = torch.zeros(len(emissions), C, dtype=torch.float64)
    for row in rows_of(bounds):
        every, scores = paths(emissions[row], constrain(raw))
        for place in range(row.stop - row.start):
            wanted[row.start + place] = torch.zeros(C, dtype=torch.float64).index_add(
                0, every[:, place], scores.softmax(0).detach()
            )
    found = crf.marginals(emissions, bounds, constrain(raw))
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found, wanted.float(), atol=1e-7, rtol=1e-6)


def test_the_probability_of_a_span_is_that_of_the_sequences_with_its_tags(constrain: Constrain, recursion: str) -> None:
    emissions, bounds, raw = chain(seed=3)
    transitions = constrain(raw)
    tags = some_tags(emissions, bounds, transitions)
    spans = [
        (first, end)
        for row in rows_of(bounds)
        for first, end in itertools.combinations(range(row.start, row.stop + 1), 2)
    ]
    wanted = []
    for first, end in spans:
        row = next(row for row in rows_of(bounds) if row.start <= first < row.stop)
        every, scores = paths(emissions[row], transitions)
        inside = (every[:, first - row.start : end - row.start] == tags[first:end]).all(1)
        wanted.append(scores.softmax(0)[inside].sum().item())
    first_S, end_S = torch.tensor(spans).unbind(1)
    found = crf.span_probabilities(emissions, bounds, tags, first_S, end_S, transitions)
    assert found.tolist() == pytest.approx(wanted, rel=1e-6)
    not_after = torch.arange(len(spans)) % emissions.shape[1]
    closed = []
    for (first, end), tag in zip(spans, not_after.tolist(), strict=True):
        row = next(row for row in rows_of(bounds) if row.start <= first < row.stop)
        every, scores = paths(emissions[row], transitions)
        inside = (every[:, first - row.start : end - row.start] == tags[first:end]).all(1)
        if end < row.stop:
            inside &= every[:, end - row.start] != tag
        closed.append(scores.softmax(0)[inside].sum().item())
    found = crf.span_probabilities(emissions, bounds, tags, first_S, end_S, transitions, not_after)
    assert found.tolist() == pytest.approx(closed, rel=1e-6)
    assert closed != wanted
    none = crf.span_probabilities(emissions, bounds, tags, first_S[:0], end_S[:0], transitions)
    assert none.shape == (0,)


def test_viterbi_finds_the_best_of_all_sequences(constrain: Constrain) -> None:
    for seed in range(5):
        emissions, bounds, raw = chain(seed=seed)
        tags, best = crf.viterbi(emissions, bounds, constrain(raw))
        assert tags.dtype == torch.int64
        for number, row in enumerate(rows_of(bounds)):
            every, scores = paths(emissions[row], constrain(raw))
            assert tags[row].tolist() == every[scores.argmax()].tolist()
            assert best[number].item() == pytest.approx(scores.max().item(), abs=1e-12)


def test_gradients_are_right_by_finite_differences(constrain: Constrain, recursion: str) -> None:
    emissions, bounds, raw = chain(seed=4)
    tags = some_tags(emissions, bounds, constrain(raw))

    def losses(emissions: Tensor, between: Tensor, start: Tensor, end: Tensor) -> Tensor:
        transitions = constrain(Transitions(between, start, end))
        return crf.negative_log_likelihood(emissions, bounds, tags, transitions)

    assert torch.autograd.gradcheck(losses, leaves(emissions, raw))


def test_a_row_in_a_pack_is_the_row_alone(constrain: Constrain, recursion: str) -> None:
    lengths = (19, 1, 40, 2, 19, 3)
    emissions, bounds, raw = chain(lengths)
    transitions = constrain(raw)
    tags, best = crf.viterbi(emissions, bounds, transitions)
    packed = (crf.negative_log_likelihood(emissions, bounds, tags, transitions), best)
    probabilities = crf.marginals(emissions, bounds, transitions)
    for number, row in enumerate(rows_of(bounds)):
        alone = torch.tensor([0, lengths[number]])
        own_tags, own_best = crf.viterbi(emissions[row], alone, transitions)
        assert torch.equal(own_tags, tags[row])
        own = (crf.negative_log_likelihood(emissions[row], alone, own_tags, transitions), own_best)
        for whole, part in zip(packed, own, strict=True):
            torch.testing.assert_close(part[0], whole[number], atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(
            crf.marginals(emissions[row], alone, transitions), probabilities[row], atol=1e-7, rtol=1e-6
        )


def test_what_is_forbidden_is_never_decoded_has_probability_0_and_no_gradient(recursion: str) -> None:
    emissions, bounds, raw = chain((12, 1, 30, 7), spread=3.0)
    with torch.no_grad():  # the scores themselves speak for what is forbidden
        raw.between_CC[~MASKS[0]] += 50
        raw.start_C[~MASKS[1]] += 50
        raw.end_C[~MASKS[2]] += 50
    transitions = raw.allowing(*MASKS)
    tags, best = crf.viterbi(emissions, bounds, transitions)
    probabilities = crf.marginals(emissions, bounds, transitions)
    assert best.isfinite().all()
    for row in rows_of(bounds):
        assert MASKS[1][tags[row][0]]
        assert MASKS[2][tags[row][-1]]
        assert MASKS[0][tags[row][:-1], tags[row][1:]].all()
        assert probabilities[row.start, ~MASKS[1]].eq(0).all()
        assert probabilities[row.stop - 1, ~MASKS[2]].eq(0).all()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(emissions)))
    loss = crf.negative_log_likelihood(emissions, bounds, tags, transitions).sum()
    gradients = torch.autograd.grad(loss, leaves(emissions, raw))
    for mask, gradient in zip(MASKS, gradients[1:], strict=True):
        assert gradient.isfinite().all()
        assert gradient[~mask].eq(0).all()
        assert gradient[mask].ne(0).all()


def test_the_loss_of_forbidden_tags_is_infinite_and_its_gradient_finite(recursion: str) -> None:
    emissions, bounds, raw = chain((3, 2))
    tags = torch.tensor([0, 2, 0, 0, 0])  # I behind O, in the first row
    losses = crf.negative_log_likelihood(emissions, bounds, tags, raw.allowing(*MASKS))
    assert losses.isinf().tolist() == [True, False]
    for gradient in torch.autograd.grad(losses.sum(), leaves(emissions, raw)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("spread", [1.0, 30.0, 1000.0])
def test_scores_of_any_size_and_long_rows_are_exact(spread: float, constrain: Constrain, kernels: str) -> None:
    """At 1,000, states that can be reached are out of fp64's range beside the likeliest."""
    emissions, bounds, raw = chain((300, 7, 60), spread=spread)
    tags, best = crf.viterbi(emissions, bounds, constrain(raw))
    layout = crf._Layout.of(bounds)
    with torch.no_grad():
        scaled = crf._messages(emissions, layout, constrain(raw)) is not None
        if kernels == "native":
            scores = leaves(emissions, constrain(raw))[1:]
            scaled = not _crf_kernel._Recursion.of(emissions, bounds, None, scores, keep=False).in_logs_R.any()
    assert scaled == {1.0: True, 30.0: scaled, 1000.0: False}[spread]
    found = crf.negative_log_likelihood(emissions, bounds, tags, constrain(raw))
    wanted = crf._log_partition_of_logarithms(emissions, layout, constrain(raw)) - best
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-12)
    theirs = torch.autograd.grad(wanted.sum(), emissions)
    (ours,) = torch.autograd.grad(found.sum() - best.sum(), emissions)
    torch.testing.assert_close(ours + one_hot(tags), theirs[0], atol=1e-9, rtol=1e-9)


def one_hot(tags: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(tags, C).double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types_are_taken_and_answered_in_fp32(dtype: torch.dtype) -> None:
    emissions, bounds, raw = chain()
    few = emissions.detach().to(dtype).requires_grad_()
    single = Transitions(*(x.detach().float().requires_grad_() for x in leaves(emissions, raw)[1:]))
    tags, best = crf.viterbi(few, bounds, single)
    losses = crf.negative_log_likelihood(few, bounds, tags, single)
    assert losses.dtype == best.dtype == torch.float32
    same = (
        few.detach().double().requires_grad_(),
        Transitions(*(x.detach().double() for x in leaves(few, single)[1:])),
    )
    wanted = crf.negative_log_likelihood(same[0], bounds, tags, same[1])
    torch.testing.assert_close(losses, wanted.float(), atol=1e-6, rtol=1e-6)
    gradients = torch.autograd.grad(losses.sum(), leaves(few, single))
    assert [gradient.dtype for gradient in gradients] == [dtype, *[torch.float32] * 3]
    (exact,) = torch.autograd.grad(wanted.sum(), same[0])
    torch.testing.assert_close(gradients[0], exact.to(dtype), atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 0)])
def test_no_words_are_no_loss(lengths: tuple[int, ...]) -> None:
    emissions, bounds, raw = chain(lengths)
    tags, best = crf.viterbi(emissions, bounds, raw)
    losses = crf.negative_log_likelihood(emissions, bounds, tags, raw)
    assert losses.tolist() == best.tolist() == [0.0] * len(lengths)
    assert crf.marginals(emissions, bounds, raw).shape == (0, C)
    for gradient in torch.autograd.grad(losses.sum(), leaves(emissions, raw)):
        assert gradient.eq(0).all()


native_only = pytest.mark.parametrize("kernels", ["native"], indirect=True)
"""For what only the kernels could get wrong."""


def fallback(monkeypatch: pytest.MonkeyPatch, compute: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    with monkeypatch.context() as patch:
        patch.setattr(_crf_kernel, "_native", lambda name: None)
        return compute()


@native_only
@pytest.mark.parametrize("spread", [1.0, 300.0])
@pytest.mark.parametrize("num_tags", [1, 2, 8, 9, 16, 20, 33])
def test_the_kernels_are_torch_s_for_any_number_of_tags(
    num_tags: int, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows enough for several parts of the sum over rows, some of them in logarithms at 300."""
    generator = torch.Generator().manual_seed(num_tags)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    lengths = torch.randint(0, 12, (70,), generator=generator)
    bounds = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    size = torch.where(torch.rand(70, generator=generator) < 0.5, 1.0, spread).double().repeat_interleave(lengths)
    given = (draw(len(size), num_tags) * size[:, None], draw(num_tags, num_tags), draw(num_tags), draw(num_tags))
    given = tuple(leaf.requires_grad_() for leaf in given)
    emissions, transitions = given[0], Transitions(*given[1:])
    tags = torch.randint(num_tags, (len(emissions),), generator=generator)
    factors = draw(len(lengths))

    def compute() -> tuple[Tensor, ...]:
        losses = crf.negative_log_likelihood(emissions, bounds, tags, transitions)
        gradients = torch.autograd.grad(losses @ factors, given)
        probabilities = crf.marginals(emissions, bounds, transitions)
        return losses, *gradients, probabilities, *crf.viterbi(emissions, bounds, transitions)

    in_logs = _crf_kernel._Recursion.of(emissions, bounds, None, given[1:], keep=False).in_logs_R.sum()
    assert (in_logs > 0) == (spread > 1 and num_tags > 1)
    for one, two in zip(compute(), fallback(monkeypatch, compute), strict=True):
        torch.testing.assert_close(one, two, atol=1e-9, rtol=1e-9)


@native_only
def test_ties_are_decoded_as_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randint(3, shape, generator=generator).float()
    emissions, bounds, transitions = draw(400, C), torch.arange(0, 401, 20), Transitions(draw(C, C), draw(C), draw(C))
    compute = lambda: crf.viterbi(emissions, bounds, transitions)
    for one, two in zip(compute(), fallback(monkeypatch, compute), strict=True):
        assert torch.equal(one, two)


@native_only
def test_the_number_of_threads_changes_no_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator).requires_grad_()
    given = (draw(2000, 9), draw(9, 9), draw(9), draw(9))
    bounds, tags = torch.arange(0, 2001, 20), torch.randint(9, (2000,), generator=generator)

    def compute() -> tuple[Tensor, ...]:
        losses = crf.negative_log_likelihood(given[0], bounds, tags, Transitions(*given[1:]))
        return (
            losses,
            *torch.autograd.grad(losses.sum(), given),
            *crf.viterbi(given[0], bounds, Transitions(*given[1:])),
        )

    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(compute())
    finally:
        torch.set_num_threads(threads)
    for one, two in itertools.product(found[:1], found[1:]):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("poisoned", range(4))
def test_nan_is_not_hidden(poisoned: int) -> None:
    """Neither is a row's NaN another row's."""
    emissions, bounds, raw = chain()
    given = [leaf.detach().clone() for leaf in leaves(emissions, raw)]
    given[poisoned].view(-1)[1] = torch.nan
    given = [leaf.requires_grad_() for leaf in given]
    tags = torch.zeros(len(emissions), dtype=torch.int64)
    losses = crf.negative_log_likelihood(given[0], bounds, tags, Transitions(*given[1:]))
    best = crf.viterbi(given[0], bounds, Transitions(*given[1:]))[1]
    lengths = bounds.diff()
    hurt = {0: torch.arange(len(lengths)) == 0, 1: lengths > 1}.get(poisoned, lengths > 0)
    assert torch.equal(losses.isnan(), hurt)
    assert torch.equal(best.isnan(), hurt)
    (gradient,) = torch.autograd.grad(losses.sum(), given[0])
    assert torch.equal(gradient.isnan().any(1), hurt.repeat_interleave(lengths))


@native_only
@pytest.mark.parametrize("wrong", ["tag", "negative tag", "bounds", "tags", "transitions"])
def test_the_kernels_read_nothing_beyond_their_tensors(wrong: str) -> None:
    emissions, bounds, raw = chain()
    tags = torch.zeros(len(emissions), dtype=torch.int64)
    if wrong.endswith("tag"):
        tags[3] = {"tag": C, "negative tag": -1}[wrong]
    if wrong == "bounds":
        bounds = bounds + 1
    if wrong == "tags":
        tags = tags[1:]
    if wrong == "transitions":
        raw = Transitions(raw.between_CC, raw.start_C, raw.end_C[1:])
    with pytest.raises(IndexError):
        crf.negative_log_likelihood(emissions, bounds, tags, raw)
    if wrong in ("bounds", "transitions"):
        with pytest.raises(IndexError):
            crf.viterbi(emissions, bounds, raw)


@native_only
def test_no_gradient_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    way = _crf_kernel._Recursion.of
    monkeypatch.setattr(_crf_kernel._Recursion, "of", lambda *given: kept.append(way(*given)) or kept[-1])
    emissions, bounds, raw = chain()
    tags = torch.zeros(len(emissions), dtype=torch.int64)
    with_one = crf.negative_log_likelihood(emissions, bounds, tags, raw)
    with torch.no_grad():
        without = crf.negative_log_likelihood(emissions, bounds, tags, raw)
    assert [found.kept is None for found in kept] == [False, True]
    assert torch.equal(with_one, without)


@native_only
def test_tags_that_change_before_the_way_back_are_told() -> None:
    emissions, bounds, raw = chain()
    tags = torch.zeros(len(emissions), dtype=torch.int64)
    losses = crf.negative_log_likelihood(emissions, bounds, tags, raw)
    tags += C
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        losses.sum().backward()


@native_only
def test_rows_without_an_allowed_sequence_have_torch_s_loss_and_finite_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    emissions, bounds, raw = chain()
    only_one = torch.zeros(C, C, dtype=torch.bool)
    only_one[0, 1] = True
    transitions = raw.allowing(only_one, *MASKS[1:])
    tags = torch.zeros(len(emissions), dtype=torch.int64)

    def compute() -> tuple[Tensor, ...]:
        total = crf.log_partition(emissions, bounds, transitions)
        return total, crf.negative_log_likelihood(emissions, bounds, tags, transitions)

    total, losses = ours = compute()
    assert (total < -1e29).any()
    for one, two in zip(ours, fallback(monkeypatch, compute), strict=True):
        torch.testing.assert_close(one, two, atol=1e-9, rtol=1e-12)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(losses.sum(), leaves(emissions, raw)))


@native_only
def test_scores_of_a_tag_that_nothing_leads_to_do_not_matter() -> None:
    """Beside them those of the others are e^-400 a word, so what leads to it would grow beyond fp64's range."""
    emissions, bounds, raw = chain((6,))
    never = torch.arange(C) == C - 1
    transitions = raw.allowing(never[:, None] | ~never, ~never, ~never)  # it could go on, but nothing leads to it
    high = (emissions + 400 * never).detach().requires_grad_()
    losses = [crf.negative_log_likelihood(x, bounds, torch.zeros(6).long(), transitions) for x in (emissions, high)]
    torch.testing.assert_close(losses[0], losses[1], atol=1e-12, rtol=1e-12)
    ours, theirs = torch.autograd.grad(losses[0], emissions)[0], torch.autograd.grad(losses[1], high)[0]
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    assert not _crf_kernel._Recursion.of(high, bounds, None, leaves(high, transitions)[1:], keep=False).in_logs_R.any()


@native_only
def test_words_that_exclude_tags_need_no_logarithms(constrain: Constrain) -> None:
    """As in the rows of spans."""
    emissions, bounds, raw = chain((5, 7))
    with torch.no_grad():
        emissions[::3, 3] = emissions[2, 0] = -torch.inf
    scores = leaves(emissions, constrain(raw))[1:]
    found = _crf_kernel._Recursion.of(emissions, bounds, None, scores, keep=False)
    assert not found.in_logs_R.any()
    wanted = [paths(emissions[row], constrain(raw))[1].logsumexp(0) for row in rows_of(bounds)]
    torch.testing.assert_close(found.found_R, torch.stack(wanted), atol=1e-12, rtol=1e-12)


@native_only
def test_an_unlikely_step_that_pays_later_is_not_lost() -> None:
    """Nine times -150, or once -1,000, which is 0 beside the likeliest pair."""
    between = torch.tensor([[-150.0, -1000.0], [-torch.inf, 0.0]], dtype=torch.float64)
    scores = Transitions(between, torch.tensor([0.0, -torch.inf]).double(), torch.zeros(2).double())
    found = crf.log_partition(torch.zeros(10, 2).double(), torch.tensor([0, 10]), scores)
    torch.testing.assert_close(found, torch.tensor([-1000.0]).double(), atol=1e-9, rtol=0)
