import pytest
from prepared_images import COLOURS, write_coloured_set
from safetensors.torch import save_file

from dsdi_ray.config import Recipe
from dsdi_ray.distributed.members import import_member
from dsdi_ray.distributed.train import train_member
from dsdi_ray.errors import ConfigError
from dsdi_ray.vision.backbones import build_backbone

REFUSED = r"input_px: backbone 'test_vit' cannot take pictures of 100 px; it takes .*128"


@pytest.mark.ray
def test_a_size_that_the_network_cannot_take_is_refused_before_training(local_ray, tmp_path):
    recipe = Recipe.model_validate(
        {"name": "r", "backbone": {"name": "test_vit", "weights": "none"}, "input_px": 100}
    )
    data = write_coloured_set(tmp_path / "prepared").path
    with pytest.raises(ConfigError, match=REFUSED):
        train_member(recipe, data=data, out=tmp_path / "member")
    assert not (tmp_path / "member").exists()


def test_a_size_that_the_network_cannot_take_is_refused_as_a_members(tmp_path):
    weights = tmp_path / "w.safetensors"
    save_file(build_backbone("test_vit", num_classes=len(COLOURS)).state_dict(), weights)
    with pytest.raises(ConfigError, match=REFUSED):
        import_member(
            backbone="test_vit",
            weights_file=weights,
            taxonomy=COLOURS,
            input_px=100,
            out=tmp_path / "member",
        )
