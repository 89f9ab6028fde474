"""The paper's Tables 2 and 3 anew: its 13 models, its 6 submissions, its figures beside ours.

Try it first, on a made-up archive with tiny networks::

    dsdi reproduce --scale smoke --out smoke-output

On LADI and the task's test shots, with ``dsdi reproduce`` or as a job of a cluster::

    ray job submit --working-dir . -- python jobs/reproduce_paper.py \
        /shared/ladi_aggregated_responses_url.tsv --images s3://anonymous@ladi/Images \
        --clips /shared/dsdi.2020.testing.shots --qrels /shared/qrels.txt \
        --outside-run /shared/niiict.trec --out /shared/paper

Every stage is the real one and can be run by itself with the command named beside it. What is
complete is not done again: the same command goes on after a kill. A model that fails ends neither
the others nor the job; the runs that need it are listed as not made, and why. What the paper leaves
open is said in jobs/recipes, jobs/runs and dsdi_ray/method/README.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from dsdi_ray.cli.scoring_output import print_score_summary
from dsdi_ray.cli.stages import Stages
from dsdi_ray.config import Recipe
from dsdi_ray.distributed.contact_sheet import write_contact_sheet
from dsdi_ray.distributed.index import index_once
from dsdi_ray.distributed.paper_job import PAPER_SETTINGS, Inputs, PaperJob
from dsdi_ray.distributed.paper_models import OUTSIDE, model_result, reason, untrained_models
from dsdi_ray.distributed.prepare import PrepareSummary, prepare_set
from dsdi_ray.distributed.score import ScoreSummary, score_archive
from dsdi_ray.distributed.scoring_pool import scoring_pool
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.distributed.submission_runs import (
    make_submissions,
    rank_all,
    scores_identity,
    submission_result,
)
from dsdi_ray.distributed.train_members import TrainOutcome, train_each
from dsdi_ray.errors import DataError
from dsdi_ray.report.evaluation import Evaluation, evaluate_run
from dsdi_ray.report.figures import map_chart
from dsdi_ray.report.paper_page import ModelResult, StageTime, SubmissionResult, write_paper_page
from dsdi_ray.storage.bundles import EnsembleSpec, write_ensemble
from dsdi_ray.storage.trec import Qrels
from dsdi_ray.taxonomy import Taxonomy

WARNING = (
    "These figures are of a made-up archive and of tiny networks that hardly learned. They show "
    "that every step runs, and must not be compared with the paper's."
)


@dataclass(frozen=True, kw_only=True)
class PaperSummary:
    """What the job came to.

    Attributes:
        page: HTML of all of this.
        warning: Why the figures must not be compared with the paper's, None where they may.
        submissions: Table 3.
        models: Table 2.
        num_clips: Test clips.
        num_clips_failed: Of these, without a frame.
        num_clips_scored: That this start decoded.
        times: Of the stages.
    """

    page: Path
    warning: str | None
    submissions: Sequence[SubmissionResult]
    models: Sequence[ModelResult]
    num_clips: int
    num_clips_failed: int
    num_clips_scored: int
    times: Sequence[StageTime]


def run(job: PaperJob, *, address: str | None = None) -> PaperSummary:
    """Prepare, index, train, score, rank, fuse, evaluate, and write the page.

    Args:
        job: What is to be done.
        address: A Ray cluster that shares the output folder's file system; None for a local Ray.

    Raises:
        UserError: If an input is missing or wrong, or no model at all could be trained.
    """
    out = job.out.resolve()
    job = replace(job, out=out)
    store = str(out / "scores")
    # All that is given is read before anything is trained: a mistake is found now.
    taxonomy, recipes, submissions = job.load_taxonomy(), job.load_recipes(), job.load_submissions()
    if job.inputs is not None:
        job.inputs.read_qrels(taxonomy)
        job.inputs.read_outside(taxonomy)
    stages = Stages(out / "times.json", num_stages=8 if job.smoke else 7)

    with ray_session(address=address):
        if job.smoke:
            with stages.begin("render", "Render a made-up archive"):
                job.make_inputs()
        inputs = job.make_inputs()

        with stages.begin("prepare", "Crowd answers -> soft labels (dsdi prepare)"):
            prepared = prepare_set(
                inputs.answers, images=inputs.images, out=out / "prepared", taxonomy=taxonomy
            )

        with stages.begin("index", "Index the test clips (dsdi index)"):
            manifest = index_once(inputs.clips, out=out / "manifest.parquet")

        with stages.begin("train", f"Train {len(recipes)} members (jobs/train_members.py)"):
            outcomes = train_each(
                recipes, data=prepared.out, out=out / "members", use_gpu=job.use_gpu
            )
            untrained = untrained_models(outcomes, job.models)
            trained = [one.recipe for one in outcomes if one.error is None]
            if not trained:
                why = reason(outcomes[0].error)
                raise DataError(f"no model could be trained; {outcomes[0].recipe}: {why}")

        with stages.begin("score", "Score the clips once by all members (dsdi score)"):
            everything = _write_ensemble(job, "all", trained)
            ensembles = {
                one.name: _write_ensemble(job, one.name, one.ensemble)
                for one in submissions
                if one.ensemble and not untrained.keys() & set(one.ensemble)
            }
            scored = score_archive(
                manifest,
                ensemble=everything,
                store_uri=store,
                settings=PAPER_SETTINGS,
                pool=scoring_pool(use_gpu=job.use_gpu),
            )
            print_score_summary(scored, store)

        with stages.begin("rank", "Rank the clips by every system, in one pass (dsdi rank)"):
            alone = {f"alone/{name}": everything.only(i) for i, name in enumerate(trained)}
            runs = rank_all(
                ensembles | alone,
                out=out / "runs",
                store_uri=store,
                decode_id=PAPER_SETTINGS.decode_id,
                scores_id=scores_identity(manifest, scored),
                clip_ids=manifest["clip_id"],
                taxonomy=taxonomy,
            )

        with stages.begin("fuse", "Fuse runs of several systems (dsdi fuse)"):
            if job.smoke and OUTSIDE in trained:  # from a file, as any other system's run is
                outside_run = out / "runs" / "alone" / OUTSIDE / "run.trec"
                inputs = replace(inputs, outside_run=outside_run)
            made = make_submissions(
                submissions,
                runs,
                untrained=untrained,
                outside=inputs.read_outside(taxonomy),
                normalisation=job.normalisation,
                out=out / "runs",
                taxonomy=taxonomy,
            )
            runs |= {one.submission.name: one.run for one in made if one.run is not None}

        with stages.begin("evaluate", "Evaluate and show the best clips (dsdi evaluate)"):
            qrels = inputs.read_qrels(taxonomy)
            evaluations = {name: evaluate_run(one, qrels) for name, one in runs.items() if qrels}
            of_submissions = {name: e for name, e in evaluations.items() if name not in alone}
            chart = _draw_best(job, of_submissions)
            # Fused runs do not know where scores peaked.
            ranked = {name: runs[name] for name in ensembles}
            sheet = _show_best_clips(job, ranked, manifest, qrels, of_submissions)

    summary = PaperSummary(
        page=out / "paper.html",
        warning=WARNING if job.smoke else None,
        submissions=sorted(
            (submission_result(one, evaluations.get(one.submission.name)) for one in made),
            key=lambda row: -(row.paper_map or 0.0),
        ),
        models=_model_results(outcomes, recipes, members=out / "members", evaluations=evaluations),
        num_clips=scored.num_clips,
        num_clips_failed=scored.num_failed,
        num_clips_scored=scored.num_clips_scored,
        times=_stage_times(stages),
    )
    write_paper_page(
        summary.page,
        warning=summary.warning,
        facts=_facts(job, inputs, taxonomy=taxonomy, prepared=prepared, scored=scored),
        submissions=summary.submissions,
        models=summary.models,
        evaluations={name.upper(): one for name, one in of_submissions.items()},
        chart=chart,
        contact_sheet=sheet,
        times=summary.times,
    )
    return summary


def _model_results(
    outcomes: Sequence[TrainOutcome],
    recipes: Sequence[Recipe],
    *,
    members: Path,
    evaluations: Mapping[str, Evaluation],
) -> list[ModelResult]:
    return [
        model_result(r, o, members=members, evaluation=evaluations.get(f"alone/{r.name}"))
        for r, o in zip(recipes, outcomes, strict=True)
        if r.name != OUTSIDE
    ]


def _stage_times(stages: Stages) -> list[StageTime]:
    return [
        StageTime(stage=name, seconds_now=stages.seconds_now.get(name), seconds_in_all=seconds)
        for name, seconds in stages.seconds_in_all.items()
    ]


def _facts(
    job: PaperJob,
    inputs: Inputs,
    *,
    taxonomy: Taxonomy,
    prepared: PrepareSummary,
    scored: ScoreSummary,
) -> dict[str, object]:
    """What the page says of the data."""
    outside = "of a tiny member of another seed and split" if job.smoke else inputs.outside_run
    return {
        "labelled images": f"{prepared.num_images:,}; each model holds back a fifth of its own",
        "test clips": f"{scored.num_clips:,}: {scored.num_ok:,} scored whole, "
        f"{scored.num_partial:,} in part, {scored.num_failed:,} without a frame",
        "judgements": inputs.qrels or "none were given, so there is no mAP",
        "outside run": outside or "none was given",
        "taxonomy": taxonomy.taxonomy_id,
        "folder": job.out,
    }


def _write_ensemble(job: PaperJob, name: str, models: Sequence[str]) -> EnsembleSpec:
    members = [(job.out / "members" / model, 1.0) for model in models]
    return write_ensemble(members, job.out / "ensembles" / name)


def _draw_best(job: PaperJob, evaluations: Mapping[str, Evaluation]) -> Path | None:
    """A chart of the best submission, None where nothing could be evaluated."""
    if not evaluations:
        return None
    name, best = max(evaluations.items(), key=lambda item: item[1].map)
    where = " (made-up archive)" if job.smoke else ""
    chart = job.out / "average_precision.png"
    title = f"{name.upper()}: mAP {best.map:.3f}, chance {best.chance:.3f}{where}"
    map_chart(best, chart, title=title)
    return chart


def _show_best_clips(
    job: PaperJob,
    runs: Mapping[str, pa.Table],
    manifest: pa.Table,
    qrels: Qrels | None,
    evaluations: Mapping[str, Evaluation],
) -> Path | None:
    """A contact sheet of the best of these runs, None where there is none."""
    if not runs:
        return None
    best = max(runs, key=lambda name: evaluations[name].map if name in evaluations else 0.0)
    features = evaluations[best].features if best in evaluations else ()
    sheet = job.out / "best_clips.png"
    write_contact_sheet(
        runs[best],
        manifest,
        sheet,
        settings=PAPER_SETTINGS,
        qrels=qrels,
        average_precisions={int(f.feature_id): f.ap for f in features},
        title=best.upper(),
    )
    return sheet


if __name__ == "__main__":
    import sys

    from dsdi_ray.cli import main

    sys.argv[1:1] = ["reproduce"]
    main()
