"""`blurkit blind-deblur` as a user runs it: what it writes, refuses, and goes on from."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

import blurkit
from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint, save_checkpoint
from blurkit.io.records import Record
from blurkit.metrics.psnr import psnr
from blurkit.systems import blind_search
from blurkit.systems.blind_search import SavedSearches, TiledSearch, run_searches
from blurkit.systems.kernel_space.search import advance
from blurkit.tasks.deblur import deblur_by_search
from tests.cli.command import Ran, assert_failed, assert_refused, files, piped, records, start
from tests.cli.invoke import assert_each_refused, done, invoke, timeless
from tests.cli.pictures import photo, write
from tests.cli.test_interrupts import end, wait_for
from tests.io.scenes import assert_all_same
from tests.systems.kernel_space.searches import (
    QUICK_CONFIG,
    context,
    kernel_checkpoint,
    search_config,
    shaken,
    style_network,
)
from tests.systems.kernel_space.searches import photo as astronaut
from tests.systems.kernel_space.test_search import KERNEL

pytestmark = pytest.mark.usefixtures("one_thread")

BLIND = ("blind-deblur", "--precision", "fp32")
QUICK: list[object] = ["--config", QUICK_CONFIG, "--iterations", 3]
PLAIN: list[object] = ["--operator", "convolution", "--kernel-size", 5, *QUICK]
SLOW: list[object] = [*PLAIN, "--iterations", 25]
OPTIONS: dict[str, Any] = {"operator": "convolution", "kernel_size": 5}
OPTIONS |= {"prior_width": 8, "warm_up": 1, "iterations": 3}
"""What PLAIN says, for Python."""


def blind(*arguments: object) -> Ran:
    """A blind search in this process."""
    return invoke(*BLIND, *arguments)


def searched(*arguments: object) -> Ran:
    """One that did all it was asked to."""
    return done(*BLIND, *arguments)


def restored(path: Path, *arguments: object) -> np.ndarray:
    """The image that it writes to a file."""
    searched(*arguments, "-o", path)
    return imageio.imread(path)


def recorded(path: Path, *arguments: object) -> Record:
    """The record that it writes to a shard, with the blur it found."""
    searched(*arguments, "--keep-kernel", "-o", path)
    (record,) = records(path)
    return record


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel space with codes of 16 values."""
    path = tmp_path_factory.mktemp("kernel") / "kernel.pt"
    save_checkpoint(kernel_checkpoint(), path)
    return path


# ---- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(200, 330), (64, 65), (1, 3)])
def test_any_size_comes_back(kernel: Path, height: int, width: int) -> None:
    source = write("photo.png", photo(0, height, width))
    (line,) = searched(source, "-c", kernel, *QUICK, "--json").json
    image = imageio.imread("photo.deblurred.png")
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
    assert (line["width"], line["height"], line["iterations"]) == (width, height, 3)
    assert line["objective"] > 0 and line["diverged"] is None


def test_gray_and_16_bits_stay() -> None:
    gray = (photo(0).mean(2) * 257).astype(np.uint16)
    image = restored(Path("out.png"), write("gray.png", gray), *PLAIN)
    assert image.shape == gray.shape and image.dtype == np.uint16
    assert len(np.unique(image % 257)) > 100


def test_large_photos_are_searched_in_tiles(kernel: Path) -> None:
    source, output = write("photo.png", photo(0, 300, 260)), Path("out.h5")
    tiles = ["--tile", 256, "--batch", 4, "--iterations", 1]
    command = [source, "-c", kernel, *QUICK, "-o", output, *tiles]
    searched(*command)
    (record,) = records(output)
    assert record.images["restored"].shape == (300, 260, 3)
    assert "tiles=4" in record.attrs["restored_with"]
    assert_failed(blind(*command, "--keep-kernel", "--force"), "photo", "in 4 tiles", "--tile")


