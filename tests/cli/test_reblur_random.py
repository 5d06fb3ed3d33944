"""`blurkit reblur --noise` and `--random`: drawn blurs, as images, in pipes and to train on."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from blurkit.data.sampler import CropSampler
from blurkit.io.records import Record
from tests.cli import bgans, kernel_spaces
from tests.cli.command import assert_failed, assert_refused, files, piped, records, shard_records
from tests.cli.guides import FP32, assert_made, psnr
from tests.cli.invoke import done, invoke, results, timeless
from tests.cli.pictures import blurred, photo, write
from tests.io.scenes import assert_all_same


@dataclass(frozen=True)
class Way:
    """A way to draw blurs: its option, a checkpoint, and the network by hand."""

    option: str
    checkpoint: Path
    scale: float
    blurred: Callable[[np.ndarray, int, str, float], np.ndarray]
    """An image blurred by what is drawn for a seed, a record's name and a scale."""

    @property
    def options(self) -> tuple[object, ...]:
        return (self.option, "-c", self.checkpoint, *FP32)


def by_noise(image: np.ndarray, seed: int, name: str, scale: float) -> np.ndarray:
    return bgans.blurred_by(image, np.float32(scale) * bgans.noise_of(seed, name))


def by_code(image: np.ndarray, seed: int, name: str, scale: float) -> np.ndarray:
    generator = np.random.default_rng([seed, zlib.crc32(name.encode()), 0])
    code = scale * generator.standard_normal((1, kernel_spaces.CODE, 2, 2), np.float32)
    return kernel_spaces.blurred_by(image, torch.from_numpy(code), variational=True)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Way:
    return Way("--noise", bgans.saved(tmp_path_factory.mktemp("bgan") / "bgan.pt"), 1.0, by_noise)


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Way:
    path = kernel_spaces.saved(tmp_path_factory.mktemp("space") / "kernel.pt", variational=True)
    return Way("--random", path, 1.2, by_code)


@pytest.fixture(params=["noise", "random"])
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.getfixturevalue(request.param)
    return found


def test_several_blurs_of_each_photo(way: Way, photos: Path) -> None:
    one, again, other, copies = (
        timeless(results(f"{n}.h5", "reblur", photos, *way.options, "--seed", *options))
        for n, options in enumerate([(7,), (7,), (8,), (7, "--copies", 3)])
    )
    assert_all_same(one, again)
    assert_all_same(one, copies[::3])
    assert [r.name for r in copies[:4]] == ["0", "0-copy1", "0-copy2", "1"]
    for record in copies:
        image = photo(int(record.name[0]))
        assert_made(record.images["reblurred"], way.blurred(image, 7, record.name, way.scale))
        np.testing.assert_array_equal(record.images["sharp"], image)
        told = {"like": way.option[2:], "by": way.checkpoint.name, "seed": 7, "scale": way.scale}
        assert {key: record.attrs[f"reblurred_{key}"] for key in told} == told
        if way.option == "--noise":
            drawn = bgans.noise_of(7, record.name)
            np.testing.assert_array_equal(record.attrs["reblurred_noise"], drawn)
    for first, second in combinations([*other, *copies], 2):
        if first.name[0] == second.name[0]:
            difference = np.subtract(*(r.images["reblurred"].astype(int) for r in (first, second)))
            assert np.abs(difference).mean() > 0.5, "every draw is another blur"


def test_images_beside_photos_and_in_folders(noise: Way, photos: Path) -> None:
    command = ("reblur", photos, *noise.options, "--copies", 2, "-q")
    done(*command)
    beside = {path: digest for path, digest in files(photos).items() if "reblurred" in path}
    assert sorted(beside) == [f"{n}.reblurred{copy}.png" for n in range(3) for copy in ("-1", "")]
    done(*command, "-o", "out/")
    assert sorted(files("out")) == [f"{n}{copy}.png" for n in range(3) for copy in ("-copy1", "")]
    assert [*beside.values()] == [*files("out").values()], "the same bytes"
    assert_failed(invoke(*command), "0", "exists already; give --force")


@pytest.mark.parametrize("scale", [0, 2.5])
def test_how_wide_the_draws_are(way: Way, photos: Path, scale: float) -> None:
    (record,) = results("o.h5", "reblur", photos / "1.png", "--random-scale", scale, *way.options)
    assert record.attrs["reblurred_scale"] == scale
    assert_made(record.images["reblurred"], way.blurred(photo(1), 0, "1", scale))


def test_pipes(noise: Way, tree: Path, shard: Path) -> None:
    ran = piped(
        f"blurkit prepare {tree} -o - -q | blurkit reblur - --noise -c {noise.checkpoint} --seed 3 "
        "-o - -q | tee blurred.h5 | blurkit eval - --json -q && "
        f"cat {noise.checkpoint} | blurkit reblur {shard} --noise -c - -o p.h5 --seed 3 -q"
    )
    command = ("reblur", shard, "--noise", "-c", noise.checkpoint, "--seed", 3)
    made = timeless(records("blurred.h5"))
    assert_all_same(made, timeless(results("whole.h5", *command)))
    for record, row in zip(made, ran.json, strict=False):
        expected = psnr(record.images["sharp"], record.images["reblurred"])
        assert row["name"] == record.name and row["psnr"] == pytest.approx(expected)
    for first, second in zip(made, records("p.h5"), strict=True):
        np.testing.assert_array_equal(first.images["reblurred"], second.images["reblurred"])


