"""Images that nobody labelled, scored on a real local Ray, become part of a prepared set."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from footage import write_clip
from PIL import Image
from prepared_images import COLOURS, write_coloured_set
from safetensors.torch import save_file

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.index import load_archive
from dsdi_ray.distributed.members import import_member
from dsdi_ray.distributed.pseudo_label import PseudoLabelSummary, pseudo_label_set
from dsdi_ray.distributed.score import score_archive
from dsdi_ray.distributed.train_data import load_pictures
from dsdi_ray.errors import ConfigError, DataError, TaxonomyError
from dsdi_ray.storage.bundles import EnsembleSpec, read_ensemble, write_ensemble
from dsdi_ray.storage.prepared import PreparedSet, labels_matrix
from dsdi_ray.storage.pseudo_plan import PseudoSettings
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.vision.backbones import build_backbone
from dsdi_ray.vision.decode import DecodeSettings
from dsdi_ray.vision.shrink import shrink_to_jpeg

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.usefixtures("local_ray")]
DECODE = DecodeSettings()
NUM_IMAGES = 8


@dataclass(frozen=True)
class Archive:
    """What is given to pseudo-labelling, and what is expected of it.

    Attributes:
        probs: Of the ensemble by image, worked out from the stored logits.
        changed: An image that the ensemble is sure of, of which the file is another by now.
    """

    folder: Path
    manifest: pa.Table
    store: str
    ensemble: EnsembleSpec
    labelled: PreparedSet
    settings: PseudoSettings
    probs: dict[str, np.ndarray]
    changed: str

    def is_sure(self, name: str) -> bool:
        return bool(self.probs[name].max() >= self.settings.confident)

    def add(self, out: Path, **changes) -> PseudoLabelSummary:
        given = {
            "ensemble": self.ensemble,
            "manifest": self.manifest,
            "prepared": self.labelled.path,
            "settings": self.settings,
            "decode_id": DECODE.decode_id,
            "store_uri": self.store,
        }
        return pseudo_label_set(out=out, **(given | changes))


def decided_member(out: Path, *, seed: int) -> Path:
    """A member of random weights whose logits are far from 0."""
    torch.manual_seed(seed)
    weights = build_backbone("test_resnet", num_classes=3).state_dict()
    rng = np.random.default_rng(seed)
    for name, tensor in weights.items():
        if name.startswith("fc."):
            draw = rng.normal(0, 0.3, tuple(tensor.shape)).astype(np.float32)
            tensor.copy_(tensor.new_tensor(draw))
    file = out.with_suffix(".safetensors")
    save_file(weights, file)
    import_member(backbone="test_resnet", weights_file=file, taxonomy=COLOURS, input_px=64, out=out)
    return out


def probabilities(store: str, manifest, ensemble: EnsembleSpec) -> dict[str, np.ndarray]:
    """The weighted mean of the members' sigmoids of each image, by a way of its own."""
    total = sum(m.weight for m in ensemble.members)
    found = {}
    for member in ensemble.members:
        for file in ScoreStore.open(store).logits_files(DECODE.decode_id, [member.member_id]):
            for row in pq.read_table(file, partitioning=None).to_pylist():
                probs = 1 / (1 + np.exp(-np.array(row["logits"], np.float64)))
                content = row["content_id"]
                found[content] = found.get(content, 0) + member.weight / total * probs
    return {
        r["clip_id"]: found[r["content_id"]]
        for r in manifest.to_pylist()
        if r["content_id"] in found
    }


