"""The runs of submissions: ensembles are ranked in one pass over the store, then runs are fused."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from dsdi_ray.distributed.rank import rank_systems
from dsdi_ray.distributed.score import ScoreSummary
from dsdi_ray.errors import DataError
from dsdi_ray.report.evaluation import Evaluation
from dsdi_ray.report.paper_page import SubmissionResult
from dsdi_ray.storage.bundles import EnsembleSpec
from dsdi_ray.storage.fused_runs import WeightedRun, fuse_run_tables
from dsdi_ray.storage.runs import read_run, run_metadata, write_run_files
from dsdi_ray.storage.trecvid import TrecvidRun
from dsdi_ray.submissions import FusedPart, Submission
from dsdi_ray.taxonomy import Taxonomy

_RUN_FILE = "run.parquet"
_POOL, _ORDER = "max", "frame_first"


@dataclass(frozen=True, kw_only=True)
class SubmissionRun:
    """What became of a submission.

    Attributes:
        submission: How it is made.
        run: Its run, None if it was not made.
        path: Its run.parquet.
        problem: Why it was not made.
    """

    submission: Submission
    run: pa.Table | None = None
    path: Path | None = None
    problem: str | None = None


def scores_identity(manifest: pa.Table, scored: ScoreSummary) -> str:
    """What a ranking depends on besides members and settings: the clips, and what became of them."""
    clips = manifest.select(["clip_id", "content_id"]).sort_by("clip_id").to_pydict()
    counts = [scored.num_ok, scored.num_partial, scored.num_failed]
    return hashlib.sha256(json.dumps([clips, counts]).encode()).hexdigest()[:16]


def rank_all(
    systems: Mapping[str, EnsembleSpec],
    *,
    out: Path,
    store_uri: str,
    decode_id: str,
    scores_id: str,
    clip_ids: pa.ChunkedArray,
    taxonomy: Taxonomy,
) -> dict[str, pa.Table]:
    """Rank clips of a store with each system; runs that are there of the same scores are kept.

    Args:
        systems: Ensembles by the name of their run.
        out: Folder of the runs' folders.
        store_uri: Store.
        decode_id: Settings under which the clips were scored.
        scores_id: See :func:`scores_identity`, which is of the same clips.
        clip_ids: Clips to rank; the store may have others.
        taxonomy: Of the store.

    Returns:
        The runs by name.

    Raises:
        DataError: If no clip can be ranked.
    """
    made_of = {
        name: {
            "ensemble": ", ".join(f"{m.member_id}:{m.weight:g}" for m in ensemble.members),
            "decode_id": decode_id,
            "pool": _POOL,
            "order": _ORDER,
            "scores_id": scores_id,
            "num_clips_asked": str(len(clip_ids)),
        }
        for name, ensemble in systems.items()
    }
    kept = {name: _kept_run(out / name, facts) for name, facts in made_of.items()}
    runs = {name: run for name, run in kept.items() if run is not None}
    left = [name for name in systems if name not in runs]
    if left:
        # Systems of the same members, such as one alone, are pooled once.
        distinct = {made_of[name]["ensemble"]: systems[name] for name in left}
        rankings = rank_systems(
            store_uri,
            list(distinct.values()),
            decode_id=decode_id,
            pool=_POOL,
            order=_ORDER,
            top=None,  # a fusion may raise a clip that is far down here
            clip_ids=clip_ids,
        )
        by_members = dict(zip(distinct, rankings, strict=True))
        for name in left:
            ranking = by_members[made_of[name]["ensemble"]]
            runs[name] = ranking.run
            _write(
                ranking.run,
                out / name,
                taxonomy=taxonomy,
                seconds=ranking.seconds,
                metadata=made_of[name],
            )
    return {name: runs[name] for name in systems}


def make_submissions(
    submissions: Sequence[Submission],
    ranked: Mapping[str, pa.Table],
    *,
    untrained: Mapping[str, str],
    outside: WeightedRun | None,
    normalisation: str | None,
    out: Path,
    taxonomy: Taxonomy,
) -> list[SubmissionRun]:
    """Fuse what can be fused; what cannot be made says why.

    Args:
        submissions: Each after those that it is fused of.
        ranked: Runs of ensembles, by name.
        untrained: Why there is no member, by recipe.
        outside: Another system's run, if there is one; its weight is the submission's.
        normalisation: Of fusions with it; None: the submission's.
        out: Folder of the runs' folders.
        taxonomy: Of the runs.

    Raises:
        DataError: If the outside run cannot be fused with the others.
    """
    made: dict[str, SubmissionRun] = {}
    for one in submissions:
        run = ranked.get(one.name)
        problem = _problem(one, made, untrained, has_outside=outside is not None)
        if problem is None and one.fusion is not None:
            is_ours = all(part.outside is None for part in one.fused_parts)
            chosen = one.fusion.normalisation if is_ours or not normalisation else normalisation
            parts = [_weighted(part, made, outside) for part in one.fused_parts]
            run = fuse_run_tables(parts, normalisation=chosen, taxonomy=taxonomy)
            facts = {
                "fused": ", ".join(f"{part.name}:{part.weight:g}" for part in parts),
                "normalisation": chosen,
            }
            _write(run, out / one.name, taxonomy=taxonomy, metadata=facts)
        path = out / one.name / _RUN_FILE
        made[one.name] = (
            SubmissionRun(submission=one, problem=problem)
            if problem or run is None
            else SubmissionRun(submission=one, run=run, path=path)
        )
    return list(made.values())


def submission_result(made: SubmissionRun, evaluation: Evaluation | None) -> SubmissionResult:
    """A submission's row of Table 3.

    Args:
        made: What became of it.
        evaluation: Of its run, None where there is none.
    """
    submission, paper = made.submission, made.submission.paper
    return SubmissionResult(
        name=submission.name.upper(),
        description=paper.description if paper else "",
        made_of=submission.made_of,
        paper_map=paper.map if paper else None,
        map=evaluation.map if evaluation else None,
        chance=evaluation.chance if evaluation else None,
        path=str(made.path) if made.path else None,
        problem=made.problem,
    )


def _problem(
    one: Submission,
    made: Mapping[str, SubmissionRun],
    untrained: Mapping[str, str],
    *,
    has_outside: bool,
) -> str | None:
    """Why a submission cannot be made, None if it can."""
    lacking = [name for name in one.ensemble or () if name in untrained]
    if lacking:
        reasons = "; ".join(f"{name.upper()}: {untrained[name]}" for name in lacking[:3])
        more = f"; and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        return f"lacks {len(lacking)} of its {len(one.ensemble or ())} members ({reasons}{more})"
    for part in one.fused_parts:
        if part.run is not None and made[part.run].run is None:
            return f"{part.run.upper()} was not made"
        if part.outside is not None and not has_outside:
            return f"the run of {part.outside} is not given (--outside-run FILE)"
    return None


def _weighted(
    part: FusedPart, made: Mapping[str, SubmissionRun], outside: WeightedRun | None
) -> WeightedRun:
    if part.run is not None:
        return WeightedRun(name=part.run, run=made[part.run].run, weight=part.weight)
    assert outside is not None  # seen to by _problem
    return WeightedRun(name=outside.name, run=outside.run, weight=part.weight)


def _kept_run(folder: Path, made_of: Mapping[str, str]) -> pa.Table | None:
    """The run that is there, if it was made of the same."""
    try:
        run = read_run(folder / _RUN_FILE)
    except DataError:
        return None
    return run if run_metadata(run) == dict(made_of) else None


def _write(
    run: pa.Table,
    folder: Path,
    *,
    taxonomy: Taxonomy,
    metadata: Mapping[str, str],
    seconds: float = 0.0,
) -> None:
    """Write a run's files; they appear at once, so that what is there is whole."""
    staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    write_run_files(
        run,
        staging,
        taxonomy=taxonomy,
        tag=folder.name,
        about=TrecvidRun(elapsed_seconds=seconds),
        metadata=metadata,
    )
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)
