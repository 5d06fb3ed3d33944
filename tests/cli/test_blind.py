"""`blurkit blind-deblur` as a user runs it: what it writes, refuses, and goes on from."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

import blurkit
from blurkit.io.checkpoints import Checkpoint, save_checkpoint
from blurkit.io.records import Record
from tests.cli.command import (
    Ran,
    assert_done,
    assert_failed,
    assert_refused,
    assert_same_records,
    files,
    photo,
    records,
    run,
    shell,
    start,
    write,
)
from tests.cli.invoke import invoke
from tests.cli.test_interrupts import end, wait_for
from tests.systems.kernel_space.searches import (
    QUICK_CONFIG,
    kernel_checkpoint,
    search_config,
    style_network,
)

EXACT: list[object] = ["--precision", "fp32"]
QUICK: list[object] = ["--config", QUICK_CONFIG, "--iterations", 3]
PLAIN: list[object] = ["--operator", "convolution", "--kernel-size", 5, *QUICK]
SLOW: list[object] = [*PLAIN, "--iterations", 25]


def blind(*arguments: object) -> Ran:
    """A blind search in this process, on one thread."""
    return invoke("blind-deblur", *EXACT, *arguments)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel space with codes of 16 values."""
    path = tmp_path_factory.mktemp("kernel") / "kernel.pt"
    save_checkpoint(kernel_checkpoint(), path)
    return path


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A StyleGAN2 for images of 64x64."""
    path = tmp_path_factory.mktemp("generator") / "stylegan2.pt"
    save_checkpoint(Checkpoint({"generator": style_network().state_dict()}, "stylegan2"), path)
    return path


@pytest.fixture
def photos(one_thread: None, tmp_path: Path) -> Path:
    """Three photos of 64x48; torch has one thread, as in the processes that tests start."""
    for number in range(3):
        write(tmp_path / "photos" / f"{number}.png", photo(number))
    return tmp_path / "photos"


# ---- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(200, 330), (64, 65), (1, 3)])
def test_any_size_comes_back(kernel: Path, tmp_path: Path, height: int, width: int) -> None:
    source = write(tmp_path / "photo.png", photo(0, height, width))
    ran = blind(source, "-c", kernel, *QUICK, "--json")
    assert_done(ran)
    restored = imageio.imread(tmp_path / "photo.deblurred.png")
    assert restored.shape == (height, width, 3) and restored.dtype == np.uint8
    (line,) = ran.json
    assert (line["width"], line["height"], line["iterations"]) == (width, height, 3)
    assert line["objective"] > 0 and line["diverged"] is None


def test_gray_and_16_bits_stay(tmp_path: Path) -> None:
    gray = (photo(0).mean(2) * 257).astype(np.uint16)
    source = write(tmp_path / "gray.png", gray)
    assert_done(blind(source, "-o", tmp_path / "out.png", *PLAIN))
    restored = imageio.imread(tmp_path / "out.png")
    assert restored.shape == gray.shape and restored.dtype == np.uint16
    assert len(np.unique(restored % 257)) > 100


def test_large_photos_are_searched_in_tiles(kernel: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "photo.png", photo(0, 300, 260))
    output = tmp_path / "out.h5"
    command = [source, "-c", kernel, *QUICK, "-o", output, "--tile", 256, "--batch", 4]
    assert_done(blind(*command))
    (record,) = records(output)
    assert record.images["restored"].shape == (300, 260, 3)
    assert "tiles=4" in record.attrs["restored_with"]
    refused = blind(*command, "--keep-kernel", "--force")
    assert_failed(refused, "photo", "in 4 tiles", "--tile")


def test_the_record_tells_how_and_keeps_the_blur(kernel: Path, photos: Path) -> None:
    output = photos.parent / "out.h5"
    command = ["--keep-kernel", "-o", output, "--seed", 7]
    assert_done(blind(photos / "0.png", "-c", kernel, *QUICK, *command))
    (record,) = records(output)
    assert record.attrs["restored_by"] == "kernel.pt"
    assert "operator=kernel-space" in record.attrs["restored_with"]
    assert "seed=7" in record.attrs["restored_with"]
    assert record.attrs["blind_iterations"] == 3 and record.attrs["blind_objective"] > 0
    assert record.attrs["restored_seconds"] > 0 and "blind_diverged" not in record.attrs
    assert record.attrs["kernel"].shape == (16, 2, 2)
    assert record.attrs["kernel"].dtype == np.float32
    assert_done(blind(photos / "0.png", *PLAIN, *command, "--force"))
    (record,) = records(output)
    assert record.attrs["restored_by"] == "convolution"
    assert record.attrs["kernel"].shape == (5, 5)
    assert record.attrs["kernel"].sum() == pytest.approx(1, abs=1e-5)


def test_strength_mixes(photos: Path) -> None:
    source, output = photos / "0.png", photos.parent / "out.png"

    def restored(strength: float) -> np.ndarray:
        assert_done(blind(source, *PLAIN, "-o", output, "--force", "--strength", strength))
        return imageio.imread(output).astype(float)

    none, half, whole = (restored(strength) for strength in (0, 0.5, 1))
    np.testing.assert_array_equal(none, imageio.imread(source))
    assert np.abs(half - (none + whole) / 2).max() <= 1
    assert np.abs(whole - none).mean() > 2


def test_a_seed_gives_the_same_file(photos: Path) -> None:
    made = []
    for seed in (0, 0, 1):
        output = photos.parent / f"{len(made)}.png"
        assert_done(blind(photos / "0.png", *PLAIN, "-o", output, "--seed", seed))
        made.append(imageio.imread(output))
    assert np.array_equal(made[0], made[1]) and not np.array_equal(made[0], made[2])


def test_python_gives_what_the_command_writes(photos: Path) -> None:
    output = photos.parent / "out.h5"
    assert_done(blind(photos / "0.png", *PLAIN, "-o", output, "--seed", 4, "--keep-kernel"))
    (wanted,) = records(output)
    options = {"prior_width": 8, "warm_up": 1, "iterations": 3, "kernel_size": 5, "seed": 4}
    given = Record(wanted.name, {"blur": wanted.images["blur"]})
    found = blurkit.load(precision="fp32").blind_deblur(
        given, operator="convolution", keep_kernel=True, **options
    )
    assert np.array_equal(found.images["restored"], wanted.images["restored"])
    assert np.array_equal(found.attrs["kernel"], wanted.attrs["kernel"])
    plain = blurkit.load().blind_deblur(photo(0)[..., 0], operator="convolution", **options)
    assert plain.shape == (48, 64) and plain.dtype == np.uint8
    with pytest.warns(UserWarning, match="diverged at iteration"):
        blurkit.load().blind_deblur(
            photo(0), operator="convolution", **options | {"image_rate": 1e30}
        )


def test_a_record_stores_the_configuration_that_repeats_it(photos: Path) -> None:
    output, again = photos.parent / "out.h5", photos.parent / "again.h5"
    constants = search_config(photos.parent, image_rate=0.02, gradient=[0.01, 0])
    assert_done(blind(photos / "0.png", *PLAIN, *constants, "--seed", 4, "-o", output))
    (wanted,) = records(output)
    file = photos.parent / "stored.json"
    file.write_text(wanted.attrs["blind_config"])
    assert json.loads(file.read_text())["image_rate"] == 0.02
    assert_done(blind(photos / "0.png", "--config", file, "-o", again))
    (found,) = records(again)
    for record in (wanted, found):
        del record.attrs["restored_seconds"]
    assert_same_records([wanted], [found])


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_stylegan_makes_the_pictures(generator: Path, tmp_path: Path) -> None:
    fitting = write(tmp_path / "in/face.png", photo(0, 64, 64))
    write(tmp_path / "in/wide.png", photo(0, 64, 80))
    style = ["--prior", "stylegan", "--generator", generator, "-o", f"{tmp_path}/out/"]
    turns = search_config(tmp_path, gaussian_samples=1000, image_steps=2, kernel_steps=2)
    ran = blind(fitting.parent, *PLAIN, *style, *turns)
    assert_failed(ran, "wide", "is 80x64", "photos of 64x64")
    face = imageio.imread(tmp_path / "out/face.png")
    assert face.shape == (64, 64, 3)
    assert all((line > 0).any() for line in (*face, *face.swapaxes(0, 1)))


# ---- what it leaves on the way -------------------------------------------------------------------


def test_pictures_and_terms_on_the_way(photos: Path) -> None:
    log = photos.parent / "log.jsonl"
    ran = blind(photos, *PLAIN, "--iterations", 25, "--save-every", 10, "--log", log, "--batch", 2)
    assert_done(ran)
    shown = sorted(path.relative_to(photos).as_posix() for path in photos.glob("*/*"))
    assert shown == [f"{n}.deblurred.blind/{i:05d}.png" for n in range(3) for i in (10, 20)]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines if line["name"] == "2"] == [1, 10, 20, 25]
    for line in lines:
        terms = line["charbonnier"] + line["code_norm"] + line["gradient"]
        assert line["objective"] == pytest.approx(terms)
    # They are no inputs of the next run.
    assert_done(blind(photos, *PLAIN, "--force"))
    assert not list(photos.glob("*/*.deblurred.png"))


def test_a_folder_for_the_pictures_of_a_shard(photos: Path) -> None:
    output, folder = photos.parent / "out.h5", photos.parent / "steps"
    refused = blind(photos, *PLAIN, "-o", output, "--save-every", 2)
    assert_refused(refused, "--save-to FOLDER", status=2)
    command = [photos, *PLAIN, "-o", output, "--save-every", 2, "--save-to", folder]
    assert_done(blind(*command))
    assert sorted(files(folder)) == [f"{n}.blind/00002.png" for n in range(3)]


def test_a_diverged_search_is_told_and_kept(photos: Path) -> None:
    output = photos.parent / "out.h5"
    fast = search_config(photos.parent, image_rate=1e30)
    ran = blind(photos, *PLAIN, "--iterations", 20, *fast, "-o", output)
    assert_failed(ran, "0, 1, 2", "0: the search diverged at iteration", "smaller image_rate")
    for record in records(output):
        assert record.attrs["blind_diverged"] >= 1
        assert np.array_equal(record.images["restored"], record.images["blur"])


def test_it_runs_in_a_pipe(photos: Path) -> None:
    command = " ".join(map(str, ["blurkit blind-deblur -", *PLAIN, "-o - --quiet"]))
    ran = shell(
        "blurkit prepare photos --synthesize shake -o - --jobs 1 --quiet | "
        f"{command} | blurkit eval - --json --quiet",
        photos.parent,
    )
    assert_done(ran)
    assert ran.json[-1]["total"]["images"] == 3


# ---- stopped and resumed -------------------------------------------------------------------------


def test_a_stopped_search_of_a_folder_is_continued(photos: Path, tmp_path: Path) -> None:
    options = [*SLOW, *search_config(tmp_path, average_decay=0.9)]
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert_done(blind(photos, *options, "-o", f"{whole}/"))
    command = [photos, *options, "-o", f"{out}/"]
    process = start("blind-deblur", *command, *EXACT, "--save-every", 10, "--quiet")
    wait_for(lambda: (out / "1.blind/00010.png").exists(), 60)
    process.send_signal(signal.SIGINT)
    status, told = end(process)
    assert status == 130 and told.splitlines()[-1] == "interrupted"
    assert "continue with --resume" in told and "Traceback" not in told
    assert (out / "0.png").exists() and (out / "1.state.pt").exists()
    assert not (out / "1.png").exists()
    (out / "1.blind/00010.png").unlink()
    other = blind(*command, "--seed", 3, "--resume")
    assert_failed(other, "1", "was searched with seed 0 (now 3)")
    (out / "2.png").unlink()
    resumed = blind(*command, "--resume")
    assert_done(resumed)
    assert "1: resumed at iteration" in resumed.err and "finished already" in resumed.err
    for number in range(3):
        wanted, found = (imageio.imread(d / f"{number}.png") for d in (whole, out))
        np.testing.assert_array_equal(found, wanted)
    assert not list(out.glob("*.pt"))


@pytest.mark.slow
def test_a_stopped_shard_is_whole_and_continued(photos: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    options = [*SLOW, "--log", log]
    whole, out = tmp_path / "whole.h5", tmp_path / "out.h5"
    assert_done(blind(photos, *options, "-o", whole))
    once = [line.split('"name"')[1] for line in log.read_text().splitlines()]
    log.unlink()
    process = start("blind-deblur", photos, *options, *EXACT, "-o", out, "--quiet")
    wait_for(lambda: log.exists() and '"name": "1"' in log.read_text(), 60)
    process.send_signal(signal.SIGTERM)
    status, _ = end(process)
    assert status == 143
    assert [record.name for record in records(out)] == ["0"]
    assert_done(blind(photos, *options, "-o", out, "--resume"))
    wanted, found = records(whole), records(out)
    for record in [*wanted, *found]:
        del record.attrs["restored_seconds"]
    assert_same_records(wanted, found)
    assert [line.split('"name"')[1] for line in log.read_text().splitlines()] == once
    assert not (tmp_path / "out.state.pt").exists()


@pytest.mark.slow
def test_a_stopped_stream_goes_on_behind_what_was_sent(photos: Path, tmp_path: Path) -> None:
    options = [*SLOW, *EXACT, "--quiet"]
    state, log = tmp_path / "run.pt", tmp_path / "log.jsonl"
    command = ["blind-deblur", photos, *options, "-o", "-", "--state", state]
    stream = tmp_path / "stream.h5"
    with stream.open("wb") as file:
        process = start(*command, "--log", log, stdout=file)
        wait_for(lambda: log.exists() and '"name": "1"' in log.read_text(), 60)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 143
    with stream.open("ab") as file:
        process = start(*command, "--resume", stdout=file)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert [record.name for record in records(stream)] == ["0", "1", "2"]
    assert not state.exists()


# ---- wrong input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--operator", "convolution", "-c", "x.pt"], "takes no checkpoint"),
        (["--generator", "x.pt"], "--prior stylegan and --generator FILE require each other"),
        (["--prior", "stylegan"], "--prior stylegan and --generator FILE require each other"),
        (["--kernel-size", 4], "--kernel-size 4: must be odd"),
        (
            ["--operator", "downsampling", "--start-estimate"],
            "--start-estimate requires --operator kernel-space or convolution",
        ),
        (["--preset", "selfdeblur", "-c", "x.pt"], "takes no checkpoint"),
        (["--save-to", "x/"], "--save-to requires --save-every or --keep-kernel"),
        (["--operator", "convolution", "--tile", 0], "--tile 0"),
        ([*PLAIN, "--precision", "fp16"], "--precision fp16"),
        ([*PLAIN, "--strength", 2], "--strength 2"),
    ],
)
def test_wrong_usage_is_one_line(photos: Path, options: list[object], words: str) -> None:
    before = files(photos)
    assert_refused(invoke("blind-deblur", photos, *options), words, status=2)
    assert files(photos) == before


def test_a_wrong_config_is_one_line(photos: Path) -> None:
    before = files(photos)
    wrong = search_config(photos.parent, image_rate=-1)
    ran = invoke("blind-deblur", photos, *PLAIN, *wrong)
    assert_refused(ran, "search.json: image_rate -1: must be at least 0", status=2)
    wrong = search_config(photos.parent, first="image")
    assert_refused(invoke("blind-deblur", photos, *PLAIN, *wrong), "'first' is not an option")
    both = search_config(photos.parent, start_code_file="k.pth")
    ran = invoke("blind-deblur", photos, *both, "--start-estimate")
    assert_refused(ran, "--start-estimate and start_code_file exclude each other", status=2)
    assert files(photos) == before


def test_the_search_is_no_option_of_deblur(photos: Path) -> None:
    before = files(photos)
    for options in ([], PLAIN, ["--method", "network"]):
        ran = invoke("deblur", "--blind", photos, *options)
        assert_refused(
            ran, "--blind: the blind search is a separate command", "blind-deblur", status=2
        )
    for option in (["--encoder", "x.pt"], ["--protocol", "slices"]):
        ran = invoke("blind-deblur", photos, *option)
        assert ran.status == 2 and f"No such option: {option[0]}" in ran.err
    for option in (["--iterations", "5"], ["--generator", "x.pt"], ["--start-estimate"]):
        ran = invoke("deblur", photos, *option)
        assert ran.status == 2 and f"No such option: {option[0]}" in ran.err
    assert files(photos) == before


def test_resuming_a_stream_needs_its_state(photos: Path) -> None:
    ran = run("blind-deblur", photos, *PLAIN, "-o", "-", "--resume")
    assert_refused(ran, "--state FILE", status=2)


def test_wrong_files_are_one_line(
    checkpoint: Path, kernel: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("BLURKIT_FEATURES", raising=False)
    image = photos / "0.png"
    assert_refused(
        blind(image, "-c", checkpoint), "tiny.pt: holds deblur", "--operator convolution"
    )
    official = blind(image, "-c", kernel, "--objective", "official")
    assert_refused(official, "--features FILE", "--objective paper")
    style = blind(image, "-c", kernel, "--prior", "stylegan", "--generator", kernel)
    assert_refused(style, "no StyleGAN generator")
    code = tmp_path / "code.pth"
    torch.save(torch.zeros(1, 512, 2, 2), code)
    started = search_config(tmp_path, start_code_file=str(code))
    longer = blind(image, "-c", kernel, *started)
    assert_refused(longer, "a blur code of 512 values; this kernel space needs 16")
    torch.save({"code": 1}, code)
    assert_refused(blind(image, "-c", kernel, *started), "is not a blur code")
    code.unlink()
    assert_refused(blind(image, "-c", kernel, *started), "code.pth: no such file (start_code_file)")


def test_nothing_is_overwritten(photos: Path, tmp_path: Path) -> None:
    image, output, log = photos / "0.png", tmp_path / "out.png", tmp_path / "log.jsonl"
    assert_done(blind(image, *PLAIN, "-o", output, "--log", log))
    assert_failed(blind(image, *PLAIN, "-o", output), "0", "out.png: exists already")
    again = blind(image, *PLAIN, "-o", tmp_path / "new.png", "--log", log)
    assert_refused(again, "log.jsonl: exists already")
    (tmp_path / "new.state.pt").write_bytes(b"not one")
    kept = blind(image, *PLAIN, "-o", tmp_path / "new.png")
    assert_failed(kept, "0", "new.state.pt", "--resume", "--force")
    resumed = blind(image, *PLAIN, "-o", tmp_path / "new.png", "--resume")
    assert_failed(resumed, "0", "new.state.pt: is not a checkpoint")
