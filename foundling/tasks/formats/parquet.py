"""Parquet: a row is a row, its columns are its fields."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from foundling.core.errors import UserError
from foundling.corpus.readers._fields import plain
from foundling.corpus.streams import Stream
from foundling.tasks.formats.base import FormatConfig, Row

SUFFIXES = (".parquet", ".pq")


class Config(FormatConfig):
    kind: str = "parquet"
    """Name of the part."""

    def rows(self, stream: Stream) -> Iterator[Row]:
        try:
            with stream.seekable() as file:
                number = 0
                for batch in pq.ParquetFile(file).iter_batches(batch_size=4096):
                    for data in batch.to_pylist():
                        number += 1
                        yield Row(f"row {number}", plain(data))
        except (pa.ArrowException, OSError, EOFError) as error:
            raise UserError(
                f"{stream.path.name} must be a whole Parquet file", got=str(error).split("\n")[0]
            ) from error


def looks_like(head: str) -> bool:
    return head.startswith("PAR1")
