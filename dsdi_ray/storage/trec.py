"""TREC's text files: runs and relevance judgements, as trec_eval reads them.

Run lines are ``topic Q0 docno rank sim tag``, qrels lines ``topic iter docno rel``, separated by
blanks or tabs. trec_eval ignores the rank, takes sim as float32 and sorts by sim, then docno
descending; runs are written so that this gives the run's own order, and read in that order.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from dsdi_ray.errors import DataError
from dsdi_ray.method.ranking import strictly_decreasing
from dsdi_ray.storage.media_files import without_blanks
from dsdi_ray.storage.run_table import (
    RankedList,
    check_run_table,
    feature_names,
    lists_of_table,
    table_of_lists,
)
from dsdi_ray.taxonomy import Taxonomy

Qrels = Mapping[str, Mapping[str, int]]
"""Relevance judgements: topic -> clip_id -> relevance (relevant from 1); a topic is a feature's
number as text, without leading zeros."""

_LARGEST_FEATURE_ID = 2**31 - 1


def check_tag(tag: str) -> None:
    """See whether a run's name is one word, which the lines of its text need.

    Raises:
        DataError: If it is empty, or has a blank or a control character.
    """
    if not tag or tag != without_blanks(tag):
        raise DataError(f"tag must be one word without blanks, got {tag!r}")


def write_trec_run(run: pa.Table, path: Path, *, tag: str = "dsdi") -> None:
    """Write a run as TREC text; similarities strictly decrease and stay distinct in float32.

    Args:
        run: A table of ``RUN_SCHEMA``.
        path: File to write; its folder is made.
        tag: The run's name, without blanks.

    Raises:
        DataError: If the run breaks a rule, or the tag or a clip_id has a blank or is empty.
    """
    check_run_table(run, source=str(path))
    check_tag(tag)
    lines = []
    for one in lists_of_table(run):
        similarities = strictly_decreasing(one.scores).tolist()
        for rank, (clip_id, sim) in enumerate(zip(one.clip_ids, similarities, strict=True), 1):
            if clip_id.split() != [clip_id]:
                raise DataError(
                    f"run {path}: clip_id must be one word without blanks, got {clip_id!r}"
                )
            # Nine digits give a float32 back exactly.
            lines.append(f"{one.feature_id} Q0 {clip_id} {rank} {sim:.9g} {tag}\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")


def read_trec_run(path: Path, taxonomy: Taxonomy | None = None) -> pa.Table:
    """Read a run in trec_eval's order; the rank column and what follows the tag are ignored.

    Args:
        path: File.
        taxonomy: Names the features, which the file only numbers.

    Returns:
        A table of ``RUN_SCHEMA``; scores are the similarities, peaks are unknown.

    Raises:
        DataError: Naming the line and the rule.
    """
    similarities: dict[int, dict[str, float]] = {}
    for where, words in _read_lines(path, what="run"):
        if len(words) < 6:
            raise DataError(
                f"{where}: must be `topic Q0 docno rank sim tag`, got {len(words)} fields"
            )
        feature_id = int(_topic(words[0], where=where, must_be_number=True))
        by_clip = similarities.setdefault(feature_id, {})
        if words[2] in by_clip:
            raise DataError(f"{where}: {words[2]!r} appears twice for topic {words[0]}")
        by_clip[words[2]] = _similarity(words[4], where=where)
    if not similarities:
        raise DataError(f"run {path}: it has no line")
    names = feature_names(taxonomy)
    return table_of_lists([_in_order(f, names.get(f), s) for f, s in similarities.items()])


def read_qrels(path: Path) -> Qrels:
    """Read relevance judgements.

    Raises:
        DataError: Naming the line and the rule.
    """
    qrels: dict[str, dict[str, int]] = {}
    if not path.is_file():
        raise DataError(f"qrels {path}: no such file")
    for where, words in _read_lines(path, what="qrels"):
        if len(words) != 4:
            raise DataError(f"{where}: must be `topic iter docno rel`, got {len(words)} fields")
        judged = qrels.setdefault(_topic(words[0], where=where, must_be_number=False), {})
        if words[2] in judged:
            raise DataError(f"{where}: {words[2]!r} is judged twice for topic {words[0]}")
        try:
            judged[words[2]] = int(words[3])
        except ValueError as error:
            raise DataError(f"{where}: rel must be an integer, got {words[3]!r}") from error
    if not qrels:
        raise DataError(f"qrels {path}: it has no line")
    return qrels


def _read_lines(path: Path, *, what: str) -> Iterator[tuple[str, list[str]]]:
    """Lines that are not blank as (where, words)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{what} {path}: not readable as UTF-8 text ({error})") from error
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split()
        if words:
            yield f"{what} {path}, line {number}", words


def _topic(word: str, *, where: str, must_be_number: bool) -> str:
    if word.isascii() and word.isdigit() and int(word) <= _LARGEST_FEATURE_ID:
        return str(int(word))
    if must_be_number:
        raise DataError(f"{where}: topic must be a feature's number, got {word!r}")
    return word


def _similarity(word: str, *, where: str) -> float:
    try:
        value = float(word)
    except ValueError as error:
        raise DataError(f"{where}: sim must be a number, got {word!r}") from error
    if not np.isfinite(value):
        raise DataError(f"{where}: sim must be finite, got {word!r}")
    return value


def _in_order(feature_id: int, feature: str | None, by_clip: Mapping[str, float]) -> RankedList:
    # In float32 two of the file's similarities may tie, and docno decides; the scores follow.
    with np.errstate(over="ignore", under="ignore"):
        narrow = {clip_id: float(np.float32(sim)) for clip_id, sim in by_clip.items()}
    clip_ids = sorted(by_clip, reverse=True)
    clip_ids.sort(key=lambda clip_id: -narrow[clip_id])
    return RankedList(
        feature_id=feature_id,
        feature=feature,
        clip_ids=clip_ids,
        scores=np.minimum.accumulate(np.array([by_clip[c] for c in clip_ids], np.float64)),
        peak_seconds=np.full(len(clip_ids), np.nan),
    )
