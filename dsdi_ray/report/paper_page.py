"""The page of the paper's tables anew: its figures beside those that were measured here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsdi_ray.report.evaluation import Evaluation
from dsdi_ray.report.page import PageSection, PageTable, write_page


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """A row of Table 2 and what became of it here.

    Attributes:
        model: Its name.
        architecture: The paper's.
        backbone: The network that was trained.
        loss: Family and parameters.
        technique: What else is done, in a few words.
        input_px: Side of the square input.
        epochs: Epochs.
        paper_lrap: On the paper's validation part, None where the paper has none.
        lrap: On the validation part here.
        validation_map: Mean average precision over features there.
        clip_map: Of the model alone on the test clips, None without judgements.
        train_seconds: Of its epochs, over all starts.
        problem: Why there is no member, None if there is one.
    """

    model: str
    architecture: str
    backbone: str
    loss: str
    technique: str
    input_px: int
    epochs: int
    paper_lrap: float | None
    lrap: float | None = None
    validation_map: float | None = None
    clip_map: float | None = None
    train_seconds: float | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class SubmissionResult:
    """A row of Table 3 and what became of it here.

    Attributes:
        name: Its name.
        description: What it is made of, in the paper's words.
        made_of: What it is made of here.
        paper_map: The paper's mAP.
        map: On the test clips here, None without judgements.
        chance: mAP of a random order of these clips.
        path: Its run.parquet.
        problem: Why it was not made, None if it was.
    """

    name: str
    description: str
    made_of: str
    paper_map: float | None
    map: float | None = None
    chance: float | None = None
    path: str | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """What a stage took.

    Attributes:
        stage: Its name.
        seconds_now: Of this start of the job, None if it had nothing to begin.
        seconds_in_all: Of all starts.
    """

    stage: str
    seconds_now: float | None
    seconds_in_all: float


def write_paper_page(
    path: Path,
    *,
    warning: str | None,
    facts: Mapping[str, object],
    submissions: Sequence[SubmissionResult],
    models: Sequence[ModelResult],
    evaluations: Mapping[str, Evaluation],
    chart: Path | None,
    contact_sheet: Path | None,
    times: Sequence[StageTime],
) -> Path:
    """Write the page.

    Args:
        path: HTML file.
        warning: Said at the top and above each table where the figures must not be compared with
            the paper's; None where they may.
        facts: What was measured on, by name.
        submissions: Table 3.
        models: Table 2.
        evaluations: Of each submission that was made and can be evaluated.
        chart: Picture of one submission's average precisions.
        contact_sheet: Picture of its best clips.
        times: Of the stages.
    """
    note = f" {warning}" if warning else ""
    lead = (
        "Tables 2 and 3 of Hitachi at TRECVID DSDI 2020 (Okazaki et al.), made anew: every model "
        "trained, the test clips scored once by all of them, ranked, fused and evaluated."
    )
    sections = [
        PageSection(
            title="What was measured on",
            tables=[
                PageTable(
                    caption="What went in.",
                    columns=["fact", "value"],
                    rows=[[name, value] for name, value in facts.items()],
                )
            ],
        ),
        PageSection(
            title="Submissions (Table 3)",
            text=_submissions_text(warning),
            tables=[_submissions_table(submissions, note)],
        ),
        PageSection(
            title="Models (Table 2)",
            text=_models_text(warning),
            tables=[_models_table(models, note)],
        ),
    ]
    if evaluations:
        sections.append(
            PageSection(
                title="Average precision per feature",
                text="Chance is the expected average precision of a random order of the clips.",
                tables=[_features_table(evaluations, note)],
                figures=[chart] if chart else [],
            )
        )
    if contact_sheet:
        sections.append(
            PageSection(
                title="The best clips",
                text="Each with the frame at which its score peaked.",
                figures=[contact_sheet],
            )
        )
    sections.append(
        PageSection(
            title="Times",
            text="A start that was killed counts up to its last complete stage.",
            tables=[_times_table(times)],
        )
    )
    title = "The paper's tables anew" + (" (smoke test)" if warning else "")
    return write_page(path, title=title, lead=f"{lead}{note}", sections=sections)


def _submissions_text(warning: str | None) -> str:
    if warning:
        return warning
    return (
        "mAP over the judged features, 1000 clips of each. The paper's is on the task's own "
        "judgements; where others are given, or other clips, the two are not of the same task."
    )


def _models_text(warning: str | None) -> str:
    return warning or (
        "LRAP is of each model's own validation part, the paper's as well as ours, and says how "
        "well it learned rather than which model is the best. mAP (clips) ranks the test clips by "
        "the model alone."
    )


def _submissions_table(submissions: Sequence[SubmissionResult], note: str) -> PageTable:
    return PageTable(
        caption=f"Table 3, ours beside the paper's.{note}",
        columns=["submission", "the paper's words", "made of", "mAP, paper", "mAP, ours", "chance",
                 "status"],
        rows=[
            [s.name, s.description, s.made_of, s.paper_map, s.map, s.chance,
             f"not made: {s.problem}" if s.problem else "made"]
            for s in submissions
        ],
    )  # fmt: skip


def _models_table(models: Sequence[ModelResult], note: str) -> PageTable:
    return PageTable(
        caption=f"Table 2, ours beside the paper's.{note}",
        columns=["model", "architecture, paper", "network, ours", "loss", "other techniques",
                 "input", "epochs", "LRAP, paper", "LRAP, ours", "mAP (validation)", "mAP (clips)",
                 "training", "status"],
        rows=[
            [m.model, m.architecture, m.backbone, m.loss, m.technique, f"{m.input_px} px",
             m.epochs, m.paper_lrap, m.lrap, m.validation_map, m.clip_map,
             None if m.train_seconds is None else _clock(m.train_seconds),
             f"failed: {m.problem}" if m.problem else "trained"]
            for m in models
        ],
    )  # fmt: skip


def _features_table(evaluations: Mapping[str, Evaluation], note: str) -> PageTable:
    """Features down, submissions across."""
    by_name = {
        name: {f.feature_id: f.ap for f in evaluation.features}
        for name, evaluation in evaluations.items()
    }
    first = next(iter(evaluations.values()))
    rows: list[list[object]] = [
        [
            f.feature or f.feature_id,
            f.num_rel,
            f.chance,
            *(aps.get(f.feature_id) for aps in by_name.values()),
        ]
        for f in sorted(first.features, key=lambda f: -f.ap)
    ]
    means: list[object] = [evaluation.map for evaluation in evaluations.values()]
    rows.append(["mean", None, first.chance, *means])
    return PageTable(
        caption=f"Average precision of each feature by each submission.{note}",
        columns=["feature", "relevant clips", "chance", *by_name],
        rows=rows,
    )


def _times_table(times: Sequence[StageTime]) -> PageTable:
    rows: list[list[object]] = [
        [
            t.stage,
            None if t.seconds_now is None else _clock(t.seconds_now),
            _clock(t.seconds_in_all),
        ]
        for t in times
    ]
    total = sum(t.seconds_now or 0.0 for t in times)
    rows.append(["all", _clock(total), _clock(sum(t.seconds_in_all for t in times))])
    return PageTable(
        caption="Wall clock of each stage, hours:minutes:seconds.",
        columns=["stage", "this start", "all starts"],
        rows=rows,
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
