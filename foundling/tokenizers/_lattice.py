"""All ways to split a list of words into pieces, and how likely each piece is: the arithmetic of `unigram`.

Words are sorted by length, the longest first, so the words with more than i characters are the first `n_i` rows. An
edge is a piece that can stand in a word; edges are kept by (length, start). Every sum runs in a fixed order.
Shapes: W = words, L = characters of the longest word, E = edges of one length and start.
"""

import math
import re
from collections import Counter

import numpy as np

_LONGEST_WORD = 64
"""Characters; a longer word (a clause of Chinese, a link) is cut, and the statistics lose what crosses the cut."""

_LEAST_USE = 0.5
"""Expected count that a piece has at least: a character that words never need alone keeps a finite likelihood."""


class Lattice:
    """words: text -> count. alphabet: characters that are always pieces; words are cut at all others. max_piece:
    characters of the longest piece. max_seeds: pieces to start from, beside the alphabet."""

    def __init__(self, words: dict[str, int], alphabet: list[str], max_piece: int, max_seeds: int) -> None:
        parts = _parts(words, alphabet)
        self._words = sorted(parts, key=lambda word: (-len(word), word))
        self._counts_W = np.array([parts[word] for word in self._words], dtype=np.float64)
        self._lengths_W = np.array([len(word) for word in self._words], dtype=np.int64)
        self._num_longer = [int((self._lengths_W > i).sum()) for i in range(int(self._lengths_W.max(initial=0)))]
        self._alphabet = set(alphabet)
        self._seed(alphabet, max_piece, max_seeds)

    @property
    def num_pieces(self) -> int:
        return len(self._texts)

    def pieces(self) -> list[tuple[str, float]]:
        """(piece, log probability), likeliest first, ties by text."""
        return sorted(zip(self._texts, self._scores.tolist(), strict=True), key=lambda piece: (-piece[1], piece[0]))

    def _seed(self, alphabet: list[str], max_piece: int, max_seeds: int) -> None:
        """Starts from the alphabet and the repeated substrings with the largest count * length (Kudo 2018, 3.2)."""
        levels = _substrings(self._words, self._counts_W, self._num_longer, max_piece)
        uses = dict.fromkeys(alphabet, 0.0)
        longer: list[tuple[float, str]] = []
        for texts, counts, _ in levels:
            for text, count in zip(texts, counts.tolist(), strict=True):
                if len(text) == 1:
                    uses[text] = count
                else:
                    longer.append((count * len(text), text))
        longer.sort(key=lambda seed: (-seed[0], seed[1]))
        uses.update((text, weight / len(text)) for weight, text in longer[:max_seeds])
        self._texts = list(uses)
        self._uses = np.array(list(uses.values()))
        self._set_scores()
        index = {text: i for i, text in enumerate(self._texts)}
        self._edges: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        for k, (texts, _, stands) in enumerate(levels, start=1):
            piece_of = np.array([index.get(text, -1) for text in texts], dtype=np.int64)
            for start, (rows_E, nodes_E) in stands.items():
                self._edges[k, start] = (rows_E, piece_of[nodes_E])
        self._keep_edges(np.arange(self.num_pieces))

    def _keep_edges(self, new_of: np.ndarray) -> None:
        """Renames pieces by `new_of` `[num_pieces]` (-1: gone) and drops the edges that lose theirs."""
        for place, (rows_E, ids_E) in list(self._edges.items()):
            ids_E = np.where(ids_E >= 0, new_of[ids_E], -1)
            stay = ids_E >= 0
            if stay.any():
                self._edges[place] = (rows_E[stay], ids_E[stay])
            else:
                del self._edges[place]
        self._max_piece = max((k for k, _ in self._edges), default=0)

    def _set_scores(self) -> None:
        uses = np.maximum(self._uses, _LEAST_USE)
        self._scores = np.log(uses) - math.log(uses.sum())

    def maximize(self) -> None:
        """One step of expectation-maximization: a piece's probability becomes its share of the expected uses."""
        if not self._words:
            return
        length, rows_W = len(self._num_longer), np.arange(len(self._words))
        before = np.full((length + 1, len(rows_W)), -np.inf)  # log of all ways to split the first j characters
        before[0] = 0
        for end in range(1, length + 1):
            ways = [(k, end - k, end - k) for k in range(1, min(self._max_piece, end) + 1)]
            before[end, : self._num_longer[end - 1]] = self._sum(ways, before, self._num_longer[end - 1])
        after = np.full_like(before, -np.inf)  # log of all ways to split what follows the first j characters
        after[self._lengths_W, rows_W] = 0
        for start in range(length - 1, -1, -1):
            ways = [(k, start, start + k) for k in range(1, min(self._max_piece, length - start) + 1)]
            reached = self._sum(ways, after, self._num_longer[start])
            after[start, : self._num_longer[start]] = reached
        total_W = before[self._lengths_W, rows_W]
        self._uses = np.zeros(self.num_pieces)
        for (k, start), (rows_E, ids_E) in self._edges.items():
            log_share = before[start, rows_E] + self._scores[ids_E] + after[start + k, rows_E] - total_W[rows_E]
            self._uses += np.bincount(ids_E, np.exp(log_share) * self._counts_W[rows_E], minlength=self.num_pieces)
        self._set_scores()

    def _sum(self, ways: list[tuple[int, int, int]], table: np.ndarray, num_rows: int) -> np.ndarray:
        """log of the sum over pieces (length, start) of exp(score + table[from]): `[num_rows]`."""
        terms = np.full((len(ways), num_rows), -np.inf)
        for term, (k, start, origin) in zip(terms, ways, strict=True):
            if (k, start) in self._edges:
                rows_E, ids_E = self._edges[k, start]
                term[rows_E] = table[origin, rows_E] + self._scores[ids_E]
        top = terms.max(axis=0)
        return top + np.log(np.exp(terms - top).sum(axis=0))

    def prune(self, num_pieces: int) -> None:
        """Keeps the alphabet and, of the rest, the pieces whose loss would cost most likelihood (Kudo 2018, 3.2)."""
        score_of = dict(zip(self._texts, self._scores.tolist(), strict=True))
        losses = []
        for i, (text, use) in enumerate(zip(self._texts, self._uses.tolist(), strict=True)):
            loss = use * (score_of[text] - _best_split(text, score_of, self._max_piece)) if len(text) > 1 else math.inf
            losses.append((-loss, text, i))
        kept = sorted(i for _, _, i in sorted(losses)[: max(num_pieces, len(self._alphabet))])
        new_of = np.full(self.num_pieces, -1)
        new_of[kept] = np.arange(len(kept))
        self._texts = [self._texts[i] for i in kept]
        self._uses = self._uses[kept]
        self._set_scores()
        self._keep_edges(new_of)


