"""Near-equal signatures among many: candidates by bands, checked by their estimate, joined by union-find.

Signatures lie in a file that is mapped into memory, 2 bytes a hash. In memory proper are about 60
bytes a document while a band is looked at.
"""

from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

from foundling.corpus.minhash import places_for
from foundling.corpus.shingles import mixed

Hashed = NDArray[np.uint16]
Numbers = NDArray[np.int64]

_WINDOW = 64
"""Documents that share a band are compared with the first of them and with this many neighbours in the order. For
less common bands that is all of them: a band that hundreds share is that of one large cluster."""
_CHECKED_AT_ONCE = 1 << 14


class Spool:
    """Signatures in the order in which they come, in a file that is open for reading and writing."""

    def __init__(self, file: IO[bytes], num_hashes: int) -> None:
        self._file = file
        self._num_hashes = num_hashes
        self._num_documents = 0
        self._absent: list[int] = []
        self._nothing = bytes(2 * num_hashes)

    def append(self, signature: bytes) -> None:
        """The next document's, 2 * num_hashes bytes; b"" for one that is like no other."""
        if not signature:
            self._absent.append(self._num_documents)
        self._file.write(signature or self._nothing)
        self._num_documents += 1

    def read(self) -> tuple[Hashed, Numbers]:
        """(signatures of all N documents, [N, num_hashes]; numbers of those that have one, ascending)."""
        self._file.flush()
        shape = (self._num_documents, self._num_hashes)
        if not self._num_documents:
            return np.zeros(shape, np.uint16), np.zeros(0, np.int64)
        present = np.ones(self._num_documents, bool)
        present[self._absent] = False
        return np.memmap(self._file, np.uint16, "r", shape=shape), np.flatnonzero(present)


def candidates(band: Hashed, numbers: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs that agree in a whole band [N, rows], as portions of (earlier, later) document numbers; each pair once.

    numbers: [N] ascending, the documents that the band's rows belong to.
    """
    keys = np.zeros(len(band), np.uint64)
    for column in band.T:
        keys = mixed(keys ^ column)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first_of_run = np.append(True, keys[1:] != keys[:-1])
    alone = first_of_run & np.append(first_of_run[1:], True)
    order, first_of_run = order[~alone], first_of_run[~alone]
    if not len(order):
        return
    members, runs = numbers[order], np.cumsum(first_of_run)
    places = np.arange(len(members))
    leaders = np.maximum.accumulate(np.where(first_of_run, places, 0))
    far = places - leaders > _WINDOW
    if far.any():
        yield members[leaders[far]], members[far]
    for distance in range(1, _WINDOW + 1):
        together = runs[distance:] == runs[:-distance]
        if not together.any():
            return
        yield members[:-distance][together], members[distance:][together]


def agreement(signatures: Hashed, left: Numbers, right: Numbers) -> NDArray[np.int64]:
    """In how many places the signatures of pairs agree: [P], [P] -> [P]."""
    result = np.empty(len(left), np.int64)
    for at in range(0, len(left), _CHECKED_AT_ONCE):
        part = slice(at, at + _CHECKED_AT_ONCE)
        result[part] = np.count_nonzero(signatures[left[part]] == signatures[right[part]], axis=1)
    return result


def clusters(signatures: Hashed, numbers: Numbers, bands: int, rows: int, threshold: float) -> Numbers:
    """[N]: for each document the first one of its cluster; itself where it is like no other.

    signatures: [N, bands * rows]. Two documents are linked where a band agrees and the estimate of their similarity
    is at least `threshold`; a cluster is what links join.
    """
    joined = _Joined(len(signatures))
    fewest = places_for(threshold, bands * rows)
    for number in range(bands if len(numbers) else 0):
        band = np.ascontiguousarray(signatures[:, number * rows : (number + 1) * rows][numbers])
        for left, right in candidates(band, numbers):
            roots = joined.roots()
            apart = np.flatnonzero(roots[left] != roots[right])
            if len(apart):
                left, right = left[apart], right[apart]
                alike = agreement(signatures, left, right) >= fewest
                joined.join(left[alike], right[alike])
    return joined.roots()


class _Joined:
    """Disjoint sets; the root of each is its smallest member, so the order of joining does not matter."""

    def __init__(self, count: int) -> None:
        self._parents = np.arange(count)
        self._is_flat = True

    def join(self, left: Numbers, right: Numbers) -> None:
        parents = self._parents
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            while parents[a] != a:
                a = parents[a]
            while parents[b] != b:
                b = parents[b]
            parents[max(a, b)] = min(a, b)
        self._is_flat = self._is_flat and not len(left)

    def roots(self) -> Numbers:
        while not self._is_flat:
            above = self._parents[self._parents]
            self._is_flat = bool(np.array_equal(above, self._parents))
            self._parents = above
        return self._parents


def similarity(signatures: Hashed, one: int, others: Numbers) -> NDArray[np.float64]:
    """The estimated Jaccard similarity of one document to others: [M] -> [M]."""
    return agreement(signatures, np.full(len(others), one), others) / signatures.shape[1]


def groups(roots: Numbers) -> Iterator[Numbers]:
    """The members of each cluster of two or more, ascending, from `clusters`' answer."""
    order = np.argsort(roots, kind="stable")
    borders = np.flatnonzero(np.diff(roots[order])) + 1
    for members in np.split(order, borders):
        if len(members) > 1:
            yield members
