"""What is seen of a run while it trains: a bar, a line per epoch, TensorBoard, MLflow.

All of it is derived from the history that the first worker writes, so a run that resumes shows the
epochs before as well.
"""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from dsdi_ray.config import Recipe
from dsdi_ray.errors import ResourceError
from dsdi_ray.progress import print_line, progress_bar
from dsdi_ray.storage.filesystems import short_reason
from dsdi_ray.storage.scratch import locked_among_nodes

TENSORBOARD = "tensorboard"
_EXPERIMENT = "dsdi_ray"
_POLL_SECONDS = 0.5
Row = Mapping[str, Any]
Writer = Callable[[Row], None]


@contextlib.contextmanager
def follow(
    recipe: Recipe, history: Path, *, mlflow: str | None = None, on_epoch: Writer | None = None
) -> Iterator[None]:
    """Show and record each epoch of the history as it ends.

    Args:
        recipe: That is trained.
        history: File of the run, which may not be there yet.
        mlflow: A folder or tracking URI where MLflow keeps its runs; None: no MLflow.
        on_epoch: Told each row as well, before it is recorded.

    Raises:
        ResourceError: If MLflow is wanted and not installed.
    """
    is_over = threading.Event()
    with contextlib.ExitStack() as stack:
        # Whoever stops a trial by its epochs is told first: the others write, and may be slow.
        writers: list[Writer] = [] if on_epoch is None else [on_epoch]
        writers.append(stack.enter_context(_tensorboard(history.with_name(TENSORBOARD))))
        if mlflow is not None:
            run_file = history.with_name("mlflow_run")
            writers.append(stack.enter_context(_mlflow(mlflow, recipe, run_file)))
        done = read_history(history)
        for row in done:
            _record(writers, row)
        thread = threading.Thread(
            target=_show, args=(recipe, history, len(done), writers, is_over), daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def read_history(path: Path) -> list[Row]:
    """The epochs of a history file; none where there is no file."""
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def _show(
    recipe: Recipe, history: Path, num_done: int, writers: Sequence[Writer], over: threading.Event
) -> None:
    with progress_bar(
        total=recipe.epochs, description=f"Training {recipe.name}", unit="epoch", initial=num_done
    ) as bar:
        while True:
            leaving = over.wait(_POLL_SECONDS)
            for row in read_history(history)[num_done:]:
                num_done += 1
                _record(writers, row)
                print_line(_line(recipe, row))
                bar.update(1)
            if leaving:
                return


def _record(writers: Sequence[Writer], row: Row) -> None:
    for write in writers:
        write(row)


def _line(recipe: Recipe, row: Row) -> str:
    facts = [
        f"{label} {row[key]:.3f}" if row.get(key) is not None else f"{label} -"
        for key, label in (
            ("train_loss", "loss"),
            ("validation_loss", "validation"),
            ("lrap", "LRAP"),
            ("map", "mAP"),
        )
        if key in row
    ]
    place = f"{recipe.name} {row['epoch']:>{len(str(recipe.epochs))}}/{recipe.epochs}"
    speed = f"{row['images_per_second']:,.0f} images/s  {row['seconds']:.1f} s"
    return f"{place}  {'  '.join(facts)}  {speed}"


@contextlib.contextmanager
def _tensorboard(folder: Path) -> Iterator[Writer]:
    shutil.rmtree(folder, ignore_errors=True)  # written anew from the history
    with SummaryWriter(str(folder)) as events:

        def write(row: Row) -> None:
            for name, value in _scalars(row):
                events.add_scalar(name, value, row["epoch"])

        yield write


@contextlib.contextmanager
def _mlflow(place: str, recipe: Recipe, run_file: Path) -> Iterator[Writer]:
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise ResourceError(
            "MLflow was asked for and is not installed: pip install mlflow"
        ) from error
    folder = None
    if "://" not in place:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else newer ones refuse folders
        folder = Path(place).resolve()
        place = folder.as_uri()
    client = MlflowClient(tracking_uri=place)
    if run_file.is_file():
        run_id = run_file.read_text("utf-8")
    else:
        run_id = client.create_run(_experiment(client, folder), run_name=recipe.name).info.run_id
        client.log_dict(run_id, recipe.model_dump(mode="json"), "recipe.yaml")
        run_file.write_text(run_id, "utf-8")
    num_logged = len(client.get_metric_history(run_id, "train_loss"))
    is_lost = False

    def attempt(call: Callable[[], object]) -> None:
        """What MLflow refuses ends no training. It has tried again for minutes: it is left alone."""
        nonlocal is_lost
        if is_lost:
            return
        try:
            call()
        except Exception as error:
            is_lost = True
            print_line(
                f"{recipe.name}: MLflow at {place} records no further epochs: {short_reason(error)}"
            )

    def log(row: Row) -> None:
        for name, value in _scalars(row):
            client.log_metric(run_id, name, value, step=row["epoch"])

    def write(row: Row) -> None:
        if row["epoch"] > num_logged:
            attempt(lambda: log(row))

    yield write
    attempt(lambda: client.set_terminated(run_id))


def _experiment(client: Any, folder: Path | None) -> str:
    """The id of MLflow's experiment; trials that begin together all ask for it."""
    from mlflow.exceptions import MlflowException

    with contextlib.ExitStack() as stack:
        if folder is not None:  # there MLflow would make several of one name
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked_among_nodes(folder / ".dsdi_ray.lock"))
        experiment = client.get_experiment_by_name(_EXPERIMENT)
        if experiment is None:
            try:
                return str(client.create_experiment(_EXPERIMENT))
            except MlflowException:  # another has made it meanwhile
                experiment = client.get_experiment_by_name(_EXPERIMENT)
                if experiment is None:
                    raise
        return str(experiment.experiment_id)


def _scalars(row: Row) -> Iterator[tuple[str, float]]:
    """Names and values of an epoch's metrics, those of classes as ``average_precision/NAME``."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            for inner, one in value.items():
                if one is not None:
                    yield f"{name}/{inner}", one
        elif value is not None and name != "epoch":
            yield name, value
