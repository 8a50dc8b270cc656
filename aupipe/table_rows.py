"""The rows of a table file: .csv, .parquet or .xlsx."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from aupipe.errors import UsageError
from aupipe.registry import optional_package

NO_VALUE = ("", "na", "n/a", "#n/a", "null", "none")  # as R, spreadsheets and data bases write it
BATCH_ROWS = 65_536


def read_rows(path: Path) -> Iterator[Sequence[Any]]:
    """The header of a table, then its rows: texts of a .csv, values of a .parquet and of the first sheet of an .xlsx.

    Fields of a .csv are separated by commas, semicolons or tabs, of which its first line has most. Raises UsageError
    for another suffix, a package that is not installed, and a file that cannot be read.
    """
    readers = {".csv": _csv_rows, ".parquet": _parquet_rows, ".xlsx": _xlsx_rows}
    if path.suffix.lower() not in readers:
        raise UsageError(f"{path}: expected a table named {', '.join(readers)}")
    try:
        yield from readers[path.suffix.lower()](path)
    except (OSError, ValueError, KeyError, csv.Error, zipfile.BadZipFile) as error:
        text = "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else " ".join(str(error).split())
        reason = getattr(error, "strerror", None) or text or type(error).__name__
        raise UsageError(f"{path}: cannot be read: {reason}") from error


def _csv_rows(path: Path) -> Iterator[Sequence[Any]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        yield from csv.reader(file, delimiter=max(",;\t", key=first.count))


def _parquet_rows(path: Path) -> Iterator[Sequence[Any]]:
    optional_package("pyarrow", "a .parquet table")
    with import_module("pyarrow.parquet").ParquetFile(path) as file:
        yield file.schema_arrow.names
        for batch in file.iter_batches(BATCH_ROWS):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _xlsx_rows(path: Path) -> Iterator[Sequence[Any]]:
    book = optional_package("openpyxl", "an .xlsx table").load_workbook(path, read_only=True, data_only=True)
    try:
        yield from book.worksheets[0].iter_rows(values_only=True)
    finally:
        book.close()
