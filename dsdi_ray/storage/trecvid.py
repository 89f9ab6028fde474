"""TRECVID DSDI runs as XML, the format of the 2020 submissions.

One file holds one run: every feature exactly once, at most 1000 items each, ``seqNum`` from 1
without gaps. The format has no scores.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree as ET
from xml.parsers import expat

import pyarrow as pa

from dsdi_ray.errors import ConfigError, DataError
from dsdi_ray.storage.run_table import (
    check_run_table,
    feature_names,
    lists_of_table,
    table_of_lists,
    unscored_list,
)
from dsdi_ray.taxonomy import Taxonomy

MAX_ITEMS = 1000
TRAINING_TYPES: Mapping[str, str] = {
    "L": "LADI only",
    "O": "LADI and other data",
    "N": "other data only",
}
_DTD = "https://www-nlpir.nist.gov/projects/tv{year}/dtds/videoFeatureExtractionResults.dtd"
_ROOT = "videoFeatureExtractionResults"
_RUN = "videoFeatureExtractionRunResult"
_FEATURE = "videoFeatureExtractionFeatureResult"
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, kw_only=True)
class TrecvidRun:
    """What the file says of the run besides its items.

    Attributes:
        team: Short participant id (pid).
        training_type: Key of :data:`TRAINING_TYPES` (trType).
        priority: 1 for the team's best guess; at most 4 runs are prioritised.
        description: Free text (desc).
        elapsed_seconds: What one feature took (elapsedTime).
        whole_seconds: Write elapsedTime as an integer, which a later checker wants.
        year: Whose DTD the file names.
    """

    team: str = "DSDI_RAY"
    training_type: str = "L"
    priority: int = 1
    description: str = ""
    elapsed_seconds: float = 0.0
    whole_seconds: bool = False
    year: int = 2020

    def __post_init__(self) -> None:
        if self.training_type not in TRAINING_TYPES:
            known = ", ".join(TRAINING_TYPES)
            raise ConfigError(f"trType must be one of {known}, got {self.training_type!r}")
        if not 1 <= self.priority <= 4:
            raise ConfigError(f"priority must be 1 to 4, got {self.priority}")
        if not 0 <= self.elapsed_seconds < float("inf"):
            raise ConfigError(f"elapsedTime must be from 0, got {self.elapsed_seconds}")
        for name, text in (("team", self.team), ("description", self.description)):
            if _NOT_XML.search(text):
                raise ConfigError(f"{name} {text!r} has a character that XML cannot hold")


def write_trecvid_run(
    run: pa.Table, path: Path, *, taxonomy: Taxonomy, about: TrecvidRun | None = None
) -> None:
    """Write the first 1000 clips of each feature.

    Args:
        run: A table of ``RUN_SCHEMA``.
        path: File to write; its folder is made.
        taxonomy: Its features are listed, each once, without items where the run has none.
        about: The run's attributes.

    Raises:
        DataError: If the run breaks a rule, has a feature that the taxonomy lacks, or a clip_id with
            a control character.
    """
    check_run_table(run, source=str(path))
    about = about or TrecvidRun()
    by_feature = {one.feature_id: one for one in lists_of_table(run)}
    features = sorted(feature_names(taxonomy))
    foreign = sorted(set(by_feature) - set(features))
    if foreign:
        raise DataError(f"run {path}: feature {foreign[0]} is not in taxonomy {taxonomy.name!r}")
    seconds = about.elapsed_seconds
    root = ET.Element(_ROOT)
    attributes = {
        "trType": about.training_type,
        "pid": about.team,
        "priority": str(about.priority),
        "desc": about.description,
    }
    body = ET.SubElement(root, _RUN, attributes)
    for feature_id in features:
        elapsed = str(round(seconds)) if about.whole_seconds else f"{seconds:.1f}"
        result = ET.SubElement(body, _FEATURE, fNum=str(feature_id), elapsedTime=elapsed)
        one = by_feature.get(feature_id)
        for rank, clip_id in enumerate(one.clip_ids[:MAX_ITEMS] if one else (), start=1):
            if _NOT_XML.search(clip_id):
                raise DataError(f"run {path}: {clip_id!r} has a character that XML cannot hold")
            ET.SubElement(result, "item", seqNum=str(rank), shotId=clip_id)
    ET.indent(root)
    head = (
        "<?xml version='1.0' encoding='ISO-8859-1'?>\n"
        f'<!DOCTYPE {_ROOT} SYSTEM "{_DTD.format(year=about.year)}">\n'
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # Characters beyond ASCII become references, which ISO-8859-1 has no trouble with.
    path.write_bytes(head.encode("ascii") + ET.tostring(root, encoding="us-ascii") + b"\n")


def read_trecvid_run(path: Path, taxonomy: Taxonomy | None = None) -> pa.Table:
    """Read a run; the DTD is not fetched and entity declarations are refused.

    Args:
        path: File with one run.
        taxonomy: Names the features, which the file only numbers.

    Returns:
        A table of ``RUN_SCHEMA``; the score of rank k is 1 / k, peaks are unknown.

    Raises:
        DataError: Naming the line and the rule.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"run {path}: not readable ({error})") from error
    items = _ItemReader(path).read(content)
    names = feature_names(taxonomy)
    return table_of_lists([unscored_list(f, names.get(f), clips) for f, clips in items.items()])