@pytest.fixture(scope="module")
def archive(local_ray, tmp_path_factory) -> Archive:
    """Images that are new, labelled ones, a copy, a clip, and what cannot be read."""
    root = tmp_path_factory.mktemp("archive")
    folder = root / "images"
    folder.mkdir()
    labelled = write_coloured_set(root / "labelled", num_images=12)
    for i, jpeg in enumerate(labelled.read(["jpeg"])["jpeg"].to_pylist()):
        (folder / f"labelled{i}.jpg").write_bytes(jpeg)
    rng = np.random.default_rng(3)
    for i in range(NUM_IMAGES):
        noise = rng.integers(0, 255, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((800, 600)).save(folder / f"new{i}.jpg")
    shutil.copy(folder / "new0.jpg", folder / "new0-copy.jpg")
    (folder / "empty.jpg").touch()
    write_clip(folder / "clip.mp4", seed=0, num_pictures=20)
    members = [(decided_member(root / f"m{i}", seed=i), 1.0 + i) for i in range(2)]
    write_ensemble(members, root / "e")
    ensemble = read_ensemble(root / "e")
    store, manifest = str(root / "scores"), load_archive(str(folder))
    score_archive(manifest, ensemble=ensemble, store_uri=store, settings=DECODE)
    probs = probabilities(store, manifest, ensemble)
    Image.fromarray(noise).resize((80, 60)).save(folder / "late.jpg")
    manifest = load_archive(str(folder))
    # Thresholds between what the images have, so that some are sure of some classes.
    new = np.array([probs[f"new{i}"] for i in range(NUM_IMAGES)])
    highest = np.sort(new.max(axis=1))
    confident = float(highest[2:4].mean())
    others = new[new.max(axis=1) >= confident]
    settings = PseudoSettings(
        confident=confident, reject=float(np.median(others[others < confident]))
    )
    changed = f"new{new.max(axis=1).argmax()}"
    Image.new("RGB", (800, 600)).save(folder / f"{changed}.jpg")
    return Archive(folder, manifest, store, ensemble, labelled, settings, probs, changed)


@pytest.fixture(scope="module")
def enlarged(archive: Archive, tmp_path_factory) -> PseudoLabelSummary:
    return archive.add(tmp_path_factory.mktemp("enlarged") / "set")


def test_images_that_the_ensemble_is_sure_of_are_added_with_its_probabilities(archive, enlarged):
    limits = archive.settings
    sure = [name for i in range(NUM_IMAGES) if archive.is_sure(name := f"new{i}")]
    assert len(sure) == NUM_IMAGES - 3
    sure.remove(archive.changed)
    table = PreparedSet.open(enlarged.out).read().slice(archive.labelled.num_images)
    names = [name.removeprefix("pseudo/") for name in table["image_id"].to_pylist()]
    # Of a file and its copy either may be the first.
    assert [name.removesuffix("-copy") for name in names] == sure
    expected = np.array([archive.probs[name] for name in names])
    np.testing.assert_allclose(labels_matrix(table, "soft_label"), expected, atol=1e-6)
    is_told = (expected >= limits.confident) | (expected <= limits.reject)
    assert (labels_matrix(table, "num_asked") == is_told).all()
    assert not is_told.all()
    assert set(table["split"].to_pylist()) == {"train"}
    assert set(table["pseudo_labelled_by"].to_pylist()) == {archive.ensemble.ensemble_id}


def test_pictures_are_those_that_preparing_makes_and_labelled_ones_stay(archive, enlarged):
    new, labelled = PreparedSet.open(enlarged.out).read(), archive.labelled.read()
    assert new.slice(0, len(labelled)).equals(labelled)
    for row in new.slice(len(labelled)).to_pylist():
        name = row["image_id"].removeprefix("pseudo/")
        content = (archive.folder / f"{name}.jpg").read_bytes()
        assert row["jpeg"] == shrink_to_jpeg(content, short_side_px=512).jpeg
        assert row["height"] == 512


def test_every_image_is_in_the_set_or_counted_with_the_reason(archive, enlarged):
    labelled = [archive.is_sure(f"labelled{i}") for i in range(archive.labelled.num_images)]
    assert any(labelled), "and yet none of them is added"
    assert enlarged.left_out == {
        "clips that are no still image": 1,
        "that could not be read when they were indexed": 1,
        "not scored by every member (run `dsdi score`)": 1,
        "copies of another image of the archive": 1,
        "no class is surely present (see --confident)": 3 + labelled.count(False),
        "labelled already: the same file or picture": labelled.count(True),
        "cannot be read": 1,
    }
    assert sum(enlarged.left_out.values()) + enlarged.num_pseudo_labelled == len(archive.manifest)
    report = PreparedSet.open(enlarged.out).report["pseudo_labels"]
    assert report["left_out"] == enlarged.left_out
    assert sum(report["classes"]["red"].values()) == enlarged.num_pseudo_labelled


def test_an_image_that_changed_since_it_was_scored_is_not_added(archive, enlarged):
    (lost,) = PreparedSet.open(enlarged.out).report["pseudo_labels"]["unreadable_images"]
    assert lost["image_id"] == f"pseudo/{archive.changed}"
    assert "changed since it was indexed" in lost["reason"]


def test_a_set_that_is_complete_is_not_made_again(archive, enlarged):
    again = archive.add(enlarged.out)
    assert again.reused
    assert again.prepared_id == enlarged.prepared_id
    assert again.left_out == enlarged.left_out
    with pytest.raises(DataError, match="the new one needs another folder"):
        archive.add(archive.labelled.path)


def test_a_dry_run_says_what_there_is_to_do_and_writes_nothing(archive, tmp_path):
    summary = archive.add(tmp_path / "set", dry_run=True)
    assert summary.num_to_do == summary.num_pseudo_labelled
    assert summary.prepared_id is None
    assert 0 < summary.estimated_seconds < 100
    assert not list(tmp_path.iterdir())


def test_what_the_ensemble_is_unsure_of_stays_out_of_the_loss(archive, enlarged):
    recipe = Recipe.model_validate(
        {
            "name": "student",
            "backbone": {"name": "test_resnet", "weights": "none"},
            "input_px": 32,
            "labels": {"masked": True},
            "batch_size": 4,
            "epochs": 1,
            "split_seed": 1,
        }
    )
    new = PreparedSet.open(enlarged.out)
    train, validation = load_pictures(new, recipe)
    is_pseudo = np.array([name.startswith("pseudo/") for name in train.image_ids])
    assert is_pseudo.sum() == enlarged.num_pseudo_labelled
    assert not any(name.startswith("pseudo/") for name in validation.image_ids)
    assert train.is_asked[~is_pseudo].all()
    asked = labels_matrix(new.read(["num_asked"]), "num_asked")[archive.labelled.num_images :] > 0
    assert train.is_asked[is_pseudo].tolist() == asked.tolist()
    by_answers = recipe.model_copy(
        update={"labels": recipe.labels.model_copy(update={"encoding": "majority"})}
    )
    with pytest.raises(ConfigError, match=r"4 pseudo-labelled images .*labels.encoding=paper"):
        load_pictures(new, by_answers)


def test_images_whose_logits_are_lost_are_left_out_and_counted(archive, tmp_path):
    store = shutil.copytree(archive.store, tmp_path / "scores")
    for part in store.glob(f"logits/*/member_id={archive.ensemble.members[0].member_id}/*"):
        rows = pq.read_table(part, partitioning=None)
        pq.write_table(rows.slice(1), part)
    told = archive.add(tmp_path / "set", store_uri=str(store), dry_run=True)
    assert told.left_out["its logits are lost (see `dsdi store verify`)"] >= 1


def test_taxonomies_are_never_mixed(archive, tmp_path):
    from dsdi_ray.taxonomy import load_taxonomy

    other = ScoreStore.open_or_create(str(tmp_path / "scores"), load_taxonomy("ladi_v2a"))
    with pytest.raises(TaxonomyError, match="cannot be mixed"):
        pseudo_label_set(
            other.uri,
            ensemble=archive.ensemble,
            manifest=archive.manifest,
            prepared=archive.labelled.path,
            out=tmp_path / "set",
            decode_id=DECODE.decode_id,
            settings=archive.settings,
        )
