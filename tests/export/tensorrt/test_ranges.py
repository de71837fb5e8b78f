"""Profiles agree with each other, with what requests may ask, and with one size for everything."""

from dataclasses import replace

import pytest

from consisid_export.tensorrt.ranges import Range, profiles, relevant, shape_range
from consisid_nano.untrained import configs
from consisid_runtime import signatures as table
from consisid_runtime.models.configs.dit import DiTConfig
from consisid_runtime.models.configs.vae import VAEConfig, decoder_caches
from consisid_runtime.models.local_extractor import LocalExtractorConfig
from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.signatures import DYNAMIC, Port, Signature

PREVIEW = Geometry(frames=49, height=480, width=720, spatial=8, temporal=4, patch=2, fixed_size=False)
LEARNED = replace(PREVIEW, fixed_size=True)
VAE = VAEConfig.from_dict(configs.VAE)
SIZES = {
    **DiTConfig.from_dict(configs.TRANSFORMER).dims,
    **LocalExtractorConfig.from_dict(configs.TRANSFORMER).dims,
    "clip_tokens": 577,
    "clip_size": 336,
    "clip_out": 64,
    "crop": 512,
    "spatial": VAE.spatial,
    "temporal": VAE.temporal,
    "first_chunk": 2 * VAE.temporal + 1,
}
MODULES = [signature.bind(SIZES) for signature in table.networks(decoder_caches(VAE))]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("geometry", [PREVIEW, LEARNED], ids=["free", "learned positions"])
def test_every_dynamic_symbol_has_a_range(geometry: Geometry, dynamic: bool) -> None:
    for profile in profiles(geometry, dynamic=dynamic):
        assert profile.keys() == DYNAMIC.keys()


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_shapes_never_contradict_each_other(module: Signature, dynamic: bool) -> None:
    """Each corner of a profile is what one binding of the symbols gives, for all tensors of a module at once."""
    for profile in relevant(module, profiles(PREVIEW, dynamic=dynamic)):
        for corner, at in enumerate(("minimum", "optimum", "maximum")):
            bound = module.bind({symbol: getattr(extent, at) for symbol, extent in profile.items()})
            for port, fixed in zip(module.inputs, bound.inputs, strict=True):
                assert shape_range(port, profile)[corner] == fixed.shape


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_modules_meet_at_one_size(dynamic: bool) -> None:
    """The transformer counts tokens and the VAE latents; at every corner they mean the same video."""
    for profile in profiles(PREVIEW, dynamic=dynamic):
        for tokens, latents in (("rows", "latent_height"), ("columns", "latent_width")):
            a, b = profile[tokens], profile[latents]
            assert (2 * a.minimum, 2 * a.optimum, 2 * a.maximum) == (b.minimum, b.optimum, b.maximum)


def test_the_static_profile_is_the_checkpoints_own_size() -> None:
    guided, plain = profiles(PREVIEW)
    step = next(module for module in MODULES if module.name == "dit_step")
    assert shape_range(step.inputs[0], guided)[0] == (1, 13, 16, 60, 90)
    assert [extent.minimum for extent in (guided["branches"], plain["branches"])] == [2, 1]
    varying = {symbol for symbol, extent in guided.items() if not extent.static}
    assert varying == {"steps", "image_height", "image_width"}


def test_a_module_gets_each_profile_once() -> None:
    counts = {module.name: len(relevant(module, profiles(PREVIEW))) for module in MODULES}
    assert {name for name, count in counts.items() if count == 2} == {
        "text_encoder",
        "vae_encoder",
        "dit_prepare",
        "dit_step",
    }
    assert max(counts.values()) == 2


@pytest.mark.parametrize(
    "options",
    [{}, {"frames": 9}, {"frames": 97}, {"height": 720, "width": 480}, {"height": 16, "width": 16}, {"guidance": 1.0}],
    ids=str,
)
def test_dynamic_profiles_take_these_requests(options: dict[str, float]) -> None:
    wanted = plan(Options(**options), PREVIEW)  # type: ignore[arg-type]
    sizes = {"frames": wanted.latent_frames, "rows": wanted.rows, "columns": wanted.columns}
    branches = 1 + wanted.guided
    for profile in profiles(PREVIEW, dynamic=True):
        if profile["branches"].minimum == branches:
            assert all(profile[name].minimum <= size <= profile[name].maximum for name, size in sizes.items())


def test_learned_positions_fix_height_and_width() -> None:
    for profile in profiles(LEARNED, dynamic=True):
        assert not profile["frames"].static
        assert all(profile[name].static for name in ("rows", "columns", "latent_height", "latent_width"))


def test_the_largest_tensor_stays_below_what_tensorrt_can_index() -> None:
    """Features of the feed-forward layer, 4·3072 wide, for both branches at the greatest size."""
    greatest = profiles(PREVIEW, dynamic=True)[0]
    tokens = greatest["frames"].maximum * greatest["rows"].maximum * greatest["columns"].maximum + 226
    assert 2 * tokens * 4 * 3072 < 2**31


@pytest.mark.parametrize("sizes", [(0, 1, 1), (2, 1, 3), (1, 4, 3)])
def test_a_range_out_of_order_is_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must rise"):
        Range(*sizes)


def test_a_symbol_without_a_range_is_named() -> None:
    with pytest.raises(KeyError, match="anchors"):
        shape_range(Port("boxes", "FP32", (1, "2*anchors")), profiles(PREVIEW)[0])
