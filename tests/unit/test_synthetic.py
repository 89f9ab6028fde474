"""The synthetic archive: the same for a seed, in LADI's form, and true about what is visible."""

import ast
import csv
import json
import math
from collections import Counter, defaultdict
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from dsdi_ray.errors import DataError
from dsdi_ray.synthetic.annotators import answer, ask_crowd, hire_workers
from dsdi_ray.synthetic.archive import SyntheticArchive, write_synthetic_archive
from dsdi_ray.synthetic.camera import Camera, Pose
from dsdi_ray.synthetic.clips import plan_flight
from dsdi_ray.synthetic.materials import (
    CLASSES_OF,
    MIN_FRACTION,
    Material,
    class_fractions,
    visible_features,
    with_none_classes,
)
from dsdi_ray.synthetic.movers import draw_movers, restore
from dsdi_ray.synthetic.plans import sample_plan
from dsdi_ray.synthetic.scenes import render_scene, render_still
from dsdi_ray.taxonomy import load_taxonomy

SMALL = {
    "num_images": 12,
    "num_clips": 4,
    "image_size": (192, 144),
    "clip_size": (160, 96),
    "clip_seconds": (1.0, 2.0),
}
TAXONOMY = load_taxonomy("ladi_v1")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> SyntheticArchive:
    return write_synthetic_archive(tmp_path_factory.mktemp("synthetic"), **SMALL)


@pytest.fixture(scope="module")
def stills() -> list[dict[str, float]]:
    """Fractions per class of 150 small pictures."""
    fractions = []
    for i in range(150):
        rng = np.random.default_rng([3, i])
        fractions.append(render_still(rng, (160, 120), sample_plan(rng))[1])
    return fractions


def read_truth(archive: SyntheticArchive) -> dict:
    return json.loads((archive.root / "truth.json").read_text())


def read_answers(archive: SyntheticArchive) -> list[tuple[str, str, list[str]]]:
    with archive.answers_tsv.open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert rows[0] == ["url", "WorkerId", "Answer"]
    return [(url, worker, ast.literal_eval(said)) for url, worker, said in rows[1:]]


