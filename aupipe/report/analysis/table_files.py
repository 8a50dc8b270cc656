"""Tables as .csv, .parquet and .xlsx, written while they are read: no more than one recording is held at a time."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aupipe.errors import UsageError
from aupipe.files import PRIVATE, csv_text, staged_file
from aupipe.registry import optional_package
from aupipe.report.analysis.table import Layout, Table
from aupipe.store.keys import name_as_text
from aupipe.video_folders import ABOUT_HEADER

XLSX_ROWS = 1_048_576  # of a sheet, its header among them (ECMA-376; Excel's limits)
XLSX_COLUMNS = 16_384
BLOCK_ROWS = 4096

Append = Callable[[Table], None]
Events = Sequence[tuple[Any, ...]]  # the rows of a sheet of intervals, its header first


@contextmanager
def csv_table(path: Path, layout: Layout, overwrite: bool) -> Iterator[Append]:
    """A CSV table: a header, then a row per frame; an empty field where there is no value."""
    with staged_file(path, overwrite, PRIVATE) as staged, open(staged, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([column.name for column in layout.columns])

        def append(table: Table) -> None:
            for start, stop in _blocks(table):
                times = [f"{value:.6f}" for value in table.times_s[start:stop].tolist()]
                name = name_as_text(table.recording)
                columns: list[Sequence[Any]] = [[name] * len(times), range(start + 1, stop + 1)]
                parts = (values[start:stop].tolist() for values in _values(table, layout))
                columns += [["" if v != v else f"{v:.6g}" for v in part] for part in parts]
                writer.writerows(zip(columns[0], columns[1], times, *columns[2:], strict=True))

        yield append


@contextmanager
def parquet_table(path: Path, layout: Layout, overwrite: bool) -> Iterator[Append]:
    """A Parquet table; nulls where there is no value. Fields carry unit, kind, by and trained_on as metadata."""
    arrow, parquet = optional_package("pyarrow", "a .parquet table"), import_module("pyarrow.parquet")
    types = {"recording": arrow.string(), "time_s": arrow.float64()}
    fields = []
    for column in layout.columns:
        kind = types.get(column.name) or (arrow.int32() if column.whole else arrow.float32())
        about = {key: text for key, text in zip(ABOUT_HEADER[1:], column.row()[1:], strict=True) if text}
        fields.append(arrow.field(column.name, kind, metadata=about))
    schema = arrow.schema(fields)
    with staged_file(path, overwrite, PRIVATE) as staged, parquet.ParquetWriter(staged, schema) as writer:

        def append(table: Table) -> None:
            arrays = [arrow.array([name_as_text(table.recording)] * len(table), arrow.string())]
            arrays.append(arrow.array(np.arange(1, len(table) + 1), arrow.int32()))
            arrays.append(arrow.array(table.times_s))
            for values, field in zip(_values(table, layout), fields[3:], strict=True):
                found = arrow.array(np.ascontiguousarray(values, np.float32), from_pandas=True)  # NaN -> null
                arrays.append(found.cast(field.type))
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))

        yield append


@contextmanager
def xlsx_table(path: Path, layout: Layout, overwrite: bool, events: Callable[[], Events]) -> Iterator[Append]:
    """A workbook: the sheet ``frames``, ``columns`` that says what they are, and the intervals of ``events``.

    Which rows and columns a sheet holds is checked by `refuse_long`.
    """
    openpyxl = optional_package("openpyxl", "an .xlsx table")
    cells = import_module("openpyxl.cell")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("frames")
    sheet.freeze_panes = "D2"
    sheet.append([column.name for column in layout.columns])

    def text(value: str) -> Any:
        cell = cells.WriteOnlyCell(sheet, name_as_text(value))
        cell.data_type = "s"  # a name that begins with = is no formula
        return cell

    def append(table: Table) -> None:
        lists = (values.astype(np.float64).tolist() for values in _values(table, layout))
        columns = [[None if v != v else v for v in values] for values in lists]
        for row, (time_s, *values) in enumerate(zip(table.times_s.tolist(), *columns, strict=True), 1):
            sheet.append([text(table.recording), row, time_s, *values])

    with staged_file(path, overwrite, PRIVATE) as staged:
        yield append
        about = book.create_sheet("columns")
        for line in (ABOUT_HEADER, *(column.row() for column in layout.columns)):
            about.append(line)
        intervals = book.create_sheet("events")
        for recording, *rest in events():
            intervals.append([text(recording), *rest])
        book.save(staged)


TABLES = (".csv", ".parquet", ".xlsx")


def open_table(
    path: Path, layout: Layout, overwrite: bool, events: Callable[[], Events]
) -> AbstractContextManager[Append]:
    """The table that a file name asks for; it is there when the context is left without an error."""
    if path.suffix.lower() == ".xlsx":
        return xlsx_table(path, layout, overwrite, events)
    return (csv_table if path.suffix.lower() == ".csv" else parquet_table)(path, layout, overwrite)


def require_packages(path: Path) -> None:
    """Raises UsageError where a file of this name needs a package that is not installed."""
    if path.suffix.lower() == ".parquet":
        optional_package("pyarrow", "a .parquet table")
    if path.suffix.lower() == ".xlsx":
        optional_package("openpyxl", "an .xlsx table")


def refuse_long(path: Path, rows: int, columns: int) -> None:
    """Raises UsageError for a workbook of more rows, its header not counted, or columns than a sheet holds."""
    if path.suffix.lower() == ".xlsx" and (rows >= XLSX_ROWS or columns > XLSX_COLUMNS):
        raise UsageError(
            f"{path}: {rows:,} rows and {columns:,} columns; a sheet of .xlsx holds {XLSX_ROWS - 1:,} and "
            f"{XLSX_COLUMNS:,}: use .csv or .parquet"
        )


def columns_csv(layout: Layout) -> str:
    """What every column is, as CSV: a line each."""
    return csv_text([ABOUT_HEADER, *(column.row() for column in layout.columns)])


def _blocks(table: Table) -> Iterator[tuple[int, int]]:
    for start in range(0, len(table), BLOCK_ROWS):
        yield start, min(start + BLOCK_ROWS, len(table))


def _values(table: Table, layout: Layout) -> list[NDArray[np.floating]]:
    """The columns (T,) after those of the clock."""
    return [table.values[block.name][:, k] for block in layout.blocks for k in range(len(block.columns))]
