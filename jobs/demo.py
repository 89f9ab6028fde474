"""The whole system on a synthetic archive, from crowd answers to an evaluated run.

Run it with ``dsdi demo``, with ``python jobs/demo.py``, or on a cluster::

    ray job submit --working-dir . -- python jobs/demo.py --out /shared/demo

Every stage is the real one and can be run by itself with the command named beside it. Stages that
are complete are not done again, so a demo that was cut off goes on where it stopped.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dsdi_ray.cli.job import say_stage
from dsdi_ray.cli.output import print_facts, print_table
from dsdi_ray.cli.scoring_output import print_score_summary
from dsdi_ray.config import load_recipe
from dsdi_ray.distributed.contact_sheet import write_contact_sheet
from dsdi_ray.distributed.demo_archive import make_archive
from dsdi_ray.distributed.index import index_archive, load_archive
from dsdi_ray.distributed.prepare import prepare_set
from dsdi_ray.distributed.rank import rank_archive, rank_systems
from dsdi_ray.distributed.score import score_archive
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.distributed.train_members import train_members
from dsdi_ray.errors import DataError
from dsdi_ray.report.evaluation import Evaluation, evaluate_run
from dsdi_ray.report.figures import map_chart
from dsdi_ray.storage.bundles import EnsembleSpec, write_ensemble
from dsdi_ray.storage.runs import write_run_files
from dsdi_ray.storage.trec import read_qrels
from dsdi_ray.taxonomy import load_taxonomy
from dsdi_ray.vision.decode import DecodeSettings

RECIPES = Path(__file__).parent / "recipes"
MEMBERS = ("demo_a", "demo_b")
SETTINGS = DecodeSettings(fps=10.0)


@dataclass(frozen=True, kw_only=True)
class DemoSize:
    """How much is made and learned.

    Attributes:
        num_images: Crowd-labelled images.
        num_clips: Video files.
        epochs: Epochs per member, None for the recipe's.
    """

    num_images: int
    num_clips: int
    epochs: int | None


SIZES = {
    "normal": DemoSize(num_images=920, num_clips=96, epochs=None),
    "tiny": DemoSize(num_images=64, num_clips=6, epochs=1),
}


@dataclass(frozen=True, kw_only=True)
class DemoSummary:
    """What the demo came to.

    Attributes:
        map_by_system: mAP of the ensemble and of each member alone.
        chance: mAP of a random order.
        num_clips: Clips that were ranked.
        num_frames: Frames that were scored.
        seconds: Wall clock.
        contact_sheet: Picture of the best clips.
        run: The ensemble's run.
    """

    map_by_system: dict[str, float]
    chance: float
    num_clips: int
    num_frames: int
    seconds: float
    contact_sheet: str
    run: str


def run(
    *,
    out: Path,
    size: str = "normal",
    clips: Path | None = None,
    seed: int = 0,
    address: str | None = None,
) -> DemoSummary:
    """Prepare, train, ensemble, index, score, rank and evaluate.

    Args:
        out: Folder of all that is made.
        size: A key of :data:`SIZES`.
        clips: A folder of the user's own footage to score with the demo's ensemble as well.
        seed: Seed of the synthetic archive.
        address: A Ray cluster that shares ``out``'s file system; None for a local Ray.

    Raises:
        DataError: If ``clips`` is not there.
    """
    started = time.monotonic()
    if clips is not None and not clips.exists():
        raise DataError(f"{clips}: no such file or folder of footage")
    out = out.resolve()
    scale = SIZES[size]
    taxonomy = load_taxonomy("ladi_v1")

    with ray_session(address=address):
        say_stage("1/7 Render crowd-labelled images and video clips")
        archive = make_archive(
            out / "archive", num_images=scale.num_images, num_clips=scale.num_clips, seed=seed
        )

        say_stage("2/7 Crowd answers -> soft labels (dsdi prepare)")
        prepared = prepare_set(
            archive.answers_tsv,
            images=[archive.images_dir],
            out=out / "prepared",
            taxonomy=taxonomy,
        )

        say_stage("3/7 Train the members (dsdi train)")
        overrides = [f"epochs={scale.epochs}"] if scale.epochs else []
        recipes = [load_recipe(RECIPES / f"{name}.yaml", overrides) for name in MEMBERS]
        train_members(recipes, data=prepared.out, out=out / "members")

        say_stage("4/7 Join them (dsdi ensemble build)")
        members = [(out / "members" / name, 1.0) for name in MEMBERS]
        ensemble = write_ensemble(members, out / "ensemble")

        say_stage("5/7 Index and score the clips (dsdi index, dsdi score)")
        index_archive([str(archive.clips_dir)], out=out / "manifest.parquet")
        manifest = load_archive(str(out / "manifest.parquet"))
        store = str(out / "scores")
        scored = score_archive(manifest, ensemble=ensemble, store_uri=store, settings=SETTINGS)
        print_score_summary(scored, store)

        say_stage("6/7 Rank the clips for each feature and evaluate (dsdi rank, dsdi evaluate)")
        qrels = read_qrels(archive.qrels)
        systems = {"ensemble": ensemble} | {
            name: ensemble.only(i) for i, name in enumerate(MEMBERS)
        }
        rankings = rank_systems(
            store,
            list(systems.values()),
            decode_id=SETTINGS.decode_id,
            clip_ids=manifest["clip_id"],
        )
        evaluations, runs = {}, {}
        for name, ranking in zip(systems, rankings, strict=True):
            runs[name], *_ = write_run_files(
                ranking.run, out / "runs" / name, taxonomy=taxonomy, tag=name
            )
            evaluations[name] = evaluate_run(ranking.run, qrels)
        best = rankings[0]

        say_stage("7/7 Show the best clips")
        evaluation = evaluations["ensemble"]
        sheet, chart = out / "contact_sheet.png", out / "average_precision.png"
        aps = {int(f.feature_id): f.ap for f in evaluation.features}
        write_contact_sheet(
            best.run, manifest, sheet, settings=SETTINGS, qrels=qrels, average_precisions=aps
        )
        map_chart(evaluation, chart)

        own_sheet = None if clips is None else _score_own(clips, out=out, ensemble=ensemble)

    _print_evaluations(evaluations)
    summary = DemoSummary(
        map_by_system={name: e.map for name, e in evaluations.items()},
        chance=evaluations["ensemble"].chance,
        num_clips=best.num_clips,
        num_frames=scored.num_frames,
        seconds=time.monotonic() - started,
        contact_sheet=str(sheet),
        run=str(runs["ensemble"]),
    )
    print_facts(
        "Demo done",
        {
            "contact sheet": summary.contact_sheet,
            "average precision": str(chart),
            "your footage": own_sheet and str(own_sheet),
            "run": summary.run,
            "scores": f"{store}  (try: dsdi outcomes {store})",
            "seconds": summary.seconds,
        },
    )
    return summary


def _score_own(clips: Path, *, out: Path, ensemble: EnsembleSpec) -> Path:
    """Score, rank and show the user's own footage, all of it; gives the contact sheet."""
    say_stage(f"Your own footage: {clips}")
    manifest, store = load_archive(str(clips)), str(out / "own-scores")
    scored = score_archive(manifest, ensemble=ensemble, store_uri=store, settings=SETTINGS)
    print_score_summary(scored, store)
    ranking = rank_archive(
        store, ensemble=ensemble, decode_id=SETTINGS.decode_id, clip_ids=manifest["clip_id"]
    )
    write_run_files(ranking.run, out / "runs" / "own", taxonomy=ensemble.taxonomy, tag="own")
    sheet = out / "own_contact_sheet.png"
    write_contact_sheet(ranking.run, manifest, sheet, settings=SETTINGS)
    return sheet


def _print_evaluations(evaluations: Mapping[str, Evaluation]) -> None:
    """Average precision of every system side by side, best features first, beside chance."""
    by_system = {
        name: {f.feature_id: f.ap for f in evaluation.features}
        for name, evaluation in evaluations.items()
    }
    features = sorted(evaluations["ensemble"].features, key=lambda f: -f.ap)
    rows: list[list[object]] = [
        [f.feature, f.num_rel, *(aps[f.feature_id] for aps in by_system.values()), f.chance]
        for f in features
    ]
    means = [evaluation.map for evaluation in evaluations.values()]
    rows.append(["mAP", "", *means, evaluations["ensemble"].chance])
    print_table(["feature", "relevant clips", *evaluations, "chance"], rows)


if __name__ == "__main__":
    import sys

    from dsdi_ray.cli import main

    sys.argv[1:1] = ["demo"]
    main()
