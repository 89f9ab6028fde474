"""Scoring and ranking on a real local Ray: nothing lost, nothing done twice, nothing by chance."""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_servers import file_server
from footage import COLOURS, make_ensemble, make_member, write_clip, write_footage

from dsdi_ray.distributed import scoring_pipeline, scoring_trial
from dsdi_ray.distributed.index import load_archive
from dsdi_ray.distributed.members import load_member
from dsdi_ray.distributed.rank import Ranking, rank_archive, rank_systems
from dsdi_ray.distributed.score import ScoreSummary, score_archive
from dsdi_ray.distributed.scoring_pool import ScoringPool, scoring_pool
from dsdi_ray.errors import DataError, ResourceError, TaxonomyError
from dsdi_ray.storage.bundles import EnsembleSpec, read_ensemble, write_ensemble
from dsdi_ray.storage.score_store import ScoreStore
from dsdi_ray.storage.store_compact import compact_store
from dsdi_ray.taxonomy import load_taxonomy
from dsdi_ray.vision.decode import ClipSource, DecodeSettings, FrameChunk
from dsdi_ray.vision.decode_process import DecodeProcess

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
SETTINGS = DecodeSettings(fps=10.0, chunk_frames=8)
ONE_EACH = ScoringPool(
    num_decoders=1, num_scorers=1, use_gpu=False, micro_batch=32
)  # starts soonest


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = write_footage(tmp_path_factory.mktemp("footage"), num_clips=4)
    (folder / "still").mkdir()
    import PIL.Image

    PIL.Image.new("RGB", (300, 200), (200, 30, 30)).save(folder / "still" / "photo.jpg")
    return load_archive(str(folder))


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> EnsembleSpec:
    return make_ensemble(tmp_path_factory.mktemp("members"))


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory, archive: pa.Table, ensemble: EnsembleSpec
) -> str:
    uri = str(tmp_path_factory.mktemp("store") / "scores")
    summary = score_archive(archive, ensemble=ensemble, store_uri=uri, settings=SETTINGS)
    assert (summary.num_clips, summary.num_ok, summary.num_failed) == (7, 5, 2)
    assert summary.estimated_seconds is None, "so small a job is done at once"
    return uri


@pytest.fixture(scope="module")
def large_job(
    tmp_path_factory: pytest.TempPathFactory, archive: pa.Table, ensemble: EnsembleSpec
) -> tuple[str, ScoreSummary, list[tuple[int, float | None]]]:
    """A store that lacks the second member, how it was filled, and what was told before that."""
    uri, told = str(tmp_path_factory.mktemp("large") / "scores"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring_trial, "_SECONDS_PER_CORE", 0.5)
        summary = score_archive(
            archive,
            ensemble=ensemble.only(0),
            store_uri=uri,
            settings=SETTINGS,
            on_plan=lambda plan, _, seconds: told.append((plan.num_pairs_missing, seconds)),
        )
    return uri, summary, told


@pytest.fixture(scope="module")
def ranking(store: str, ensemble: EnsembleSpec) -> Ranking:
    return rank_archive(store, ensemble=ensemble, decode_id=SETTINGS.decode_id)


def logits_by_key(store_uri: str, ensemble: EnsembleSpec) -> dict[tuple[str, str, int], np.ndarray]:
    store = ScoreStore.open(store_uri)
    found = {}
    for member in ensemble.members:
        for file in store.logits_files(SETTINGS.decode_id, [member.member_id]):
            for row in pq.read_table(file, partitioning=None).to_pylist():
                key = (member.member_id, row["content_id"], row["frame_index"])
                found[key] = np.array(row["logits"], np.float32)
    return found