def test_the_record_tells_how_and_keeps_the_blur(kernel: Path, photos: Path) -> None:
    record = recorded(Path("a.h5"), photos / "0.png", "-c", kernel, *QUICK, "--seed", 7)
    assert record.attrs["restored_by"] == "kernel.pt"
    assert "operator=kernel-space" in record.attrs["restored_with"]
    assert "seed=7" in record.attrs["restored_with"]
    assert record.attrs["blind_iterations"] == 3 and record.attrs["blind_objective"] > 0
    assert record.attrs["restored_seconds"] > 0 and "blind_diverged" not in record.attrs
    assert record.attrs["kernel"].shape == (16, 2, 2)
    assert record.attrs["kernel"].dtype == np.float32


def test_a_record_stores_the_configuration_that_repeats_it(photos: Path) -> None:
    constants = search_config(Path(), image_rate=0.02, gradient=[0.01, 0])
    options = [photos / "0.png", *PLAIN, *constants]
    wanted = recorded(Path("4.h5"), *options, "--seed", 4)
    assert wanted.attrs["restored_by"] == "convolution"
    assert wanted.attrs["kernel"].shape == (5, 5)
    assert wanted.attrs["kernel"].sum() == pytest.approx(1, abs=1e-5)
    file = Path("stored.json")
    file.write_text(wanted.attrs["blind_config"])
    assert json.loads(file.read_text())["image_rate"] == 0.02
    found = recorded(Path("again.h5"), photos / "0.png", "--config", file)
    assert_all_same(timeless([wanted]), timeless([found]))
    other = restored(Path("5.png"), *options, "--seed", 5)
    assert not np.array_equal(other, wanted.images["restored"])


def test_python_gives_what_the_command_writes(photos: Path) -> None:
    wanted = recorded(Path("4.h5"), photos / "0.png", *PLAIN, "--seed", 4)
    given = Record(wanted.name, {"blur": wanted.images["blur"]})
    options = OPTIONS | {"seed": 4}
    found = blurkit.load(precision="fp32").blind_deblur(given, keep_kernel=True, **options)
    np.testing.assert_array_equal(found.images["restored"], wanted.images["restored"])
    np.testing.assert_array_equal(found.attrs["kernel"], wanted.attrs["kernel"])
    plain = blurkit.load().blind_deblur(photo(0)[..., 0], **options)
    assert plain.shape == (48, 64) and plain.dtype == np.uint8
    with pytest.warns(UserWarning, match="diverged at iteration"):
        blurkit.load().blind_deblur(photo(0), **options | {"image_rate": 1e30})


def test_strength_mixes(photos: Path) -> None:
    source = photos / "0.png"
    none, half, whole = (
        restored(Path(f"{s}.png"), source, *PLAIN, "--strength", s).astype(float)
        for s in (0, 0.5, 1)
    )
    np.testing.assert_array_equal(none, imageio.imread(source))
    assert np.abs(half - (none + whole) / 2).max() <= 1
    assert np.abs(whole - none).mean() > 2


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_stylegan_makes_the_pictures() -> None:
    generator = Path("stylegan2.pt")  # for images of 64x64
    save_checkpoint(Checkpoint({"generator": style_network().state_dict()}, "stylegan2"), generator)
    fitting = write("in/face.png", photo(0, 64, 64))
    write("in/wide.png", photo(0, 64, 80))
    style = ["--prior", "stylegan", "--generator", generator, "-o", "out/"]
    turns = search_config(Path(), gaussian_samples=1000, image_steps=2, kernel_steps=2)
    ran = blind(fitting.parent, *PLAIN, *style, *turns)
    assert_failed(ran, "wide", "is 80x64", "photos of 64x64")
    face = imageio.imread("out/face.png")
    assert face.shape == (64, 64, 3)
    assert all((line > 0).any() for line in (*face, *face.swapaxes(0, 1)))


# ---- what it leaves on the way -------------------------------------------------------------------


