"""Conditional random fields against sums and maxima over every sequence of tags, written out."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from foundling.optim.losses import crf
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


@pytest.fixture(params=["scaled", "logarithms"])
def recursion(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to the same numbers, and a proof that it is this one."""

    def not_this_one(*_: object) -> None:
        raise AssertionError(request.param)

    if request.param == "scaled":
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


def test_the_probability_of_a_span_is_that_of_the_sequences_with_its_tags(constrain: Constrain) -> None:
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
def test_scores_of_any_size_and_long_rows_are_exact(spread: float, constrain: Constrain) -> None:
    """At 1,000, states that can be reached are out of fp64's range beside the likeliest."""
    emissions, bounds, raw = chain((300, 7, 60), spread=spread)
    tags, best = crf.viterbi(emissions, bounds, constrain(raw))
    layout = crf._Layout.of(bounds)
    with torch.no_grad():
        scaled = crf._messages(emissions, layout, constrain(raw)) is not None
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
