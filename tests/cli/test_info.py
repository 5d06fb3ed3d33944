"""`blurkit info` tells what h5py, Pillow, torch and the papers' code say of the same files."""

import getpass
import json
import math
import os
import shutil
import socket
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import PIL.Image
import pytest
import tifffile
import torch
import yaml
from safetensors.torch import save_file

import blurkit
from blurkit.engine.torch_runner import choose_device, warn_of_newer_torch
from blurkit.io.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from blurkit.io.records import Record
from blurkit.io.shards import read_shard
from blurkit.io.streams import ShardWriter
from blurkit.systems.msdi.encoder import BlurEncoder
from blurkit.systems.msdi.networks import JointGenerator
from blurkit.version import NEWEST_TORCH
from tests.cli.command import assert_done, assert_failed, fresh, piped, run
from tests.cli.invoke import assert_each_refused, done, invoke
from tests.cli.pictures import blurred, photo, plant_tree, write
from tests.io.scenes import SRGB, assert_same, exif, seal
from tests.shared import shared_folder

BUFFERS = ("weight_u", "weight_v", "running_mean", "running_var", "num_batches_tracked")


def told(path: Path | str, *options: object) -> dict[str, Any]:
    """What `info --json` says of one good file."""
    (line,) = done("info", path, "--json", "-q", *options).json
    assert line["file"] == str(path) and line["problems"] == []
    return line


# ---- checkpoints ---------------------------------------------------------------------------------


def test_our_checkpoint(checkpoint: Path) -> None:
    kept = load_checkpoint(checkpoint)
    kept.provenance = {"command": "train-deblur", "metrics": {"psnr": 30.5}}
    for name in ("x.pt", "x.safetensors"):
        save_checkpoint(kept, Path(name))
        found = told(Path(name))
        assert found["kind"] == "checkpoint" and found["format"] == "blurkit-checkpoint 2"
        assert found["system"] == "msdi"
        assert found["configuration"] == {"crop": 64} and found["provenance"] == kept.provenance
        network = found["networks"]["deblur"]
        assert (network["network"], network["width"], network["version"]) == ("MSDINet", 8, 1)
        state = torch.load(checkpoint, weights_only=True)["networks"]["deblur"]
        trained = (tensor for key, tensor in state.items() if not key.endswith(BUFFERS))
        assert network["parameters"] == sum(tensor.numel() for tensor in trained)
        assert network["inputs"] == [[1, 3, 256, 256]]


def test_macs_are_told_for_the_size_asked_for(checkpoint: Path) -> None:
    square, wide = (told(checkpoint, "--size", s)["networks"]["deblur"] for s in ("64x64", "99x50"))
    assert wide["inputs"] == [[1, 3, 64, 112]]  # what the network takes, at least the image
    assert square["gmacs"] < wide["gmacs"] < square["gmacs"] * 112 / 64  # E always sees 256x256


def official(name: str, path: Path) -> Path:
    """A state dict with the keys and shapes of a released network, without its megabytes."""
    text = (shared_folder("parity", "BLURKIT_PARITY") / f"{name}.json").read_text()
    shapes = json.loads(text)["state_dict"]
    zeros = torch.zeros(max(map(math.prod, shapes.values())))  # which all share in the file
    weights = {key: zeros[: math.prod(shape)].view(shape) for key, shape in shapes.items()}
    torch.save({"params": weights}, path)
    return path


JOINT = {"encoder": (157_470_464, 14.2), "latents": (37_715_840, 18.1)}
JOINT |= dict.fromkeys(("reblur", "deblur"), (44_498_947, 94.8))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("msdi_net_v1", {"deblur": (246_864_134, 332.8)}),
        ("msdi_net_v2", {"deblur": (330_616_070, 338.9)}),
        ("msdi_reblur", JOINT),
    ],
)
def test_released_networks(name: str, wanted: dict[str, tuple[int, float]]) -> None:
    found = told(official(name, Path("net.pth")))
    assert found["format"] == "of another program" and found["system"] is None
    networks = found["networks"]
    assert {role: (n["parameters"], round(n["gmacs"], 1)) for role, n in networks.items()} == wanted
    if name == "msdi_reblur":
        assert networks["latents"]["inputs"] == [[1, 2048, 8, 8]]
        image, latents = networks["deblur"]["inputs"]
        assert image == [1, 3, 256, 256] and latents[0] == [1, 64, 256, 256] and len(latents) == 4
    else:
        assert networks["deblur"]["trainable"] == 135_429_766