def test_every_clip_has_an_outcome_with_its_reason(store: str) -> None:
    outcomes = {o["clip_id"]: o for o in ScoreStore.open(store).latest_outcomes().to_pylist()}
    assert set(outcomes) == {"clip0", "clip1", "clip2", "clip3", "cut", "empty", "photo"}
    assert outcomes["empty"]["error"] == "the file is empty (0 bytes)"
    assert outcomes["cut"]["status"] == "failed"
    assert outcomes["cut"]["error"]
    assert outcomes["photo"]["decoder"] == "pillow"
    for clip in ("clip0", "clip1", "clip2", "clip3"):
        outcome = outcomes[clip]
        # Two input sizes come of one pass of PyAV; decord resizes to one alone.
        assert (outcome["status"], outcome["decoder"], outcome["error"]) == ("ok", "pyav", None)
        assert outcome["frames_scored"] == outcome["frames_expected"]
    assert outcomes["clip2"]["frames_scored"] == 47  # 140 pictures at 30 fps, sampled at 10 fps


def test_scores_are_those_of_a_plain_loop(
    store: str, archive: pa.Table, ensemble: EnsembleSpec
) -> None:
    stored = logits_by_key(store, ensemble)
    clip = next(row for row in archive.to_pylist() if row["clip_id"] == "clip2")
    sizes = sorted({m.spec.input_px for m in ensemble.members})
    num_checked = 0
    with DecodeProcess(SETTINGS) as process:
        for part in process.decode(ClipSource(uri=clip["uri"]), sizes):
            if not isinstance(part, FrameChunk):
                continue
            for member in ensemble.members:
                network = load_member(Path(member.path))
                expected = network.logits(part.pixels[member.spec.input_px])
                for k, logits in zip(part.frame_indices.tolist(), expected, strict=True):
                    key = (member.member_id, clip["content_id"], k)
                    assert stored[key] == pytest.approx(logits, abs=1e-4)
                    num_checked += 1
    assert num_checked == 2 * 47


def test_scoring_again_scores_nothing(
    store: str, archive: pa.Table, ensemble: EnsembleSpec
) -> None:
    before = ScoreStore.open(store).outcomes()
    again = score_archive(archive, ensemble=ensemble, store_uri=store, settings=SETTINGS)
    assert (again.num_pairs_missing, again.num_clips_scored, again.num_frames) == (0, 0, 0)
    assert (again.num_ok, again.num_failed) == (5, 2)
    assert len(ScoreStore.open(store).outcomes()) == len(before)


def test_a_large_job_tries_a_few_clips_and_says_how_long_it_will_take(
    store: str,
    ensemble: EnsembleSpec,
    large_job: tuple[str, ScoreSummary, list[tuple[int, float | None]]],
) -> None:
    uri, summary, told = large_job
    assert told == [(7, summary.estimated_seconds)]
    assert 0 < summary.estimated_seconds < 60
    outcomes = ScoreStore.open(uri).outcomes()
    assert summary.num_frames == sum(outcomes["frames_scored"].to_pylist()), "of the job alone"
    expected, got = logits_by_key(store, ensemble.only(0)), logits_by_key(uri, ensemble.only(0))
    assert expected.keys() == got.keys()
    assert max(np.abs(expected[key] - got[key]).max() for key in expected) < 1e-4


def test_a_dry_run_writes_no_scores(
    tmp_path: Path, archive: pa.Table, ensemble: EnsembleSpec
) -> None:
    uri = str(tmp_path / "scores")
    summary = score_archive(
        archive, ensemble=ensemble, store_uri=uri, settings=SETTINGS, pool=ONE_EACH, dry_run=True
    )
    assert summary.dry_run
    assert summary.num_pairs_missing == 14
    assert not (tmp_path / "scores").exists()


def test_numbers_of_actors_and_batch_sizes_do_not_change_scores_or_ranks(
    tmp_path: Path, store: str, archive: pa.Table, ensemble: EnsembleSpec, ranking: Ranking
) -> None:
    uri = str(tmp_path / "scores")
    pool = ScoringPool(num_decoders=1, num_scorers=2, use_gpu=False, micro_batch=1)
    score_archive(archive, ensemble=ensemble, store_uri=uri, settings=SETTINGS, pool=pool)
    expected, got = logits_by_key(store, ensemble), logits_by_key(uri, ensemble)
    assert expected.keys() == got.keys()
    assert max(np.abs(expected[key] - got[key]).max() for key in expected) < 1e-4
    other = rank_archive(uri, ensemble=ensemble, decode_id=SETTINGS.decode_id)
    assert ranking.run["clip_id"].to_pylist() == other.run["clip_id"].to_pylist()