def test_pictures_and_terms_on_the_way(photos: Path) -> None:
    searched(photos, *SLOW, "--save-every", 10, "--log", "log.jsonl", "--batch", 2)
    shown = sorted(path.relative_to(photos).as_posix() for path in photos.glob("*/*"))
    assert shown == [f"{n}.deblurred.blind/{i:05d}.png" for n in range(3) for i in (10, 20)]
    lines = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["name"] == "2"] == [1, 10, 20, 25]
    for line in lines:
        terms = line["charbonnier"] + line["code_norm"] + line["gradient"]
        assert line["objective"] == pytest.approx(terms)
    # They are no inputs of the next run.
    searched(photos, *PLAIN, "--force")
    assert not list(photos.glob("*/*.deblurred.png"))


def test_a_folder_for_the_pictures_of_a_shard(photos: Path) -> None:
    command = [photos, *PLAIN, "-o", "out.h5", "--save-every", 2]
    assert_refused(blind(*command), "--save-to FOLDER", status=2)
    searched(*command, "--save-to", "steps")
    assert sorted(files("steps")) == [f"{n}.blind/00002.png" for n in range(3)]


def test_a_diverged_search_is_told_and_kept(photos: Path) -> None:
    fast = search_config(Path(), image_rate=1e30)
    ran = blind(photos, *PLAIN, "--iterations", 20, *fast, "-o", "out.h5")
    assert_failed(ran, "0, 1, 2", "0: the search diverged at iteration", "smaller image_rate")
    for record in records("out.h5"):
        assert record.attrs["blind_diverged"] >= 1
        assert np.array_equal(record.images["restored"], record.images["blur"])


@pytest.mark.slow
def test_it_runs_in_a_pipe(photos: Path) -> None:
    command = " ".join(map(str, ["blurkit blind-deblur -", *PLAIN, "-o - --quiet"]))
    prepare = "blurkit prepare photos --synthesize shake -o - --jobs 1 --quiet"
    ran = piped(f"{prepare} | {command} | blurkit eval - --json --quiet")
    assert ran.json[-1]["total"]["images"] == 3


# ---- stopped and resumed -------------------------------------------------------------------------


def stopped(number: int, log: Path, *arguments: object, **options: Any) -> tuple[int, str]:
    """Status and errors of a search that gets a signal when it has logged its second photo."""
    process = start(*BLIND, *arguments, "--log", log, "--quiet", **options)
    wait_for(lambda: log.exists() and '"name": "1"' in log.read_text(), 60)
    return end(process, number)


def test_a_stopped_search_of_a_folder_is_continued(photos: Path) -> None:
    options = [*SLOW, *search_config(Path(), average_decay=0.9)]
    whole, out = Path("whole"), Path("out")
    searched(photos, *options, "-o", f"{whole}/")
    command = [photos, *options, "-o", f"{out}/"]
    status, told = stopped(signal.SIGINT, Path("log.jsonl"), *command)
    assert status == 130 and told.splitlines()[-1] == "interrupted"
    assert "continue with --resume" in told and "Traceback" not in told
    assert (out / "0.png").exists() and (out / "1.state.pt").exists()
    assert not (out / "1.png").exists()
    assert_failed(blind(*command, "--seed", 3, "--resume"), "1", "was searched with seed 0 (now 3)")
    (out / "2.png").unlink()
    resumed = searched(*command, "--resume")
    assert "1: resumed at iteration" in resumed.err and "finished already" in resumed.err
    found, wanted = ([imageio.imread(d / f"{n}.png") for n in range(3)] for d in (out, whole))
    np.testing.assert_equal(found, wanted)
    assert not list(out.glob("*.pt"))


