"""`blurkit reblur --search`: the code of a pair found by search, and `eval` against the blur."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.metrics
import torch

from blurkit.io.records import Record
from blurkit.io.streams import ShardWriter
from tests.cli.command import (
    assert_done,
    assert_failed,
    assert_refused,
    blurred,
    photo,
    records,
    write,
)
from tests.cli.guides import FP32
from tests.cli.invoke import invoke
from tests.cli.kernel_spaces import CODE, blurred_by, saved

SEARCH = ("--search", "-c")


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("space") / "kernel.pt")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair whose blur is of the space, of a code drawn here; a tall gray one; half a pair."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.h5"
    code = 2 * np.random.default_rng(4).standard_normal((1, CODE, 2, 2))
    blur = blurred_by(photo(0), torch.from_numpy(code.astype(np.float32)))
    gray = photo(3, 200, 70).mean(2, keepdims=True).astype(np.uint8)
    with ShardWriter(path) as writer:
        writer.write(Record("known", {"sharp": photo(0), "blur": np.rint(blur).astype(np.uint8)}))
        writer.write(Record("gray", {"sharp": gray, "blur": np.roll(gray, 1, axis=1)}))
        writer.write(Record("half", {"sharp": photo(5)}))
    return path


def psnr(image: np.ndarray, target: np.ndarray) -> float:
    return float(skimage.metrics.peak_signal_noise_ratio(target, image))


def test_the_blur_of_a_pair_is_found(space: Path, pairs: Path, tmp_path: Path) -> None:
    ran = invoke("reblur", pairs, *SEARCH, space, "--iterations", 40, "--kernel-rate", 3e-3,
                 "--seed", 3, "-o", tmp_path / "o.h5", "--json", *FP32)  # fmt: skip
    assert_failed(ran, "half", "record 'half' holds sharp", "blur is needed")
    known, gray = records(tmp_path / "o.h5")
    for row, record in zip(ran.json, (known, gray), strict=False):
        images = record.images
        assert images["reblurred"].shape == images["sharp"].shape
        assert row["like"] == record.name
        assert row["reblurred_psnr"] == pytest.approx(psnr(images["reblurred"], images["blur"]))
        assert row["reblurred_psnr_sharp"] == pytest.approx(psnr(images["sharp"], images["blur"]))
    assert known.attrs["reblurred_psnr"] > known.attrs["reblurred_psnr_sharp"] + 10
    assert known.attrs["reblurred_by"] == "kernel.pt"
    assert known.attrs["reblurred_with"] == "search iterations=40 seed=3"


def test_a_search_depends_on_seed_and_name(space: Path, pairs: Path, tmp_path: Path) -> None:
    made = []
    (gray,) = [record for record in records(pairs) if record.name == "gray"]
    for number, (name, seed) in enumerate((("gray", 3), ("gray", 3), ("gray", 4), ("other", 3))):
        source, output = tmp_path / f"{number}.h5", tmp_path / f"{number}-out.h5"
        with ShardWriter(source) as writer:
            if number:
                writer.write(Record(f"before-{number}", gray.images))
            writer.write(Record(name, gray.images))
        command = ("reblur", source, *SEARCH, space, "--iterations", 2, "--seed", seed, "-q", *FP32)
        assert_done(invoke(*command, "-o", output))
        made.append(records(output)[-1].images["reblurred"])
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[0] != made[2]).any() and (made[0] != made[3]).any()


def test_what_a_search_needs(space: Path, joint: Path, pairs: Path, tmp_path: Path) -> None:
    output = ("-o", tmp_path / "o.h5", "-q")
    for options, words in (
        (["--search", "--random"], "one of --like, --kernel, --random, --noise and --search"),
        (["--search", "--like", pairs], "one of --like, --kernel, --random, --noise and --search"),
        (["--search", "--shuffle"], "--shuffle and --encoder exclude --kernel, --random"),
        (["--search", "--system", "msdi"], "--system msdi excludes --kernel, --random"),
        (["--search", "--tile", 256], "takes photos whole"),
        (["--search", "--iterations", 0], "--iterations 0: must be at least 1"),
        (["--iterations", 9], "--iterations and --kernel-rate require --search"),
        (["--kernel-rate", 1], "--iterations and --kernel-rate require --search"),
        (["--search", "-c", joint], "not --system kernel-space"),
    ):
        checkpoint = [] if "-c" in options else ["-c", space]
        assert_refused(invoke("reblur", pairs, *options, *checkpoint, *output), words, status=2)
    ran = invoke(
        "reblur", pairs, "--search", "-c", space, *output, "--kernel-rate", 1e30, "--iterations", 9
    )
    assert_failed(ran, "known", "the search diverged at iteration 9; try a smaller --kernel-rate")


def test_eval_against_the_blur(tmp_path: Path) -> None:
    sharp, blur = photo(0), blurred(photo(0))
    near = np.clip(blur.astype(int) + 3, 0, 255).astype(np.uint8)
    with ShardWriter(tmp_path / "r.h5") as writer:
        writer.write(Record("a", {"sharp": sharp, "blur": blur, "reblurred": near}))
        writer.write(Record("b", {"sharp": photo(1), "blur": blurred(photo(1))}))
    ran = invoke("eval", tmp_path / "r.h5", "--target", "blur", "--json")
    assert_done(ran)
    first, second, last = ran.json
    assert [*first] == ["name", "psnr", "ssim", "ssim_matlab", "psnr_sharp", "sequence"]
    assert first["psnr"] == pytest.approx(psnr(near, blur))

    assert first["psnr_sharp"] == pytest.approx(psnr(sharp, blur))
    assert second["psnr"] == second["psnr_sharp"]  # nothing else is there
    assert last["protocol"]["compared"] == "reblurred or sharp with blur"
    assert "of sharp" in last["protocol"]["psnr_sharp"]
    assert "psnr_sharp" in ran.err and "reblurred or sharp with blur" in ran.err
    ran = invoke("eval", tmp_path / "r.h5", "--image", "reblurred", "--json", "-q")
    assert_failed(ran, "b", "record 'b' holds", "reblurred is needed")
    row, last = ran.json
    assert row["psnr"] == pytest.approx(psnr(near, sharp))
    assert row["psnr_blur"] == pytest.approx(psnr(blur, sharp))
    assert last["protocol"]["compared"] == "reblurred with sharp"
    ran = invoke("eval", tmp_path / "r.h5", "--json", "-q")
    assert "compared" not in ran.json[-1]["protocol"]


def test_images_named_apart_are_not_chosen_among(tmp_path: Path) -> None:
    sides = [write(tmp_path / side / "a.png", photo(0)).parent for side in ("restored", "sharp")]
    for named in (sides, (sides[0], "--reference", sides[1])):
        ran = invoke("eval", *named, "--target", "blur")
        assert_refused(ran, "--image and --target choose among the images of records", status=2)