def test_a_member_that_is_added_is_scored_alone(
    tmp_path: Path,
    archive: pa.Table,
    ensemble: EnsembleSpec,
    large_job: tuple[str, ScoreSummary, list[tuple[int, float | None]]],
) -> None:
    uri = str(shutil.copytree(large_job[0], tmp_path / "scores"))
    more = score_archive(
        archive, ensemble=ensemble, store_uri=uri, settings=SETTINGS, pool=ONE_EACH
    )
    assert (more.num_pairs_present, more.num_pairs_missing) == (5, 5)
    ranking = rank_archive(uri, ensemble=ensemble, decode_id=SETTINGS.decode_id)
    assert ranking.num_clips == 5


def test_ranking_twice_gives_the_same_run_and_says_what_is_not_ranked(
    store: str, ensemble: EnsembleSpec, ranking: Ranking
) -> None:
    first = ranking
    second = rank_archive(store, ensemble=ensemble, decode_id=SETTINGS.decode_id)
    assert first.run.equals(second.run)
    assert first.num_clips == 5
    assert first.unranked == {"no frame decodes (see `dsdi outcomes`)": 2}
    assert first.run["feature"].unique().to_pylist() == ["red", "green", "blue"]


def test_systems_ranked_in_one_pass_get_the_runs_that_each_gets_alone(
    store: str, ensemble: EnsembleSpec, ranking: Ranking
) -> None:
    systems = [ensemble, ensemble.only(1)]
    together = rank_systems(store, systems, decode_id=SETTINGS.decode_id)
    second = rank_archive(store, ensemble=systems[1], decode_id=SETTINGS.decode_id)
    alone = [ranking, second]
    assert [r.run for r in together] == [r.run for r in alone]
    assert not together[0].run.equals(together[1].run)
    assert [r.num_clips for r in together] == [5, 5]


def test_ranking_lists_the_logits_again_where_a_merge_took_files_away(
    tmp_path: Path,
    store: str,
    ranking: Ranking,
    ensemble: EnsembleSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = str(shutil.copytree(store, tmp_path / "scores"))
    list_logits, num_listings = ScoreStore.logits_files, 0

    def list_and_merge(store: ScoreStore, decode_id: str, member_ids: Iterable[str]) -> list[str]:
        nonlocal num_listings
        num_listings += 1
        listed = list_logits(store, decode_id, member_ids)
        compact_store(store)
        return listed

    monkeypatch.setattr(ScoreStore, "logits_files", list_and_merge)
    merged = rank_archive(uri, ensemble=ensemble, decode_id=SETTINGS.decode_id)
    assert merged.run.equals(ranking.run)
    assert num_listings == 2


def test_max_pooling_is_the_largest_mean_probability_of_any_frame(
    store: str, archive: pa.Table, ensemble: EnsembleSpec, ranking: Ranking
) -> None:
    stored = logits_by_key(store, ensemble)
    clip = next(row for row in archive.to_pylist() if row["clip_id"] == "clip1")
    weights = np.array([m.weight for m in ensemble.members])
    frames = sorted({k for _, content, k in stored if content == clip["content_id"]})
    logits = np.array(
        [[stored[(m.member_id, clip["content_id"], k)] for k in frames] for m in ensemble.members],
        np.float64,
    )
    probs = np.einsum("m,mtc->tc", weights / weights.sum(), 1 / (1 + np.exp(-logits)))
    run = ranking.run
    for c, name in enumerate(COLOURS.class_names):
        (row,) = [r for r in run.to_pylist() if r["feature"] == name and r["clip_id"] == "clip1"]
        assert row["score"] == pytest.approx(probs[:, c].max(), abs=1e-9)
        assert row["peak_seconds"] == pytest.approx(frames[int(probs[:, c].argmax())] / 10)


def test_settings_that_were_never_scored_are_a_clear_error(
    store: str, ensemble: EnsembleSpec
) -> None:
    with pytest.raises(DataError, match="scored under other settings"):
        rank_archive(store, ensemble=ensemble, decode_id=DecodeSettings(fps=3).decode_id)


def test_an_ensemble_of_another_taxonomy_never_meets_the_store(
    tmp_path: Path, store: str, archive: pa.Table
) -> None:
    other = make_member(tmp_path / "m", seed=9, input_px=64, taxonomy=load_taxonomy("ladi_v2a"))
    write_ensemble([(other, 1.0)], tmp_path / "e")
    with pytest.raises(TaxonomyError, match="cannot be mixed"):
        score_archive(
            archive, ensemble=read_ensemble(tmp_path / "e"), store_uri=store, settings=SETTINGS
        )


def test_a_gpu_that_does_not_exist_is_refused_at_once() -> None:
    with pytest.raises(ResourceError, match="Ray sees none"):
        scoring_pool(use_gpu=True)


def test_a_damaged_member_ends_the_job_with_the_reason_before_a_clip_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring_pipeline, "_MAX_ACTOR_INIT_DEATHS", 0)
    clip = write_clip(tmp_path / "web" / "a.mp4", seed=1)
    ensemble = make_ensemble(tmp_path / "members", sizes=[64])
    (Path(ensemble.members[0].path) / "model.safetensors").write_bytes(b"damaged")
    with file_server(clip.parent) as server:
        archive = load_archive(f"{server.url}/{clip.name}")
        server.requests.clear()
        reason = r"^workers cannot start: member bundle .* is not the one that it was made with$"
        with pytest.raises(ResourceError, match=reason):
            score_archive(
                archive,
                ensemble=ensemble,
                store_uri=str(tmp_path / "scores"),
                settings=SETTINGS,
                pool=ONE_EACH,
            )
        assert not server.requests