def _parts(words: dict[str, int], alphabet: list[str]) -> Counter[str]:
    """Words cut at characters outside the alphabet and to `_LONGEST_WORD` characters, counted again."""
    foreign = set().union(*words) - set(alphabet)
    cut = re.compile(f"[{re.escape(''.join(sorted(foreign)))}]") if foreign else None
    parts: Counter[str] = Counter()
    for word, count in words.items():
        for part in cut.split(word) if cut else [word]:
            for start in range(0, len(part), _LONGEST_WORD):
                parts[part[start : start + _LONGEST_WORD]] += count
    return parts


_Level = tuple[list[str], np.ndarray, dict[int, tuple[np.ndarray, np.ndarray]]]
"""Substrings of one length: their texts, their counts, and for each start the (rows, substrings) that stand there."""


def _substrings(words: list[str], counts_W: np.ndarray, num_longer: list[int], longest: int) -> list[_Level]:
    """All single characters, and all longer substrings that come at least twice, level by level.

    A trie by level: a substring is its parent (one character shorter) and a character. One that comes once has no
    children that come twice, so levels shrink quickly.
    """
    flat = np.frombuffer("".join(words).encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
    lengths_W = np.array([len(word) for word in words], dtype=np.int64)
    offsets_W = np.cumsum(lengths_W) - lengths_W
    levels: list[_Level] = []
    parents, stands = [""], {i: (np.arange(n), np.zeros(n, dtype=np.int64)) for i, n in enumerate(num_longer)}
    for k in range(1, longest + 1):
        grown = {}
        for start, (rows_E, nodes_E) in stands.items():
            fits = rows_E < (num_longer[start + k - 1] if start + k - 1 < len(num_longer) else 0)
            rows_E = rows_E[fits]
            if len(rows_E):
                grown[start] = (rows_E, nodes_E[fits] << 21 | flat[offsets_W[rows_E] + start + k - 1])
        if not grown:
            break
        keys, inverse = np.unique(np.concatenate([keys_E for _, keys_E in grown.values()]), return_inverse=True)
        weights = np.concatenate([counts_W[rows_E] for rows_E, _ in grown.values()])
        counts = np.bincount(inverse, weights, minlength=len(keys))
        keep = counts >= (1 if k == 1 else 2)
        new_of = np.where(keep, np.cumsum(keep) - 1, -1)
        parents = [parents[key >> 21] + chr(key & 0x1FFFFF) for key in keys[keep].tolist()]
        stands, done = {}, 0
        for start, (rows_E, keys_E) in grown.items():
            nodes_E = new_of[inverse[done : done + len(keys_E)]]
            done += len(keys_E)
            stands[start] = (rows_E[nodes_E >= 0], nodes_E[nodes_E >= 0])
        levels.append((parents, counts[keep], stands))
    return levels


def _best_split(text: str, score_of: dict[str, float], max_piece: int) -> float:
    """Log likelihood of the likeliest split of a piece into other pieces (Viterbi)."""
    best = [0.0] + [-math.inf] * len(text)
    for end in range(1, len(text) + 1):
        for start in range(max(0, end - max_piece), end):
            score = score_of.get(text[start:end])
            if score is not None and best[start] + score > best[end] and end - start < len(text):
                best[end] = best[start] + score
    return best[-1]