@pytest.mark.slow
def test_a_stopped_shard_is_whole_and_continued(photos: Path) -> None:
    whole, out, log = Path("whole.h5"), Path("out.h5"), Path("log.jsonl")
    searched(photos, *SLOW, "--log", log, "-o", whole)
    once = [line.split('"name"')[1] for line in log.read_text().splitlines()]
    log.unlink()
    assert stopped(signal.SIGTERM, log, photos, *SLOW, "-o", out)[0] == 143
    assert [record.name for record in records(out)] == ["0"]
    searched(photos, *SLOW, "--log", log, "-o", out, "--resume")
    assert_all_same(timeless(records(whole)), timeless(records(out)))
    assert [line.split('"name"')[1] for line in log.read_text().splitlines()] == once
    assert not Path("out.state.pt").exists()


@pytest.mark.slow
def test_a_stopped_stream_goes_on_behind_what_was_sent(photos: Path) -> None:
    state, stream = Path("run.pt"), Path("stream.h5")
    command = [photos, *SLOW, "-o", "-", "--state", state]
    with stream.open("wb") as file:
        assert stopped(signal.SIGTERM, Path("log.jsonl"), *command, stdout=file)[0] == 143
    with stream.open("ab") as file:
        assert end(start(*BLIND, *command, "--quiet", "--resume", stdout=file))[0] == 0
    assert [record.name for record in records(stream)] == ["0", "1", "2"]
    assert not state.exists()


# ---- a region ------------------------------------------------------------------------------------

REGION = ["--region", "40,30,64,48"]
MOVES = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]


@pytest.fixture
def source() -> Path:
    """A photo of 200x160."""
    return write("photo.png", photo(0, 160, 200))


def test_the_whole_photo_is_deblurred_by_the_kernel_of_a_region(source: Path) -> None:
    ran = searched(source, *PLAIN, *REGION, "--keep-kernel", "-o", "found.h5", "--json")
    (record,) = records("found.h5")
    assert record.images["restored"].shape == (160, 200, 3)
    assert tuple(record.attrs["blind_region"]) == (40, 30, 64, 48)
    assert "region=40,30,64,48; by its kernel" in record.attrs["restored_with"]
    assert record.attrs["blind_kernel_reproduced"] == record.attrs["blind_reproduced"]
    (line,) = ran.json
    assert (line["width"], line["height"], line["iterations"]) == (200, 160, 3)
    # The search saw the region alone.
    part = write("part/photo.png", photo(0, 160, 200)[30:78, 40:104])
    alone = recorded(Path("cut.h5"), part, *PLAIN)
    np.testing.assert_array_equal(record.attrs["kernel"], alone.attrs["kernel"])
    # What it found is undone everywhere, as the command for known kernels does.
    np.save("kernel.npy", record.attrs["kernel"])
    known = ["--kernel", "kernel.npy", "--gamma", 1, "--precision", "fp32"]
    done("deblur", source, *known, "-o", "known.png")
    np.testing.assert_array_equal(imageio.imread("known.png"), record.images["restored"])
    with pytest.warns(UserWarning, match="reproduce the photo|explains the region"):
        model = blurkit.load(precision="fp32")
        given = model.blind_deblur(record, region=(40, 30, 64, 48), **OPTIONS)
    np.testing.assert_array_equal(given.images["restored"], record.images["restored"])


def test_codes_become_kernels(source: Path, kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blind_search, "NEAREST", replace(blind_search.NEAREST, iterations=2))
    options = ["-c", kernel, *QUICK, "--kernel-size", 5, *REGION]
    warned = search_config(Path(), warn_below=60)
    ran = searched(source, *options, *warned, "--keep-kernel", "-o", "out.png")
    assert "one kernel explains the region with only" in ran.err
    assert "image and blur reproduce the photo with only" in ran.err
    assert imageio.imread("out.png").shape == (160, 200, 3)
    assert imageio.imread("out.blind/kernel.png").shape == (256, 256)


def test_the_kernel_is_shown_beside_the_result(source: Path) -> None:
    command = [source, *PLAIN, *REGION, "--keep-kernel"]
    searched(*command)
    assert imageio.imread("photo.deblurred.blind/kernel.png").shape == (40, 40)
    searched(*command, "-o", "out.h5", "--save-to", "shown")
    assert Path("shown/photo.blind/kernel.png").exists()