def test_pairs_to_train_on(noise: Way, photos: Path) -> None:
    command = ("reblur", photos, *noise.options, "--copies", 2, "--seed", 5)
    images = results("images.h5", *command)
    paired = (*command, "--pairs", "-q", "-o", "pairs/")
    told = done(*paired, "--json").json
    assert [*files("pairs")] == ["train-00000.h5"]
    pairs = shard_records("pairs")
    assert [r.name for r in pairs] == [f"{n}{copy}" for n in range(3) for copy in ("", "-copy1")]
    assert [row.get("like") for row in told] == 6 * ["noise"] + [None]
    for pair, record in zip(pairs, images, strict=True):
        assert list(pair.images) == ["blur", "sharp"]
        np.testing.assert_array_equal(pair.images["blur"], record.images["reblurred"])
        np.testing.assert_array_equal(pair.images["sharp"], record.images["sharp"])
        assert pair.attrs["blur_from"] == "noise" and "reblurred_like" not in pair.attrs
        drawn = record.attrs["reblurred_noise"]
        np.testing.assert_array_equal(pair.attrs["reblurred_noise"], drawn)
    piped(f"blurkit {' '.join(map(str, command))} --pairs -o - -q > piped.h5")
    assert_all_same(timeless(pairs), timeless(records("piped.h5")))
    assert_refused(invoke(*paired), "holds 1 shards already")
    done(*paired, "--force")
    sampler = CropSampler(sorted(Path("pairs").glob("*.h5")), 32, ("blur", "sharp"))
    blur, sharp = sampler.batch(0, 0, 4)
    assert len(sampler) == 6 and blur.shape == sharp.shape == (4, 32, 32, 3)
    assert np.abs(blur.astype(int) - sharp).mean() > 1
    options = ["--system", "msfs", "--preset", "small", "--width", 4, "--batch", 2, "--crop", 32]
    options += ["--iterations", 1, "--validate-on", 0, "--device", "cpu", "-q"]
    done("train-deblur", "pairs", *options, "-o", "d.pt")


def test_pairs_of_other_blurs(joint: Path, random: Way, photos: Path) -> None:
    np.save("k.npy", np.eye(5))
    for options, like in (
        (("--like", write("blurry.png", blurred(photo(9))), "-c", joint), "blurry"),
        (("--kernel", "k.npy"), "k"),
        (random.options, "random"),
    ):
        common = ("reblur", photos, *options)
        pairs = results(Path(like), *common, "--pairs")
        for pair, record in zip(pairs, results(f"{like}.h5", *common), strict=True):
            assert list(pair.images) == ["blur", "sharp"] and pair.attrs["blur_from"] == like
            np.testing.assert_array_equal(pair.images["blur"], record.images["reblurred"])


def expected_means(made: list[Record], copies: int) -> dict[str, float]:
    """What the versions of each photo, one photo after another, come to."""
    groups = [made[first : first + copies] for first in range(0, len(made), copies)]
    pairs = [
        np.mean([psnr(a.images["reblurred"], b.images["reblurred"]) for a, b in found])
        for found in (list(combinations(group, 2)) for group in groups)
    ]
    near = [psnr(r.images["sharp"], r.images["reblurred"]) for r in made]
    return {"pairwise_psnr": float(np.mean(pairs)), "psnr_sharp": float(np.mean(near))}


def test_how_much_copies_differ(way: Way, photos: Path) -> None:
    output = ("-o", "out.h5", "--force", "--json")
    command = ("reblur", photos, *way.options, "--copies", 3)
    ran = done(*command, *output)
    means = expected_means(records("out.h5"), 3)
    wanted = {"images": 9, "photos": 3, "identical": 0, **means}
    assert ran.json[-1]["total"] == pytest.approx(wanted)
    assert "how much the versions of a photo differ" in ran.err
    assert all(f"{mean:.2f}" in ran.err for mean in means.values())
    pairs = done(*command, "-q", "--pairs", "-o", "pairs/", "--json")
    assert pairs.json[-1] == ran.json[-1] and pairs.err == ""
    total = done(*command, *output, "--random-scale", 0).json[-1]["total"]
    assert (total["identical"], total["pairwise_psnr"]) == (3, None) and total["psnr_sharp"] > 0
    ran = done("reblur", photos, *way.options, *output)
    assert ran.json[-1] == {"total": {"images": 3}} and "versions" not in ran.err


def test_bad_photos_in_a_batch(noise: Way, photos: Path) -> None:
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:900])
    taken = write(photos / "2.reblurred.png", photo(9))
    ran = invoke("reblur", photos, *noise.options, "--copies", 3, "--json")
    assert_failed(ran, "1", "damaged or truncated")
    assert "2.reblurred.png: exists already" in ran.err
    assert ran.lines[-1].startswith("2 failed, 5 reblurred")
    np.testing.assert_array_equal(imageio.imread(taken), photo(9))
    made = {
        name: imageio.imread(photos / f"{name[0]}.reblurred{name[1:]}.png")
        for name in ("0", "0-1", "0-2", "2-1", "2-2")
    }
    # What is left of each photo is measured, and no photo's versions are held to another's.
    first = [psnr(made[a], made[b]) for a, b in combinations(("0", "0-1", "0-2"), 2)]
    expected = np.mean([np.mean(first), psnr(made["2-1"], made["2-2"])])
    total = ran.json[-1]["total"]
    assert total["photos"] == 2 and total["pairwise_psnr"] == pytest.approx(expected)