def test_a_clip_that_changed_is_scored_again(tmp_path: Path, ensemble: EnsembleSpec) -> None:
    uri, clip = str(tmp_path / "scores"), tmp_path / "footage" / "a.mp4"
    single = replace(ensemble, members=ensemble.members[:1])
    write_clip(clip, seed=1)
    given = {"ensemble": single, "store_uri": uri, "settings": SETTINGS, "pool": ONE_EACH}
    score_archive(load_archive(str(clip)), **given)
    before = rank_archive(uri, ensemble=single, decode_id=SETTINGS.decode_id).run
    write_clip(clip, seed=2)
    summary = score_archive(load_archive(str(clip)), **given)
    after = rank_archive(uri, ensemble=single, decode_id=SETTINGS.decode_id).run
    assert summary.num_clips_scored == 1
    assert before["clip_id"].to_pylist() == after["clip_id"].to_pylist()
    assert before["score"].to_pylist() != after["score"].to_pylist()


def test_a_clip_of_which_too_little_decodes_is_left_out_and_counted(
    tmp_path: Path, ensemble: EnsembleSpec
) -> None:
    uri, single = str(tmp_path / "scores"), ensemble.only(0)
    write_clip(tmp_path / "footage" / "whole.ts", seed=1, num_pictures=150)
    hurt = write_clip(tmp_path / "footage" / "hurt.ts", seed=2, num_pictures=150)
    content = bytearray(hurt.read_bytes())
    third = len(content) // 3
    content[third : 2 * third] = bytes(third)
    hurt.write_bytes(content)
    archive = load_archive(str(tmp_path / "footage"))
    score_archive(archive, ensemble=single, store_uri=uri, settings=SETTINGS, pool=ONE_EACH)
    outcomes = {o["clip_id"]: o for o in ScoreStore.open(uri).latest_outcomes().to_pylist()}
    assert outcomes["hurt"]["status"] == "partial"
    assert 0 < outcomes["hurt"]["frames_scored"] < outcomes["hurt"]["frames_expected"]

    everything, covered = (
        rank_archive(uri, ensemble=single, decode_id=SETTINGS.decode_id, min_coverage=least)
        for least in (0.0, 1.0)
    )
    assert (everything.num_clips, covered.num_clips) == (2, 1)
    assert covered.unranked == {"too few of its frames decode (see --min-coverage)": 1}
    assert set(covered.run["clip_id"].to_pylist()) == {"whole"}
