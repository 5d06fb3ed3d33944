"""One engine for any network and image: any size, any depth, no seams, no silent NaN."""

import threading
import weakref
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import skimage.data
import torch
from torch import nn

from blurkit.engine import onnx_runner
from blurkit.engine.engine import Canvas, Engine, SizeRequirement, slices, window
from blurkit.engine.torch_runner import (
    LocalMean,
    choose_device,
    choose_precision,
    fold_spectral_norm,
    torch_engine,
    with_local_statistics,
)
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Record
from blurkit.options import Placement, Protocol
from blurkit.systems.msfs.networks import ChannelAttention, MSFSNet
from blurkit.tasks.deblur import deblur
from blurkit.training.distributed import Processes
from tests.engine.networks import Guide, Hungry, Identity, Overflowing, Pooling, Smooth
from tests.systems.oracle import local_means

PHOTO = (skimage.data.astronaut() / 255).astype(np.float32)
SIZES = [(1, 1), (1, 67), (67, 1), (2, 2), (2, 67), (3, 5), (15, 16), (16, 16), (17, 33), (67, 67)]

# A batch runs at once, as on a GPU; several threads would divide it.
pytestmark = pytest.mark.usefixtures("one_thread")


def engine(network: nn.Module, **options: object) -> Engine:
    """On the CPU in float32, failing on any warning."""
    settings = {"device": "cpu", "precision": "fp32", "tile": 32, "overlap": 8}
    warn: Any = options.pop("warn", pytest.fail)
    return torch_engine(network, Placement(**settings | options), warn)  # type: ignore[arg-type]


@pytest.mark.parametrize("protocol", ["tiles", "slices"])
@pytest.mark.parametrize("requirement", [SizeRequirement(), SizeRequirement(16, 16)])
def test_any_size_comes_back(protocol: Protocol, requirement: SizeRequirement) -> None:
    for tile, overlap in ((16, 0), (32, 8), (64, 32)):
        run = engine(Identity(requirement), tile=tile, overlap=overlap, protocol=protocol)
        for height, width in [*SIZES, (301, 199), (129, 511)]:
            part = PHOTO[:height, :width]
            for image in (part, part[..., :1], part[::-1]):
                np.testing.assert_allclose(run(image), image, atol=1e-6)


@pytest.mark.parametrize("protocol", ["tiles", "slices"])
def test_the_network_sees_its_tile_always(protocol: Protocol) -> None:
    network = Identity(SizeRequirement(32, 16))
    for height, width in [*SIZES, (300, 200)]:
        engine(network, tile=64, protocol=protocol)(PHOTO[:height, :width])
    assert {shape[1:] for shape in network.shapes} == {(3, 64, 64)}


@pytest.mark.parametrize("size", [(301, 199), (64, 200), (97, 40)])
@pytest.mark.parametrize("overlap", [16, 20, 32])
def test_seams_are_invisible(size: tuple[int, int], overlap: int) -> None:
    image = PHOTO[: size[0], : size[1]]
    whole = engine(Smooth(), tile=320, overlap=0)(image)
    tiled = engine(Smooth(), tile=64, overlap=overlap)(image)
    # 4 pixels at a tile's border are wrong, and weigh little: the difference is below what shows.
    assert np.abs(tiled - whole).max() < 1.5 / 255
    assert np.abs(tiled - whole).mean() < 0.02 / 255


@pytest.mark.parametrize("protocol", ["tiles", "slices"])
def test_threads_run_tiles_side_by_side(protocol: Protocol) -> None:
    """The picture is that of one thread to the bit, and too little memory is met as there."""
    seen: dict[int, list[int]] = {}

    class Noting(Smooth):
        def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
            seen.setdefault(threading.get_ident(), []).append(len(image))
            return super().forward(image)

    image = PHOTO[:150, :170]
    alone = engine(Smooth(), protocol=protocol)(image)
    torch.set_num_threads(2)
    assert (engine(Noting(), protocol=protocol)(image) == alone).all()
    counts = [count for own in seen.values() for count in own]
    assert len(seen) > 1 and {*counts} == {1} and torch.get_num_threads() == 2
    with pytest.raises(BlurkitError, match="out of memory even for a tile of"):
        engine(Hungry(0), tile=64, protocol=protocol, warn=lambda text: None)(image)