def decode(path: Path) -> tuple[Fraction, list[np.ndarray]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.average_rate, [f.to_ndarray(format="rgb24") for f in container.decode(stream)]


def test_the_same_seed_gives_the_same_labels_and_pixels(archive, tmp_path):
    again = write_synthetic_archive(tmp_path, **SMALL)
    for name in ("answers.tsv", "qrels.txt", "truth.json"):
        assert (again.root / name).read_bytes() == (archive.root / name).read_bytes()
    for path in sorted(archive.images_dir.iterdir()):
        assert path.read_bytes() == (again.images_dir / path.name).read_bytes()
    first = min(archive.clips_dir.iterdir())
    for ours, theirs in zip(decode(first)[1], decode(again.clips_dir / first.name)[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_another_seed_gives_other_pictures():
    one, _ = render_scene(np.random.default_rng(1), (128, 96))
    two, _ = render_scene(np.random.default_rng(2), (128, 96))
    assert (one != two).mean() > 0.5


def test_a_longer_archive_begins_with_the_shorter_one(archive, tmp_path):
    shorter = write_synthetic_archive(tmp_path, **{**SMALL, "num_images": 5, "num_clips": 0})
    rows = (shorter.root / "answers.tsv").read_text()
    assert (archive.root / "answers.tsv").read_text().startswith(rows)


def test_a_scene_is_a_picture_of_the_asked_size_and_names_classes():
    image, visible = render_scene(np.random.default_rng(0), (200, 120))
    assert image.shape == (120, 200, 3)
    assert image.dtype == np.uint8
    assert image.std() > 10
    assert visible <= set(TAXONOMY.class_names)


def test_every_feature_of_the_taxonomy_can_be_shown_and_has_a_threshold():
    features = {c.name for c in TAXONOMY.features}
    assert {name for names in CLASSES_OF.values() for name in names} == features
    assert set(MIN_FRACTION) == features
    assert set(CLASSES_OF) == set(Material)


def test_150_pictures_show_most_features_with_a_long_tail(stills):
    counts = Counter(name for fractions in stills for name in visible_features(fractions))
    assert len(counts) >= 22
    assert counts["car"] > 20
    assert counts["flooding"] == counts["flooding / water damage"] > 10
    assert sum(1 for c in TAXONOMY.features if counts[c.name] < 15) >= 8


def test_a_category_without_a_visible_feature_gets_its_none_class():
    classes = with_none_classes(frozenset({"car", "grass"}))
    assert classes == {"car", "grass", "damage: none", "infrastructure: none", "water: none"}


def test_fractions_count_the_pixels_of_a_material_for_each_of_its_classes():
    picture = Image.new("L", (10, 10), int(Material.GRASS))
    picture.paste(int(Material.FLOOD), (0, 0, 10, 3))
    fractions = class_fractions(picture)
    assert fractions == {"grass": 0.7, "flooding": 0.3, "flooding / water damage": 0.3}


def test_answers_have_ladis_form_and_every_string_means_a_class(archive):
    rows = read_answers(archive)
    assert rows
    names = {path.name for path in archive.images_dir.iterdir()}
    workers = defaultdict(list)
    for url, worker, said in rows:
        assert url.startswith("https://")
        assert url.rsplit("/", 1)[1] in names
        assert said
        indices = [TAXONOMY.index_of(s) for s in said]
        assert None not in indices
        categories = {TAXONOMY.classes[i].category for i in indices}
        assert len(categories) == 1, "one task asks about one category"
        workers[url, categories.pop()].append(worker)
    for hired in workers.values():
        assert 3 <= len(hired) <= 5
        assert len(set(hired)) == len(hired)
    assert len(workers) < len(names) * len(TAXONOMY.categories), "not every category is asked"


def test_workers_err_but_their_majority_is_mostly_right(stills):
    rng = np.random.default_rng(0)
    workers = hire_workers(rng)
    num_right = num_answers = majority_right = num_labels = 0
    for fractions in stills:
        truth = with_none_classes(visible_features(fractions))
        votes, asked = defaultdict(Counter), Counter()
        for _, said in ask_crowd(rng, workers, fractions):
            names = {TAXONOMY.class_names[TAXONOMY.index_of(s)] for s in said}
            category = next(c.category for c in TAXONOMY.classes if c.name in names)
            votes[category].update(names)
            asked[category] += 1
            num_answers += 1
            num_right += names == {
                c.name for c in TAXONOMY.classes if c.category == category and c.name in truth
            }
        for c in TAXONOMY.classes:
            if asked[c.category]:
                num_labels += 1
                agreed = votes[c.category][c.name] * 2 > asked[c.category]
                majority_right += agreed == (c.name in truth)
    assert 0.4 < num_right / num_answers < 0.9
    assert majority_right / num_labels > 0.95


def test_a_worker_who_sees_nothing_says_none():
    rng = np.random.default_rng(0)
    careful = next(w for w in hire_workers(rng, 200) if w.invent < 0.01)
    assert answer(rng, careful, "vehicle", {"grass": 0.9}) == ["vehicle:none"]


def test_clips_decode_at_the_declared_rate_and_length(archive):
    clips = read_truth(archive)["clips"]
    assert len(clips) == SMALL["num_clips"]
    for clip_id, truth in clips.items():
        rate, frames = decode(archive.clips_dir / f"{clip_id}.mp4")
        assert rate == Fraction(truth["fps"])
        assert len(frames) == truth["num_frames"]
        assert frames[0].shape == (96, 160, 3)
        assert 0.95 < truth["duration_seconds"] < 2.05
        assert truth["duration_seconds"] == pytest.approx(len(frames) / float(rate))
        assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 2, "the camera moves"


def test_qrels_judge_every_clip_for_each_occurring_feature_as_the_truth_has_it(archive):
    clips = read_truth(archive)["clips"]
    relevant = {(c.feature_id, clip): 0 for c in TAXONOMY.features for clip in clips}
    for clip, truth in clips.items():
        for name in truth["features"]:
            relevant[TAXONOMY.classes[TAXONOMY.index_of(name)].feature_id, clip] = 1
    occurring = {feature for (feature, _), rel in relevant.items() if rel}
    lines = [line.split() for line in archive.qrels.read_text().splitlines()]
    judged = {(int(topic), clip): int(rel) for topic, _, clip, rel in lines}
    assert len(judged) == len(lines) == len(occurring) * len(clips)
    assert judged == {key: rel for key, rel in relevant.items() if key[0] in occurring}


def test_a_clips_features_are_those_that_pass_the_threshold_in_a_sampled_frame(archive):
    for truth in read_truth(archive)["clips"].values():
        for name, peak in truth["peak_fractions"].items():
            assert (name in truth["features"]) == (peak >= MIN_FRACTION[name] - 1e-6)
        assert set(truth["first_visible_seconds"]) == set(truth["features"])
        assert max(truth["first_visible_seconds"].values()) < truth["duration_seconds"]


def test_sampled_frames_are_those_on_screen_at_tenths_of_a_second():
    flight = plan_flight(np.random.default_rng(5), (64, 48), (1.0, 1.0))
    frames = flight.sampled_frames()
    for k, index in enumerate(frames):
        assert index / flight.fps <= Fraction(k, 10) < (index + 1) / flight.fps
    assert (
        Fraction(len(frames) - 1, 10) < flight.num_frames / flight.fps <= Fraction(len(frames), 10)
    )


def test_some_features_enter_a_clip_only_late():
    late = 0
    for i in range(8):
        flight = plan_flight(np.random.default_rng([11, i]), (96, 64), (3.0, 6.0))
        at_start, at_end = (
            visible_features(
                class_fractions(flight.camera.see_materials(flight.canvas.materials, pose))
            )
            for pose in (flight.poses[0], flight.poses[-1])
        )
        late += len(at_end - at_start)
    assert late >= 4


def test_movers_leave_the_map_as_it_was():
    num_seen = 0
    for i in range(12):
        flight = plan_flight(np.random.default_rng([8, i]), (96, 64), (1.0, 2.0))
        before = np.array(flight.canvas.rgb), np.array(flight.canvas.materials)
        covered = draw_movers(flight.canvas, flight.movers, 0.2)
        num_seen += bool((np.array(flight.canvas.materials) != before[1]).any())
        restore(flight.canvas, covered)
        np.testing.assert_array_equal(np.array(flight.canvas.rgb), before[0])
        np.testing.assert_array_equal(np.array(flight.canvas.materials), before[1])
    assert num_seen >= 3


def test_colour_and_materials_are_seen_through_the_same_geometry():
    rng = np.random.default_rng(0)
    plan = sample_plan(rng)
    camera = Camera(rng, plan, (80, 60))
    width, height = camera.ground_size
    for tilt in (0.0, 0.8):
        pose = Pose(x=150.0, y=140.0, scale=1.2, angle=0.3, tilt=tilt)
        a, b, c, d, e, f, g, h = pose.coefficients(camera.ground_size)
        x, y = width / 2, height / 2
        assert (a * x + b * y + c) / (g * x + h * y + 1) == pytest.approx(150)
        assert (d * x + e * y + f) / (g * x + h * y + 1) == pytest.approx(140)
        far, near = pose.corners(camera.ground_size)[0::2], pose.corners(camera.ground_size)[1::2]
        ratio = math.dist(*far) / math.dist(*near)
        assert ratio == pytest.approx((1 + tilt / 2) / (1 - tilt / 2))


def test_progress_is_reported_for_each_picture_and_clip(tmp_path):
    seen = []
    write_synthetic_archive(
        tmp_path,
        **{**SMALL, "num_images": 2, "num_clips": 1},
        on_progress=lambda what, done, total: seen.append((what, done, total)),
    )
    assert seen == [("clips", 1, 1), ("images", 1, 2), ("images", 2, 2)]


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"num_images": -1}, "num_images must be at least 0, got -1"),
        ({"seed": -3}, "seed must be at least 0, got -3"),
        ({"image_size": (512, 8)}, "image_size must be at least 32 px a side"),
        ({"clip_size": (481, 272)}, "clip_size must be even"),
        ({"clip_seconds": (5.0, 3.0)}, "clip_seconds must be"),
    ],
)
def test_a_number_out_of_range_is_refused_with_the_rule(tmp_path, wrong, rule):
    with pytest.raises(DataError, match=rule):
        write_synthetic_archive(tmp_path, **{**SMALL, **wrong})


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(DataError, match="cannot write a synthetic archive there"):
        write_synthetic_archive(path, **SMALL)
