"""The rows of one table of an archive, checked before they are read and read in small parts."""

import io
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from mlops_platform.sdk.archive import layout
from mlops_platform.sdk.archive.layout import ArchiveError

AT_ONCE = 1000
POINTS_AT_ONCE = 10_000
_TEXT_HEAD, _FLOAT = 4, 8
"""Bytes before each text of a Parquet file, and of a number."""
_PLAIN = {"PLAIN", "RLE", "BIT_PACKED", "DELTA_BINARY_PACKED"}
_WORDS = _PLAIN | {"RLE_DICTIONARY", "PLAIN_DICTIONARY"}


class Rows:
    """One table. Whatever is wrong with it is an `ArchiveError`."""

    def __init__(self, name: str, source: BinaryIO) -> None:
        self._name = name
        self._texts = [column for column, kind in layout.TABLES[name].items() if kind[0] == "t"]
        self._pyarrow, parquet = layout.arrow()
        try:
            self._size = source.seek(0, io.SEEK_END)
            # Texts are read as dictionaries, whatever the footer says: what stands there once is made once.
            # Thrift has limits of its own for what describes the file: a hostile one is refused here.
            as_words = [*layout.words(name), *self._texts]
            self._file = parquet.ParquetFile(source, read_dictionary=as_words, pre_buffer=False)
            self._check()
        except KeyError as error:
            raise ArchiveError(f"{name}.parquet lacks the column {error}.") from error
        except (self._pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
            raise ArchiveError(f"{name}.parquet cannot be read: {error}") from error

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def batches(self, at_once: int = AT_ONCE) -> Iterator[Any]:
        """Arrow batches."""
        read = 0
        try:
            for batch in self._raw(at_once):
                self._check_words(batch)
                read += self._plain_size(batch)
                if read > self._size:
                    raise ArchiveError(f"{self._name}.parquet is compressed: it holds more than its {self._size} bytes.")
                yield self._with_texts(batch)
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

    def _raw(self, at_once: int) -> Iterator[Any]:
        # Group by group: one reader would hand out the words of all groups before with every batch.
        for group in range(self._file.metadata.num_row_groups):
            yield from self._file.iter_batches(batch_size=at_once, row_groups=[group])

    def _plain_size(self, batch: Any) -> int:
        """How many bytes its texts and numbers take at the least when nothing is compressed.

        Which encodings a page has only the page knows: what the footer says of them proves nothing.
        """
        from pyarrow import compute

        size = 0
        for name, kind in layout.TABLES[self._name].items():
            column = batch.column(name)
            if kind[0] == "t":
                lengths = compute.take(compute.binary_length(column.dictionary), column.indices)
                size += _TEXT_HEAD * (len(column) - column.null_count) + (compute.sum(lengths).as_py() or 0)
            elif kind[0] == "f":
                size += _FLOAT * (len(column) - column.null_count)
        return size

    def _with_texts(self, batch: Any) -> Any:
        for name in self._texts:
            place = batch.schema.get_field_index(name)
            batch = batch.set_column(place, name, batch.column(place).dictionary_decode())
        return batch

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
    return kind.value_type if hasattr(kind, "index_type") else kind