def test_results_do_not_depend_on_the_batch() -> None:
    image = PHOTO[:150, :170]
    results = []
    for batch in (1, 3, 8, 100):
        for protocol in ("tiles", "slices"):
            run = engine(Smooth(), protocol=protocol)
            run._batch = batch
            results.append(run(image))
    for by_tiles, by_slices in zip(results[::2], results[1::2], strict=True):
        np.testing.assert_allclose(by_tiles, results[0], atol=1e-6)
        np.testing.assert_allclose(by_slices, results[1], atol=1e-6)


def test_gray_runs_as_gray_rgb_and_comes_back_gray() -> None:
    gray = PHOTO[:50, :60, :1]
    as_rgb = engine(Smooth())(np.repeat(gray, 3, axis=2))
    result = engine(Smooth())(gray)
    assert result.shape == gray.shape and result.dtype == np.float32
    np.testing.assert_allclose(result, as_rgb.mean(axis=2, keepdims=True), atol=1e-6)


# -- whole images ----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["whole", "local"])
def test_a_whole_image_is_one_run_at_the_size_the_network_takes(protocol: Protocol) -> None:
    for height, width in [*SIZES, (97, 41), (64, 136)]:
        network = Pooling(SizeRequirement(16, 8))
        image = PHOTO[:height, :width]
        result = engine(network, protocol=protocol)(image)
        assert network.shapes[-1] == (1, 3, *network.size.padded(height, width))
        below, right = network.shapes[-1][2] - height, network.shapes[-1][3] - width
        mode = "reflect" if min(height, width) > 1 else "edge"
        padded = np.pad(image, ((0, below), (0, right), (0, 0)), mode=mode)
        # Of 48 pixels around, half again as much as a tile, or of the whole image.
        means = local_means(padded, (48, 48) if protocol == "local" else (999, 999))
        np.testing.assert_allclose(result, (padded - means)[:height, :width], atol=1e-5)


@pytest.mark.parametrize("protocol", ["tiles", "slices", "whole"])
def test_views_in_any_direction(protocol: Protocol) -> None:
    image = PHOTO[:32, :32]
    run = engine(Identity(), protocol=protocol)
    for view in (image[::-1], image[:, ::-1], image[..., ::-1], image.transpose(1, 0, 2)):
        np.testing.assert_allclose(run(view), view, atol=1e-6)


def test_a_whole_image_that_has_no_room_is_cut() -> None:
    told: list[str] = []
    run = engine(Hungry(100 * 100), protocol="whole", overlap=16, warn=told.append)
    image = PHOTO[:150, :170]
    assert np.abs(run(image) - engine(Smooth(), protocol="whole")(image)).max() < 1.5 / 255
    assert told == ["out of memory; repeating this tile in tiles of 91"]


def test_describe_tells_what_determines_the_result() -> None:
    tiles = {"protocol": "tiles", "tile": 32, "overlap": 8}
    for network, placement, told in (
        (Smooth(), Placement("cpu", "fp32", 32, 8), tiles),
        (Pooling(), Placement("cpu", protocol="whole"), {"protocol": "whole"}),
    ):
        found = torch_engine(network, placement).describe()
        assert found == told | {"precision": "float32", "device": "cpu"}
    slices = torch_engine(Smooth(), Placement("cpu", protocol="slices")).describe()
    assert (slices["precision"], slices["overlap"]) == ("float32", 0)
    local = torch_engine(Pooling(), Placement("cpu", tile=64, protocol="local")).describe()
    assert (local["protocol"], local["tile"], local["precision"]) == ("local", 64, "float32")
    with pytest.raises(UsageError, match="--protocol local: Smooth has no global average pooling"):
        torch_engine(Smooth(), Placement("cpu", protocol="local"))


