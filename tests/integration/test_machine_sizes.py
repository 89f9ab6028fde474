"""A local Ray of any size scores and ranks: no deadlock on one core, none on many."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from footage import make_ensemble, write_clip
from test_cli import ENVIRONMENT

# Ray would start a worker per core at once, of which most would be idle.
NO_IDLE_WORKERS = {"RAY_prestart_worker_first_driver": "0"}
SCRIPT = """
import json, sys
from pathlib import Path
from dsdi_ray.distributed.index import load_archive
from dsdi_ray.distributed.rank import rank_archive
from dsdi_ray.distributed.score import score_archive
from dsdi_ray.distributed.session import ray_session
from dsdi_ray.storage.bundles import read_ensemble
from dsdi_ray.vision.decode import DecodeSettings

footage, bundle, store, num_cpus = sys.argv[1:]
ensemble, settings = read_ensemble(Path(bundle)), DecodeSettings()
with ray_session(num_cpus=int(num_cpus), has_state_api=False) as resources:
    archive = load_archive(footage)
    scored = score_archive(archive, ensemble=ensemble, store_uri=store, settings=settings)
    ranking = rank_archive(store, ensemble=ensemble, decode_id=settings.decode_id)
print(json.dumps([resources.num_cpus, scored.num_ok, ranking.num_clips]))
"""


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.parametrize("num_cpus", [1, 16])
def test_any_number_of_cores_will_do(tmp_path: Path, num_cpus: int) -> None:
    for i in range(3):
        write_clip(tmp_path / "footage" / f"{i}.mp4", seed=i)
    make_ensemble(tmp_path, sizes=(64,))
    result = subprocess.run(
        [
            sys.executable, "-c", SCRIPT, tmp_path / "footage", tmp_path / "ensemble",
            tmp_path / "scores", str(num_cpus),
        ],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**ENVIRONMENT, **NO_IDLE_WORKERS},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == [num_cpus, 3, 3]
