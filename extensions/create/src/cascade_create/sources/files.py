"""Files of one folder or bucket: a workflow that reads them by dlt."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from cascade.errors import UsageError
from cascade.ingestion.text import json_text
from cascade_create.names import title
from cascade_create.render import Code, Raw, literal
from cascade_create.sample import Sample, null_texts
from cascade_create.sources.base import Request, Shape, StandIn, json_path, require, without_password

__all__ = ["look_at_files"]

_FORMATS = {
    "csv": ("csv", "tsv", "txt"),
    "jsonl": ("jsonl", "ndjson"),
    "json": ("json",),
    "parquet": ("parquet", "pq"),
    "excel": ("xlsx", "xlsm", "xlsb", "xls", "ods"),
}
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
# What reads a format, as the error of a missing module names it, and what is installed for it.
_READERS = {"fastexcel": "fastexcel xlsxwriter", "xlsxwriter": "fastexcel xlsxwriter", "pandas": "pandas"}
_RESOURCE = ["import dlt", "from dlt.sources.filesystem import filesystem"]
_READER = ["from collections.abc import Iterable, Iterator", "from dlt.sources.filesystem import FileItemDict"]
# Options that are written in another way than Python prints their values.
_WRITTEN = {"chunk_size": Raw("100_000"), "dtype": Raw("str")}
_HEAD = 256 * 1024
# Readers of JSON: what they import, their code, and their name.
_JSON: Mapping[str, tuple[Sequence[str], str, str]] = {
    "jsonl": (
        ["from itertools import islice"],
        "@dlt.transformer\ndef read_lines(files: Iterable[FileItemDict]) -> Iterator[list]:\n"
        '    """Read an object a line; empty lines are left out."""\n'
        "    for file in files:\n        with file.open() as lines:\n"
        "            while page := list(islice(lines, 10_000)):\n"
        "                yield [json.loads(line) for line in page if line.strip()]",
        "read_lines",
    ),
    "json": (
        [],
        "@dlt.transformer\ndef read_documents(files: Iterable[FileItemDict]) -> Iterator[list]:\n"
        '    """Read the objects of each file: a list of them, or one."""\n'
        "    for file in files:\n        with file.open() as document:\n"
        "            found = json.load(document)\n"
        "            yield found if isinstance(found, list) else [found]",
        "read_documents",
    ),
}


@dataclass(frozen=True)
class _Files:
    name: str
    folder: str  # as dlt takes it: an absolute path, or a URL
    glob: str
    top: str
    imports: Sequence[str]
    format: str
    csv: Mapping[str, Any] = field(default_factory=dict)  # options of the reader
    sheet: str = ""
    texts: bool = False
    most: int = 100_000
    known_key: Sequence[str] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def code(self, shape: Shape) -> Code:
        """Return what lists the files, and what reads them."""
        imports, top, reader = self._reader(shape)
        says = f"Rows of the files {self.glob}."
        arguments = ["bucket_url=FOLDER", f"file_glob={literal(self.glob)}"]
        # In a bucket a file has the time it was put there. One that is copied into a folder may bring an older time,
        # and would never be read: so a folder is read whole, and rows that come again replace themselves.
        only_new = bool(shape.key) and "://" in self.folder and not shape.slices
        if only_new:
            arguments.append('incremental=dlt.sources.incremental("modification_date")')
            says = f"Rows of the files {self.glob}; a run reads those that are new, or have changed."
        call = f"filesystem({', '.join(arguments)})"
        if self.format == "csv":  # no header and no row: the readers take that for a broken file
            call += '.add_filter(lambda file: file["size_in_bytes"])'
        renamed = ".add_map(rename)" if shape.names and self.format != "excel" else ""
        read = f"(files | {reader}){renamed}" if renamed else f"files | {reader}"
        used = [line for line in _RESOURCE if only_new or shape.slices or line != "import dlt" or "@dlt." in top]
        body = f"    files = {call}\n    return {read}"
        if shape.slices:
            begin, end = shape.slices.bounds
            cursor = literal(json_path(shape.names.get(shape.cursor, shape.cursor)))
            says = f"Rows of the files {self.glob}; a partition has those whose {shape.cursor} lies in it."
            used = [*used, "import datetime as dt"]
            window = f"dlt.sources.incremental({cursor}, initial_value={begin}, end_value={end})"
            body = f"{shape.slices.lines}    files = {call}\n    rows = {read}\n"
            body += f"    rows.apply_hints(\n        incremental={window}\n    )\n    return rows"
        return Code(
            about=f"{title(self.name)}, from files.",
            doc=says,
            body=body,
            imports=[*self.imports, *used, *imports],
            top=self.top + top,
            options={"order_by": shape.cursor} if shape.cursor and shape.key and not shape.slices else {},
        )

    @property
    def reader(self) -> tuple[str, dict[str, Any]]:
        """What reads CSV: every value as text, since the contract says what it is. DuckDB reads UTF-8 alone."""
        if "encoding" in self.csv:
            return "read_csv", {"dtype": str, "keep_default_na": False, "na_values": [""], **self.csv}
        return "read_csv_duckdb", {
            "use_pyarrow": True,
            "chunk_size": 100_000,
            "header": True,
            "all_varchar": True,
            **self.csv,
        }

    def _reader(self, shape: Shape) -> tuple[list[str], str, str]:
        """Return imports, code above the function, and the call that reads."""
        if self.format == "excel":
            return self._excel(shape)
        arrow = self.format in ("csv", "parquet") and "encoding" not in self.csv
        names, imports = "", ["import pyarrow as pa"] if arrow and shape.names else []
        if shape.names:
            kind = "pa.RecordBatch" if arrow else "dict"
            changed = (
                "rows.rename_columns([NAMES.get(name, name) for name in rows.schema.names])"
                if arrow
                else "{NAMES.get(name, name): value for name, value in rows.items()}"
            )
            names = (
                "\n\n# Names of the source that cannot be columns, and what they are called here.\n"
                f"NAMES = {literal(dict(shape.names), 0, 8)}\n\n\n"
                f'def rename(rows: {kind}) -> {kind}:\n    """Give the columns names that SQL can say."""\n'
                f"    return {changed}"
            )
        if self.format == "csv":
            reader, options = self.reader
            written = {option: _WRITTEN.get(option, value) for option, value in options.items()}
            call = f"{reader}({', '.join(f'{option}={literal(value)}' for option, value in written.items())})"
            return [*imports, f"from dlt.sources.filesystem import {reader}"], names, call
        if self.format in _JSON:
            needed, code, reader = _JSON[self.format]
            return [*imports, *_READER, "import json", *needed], f"{names}\n\n\n{code}", reader
        call = "read_parquet(use_pyarrow=True, chunksize=100_000)"
        return [*imports, "from dlt.sources.filesystem import read_parquet"], names, call

    def _excel(self, shape: Shape) -> tuple[list[str], str, str]:
        sheet = f"sheet_name={literal(self.sheet)}, " if self.sheet else ""
        frame = f"pl.read_excel(file.read_bytes(), {sheet}infer_schema_length=None)"
        names, rename = "", ""
        if shape.names:
            names = (
                "\n\n# Names of the source that cannot be columns, and what they are called here.\n"
                f"NAMES = {literal(dict(shape.names), 0, 8)}"
            )
            rename = ".rename(NAMES, strict=False)"
        top = names + (
            "\n\n\n@dlt.transformer\ndef read_sheets(files: Iterable[FileItemDict]) -> Iterator[pl.DataFrame]:\n"
            f'    """Read {"the sheet " + self.sheet if self.sheet else "the first sheet"} of each file."""\n'
            f"    for file in files:\n        yield {frame}{rename}"
        )
        return [*_READER, "import polars as pl"], top, "read_sheets"

    def stand_in(self, sample: Sample, rows: Sequence[Mapping[str, Any]]) -> StandIn:
        """Return a small file of the same format, which the same reader reads."""
        ending = PurePosixPath(self.glob).name.rpartition(".")[2] if self.format != "excel" else "xlsx"
        ending = "csv" if ending in ("gz", "*") else ending
        write = {"csv": self._csv, "jsonl": _jsonl, "json": _json, "parquet": _parquet, "excel": self._xlsx}[
            self.format
        ]
        folder = f"tests/data/{self.name}"
        patches = [f'monkeypatch.setattr({{module}}, "FOLDER", str(Path(__file__).parent / "data/{self.name}"))']
        name = _named_like(self.glob, ending)
        content = write(sample, rows)
        return StandIn(
            {f"{folder}/{name}": gzip.compress(content, mtime=0) if name.endswith(".gz") else content},
            ["from pathlib import Path"],
            "# The files of this folder were recorded from the source.",
            "\n    ".join(patches),
        )

    def _csv(self, sample: Sample, rows: Sequence[Mapping[str, Any]]) -> bytes:
        out = io.StringIO()
        writer = csv.writer(out, delimiter=self.csv.get("sep", ","), lineterminator="\n")
        header = list(rows[0])
        writer.writerow(header)
        writer.writerows([["" if row[name] is None else row[name] for name in header] for row in rows])
        return out.getvalue().encode(self.csv.get("encoding", "utf-8"))

    def _xlsx(self, sample: Sample, rows: Sequence[Mapping[str, Any]]) -> bytes:
        import xlsxwriter

        out = io.BytesIO()
        book = xlsxwriter.Workbook(out, {"in_memory": True, "default_date_format": "yyyy-mm-dd hh:mm:ss"})
        sheet = book.add_worksheet(self.sheet or None)
        for number, name in enumerate(rows[0]):
            sheet.write_string(0, number, name)
            for line, row in enumerate(rows, start=1):
                if row[name] is not None:
                    sheet.write(line, number, row[name])
        book.close()
        return out.getvalue()

    def explain(self, error: Exception) -> UsageError:
        """Return what a failed attempt to read means."""
        return _failed(f"{self.folder}/{self.glob}", error)


def look_at_files(request: Request) -> _Files:
    """Look at the files of a path: what format they have, and how their text is written."""
    given = require(request.path, "--path", "file", "--path 'data/drops/*.csv'")
    root = request.root
    remote = "://" in given
    full = given if remote else (request.folder / given).absolute().as_posix()
    if not remote and Path(full).is_dir():
        folder, glob = full.rstrip("/"), _all_of(Path(full))
    else:
        folder, glob = _split(full)
    top = f"FOLDER = {literal(folder)}"
    imports: list[str] = []
    if not remote and Path(folder).is_relative_to(root):
        inside = Path(folder).relative_to(root).as_posix()
        at = f" / {literal(inside)}" if inside != "." else ""
        top = (
            "# From this file, not from the current folder: the workflow runs from anywhere.\n"
            f"FOLDER = str(Path(__file__).resolve().parents[2]{at})"
        )
        imports = ["from pathlib import Path"]
    if remote and "@" in folder.split("://")[1].split("/")[0] and ":" in folder.split("://")[1].split("@")[0]:
        raise UsageError(
            "The path has a password in it, which would be written to a file. Nothing was written.",
            where="--path",
            fix="write the credentials to `.env` under dlt's names, such as SOURCES__FILESYSTEM__CREDENTIALS__…",
        )
    found = _Files(
        name=request.name,
        folder=folder,
        glob=glob,
        top=top,
        imports=imports,
        format=_format(glob, request),
        sheet=request.sheet,
    )
    found = replace(found, texts=found.format == "csv")
    return _looked_at(found) if request.infer else found


def _all_of(folder: Path) -> str:
    """Return the pattern of all files of a folder, also of those in folders below: they have one known ending."""
    known = {ending for endings in _FORMATS.values() for ending in endings}
    names = (file.name for file in folder.rglob("*") if file.is_file())
    endings = {name.partition(".")[2] for name in names if known & {*name.lower().split(".")[1:]}}
    return f"**/*.{endings.pop()}" if len(endings) == 1 else "*"


def _split(full: str) -> tuple[str, str]:
    """Return the folder of a path, up to its first wildcard, and the rest."""
    head, _, rest = full.partition("://") if "://" in full else ("", "", full)
    parts = rest.split("/")
    first = next((i for i, part in enumerate(parts[:-1]) if re.search(r"[*?\[]", part)), len(parts) - 1)
    folder = "/".join(parts[:first]) or "/"
    return (f"{head}://{folder}" if head else folder), "/".join(parts[first:])


def _format(glob: str, request: Request) -> str:
    endings = [ending.lower() for ending in PurePosixPath(glob).name.split(".")[1:]]
    for ending in [one for one in reversed(endings) if one not in ("gz", "bz2", "zip", "xz", "zst")][:1]:
        for name, known in _FORMATS.items():
            if ending in known:
                return name
    raise UsageError(
        f"The path does not say which format the files have: {glob!r}. Nothing was written.",
        where="--path",
        fix="end it as the files do: *.csv, *.jsonl, *.parquet or *.xlsx",
    )


def _looked_at(source: _Files) -> _Files:
    """Return the source with what its files say."""
    from dlt.sources.filesystem import filesystem

    place = f"{source.folder}/{source.glob}"
    try:
        items = list(filesystem(bucket_url=source.folder, file_glob=source.glob))
    except Exception as error:  # noqa: BLE001  of fsspec and of whatever it stands on
        raise _failed(place, error) from None
    if not items:
        raise UsageError(
            "There is no file to look at. Nothing was written.",
            where=without_password(place) if "://" in place else place,
            fix="correct --path, or run the command when there are files; or without --infer.",
        )
    for module in ("fastexcel", "xlsxwriter") if source.format == "excel" else ():
        if find_spec(module) is None:
            raise _failed(place, ModuleNotFoundError(module))
    if source.format not in ("csv", "json"):
        return source
    items = [item for item in items if item["size_in_bytes"]]
    heads = []
    for item in items[:5]:
        with item.open(mode="rb") as file:
            heads.append(file.read(_HEAD))
    if source.format == "json":
        return replace(source, format="jsonl") if all(map(_has_lines, heads)) else source
    found = replace(source, csv=_dialect(heads))
    try:
        columns = _columns_of(items, found)
    except Exception as error:  # noqa: BLE001  of dlt, DuckDB or pandas
        raise _failed(place, error) from None
    nothing = null_texts(columns.values())
    return replace(found, csv={**found.csv, "na_values": ["", *nothing]}) if nothing else found


def _columns_of(files: Any, source: _Files) -> dict[str, list[str | None]]:
    """Return the texts of each column, of as many rows as a sample has."""
    import dlt
    from dlt.sources import filesystem as readers

    name, options = source.reader
    columns: dict[str, list[str | None]] = {}
    rows = 0
    for page in dlt.resource([files], name="files") | getattr(readers, name)(**options):
        found = page.to_pydict() if isinstance(page, pa.RecordBatch) else {key: [page[key]] for key in page}
        for key, values in found.items():
            columns.setdefault(key, []).extend(value if isinstance(value, str) else None for value in values)
        rows += len(next(iter(found.values()), []))
        if rows >= source.most:
            break
    return columns


def _dialect(heads: Sequence[bytes]) -> dict[str, Any]:
    """Return the options of the reader: what parts columns, and how text is written."""
    options: dict[str, Any] = {}
    encoding = next(name for name in _ENCODINGS if all(_is_text(head, name) for head in heads))
    if encoding != "utf-8-sig":  # which DuckDB reads
        options["encoding"] = encoding
    first = _whole_lines(heads[0]).decode(encoding, "replace") if heads else ""
    separator = max(",;\t|", key=lambda one: _columns(first, one))
    if separator != ",":
        options["sep"] = separator
    return options


# The last one takes every byte for a character.
_ENCODINGS = ("utf-16", "utf-8-sig", "cp1252", "latin-1")


def _is_text(head: bytes, encoding: str) -> bool:
    if (encoding == "utf-16") != head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return encoding == "latin-1"
    try:
        (head if encoding == "utf-16" else _whole_lines(head)).decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _has_lines(head: bytes) -> bool:
    """Say whether a file has an object a line, although its name ends with `.json`."""
    line, _, rest = head.strip().partition(b"\n")
    try:
        return bool(rest) and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _whole_lines(head: bytes) -> bytes:
    return head if len(head) < _HEAD else head[: head.rfind(b"\n") + 1]


def _columns(text: str, separator: str) -> tuple[int, int]:
    """How many columns a separator makes: in nearly all of the first lines, and in the first one."""
    rows = [len(row) for row in list(csv.reader(io.StringIO(text[:65536]), delimiter=separator))[:50] if row]
    if not rows:
        return 0, 0
    same = rows.count(rows[0]) > 0.9 * len(rows)
    return (rows[0] if same else 0), rows[0]


def _named_like(glob: str, ending: str) -> str:
    """Return the path of a file that a pattern finds."""
    parts = [re.sub(r"[*?]+", "sample", re.sub(r"\[(.).*?\]", r"\1", part)) for part in glob.split("/") if part != "**"]
    name = parts[-1] if "." in parts[-1] else f"{parts[-1]}.{ending}"
    return "/".join([*parts[:-1], name])


def _jsonl(sample: Sample, rows: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(f"{json_text(row)}\n" for row in rows).encode()


def _json(sample: Sample, rows: Sequence[Mapping[str, Any]]) -> bytes:
    return ("[\n" + ",\n".join(f"  {json_text(row)}" for row in rows) + "\n]\n").encode()


def _parquet(sample: Sample, rows: Sequence[Mapping[str, Any]]) -> bytes:
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), out)
    return out.getvalue()


def _failed(place: str, error: Exception) -> UsageError:
    """Say what an error of fsspec or of a reader means."""
    scheme = place.partition("://")[0] if "://" in place else ""
    text = f"{type(error).__name__}: {error}"
    if re.search(r"(?i)install|MissingDependency|No module named|ModuleNotFound", text):
        reader = next((module for module in _READERS if module in text), "")
        if package := _READERS.get(reader) or _PACKAGES.get(scheme):
            return UsageError(
                f"What reads {f'these files, {reader},' if reader else f'{scheme}://'} is not installed. "
                "Nothing was written.",
                where="--path",
                fix=f"add it to the project: uv add {package}",
            )
    first = next(iter(str(error).splitlines()), "")
    return UsageError(
        f"The files cannot be read: {type(error).__name__}: {first[:200].rstrip('.')}. Nothing was written.",
        where=place,
        fix="see whether the path is right; credentials of a bucket go to `.env` under dlt's names: "
        "SOURCES__FILESYSTEM__CREDENTIALS__…"
        if scheme
        else "see whether the path is right, and the files are whole.",
    )