# -- guides ----------------------------------------------------------------------------------------


def test_a_guide_is_cut_at_the_same_place_at_its_own_scale() -> None:
    """Two by three tiles; the guide leaves 16 pixels below a tile and 128 to its right."""
    guide = PHOTO[:48, :160]
    seen = engine(Guide(), overlap=0)(PHOTO[:64, :96], PHOTO[:5, :5], guide)
    for row, top in enumerate((0, 16)):
        for column, left in enumerate((0, 64, 128)):
            tile = seen[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            np.testing.assert_allclose(tile, guide[top : top + 32, left : left + 32], atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (20, 20), (96, 64)])
def test_an_image_of_one_tile_gets_the_middle_of_its_guide(size: tuple[int, int]) -> None:
    """A small guide is reflected to the tile."""
    height, width = size
    mode = "edge" if min(size) == 1 else "reflect"
    below, right = max(32 - height, 0), max(32 - width, 0)
    whole = np.pad(PHOTO[:height, :width], ((0, below), (0, right), (0, 0)), mode=mode)
    seen = engine(Guide())(PHOTO[:32, :32], PHOTO[:height, :width])
    top, left = ((side - 32) // 2 for side in whole.shape[:2])
    np.testing.assert_allclose(seen, whole[top : top + 32, left : left + 32], atol=1e-6)


def test_gray_images_with_colour_guides_and_the_other_way() -> None:
    gray, colour = PHOTO[:40, :50, :1], PHOTO[:40, :50]
    seen = engine(Guide())(gray, colour)
    np.testing.assert_allclose(seen, colour.mean(axis=2, keepdims=True), atol=1e-6)
    seen = engine(Guide())(colour, gray)
    np.testing.assert_allclose(seen, np.repeat(gray, 3, axis=2), atol=1e-6)


def test_guides_of_tiles_that_are_cut_again_stay_with_them() -> None:
    class HungryGuide(Guide):
        def forward(self, image: torch.Tensor, *guides: torch.Tensor) -> torch.Tensor:
            if len(image) * image.shape[2] * image.shape[3] > 80 * 80:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(image, *guides)

    told: list[str] = []
    run = engine(HungryGuide(), tile=128, overlap=16, warn=told.append)
    run._batch = 4
    guide = PHOTO[100:260, 100:290]
    np.testing.assert_allclose(run(PHOTO[:160, :190], guide), guide, atol=1e-6)
    assert any("at a time" in text for text in told) and any("in tiles of" in t for t in told)


# -- numbers that are not finite -------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["tiles", "slices"])
def test_nan_in_low_precision_is_done_again(protocol: Protocol) -> None:
    told: list[str] = []
    bright = PHOTO[:100, :100] * 0 + np.linspace(0, 1, 100, dtype=np.float32)[:, None]
    run = engine(Overflowing(), precision="bf16", warn=told.append, protocol=protocol)
    np.testing.assert_allclose(run(bright), bright, atol=1e-6)
    assert told and all("not finite in bfloat16; repeated in float32" in text for text in told)


def test_nan_in_float32_is_an_error() -> None:
    for precision in ("fp32", "bf16"):
        run = engine(Overflowing(always=True), precision=precision, warn=lambda text: None)
        with pytest.raises(BlurkitError, match="not finite, in float32 too"):
            run(np.ones((20, 20, 3), np.float32))
        assert np.isfinite(run(np.zeros((20, 20, 3), np.float32))).all()


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["tiles", "slices"])
@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_too_large_a_batch_is_halved(protocol: Protocol, kind: type[Exception]) -> None:
    image = PHOTO[:150, :170]
    told: list[str] = []
    run = engine(Hungry(2 * 32 * 32, kind), protocol=protocol, warn=told.append)
    run._batch = 8
    np.testing.assert_allclose(run(image), engine(Smooth(), protocol=protocol)(image), atol=1e-6)
    assert told[0] == "out of memory; continuing with 4 tiles at a time"
    assert told[1] == "out of memory; continuing with 2 tiles at a time"
    assert all("tiles at a time" in text for text in told)