@dataclass
class _ItemReader:
    """Collects feature_id -> clip_ids from expat's events, which know the line."""

    path: Path
    items: dict[int, list[str]] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)
    _feature_id: int = 0
    _seen: set[str] = field(default_factory=set)
    _num_runs: int = 0

    def read(self, content: bytes) -> dict[int, list[str]]:
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = lambda _name: self._open.pop()
        self._parser.EntityDeclHandler = lambda *_: self._fail("entity declarations are refused")
        try:
            self._parser.Parse(content, True)
        except expat.ExpatError as error:
            self._fail(f"not well-formed XML: {expat.ErrorString(error.code)}")
        except (LookupError, ValueError) as error:
            self._fail(f"its encoding cannot be read: {error}")
        if not self._num_runs:
            self._fail(f"no <{_RUN}>")
        return self.items

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        parent = self._open[-1] if self._open else None
        if _PARENT_OF.get(name, "?") != parent:
            self._fail(f"<{name}> must not stand {f'in <{parent}>' if parent else 'at the top'}")
        self._open.append(name)
        start = _STARTS.get(name)
        if start:
            start(self, attributes)

    def _start_run(self, _attributes: Mapping[str, str]) -> None:
        self._num_runs += 1
        if self._num_runs > 1:
            self._fail("holds more than one run; give each run its own file")

    def _start_feature(self, attributes: Mapping[str, str]) -> None:
        self._feature_id = self._number(attributes, "fNum")
        if self._feature_id in self.items:
            self._fail(f"feature {self._feature_id} appears more than once")
        self.items[self._feature_id] = []
        self._seen = set()

    def _start_item(self, attributes: Mapping[str, str]) -> None:
        clips = self.items[self._feature_id]
        number = self._number(attributes, "seqNum")
        if number != len(clips) + 1:
            self._fail(
                f"seqNum must go from 1 without gaps, expected {len(clips) + 1}, got {number}"
            )
        clip_id = attributes.get("shotId", "")
        if not clip_id or clip_id in self._seen:
            what = f"{clip_id!r} appears twice" if clip_id else "an item has no shotId"
            self._fail(f"feature {self._feature_id}: {what}")
        clips.append(clip_id)
        self._seen.add(clip_id)

    def _number(self, attributes: Mapping[str, str], name: str) -> int:
        word = attributes.get(name, "")
        if not (word.isascii() and word.isdigit() and 1 <= int(word) < 2**31):
            self._fail(f"{name} must be a whole number from 1, got {word!r}")
        return int(word)

    def _fail(self, problem: str) -> NoReturn:
        raise DataError(f"run {self.path}, line {self._parser.CurrentLineNumber}: {problem}")


_PARENT_OF = {_ROOT: None, _RUN: _ROOT, _FEATURE: _RUN, "item": _FEATURE}
_STARTS: Mapping[str, Callable[[_ItemReader, Mapping[str, str]], None]] = {
    _RUN: _ItemReader._start_run,  # noqa: SLF001, a table of the class's own methods
    _FEATURE: _ItemReader._start_feature,  # noqa: SLF001
    "item": _ItemReader._start_item,  # noqa: SLF001
}
