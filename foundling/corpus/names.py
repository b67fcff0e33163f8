"""Ids of documents by number, on disk: there may be millions, and few are asked for."""

from array import array
from tempfile import TemporaryFile

_BUFFER_BYTES = 1 << 16


class Names:
    """Ids in the order in which they come, in a file without a name that goes with the object."""

    def __init__(self) -> None:
        self._file = TemporaryFile(buffering=_BUFFER_BYTES)  # noqa: SIM115 - open as long as the object lives
        self._ends = array("Q", [0])

    def append(self, name: bytes) -> int:
        """Keeps an id, UTF-8, and gives its number, counted from 0."""
        self._file.write(name)
        self._ends.append(self._ends[-1] + len(name))
        return len(self._ends) - 2

    def read(self, number: int) -> str:
        """The id of that number."""
        start, end = self._ends[number], self._ends[number + 1]
        self._file.seek(start)
        name = self._file.read(end - start)
        self._file.seek(0, 2)
        return name.decode("utf-8", "surrogatepass")