def test_a_region_beyond_the_photo_is_reported(source: Path) -> None:
    ran = blind(source, *PLAIN, "--region", "150,0,64,48")
    assert_failed(ran, "photo", "is 200x160, but --region ends at 214,48")


def test_a_search_in_a_region_is_resumed() -> None:
    shared = context(iterations=20, patience=0)
    record = Record("photo", {"blur": astronaut(96, 96)})
    whole, half, rest = (TiledSearch(record, shared, region=(10, 20, 64, 64)) for _ in range(3))
    list(run_searches([whole]))
    half.searches[0].begin()
    for _ in range(12):
        advance(half.searches)
    saved, file = SavedSearches({"region": "10,20,64,64"}), Path("state.pt")
    saved.save(file, [half])
    rest.load_state_dict(saved.load(file).searches["photo"])
    assert rest.iteration == 10  # two of the steps were the warm-up
    list(run_searches([rest]))
    assert torch.equal(*(each.searches[0].found.blur for each in (whole, rest)))
    with pytest.raises(BlurkitError, match="now 1,2,3,4"):
        SavedSearches({"region": "1,2,3,4"}).load(file)


@pytest.mark.slow
def test_the_nearest_kernel_is_the_one_that_blurred() -> None:
    job = TiledSearch(Record("photo", {"blur": astronaut(256, 256)}), context("kernel-space"))
    (search,) = job.searches
    sharp = astronaut(256, 256) / np.float32(255)
    blurry = torch.from_numpy(shaken(sharp, KERNEL).astype(np.float32)).permute(2, 0, 1)[None]
    picture, code = torch.from_numpy(sharp).permute(2, 0, 1)[None], torch.zeros(1, 16, 2, 2)
    search.found, search.photo = replace(search.found, picture=picture, blur=code), blurry
    kernel, reproduced = job.nearest_kernel()
    # The picture was aligned first, which moves the kernel.
    moved = [np.roll(kernel, move, (0, 1)) for move in MOVES]
    assert max(np.corrcoef(each.ravel(), KERNEL.ravel())[0, 1] for each in moved) > 0.9
    assert reproduced > 35


@pytest.mark.slow
def test_the_kernel_of_a_region_sharpens_the_whole_photo() -> None:
    sharp = astronaut(256, 256)
    blurry = np.rint(255 * shaken(sharp, KERNEL).clip(0, 1)).astype(np.uint8)
    rates = {"image_rate": 5e-3, "kernel_rate": 5e-4}
    shared = context(iterations=1200, prior_width=32, patience=0, **rates)
    search = TiledSearch(Record("photo", {"blur": blurry}), shared, region=(64, 64, 128, 128))
    list(run_searches([search]))
    restored = deblur_by_search(search, "test").images["restored"]
    inside = (slice(8, -8), slice(8, -8))
    before, after = (
        max(psnr(np.roll(image, move, (0, 1))[inside], sharp[inside]) for move in MOVES)
        for image in (blurry, restored)
    )
    assert after > before + 0.3, (before, after)  # measured: 28.69 and 29.19 dB
    assert restored.shape == (256, 256, 3)


# ---- wrong input ---------------------------------------------------------------------------------