def test_too_large_a_tile_is_cut() -> None:
    image = PHOTO[:150, :170]
    told: list[str] = []
    run = engine(Hungry(90 * 90), tile=128, overlap=16, warn=told.append)
    assert np.abs(run(image) - engine(Smooth(), tile=192, overlap=0)(image)).max() < 1.5 / 255
    assert "out of memory; repeating this tile in tiles of 80" in told


def test_no_room_at_all_is_an_error() -> None:
    told: list[str] = []
    with pytest.raises(BlurkitError, match="out of memory even for a tile of"):
        engine(Hungry(0), tile=64, warn=told.append)(PHOTO[:40, :40])
    assert len(told) < 10


def test_memory_running_out_again_in_float32_is_met() -> None:
    class Both(Hungry):
        def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
            if torch.is_autocast_enabled(image.device.type):
                return [image * torch.nan]
            return super().forward(image)

    told: list[str] = []
    run = engine(Both(32 * 32), precision="bf16", warn=told.append)
    run._batch = 4
    image = PHOTO[:60, :60]
    np.testing.assert_allclose(run(image), engine(Smooth())(image), atol=1e-6)
    assert any("repeated in float32" in text for text in told)
    assert any("tiles at a time" in text for text in told)


def test_what_filled_the_memory_is_let_go_before_trying_again() -> None:
    class Keeping(Smooth):
        alive: weakref.ref[torch.Tensor] | None = None

        def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
            if len(image) > 1:
                large = torch.zeros(1000)
                Keeping.alive = weakref.ref(large)
                raise torch.OutOfMemoryError("out of memory")
            assert Keeping.alive is not None and Keeping.alive() is None
            return super().forward(image)

    run = engine(Keeping(), warn=lambda text: None)
    run._batch = 2
    run(PHOTO[:60, :30])


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    with pytest.raises(BlurkitError, match="a bug"):
        engine(Hungry(0, type("Bug", (RuntimeError,), {"__str__": lambda _: "a bug"})))(PHOTO)


# -- options ---------------------------------------------------------------------------------------


def test_wrong_tiles() -> None:
    network = Identity(SizeRequirement(32, 16))
    for tile in (16, 40, 0):
        with pytest.raises(UsageError, match="needs a multiple of 16, at least 32"):
            engine(network, tile=tile)
    for overlap in (-1, 33):
        with pytest.raises(UsageError, match="from 0 to half the tile"):
            engine(network, tile=64, overlap=overlap)


def test_devices_and_precisions() -> None:
    cpu = choose_device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("gpu", "cuda:99", "tpu", "meta"):
        with pytest.raises(UsageError, match=f"--device {name}: "):
            choose_device(name)
    assert choose_precision("bf16", cpu) == torch.bfloat16
    assert choose_precision("auto", cpu) in (torch.float32, torch.bfloat16)
    with pytest.raises(UsageError, match="use auto, fp32, bf16 or fp16"):
        choose_precision("fp8", cpu)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stated", "gpus", "taken"),
    [
        ({}, 4, None),
        ({"LOCAL_RANK": "3"}, 4, 3),
        ({"SLURM_LOCALID": "2"}, 4, 2),
        ({"LOCAL_RANK": "1", "SLURM_LOCALID": "0"}, 4, 1),
        ({"SLURM_LOCALID": "3"}, 1, 0),  # srun --gpus-per-task=1 shows each process its own
        ({"LOCAL_RANK": "5"}, 4, 1),  # more processes than GPUs
    ],
)
def test_each_process_of_a_machine_takes_its_own_gpu(
    stated: dict[str, str], gpus: int, taken: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in stated.items():
        monkeypatch.setenv(name, value)
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    for name in ("auto", "cuda"):
        assert choose_device(name) == torch.device("cuda", taken)
    assert current == ([] if taken is None else [taken] * 2)
    assert choose_device("cpu").type == "cpu" and choose_device("cuda:0").index == 0

    opened, runtime = Mock(side_effect=ValueError("not ONNX")), onnx_runner.onnxruntime
    monkeypatch.setattr(onnx_runner, "examined", lambda *_: {})
    monkeypatch.setattr(runtime, "InferenceSession", opened)
    monkeypatch.setattr(runtime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus))))
    given = {} if taken is None else {"device_id": taken}
    for name, options in {"auto": given, "cuda:3": {"device_id": 3}}.items():
        with pytest.raises(BlurkitError, match="damaged, or not an ONNX file"):
            onnx_runner.OnnxRunner(Path(__file__), name)
        assert opened.call_args.kwargs["provider_options"] == [options, {}]


