"""Speed of the conditional random field's loss and of its decoding, beside the usual loop over padded time steps.

    python -m benchmarks.crf TASKS [--tags 9 13] [--batch 32 512] [--batches 8] [--rounds 9] [--threads N]

TASKS holds `wnut17/train.jsonl`, whose sentences give the lengths of the rows; rows are drawn in no order, as in
training. Scores and tags are random. The peer (benchmarks/peers/crf_loop.py) has its rows padded and its mask made
beforehand, outside the time. "traced together" is its decoding with the way back taken for all rows at once, which
torchcrf does not.

Before any figure, a parity gate on each batch: loss and gradients (of the words' scores and of all three parameters)
agree to 1e-4, relative, and so do the scores of the decoded tags, which are the same but for ties. Then rounds, in each
of which the contenders take turns over the same batches in changing order. One JSON line a round, then a table: medians
in milliseconds a batch, and the ratio's 95 % interval over rounds.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks._compare import interval, machine
from benchmarks.peers.crf_loop import LoopCrf
from foundling.optim.losses.crf import Transitions, negative_log_likelihood, viterbi

MOST_APART = 1e-4
"""Relative difference, of norms, that the parity gate lets pass."""


@dataclass(frozen=True)
class Rows:
    """The same rows twice: packed, and padded."""

    emissions_MC: Tensor
    bounds_R1: Tensor
    tags_M: Tensor
    emissions_TRC: Tensor
    tags_TR: Tensor
    mask_TR: Tensor


def rows_of(lengths: list[int], num_tags: int, generator: torch.Generator) -> Rows:
    """Random scores and tags for rows of these lengths."""
    bounds_R1 = torch.tensor([0, *lengths]).cumsum(0)
    num_words = int(bounds_R1[-1])
    emissions_MC = 2 * torch.randn(num_words, num_tags, generator=generator)
    tags_M = torch.randint(num_tags, (num_words,), generator=generator)
    mask_TR = torch.arange(max(lengths))[:, None] < torch.tensor(lengths)
    by_row = emissions_MC.split(lengths)
    emissions_TRC = torch.nn.utils.rnn.pad_sequence(list(by_row))
    tags_TR = torch.nn.utils.rnn.pad_sequence(list(tags_M.split(lengths)))
    return Rows(
        emissions_MC.requires_grad_(), bounds_R1, tags_M, emissions_TRC.contiguous().requires_grad_(), tags_TR, mask_TR
    )  # fmt: skip


class Contest:
    """Both implementations with the same parameters."""

    def __init__(self, num_tags: int, generator: torch.Generator) -> None:
        self.peer = LoopCrf(num_tags)
        with torch.no_grad():
            for parameter in self.peer.parameters():
                parameter.normal_(generator=generator)
        parts = (self.peer.between_CC, self.peer.start_C, self.peer.end_C)
        self.ours = Transitions(*(part.detach().clone().requires_grad_() for part in parts))
        self._parts = (
            (self.ours.between_CC, self.ours.start_C, self.ours.end_C),
            parts,
        )

    def train_ours(self, rows: Rows) -> Tensor:
        self._forget(rows)
        loss = negative_log_likelihood(rows.emissions_MC, rows.bounds_R1, rows.tags_M, self.ours).mean()
        loss.backward()
        return loss.detach()

    def train_peer(self, rows: Rows) -> Tensor:
        self._forget(rows)
        loss = self.peer(rows.emissions_TRC, rows.tags_TR, rows.mask_TR).mean()
        loss.backward()
        return loss.detach()

    def decode_ours(self, rows: Rows) -> list[int]:
        found: list[int] = viterbi(rows.emissions_MC, rows.bounds_R1, self.ours)[0].tolist()
        return found

    def decode_peer(self, rows: Rows) -> list[list[int]]:
        return self.peer.decode(rows.emissions_TRC, rows.mask_TR)

    def decode_peer_together(self, rows: Rows) -> list[list[int]]:
        return self.peer.decode_together(rows.emissions_TRC, rows.mask_TR)

    def _forget(self, rows: Rows) -> None:
        for leaf in (rows.emissions_MC, rows.emissions_TRC, *self._parts[0], *self._parts[1]):
            leaf.grad = None

    def apart(self, rows: Rows) -> dict[str, float]:
        """Relative differences of what both compute, and the share of tags that they decode alike."""
        ours = self.train_ours(rows)
        grads = [rows.emissions_MC.grad, *(part.grad for part in self._parts[0])]
        peer = self.train_peer(rows)
        assert rows.emissions_TRC.grad is not None
        its_words_MC = rows.emissions_TRC.grad.transpose(0, 1)[rows.mask_TR.t()]
        its = [its_words_MC, *(part.grad for part in self._parts[1])]
        found = {"loss": abs(float(ours - peer)) / abs(float(peer))}
        for name, one, other in zip(("words", "between", "start", "end"), grads, its, strict=True):
            assert one is not None
            assert other is not None
            found[name] = float((one - other).norm() / other.norm())
        paths = [
            self.decode_ours(rows),
            [tag for row in self.decode_peer(rows) for tag in row],
            [tag for row in self.decode_peer_together(rows) for tag in row],
        ]
        scores = [self._score(rows, path) for path in paths]
        found["score of the decoded tags"] = max(abs(score - scores[0]) / abs(scores[0]) for score in scores)
        return found

    @torch.no_grad()
    def _score(self, rows: Rows, path: list[int]) -> float:
        """Mean loss of tags under the same model: least for the likeliest ones, so the gate sees a worse path."""
        tags_M = torch.tensor(path)
        return float(negative_log_likelihood(rows.emissions_MC.detach(), rows.bounds_R1, tags_M, self.ours).mean())


def compare(lengths: list[int], num_tags: int, size: int, num_batches: int, rounds: int) -> list[str]:
    """Measures one shape, prints its lines and returns the rows of its table."""
    generator = torch.Generator().manual_seed(0)
    chosen = random.Random(0).choices(lengths, k=size * num_batches)
    batches = [rows_of(chosen[i : i + size], num_tags, generator) for i in range(0, len(chosen), size)]
    contest = Contest(num_tags, generator)
    apart = [contest.apart(batch) for batch in batches]
    worst = {name: max(one[name] for one in apart) for name in apart[0]}
    assert all(value < MOST_APART for value in worst.values()), worst
    words, places = sum(len(b.tags_M) for b in batches), sum(b.mask_TR.numel() for b in batches)
    shape = {"tags": num_tags, "batch": size, "longest": max(chosen), "words / padded": round(words / places, 3)}
    print(json.dumps({**shape, "parity": worst, "machine": machine()}), flush=True)

    contenders: dict[str, dict[str, Callable[[Rows], object]]] = {
        "loss and gradients": {"foundling": contest.train_ours, "loop": contest.train_peer},
        "decoding": {
            "foundling": contest.decode_ours,
            "loop": contest.decode_peer,
            "loop, traced together": contest.decode_peer_together,
        },
    }
    times: dict[tuple[str, str], list[float]] = {(what, who): [] for what, ways in contenders.items() for who in ways}
    for number in range(rounds):
        for what, ways in contenders.items():
            turns = list(ways.items())
            for who, run in turns[number % len(turns) :] + turns[: number % len(turns)]:
                start = time.perf_counter()
                for batch in batches:
                    run(batch)
                times[what, who].append(1000 * (time.perf_counter() - start) / num_batches)
        last = {f"{what}, {who}": round(found[-1], 3) for (what, who), found in times.items()}
        print(json.dumps({**shape, "round": number, "ms": last, "machine": machine()}), flush=True)
    table = []
    for (what, who), found in times.items():
        row = f"| {num_tags} tags, {size} rows | {what} | {who} | {statistics.median(found):.2f} "
        if who == "foundling":
            table.append(row + "| | |")
            continue
        ratios = [its / ours for its, ours in zip(found, times[what, "foundling"], strict=True)]
        low, high = interval(ratios)
        table.append(row + f"| {statistics.median(ratios):.2f} | {low:.2f} - {high:.2f} |")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path)
    parser.add_argument(
        "--tags", type=int, nargs="+", default=[9, 13], help="tags of four and of six entity types, BIO"
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 512], help="rows of training, and of answering")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, help="of torch; default: its own")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    with (given.tasks / "wnut17" / "train.jsonl").open(encoding="utf-8") as lines:
        lengths = [len(json.loads(line)["tokens"]) for line in lines]
    table = []
    for num_tags in given.tags:
        for size in given.batch:
            table += compare(lengths, num_tags, size, given.batches, given.rounds)
    print(f"\n{torch.get_num_threads()} threads\n")
    print("| shape | what | system | ms a batch (median) | it / ours | 95 % |\n|---|---|---|---|---|---|")
    print("\n".join(table))


if __name__ == "__main__":
    main()
