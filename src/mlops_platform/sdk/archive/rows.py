"""The rows of one table of an archive, checked before they are read and read in small parts."""

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from mlops_platform.sdk.archive import layout
from mlops_platform.sdk.archive.layout import ArchiveError

AT_ONCE = 1000
POINTS_AT_ONCE = 10_000
_PLAIN = {"PLAIN", "RLE", "BIT_PACKED", "DELTA_BINARY_PACKED"}
_WORDS = _PLAIN | {"RLE_DICTIONARY", "PLAIN_DICTIONARY"}


class Rows:
    """One table. Whatever is wrong with it is an `ArchiveError`."""

    def __init__(self, name: str, source: BinaryIO) -> None:
        self._name = name
        self._pyarrow, parquet = layout.arrow()
        try:
            # Thrift has limits of its own for what describes the file: a hostile one is refused here.
            self._file = parquet.ParquetFile(source, read_dictionary=layout.words(name), pre_buffer=False)
            self._check()
        except (self._pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
            raise ArchiveError(f"{name}.parquet cannot be read: {error}") from error

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def batches(self, at_once: int = AT_ONCE) -> Iterator[Any]:
        """Arrow batches."""
        try:
            for batch in self._file.iter_batches(batch_size=at_once):
                self._check_words(batch)
                yield batch
        except (self._pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
            raise ArchiveError(f"{self._name}.parquet is damaged: {error}") from error

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for batch in self.batches():
            yield from batch.to_pylist()

    def _check(self) -> None:
        metadata, wanted = self._file.metadata, layout.schema_of(self._name)
        found = self._file.schema_arrow
        if found.names != wanted.names or any(
            _plain(found.field(name).type) != wanted.field(name).type for name in wanted.names
        ):
            raise ArchiveError(f"{self._name}.parquet has other columns than this format says.")
        is_word = {name: kind[0] == "w" for name, kind in layout.TABLES[self._name].items()}
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            if not 0 <= group.num_rows <= layout.MAX_ROW_GROUP:
                raise ArchiveError(f"{self._name}.parquet has a group of {group.num_rows} rows.")
            for place in range(group.num_columns):
                column = group.column(place)
                allowed = _WORDS if is_word[column.path_in_schema] else _PLAIN
                if column.compression != "UNCOMPRESSED" or not set(column.encodings) <= allowed:
                    raise ArchiveError(f"{self._name}.parquet is compressed, which in an archive nothing is.")

    def _check_words(self, batch: Any) -> None:
        from pyarrow import compute

        for name in layout.words(self._name):
            column = batch.column(name)
            values = column.dictionary if hasattr(column, "dictionary") else column
            if (compute.max(compute.utf8_length(values)).as_py() or 0) > layout.MAX_WORD:
                raise ArchiveError(f"{self._name}.parquet holds a {name} of more than {layout.MAX_WORD} characters.")
        for name, kind in layout.TABLES[self._name].items():
            if not kind.endswith("?") and batch.column(name).null_count:
                raise ArchiveError(f"{self._name}.parquet lacks a {name}.")


def _plain(kind: Any) -> Any:
    return getattr(kind, "value_type", kind)