def test_more_processes_than_gpus_cannot_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="2 processes cannot train on 1 GPU"):
        Processes(torch.device("cuda", 0))


def test_folding_spectral_norm_changes_no_bit() -> None:
    torch.manual_seed(1)
    norm = nn.utils.spectral_norm
    inner = nn.Sequential(norm(nn.Conv2d(8, 4, 3)), nn.Conv2d(4, 3, 1))
    network = nn.Sequential(norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), inner)
    image = torch.rand(2, 3, 20, 20)
    network(image)  # one power iteration
    network.eval()
    before = network(image)
    folded = fold_spectral_norm(network)
    assert torch.equal(folded(image), before)
    assert not any("weight_orig" in key for key in folded.state_dict())
    assert torch.equal(fold_spectral_norm(folded)(image), before)


# -- records ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_deblur_keeps_depth_and_everything_else(dtype: type, channels: int) -> None:
    top = 1 if dtype == np.float32 else np.iinfo(dtype).max
    blur = np.clip(np.rint(PHOTO[:40, :50, :channels] * top), 0, top).astype(dtype)
    record = Record("a", {"blur": blur, "sharp": blur[::-1]}, {"sequence": "s"})
    run = engine(Identity())
    run.name = "weights.pt"
    again = deblur(record, run)
    assert again.images["restored"].dtype == dtype
    np.testing.assert_array_equal(again.images["restored"], blur)
    assert list(again.images) == ["blur", "sharp", "restored"]
    assert again.attrs["sequence"] == "s" and again.attrs["restored_by"] == "weights.pt"
    assert again.attrs["restored_seconds"] >= 0
    assert "restored" not in record.images
    told = "protocol=tiles tile=32 overlap=8 precision=float32 device=cpu"
    assert again.attrs["restored_with"] == told


def test_deblur_clamps() -> None:
    class Brighter(Identity):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * 4 - 1

    blur = np.array([[[0, 100, 255]]], np.uint8)
    restored = deblur(Record("a", {"blur": blur}), engine(Brighter())).images["restored"]
    np.testing.assert_array_equal(restored, [[[0, 145, 255]]])


# ---- tiles ---------------------------------------------------------------------------------------


def test_the_slices_of_a_gopro_frame() -> None:
    places = slices(720, 1280, 256)
    assert len(places) == 15
    assert sorted({top for top, _ in places}) == [0, 232, 464]
    assert sorted({left for _, left in places}) == [0, 256, 512, 768, 1024]
    assert slices(256, 256, 256) == [(0, 0)]