def test_parts_of_a_network() -> None:
    """One has no forward to count, the other takes latents of another width."""
    generator = JointGenerator(8, 4, modulation="paper", latent_width=2)
    parts = {"blur_encoder": BlurEncoder(4), "deblur": generator}
    states = {role: dict(network.state_dict()) for role, network in parts.items()}
    save_checkpoint(Checkpoint(states, "msdi"), Path("parts.pt"))
    networks = told("parts.pt", "--size", "64x64")["networks"]
    assert networks["blur_encoder"]["network"] == "BlurEncoder"
    assert networks["blur_encoder"]["gmacs"] is None
    image, latents = networks["deblur"]["inputs"]
    assert image == [1, 3, 64, 64] and networks["deblur"]["gmacs"] > 0
    assert latents == [[1, 2 << n, 256 >> n, 256 >> n] for n in range(4)]


def test_feature_networks_and_heads_of_lpips() -> None:
    folder = shared_folder("weights", "BLURKIT_WEIGHTS")
    found = told(folder / "squeezenet1_1_caffe_features.safetensors", "--size", "65x65")
    network = found["networks"]["network"]
    # torchvision's SqueezeNet 1.1 has 1,235,496 parameters, 513,000 of them in its classifier.
    assert network["network"] == "SqueezeNet 1.1" and network["parameters"] == 722_496
    assert network["gmacs"] > 0
    network = told(folder / "lpips_v0.1_linear_heads.safetensors")["networks"]["network"]
    # One weight per channel compared, as the paper's networks have them.
    channels = {"alex": 1152, "squeeze": 2240, "vgg": 1472}
    assert network["network"] == "LPIPS heads" and network["of"] == list(channels)
    assert network["parameters"] == sum(channels.values())


def test_state_dicts_of_no_known_network() -> None:
    state = {f"body.{n}.weight": torch.zeros(2, 3) for n in range(9)}
    save_file(state, Path("other.safetensors"))
    network = told("other.safetensors")["networks"]["network"]
    assert "no known network has this state dict of 9 keys" in network["problem"]
    assert (network["tensors"], network["values"]) == (9, 54)
    assert len(network["first_keys"]) == 5 and set(network["first_keys"]) < set(state)


# ---- records -------------------------------------------------------------------------------------


def test_a_shard(shard: Path) -> None:
    found = told(shard)
    with h5py.File(shard) as file:
        values = [group.attrs["attr:psnr_blur"] for group in file.values()]
    assert found["kind"] == "shard" and found["records"] == 4
    assert found["splits"] == {"test": 4} and found["sequences"] == 2
    sides = {"width": {"min": 64, "max": 64}, "height": {"min": 48, "max": 48}}
    images = {"count": 4, **sides, "channels": [3], "types": ["uint8"]}
    assert found["images"] == {"blur": images, "sharp": images}
    assert found["attributes"]["psnr_blur"] == {"count": 4, "min": min(values), "max": max(values)}
    assert found["attributes"]["sequence"]["examples"] == ["scene0", "scene1"]
    assert found["image_bytes"] == 8 * 48 * 64 * 3
    assert found["file_bytes"] == shard.stat().st_size and found["compression"] is None


def test_a_varied_shard() -> None:
    with h5py.File("varied.h5", "w", libver="v110") as file:
        for number, (size, dtype) in enumerate([((30, 20), "uint16"), ((9, 70), "float32")]):
            group = file.create_group(f"{number:08d}")
            group.attrs["name"] = f"scene{number}"
            group.attrs["attr:noise"] = [np.nan, 0.5][number]
            pixels = np.ones((*size, 1 + 2 * number), dtype)
            group.create_dataset("blur", data=pixels, compression="gzip")
            group["attrs/kernel"] = np.zeros((3, 5))
        seal(file)
    found = told("varied.h5")
    sides = {"width": {"min": 20, "max": 70}, "height": {"min": 9, "max": 30}}
    images = {"count": 2, **sides, "channels": [1, 3], "types": ["float32", "uint16"]}
    assert found["images"]["blur"] == images
    assert found["attributes"] == {
        "noise": {"count": 2, "min": 0.5, "max": 0.5},
        "kernel": {"count": 2, "examples": ["float64 3x5"]},
    }
    assert found["compression"] == "gzip" and found["splits"] == {} and found["sequences"] == 0


def test_pixels_of_a_shard_are_not_read(shard: Path) -> None:
    """Else a changed one would be found."""
    shutil.copy(shard, "changed.h5")
    with h5py.File("changed.h5", "r+") as file:
        file["00000000/blur"][3, 4] ^= 1
    assert told("changed.h5")["images"] == told(shard)["images"]
    words = "record 00000000: image 'blur' has changed since it was written"
    assert_failed(invoke("info", "changed.h5", "--verify", "-q"), "changed.h5", words)
    done("info", shard, "--verify", "-q")