TOGETHER = "--prior stylegan and --generator FILE require each other"
WRONG = {
    ("--operator", "convolution", "-c", "x.pt"): "takes no checkpoint",
    ("--generator", "x.pt"): TOGETHER,
    ("--prior", "stylegan"): TOGETHER,
    ("--kernel-size", 4): "--kernel-size 4: must be odd",
    ("--operator", "downsampling", "--start-estimate"): "--start-estimate requires --operator "
    "kernel-space or convolution",
    ("--preset", "selfdeblur", "-c", "x.pt"): "takes no checkpoint",
    ("--save-to", "x/"): "--save-to requires --save-every or --keep-kernel",
    ("--operator", "convolution", "--tile", 0): "--tile 0",
    (*PLAIN, "--precision", "fp16"): "--precision fp16",
    (*PLAIN, "--strength", 2): "--strength 2",
    (*PLAIN, "-o", "-", "--resume"): "--state FILE",
    (*PLAIN, "--region", "1,2,3"): "--region 1,2,3: give four numbers of pixels, X,Y,W,H",
    (*PLAIN, "--region", "1,2,3,x"): "--region 1,2,3,x: give four numbers",
    (*PLAIN, "--region", "1,2,0,3"): "width and height must be at least 1",
    (*PLAIN, *REGION, "--tile", 128): "--region is searched without tiles",
    (*PLAIN, *REGION, "--operator", "downsampling"): "--operator downsampling has no kernel",
}


def test_wrong_usage_is_one_line(photos: Path) -> None:
    assert_each_refused(WRONG, "blind-deblur", photos)
    ran = invoke("blind-deblur", photos, *PLAIN, *search_config(Path(), image_rate=-1))
    assert_refused(ran, "search.json: image_rate -1: must be at least 0", status=2)
    wrong = search_config(Path(), first="image")
    assert_refused(invoke("blind-deblur", photos, *PLAIN, *wrong), "'first' is not an option")
    both = search_config(Path(), start_code_file="k.pth")
    ran = invoke("blind-deblur", photos, *both, "--start-estimate")
    assert_refused(ran, "--start-estimate and start_code_file exclude each other", status=2)


def test_the_search_is_no_option_of_deblur(photos: Path) -> None:
    separate = "--blind: the blind search is a separate command, blurkit blind-deblur"
    options = [(), tuple(PLAIN), ("--method", "network")]
    assert_each_refused(dict.fromkeys(options, separate), "deblur", "--blind", photos)
    for command, *options in (
        ("blind-deblur", "--encoder", "--protocol"),
        ("deblur", "--iterations", "--generator", "--start-estimate"),
    ):
        cases = {(option, "x.pt"): f"No such option: {option}" for option in options}
        assert_each_refused(cases, command, photos)


@pytest.mark.usefixtures("no_features")
def test_wrong_files_are_one_line(checkpoint: Path, kernel: Path, photos: Path) -> None:
    command = (photos / "0.png", "-c")
    ran = blind(*command, checkpoint)
    assert_refused(ran, "tiny.pt: holds deblur", "--operator convolution")
    ran = blind(*command, kernel, "--objective", "official")
    assert_refused(ran, "--features FILE", "--objective paper")
    style = blind(*command, kernel, "--prior", "stylegan", "--generator", kernel)
    assert_refused(style, "no StyleGAN generator")
    command += (kernel, *search_config(Path(), start_code_file="code.pth"))
    torch.save(torch.zeros(1, 512, 2, 2), "code.pth")
    assert_refused(blind(*command), "a blur code of 512 values; this kernel space needs 16")
    torch.save({"code": 1}, "code.pth")
    assert_refused(blind(*command), "is not a blur code")
    Path("code.pth").unlink()
    assert_refused(blind(*command), "code.pth: no such file (start_code_file)")


def test_nothing_is_overwritten(photos: Path) -> None:
    image, output, log = photos / "0.png", Path("out.png"), Path("log.jsonl")
    searched(image, *PLAIN, "-o", output, "--log", log)
    assert_failed(blind(image, *PLAIN, "-o", output), "0", "out.png: exists already")
    assert_refused(blind(image, *PLAIN, "-o", "new.png", "--log", log), "log.jsonl: exists already")
    Path("new.state.pt").write_bytes(b"not one")
    assert_failed(blind(image, *PLAIN, "-o", "new.png"), "0", "new.state.pt", "--resume", "--force")
    resumed = blind(image, *PLAIN, "-o", "new.png", "--resume")
    assert_failed(resumed, "0", "new.state.pt: is not a checkpoint")