@pytest.mark.parametrize("overlap", [0, 1, 7, 16])
@pytest.mark.parametrize("tile", [(32, 32), (32, 48), (5, 9)])
def test_windows_fall_only_towards_the_border(tile: tuple[int, int], overlap: int) -> None:
    weights = window(tile, overlap)[:, :, 0]
    assert weights.shape == tile and weights.min() > 0 and weights.max() <= 1
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])
    assert (weights[overlap : tile[0] - overlap, overlap : tile[1] - overlap] == 1).all()
    assert (np.diff(weights[: tile[0] // 2], axis=0) >= 0).all()


def test_a_step_between_tiles_becomes_a_smooth_ramp() -> None:
    canvas = Canvas(32, 56, 1, 8)
    canvas.add(0, 0, np.zeros((32, 32, 1), np.float32))
    canvas.add(0, 24, np.ones((32, 32, 1), np.float32))
    row = canvas.image()[16, :, 0]
    np.testing.assert_allclose(row[24:32], np.sin(np.pi / 18 * np.arange(1, 9)) ** 2, atol=1e-6)
    assert (row[:24] == 0).all() and (row[32:] == 1).all()


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_slices_are_averaged_uniformly(batch: int) -> None:
    seen: list[tuple[int, ...]] = []

    class Numbered(Identity):
        def forward(self, tiles: torch.Tensor) -> torch.Tensor:
            first = sum(shape[0] for shape in seen)
            seen.append(tuple(tiles.shape))
            values = torch.arange(first, first + len(tiles), dtype=torch.float32)
            return tiles * 0 + values[:, None, None, None]

    run = engine(Numbered(), protocol="slices")
    run._batch = batch
    result = run(np.random.default_rng(0).random((70, 50, 3), np.float32))
    total, hits = np.zeros((70, 50)), np.zeros((70, 50))
    for number, (top, left) in enumerate(slices(70, 50, 32)):
        total[top : top + 32, left : left + 32] += number
        hits[top : top + 32, left : left + 32] += 1
    assert all(shape[1:] == (3, 32, 32) and shape[0] <= batch for shape in seen)
    np.testing.assert_allclose(result, (total / hits)[:, :, None].repeat(3, 2), rtol=1e-6)


# ---- local statistics ----------------------------------------------------------------------------


@pytest.mark.parametrize("window", [(5, 9), (8, 6), (40, 7), (99, 99)])
def test_local_means_are_scipys(window: tuple[int, int]) -> None:
    image = skimage.data.coffee()[:40, :52].astype(np.float32)
    means = LocalMean(*window)(torch.from_numpy(image).permute(2, 0, 1)[None])
    found = means[0].permute(1, 2, 0).numpy()
    wanted = local_means(image, window)
    np.testing.assert_allclose(np.broadcast_to(found, wanted.shape), wanted, rtol=2e-5)


@torch.no_grad()
def test_windows_are_half_again_as_large_as_what_a_crop_showed() -> None:
    torch.manual_seed(0)
    network = with_local_statistics(MSFSNet(16, 1, 1, 1), 256)
    windows = {n: m.window for n, m in network.named_modules() if isinstance(m, LocalMean)}
    assert windows == {
        "latent.0.body.3.avg_pool": (96, 96),
        "Decoder.0.layers.0.body.3.avg_pool": (96, 96),
        "Decoder.1.layers.0.body.3.avg_pool": (192, 192),
    }


@torch.no_grad()
def test_only_images_larger_than_the_windows_are_changed() -> None:
    torch.manual_seed(0)
    plain = MSFSNet(16, 1, 1, 1).eval()
    for attention in (m for m in plain.modules() if isinstance(m, ChannelAttention)):
        for parameter in attention.parameters():
            parameter *= 100  # random ones hardly differ between channels
    plain.tail_.weight *= 100
    local = MSFSNet(16, 1, 1, 1).eval()
    local.load_state_dict(plain.state_dict())
    assert with_local_statistics(local, 64) is local
    for attention in (m for m in local.modules() if isinstance(m, ChannelAttention)):
        assert isinstance(attention.avg_pool, LocalMean)
    image = torch.from_numpy(skimage.data.astronaut() / 255).float().permute(2, 0, 1)[None]
    small, large = image[..., :96, :96], image[..., :96, :256]
    torch.testing.assert_close(local(small), plain(small))
    assert (local(large) - plain(large)).abs().max() > 1e-3
    assert list(local.state_dict()) == list(plain.state_dict())