def test_a_truncated_shard_tells_what_is_whole(shard: Path) -> None:
    cut = Path("cut.h5")
    cut.write_bytes(shard.read_bytes()[:-40_000])
    ran = invoke("info", cut, "--json", "-q")
    assert_failed(ran, "cut.h5", "truncated, 40000 bytes are missing; 2 records are whole")
    (found,) = ran.json
    assert found["records"] == 2 and found["images"]["blur"]["count"] == 2
    assert "2 records are whole" in found["problems"][0]
    whole = [*read_shard(cut, lambda *told: None)]  # whose checksums are verified
    for record, before in zip(whole, [*read_shard(shard)][:2], strict=True):
        assert_same(record, before)


def test_streams_and_checkpoints_through_a_pipe(tree: Path, shard: Path, checkpoint: Path) -> None:
    ran = piped(f"blurkit prepare {tree} -o - -q | tee s.stream | blurkit info - --json")
    (found,) = ran.json
    assert found["kind"] == "stream" and found["records"] == 4
    assert found["images"] == told(shard)["images"]
    saved = told("s.stream")
    assert saved["records"] == 4 and saved["attributes"] == found["attributes"]
    assert_failed(run("info", "-", "-q"), "stream", "the command before this one sent nothing")
    ran = run("info", "-", "--json", input=checkpoint.read_bytes())
    assert_done(ran)
    assert ran.json[0] == told(checkpoint) | {"file": "-"}


def test_folders(tree: Path, shard: Path) -> None:
    found = told(tree)
    assert found["kind"] == "folder" and found["layout"] == "pairs (blur, sharp), 4 scenes"
    assert found["images"] == told(shard)["images"] and found["splits"] == {"test": 4}
    found = told(tree / "test/scene0/sharp")
    assert found["layout"] == "photos, 2 scenes" and list(found["images"]) == ["image"]
    for name in ("a.h5", "b.h5"):
        shutil.copy(shard, name)
    found = told(Path())
    assert found["shards"] == 2 and found["records"] == 8


def test_a_bad_image_in_a_folder() -> None:
    plant_tree(Path(), 2)
    bad = next(Path().rglob("blur/1.png"))
    bad.write_bytes(bad.read_bytes()[:300])
    write("test/scene0/blur/7.png", photo(7))
    assert "1.png" not in invoke("info", Path(), "-q").err
    ran = invoke("info", Path(), "--json", "-q", "--verify")
    assert_failed(ran, "1", "1.png: damaged or truncated")
    assert ran.json[0]["records"] == 1 and len(ran.json[0]["problems"]) == 2


# ---- images --------------------------------------------------------------------------------------


def test_images() -> None:
    PIL.Image.fromarray(photo(3)).save("turned.jpg", exif=exif(6), icc_profile=SRGB)
    found = told("turned.jpg")
    assert (found["kind"], found["width"], found["height"]) == ("image", 48, 64)  # as shown
    assert (found["channels"], found["type"], found["alpha"]) == (3, "uint8", False)
    assert found["orientation"] == 6 and found["icc_profile_bytes"] == len(SRGB)
    assert found["exif_bytes"] == len(exif(6))
    assert found["file_bytes"] == Path("turned.jpg").stat().st_size

    deep = np.dstack([photo(3), photo(3)[:, :, :1]]).astype(np.uint16) * 257
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"], "software": False}
    tifffile.imwrite("deep.tif", deep, **options)
    found = told("deep.tif")
    assert (found["type"], found["alpha"], found["channels"]) == ("uint16", True, 3)
    assert found["orientation"] == 1 and found["exif_bytes"] == 0


# ---- all together --------------------------------------------------------------------------------


def test_text_goes_to_standard_output(checkpoint: Path, shard: Path) -> None:
    ran = done("info", write("a.png", blurred(photo(1))), checkpoint, shard)
    assert ran.err == ""
    text = ran.out.decode()
    heads = [line for line in text.splitlines() if not line.startswith(" ")]
    assert heads == [str(path) for path in (Path("a.png"), checkpoint, shard)]
    assert "\n  width: 64\n  height: 48\n" in text
    assert "\n      network: MSDINet\n" in text and "\n      inputs: 1x3x256x256\n" in text
    assert "    blur: count 4; width 64; height 48; channels 3; types uint8\n" in text


