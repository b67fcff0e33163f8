"""CoNLL's columns (Tjong Kim Sang & De Meulder 2003): a word a line with its tag, an empty line between sentences."""

from collections.abc import Iterator

from foundling.corpus.streams import Stream
from foundling.tasks.formats.base import FormatConfig, Row

SUFFIXES = (".conll", ".bio", ".iob", ".iob2", ".conllu")
_DOCUMENT = "-DOCSTART-"


class Config(FormatConfig):
    kind: str = "conll"
    """Name of the part."""
    token_column: int = 0
    """Which column is the word, from 0; below 0: from the right."""
    tag_column: int = -1
    """Which column is the tag."""

    def rows(self, stream: Stream) -> Iterator[Row]:
        """Fields: tokens, tags."""
        tokens: list[str] = []
        tags: list[str] = []
        first, fault = 0, ""
        for number, line in [*self.lines(stream), (0, "")]:
            if isinstance(line, Row):
                fault = fault or line.fault
                continue
            if not line.strip() or line.startswith(_DOCUMENT):
                if tokens or fault:
                    yield Row(str(first), None, fault) if fault else Row(str(first), {"tokens": tokens, "tags": tags})
                tokens, tags, fault = [], [], ""
                continue
            if line.startswith("# "):  # a comment of later formats; a word that is `#` stands alone in its column
                continue
            columns = line.split("\t") if "\t" in line else line.split()
            first = first if tokens else number
            try:
                tokens.append(columns[self.token_column].strip())
                tags.append(columns[self.tag_column].strip())
            except IndexError:
                fault = f"line {number} has {len(columns)} columns"


def looks_like(head: str) -> bool:
    """Lines of equally many columns, the last of which is a tag wherever the file was cut."""
    rows = [line.split() for line in head.split("\n")[:-1] if line.strip() and not line.startswith(("# ", _DOCUMENT))]
    tagged = sum(len(row) >= 2 and (row[-1] == "O" or row[-1][1:2] == "-") for row in rows)
    return bool(rows) and tagged >= 0.9 * len(rows)