def test_text_from_a_shard_does_nothing_to_the_terminal() -> None:
    texts = ["\x1b[2Jgone", "two\nlines", os.fsdecode(b"caf\xe9.png"), "夜の写真", "x" * 1000]
    with ShardWriter(Path("odd.h5")) as writer:
        for key, text in zip("abcde", texts, strict=True):
            writer.write(Record(key, {"blur": photo(1)}, {key: text}))
    told = done("info", "odd.h5").out.decode().partition("attributes:")[2]
    shown = [r"\x1b[2Jgone", r"two\nlines", r"caf\udce9.png", "夜の写真", "x" * 100 + "..."]
    assert all(text in told for text in shown)
    assert "x" * 101 not in told and "\x1b" not in told


def test_bad_files_are_named_and_the_rest_is_told(checkpoint: Path) -> None:
    Path("notes.txt").write_text("no checkpoint")
    Path("empty.h5").write_bytes(b"")
    Path("broken.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    Path("nothing").mkdir()
    torch.save({"step": 3}, "state.pt")
    bad = ["notes.txt", "empty.h5", "broken.png", "nothing", "state.pt", "missing.pt", "x" * 300]
    ran = invoke("info", *(Path(name) for name in bad), "", checkpoint, "--json", "-q")
    assert ran.status == 1 and [line["file"] for line in ran.json] == [str(checkpoint)]
    assert len(ran.lines) == 9
    for name, line in zip(bad, ran.lines, strict=False):
        assert line.startswith(f"error: {Path(name)}: ")
    assert ran.lines[-1].startswith("8 failed, 1 inspected")


def test_wrong_usage() -> None:
    wrong = {("x.pt", "--size", size): "1280x720" for size in ("256", "0x9", "axb", "9x-1")}
    wrong |= {("-", "-"): "name '-' once", ("--system", "photo.png"): "name no files"}
    assert_each_refused(wrong, "info")


def test_no_torch_for_records(shard: Path) -> None:
    script = (
        "import sys; from blurkit.cli.app import app; app(['info', sys.argv[1]], "
        "standalone_mode=False); assert 'torch' not in sys.modules"
    )
    ran = fresh("-c", script, shard)
    assert_done(ran)
    assert ran.out.decode().splitlines()[0] == str(shard)


# ---- for others ----------------------------------------------------------------------------------


def test_the_system_without_anything_private(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_hidden")
    (told,) = done("info", "--system", "--json").json
    lines = done("info", "--system").out.decode().splitlines()
    assert [line.partition(": ")[0] for line in lines] == list(told)
    assert told["torch"] == version("torch") and told["numpy"] == np.__version__
    assert told["blurkit"].startswith(f"{blurkit.__version__} (shards ")
    assert told["device"].startswith(choose_device().type)
    private = {socket.gethostname(), getpass.getuser(), str(Path.home()), str(Path.cwd()), "hidden"}
    assert not [word for word in private if word in "\n".join(lines)]


def test_a_model_card(checkpoint: Path) -> None:
    kept = load_checkpoint(checkpoint)
    kept.provenance = {
        "command": "blurkit train-deblur /home/me/secret.h5",
        "metrics": {"psnr": 30.5, 'a: "b"\n- c': 1},
        "trained_on": ["my photos\n# no heading"],
    }
    save_checkpoint(kept, Path("mine.pt"))
    card = done("info", "mine.pt", "--card").out.decode()
    _, front, body = card.split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["license"] == "other" and about["library_name"] == "blurkit"
    assert about["pipeline_tag"] == "image-to-image"
    assert {"deblurring", "motion-blur", "msdi"} <= {*about["tags"]}
    assert about["metrics"][0] == "psnr" and len(about["metrics"]) == 2
    assert "| deblur | MSDINet |" in body and "30.5" in body and "secret" not in card
    assert "- trained on: my photos\\n# no heading" in body
    (line,) = done("info", "mine.pt", "--card", "--json").json
    assert line["card"] + "\n" == card
    assert "license: mit" in done("info", "--card").out.decode()
    write("photo.png", photo(0))
    assert_failed(invoke("info", "photo.png", "mine.pt", "--card"), "photo.png", "--card is for")


def test_a_newer_torch_brings_a_warning() -> None:
    newer = f"{NEWEST_TORCH[0]}.{NEWEST_TORCH[1] + 1}.0"
    with pytest.warns(UserWarning, match="newer than"):
        warn_of_newer_torch(newer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_newer_torch(newer)  # only once
        for tried in ("2.6.0", f"{NEWEST_TORCH[0]}.{NEWEST_TORCH[1]}.9+cpu"):
            warn_of_newer_torch(tried)
    lines = "import torch\ntorch.__version__ = '99.0'\nfrom blurkit.__main__ import main\nmain()"
    ran = fresh("-c", lines, "info", "--system", PYTHONWARNINGS="")
    assert ran.err.startswith("warning: torch 99.0 is newer than") and ran.status == 0
    assert len(ran.lines) == 1
