"""Converted checkpoints: halved, widened, compressed, described, referred to by ONNX files."""

import csv
import shutil
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from blurkit.io.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, with_checksums
from blurkit.systems.msdi.networks import JointGenerator
from blurkit.systems.registry import load_networks
from blurkit.systems.system import WEIGHTS
from blurkit.version import STATE_VERSION
from tests.cli.invoke import done, invoke
from tests.cli.pictures import photo, write
from tests.shared import ROOT
from tests.tools.convert import card, main
from tests.tools.pack import pack
from tests.tools.test_pack import first_stage, second_stage, steered, whole

OPTIONS = {"width": 8, "injection": "none", "unshuffle": 2}


def generator() -> JointGenerator:
    torch.manual_seed(0)
    return JointGenerator(**OPTIONS)


def test_a_checkpoint_and_a_state_give_the_same_network(tmp_path: Path) -> None:
    weights = generator().state_dict()
    save_checkpoint(Checkpoint({"deblur": weights}, "msdi", OPTIONS), tmp_path / "x.pt")
    state = {"version": STATE_VERSION, "system": "msdi", "step": 7, "configuration": OPTIONS}
    state |= {"networks": {"deblur": {}}, "averaged": {"deblur": weights}, "optimizers": {}}
    torch.save(with_checksums(state | {"blueprints": {}}), tmp_path / "x.state.pt")
    found = []
    for name in ("x.pt", "x.state.pt"):
        output = tmp_path / f"half-{name.replace('.', '-')}.pt"
        assert main(["halve", str(tmp_path / name), "-o", str(output)]) == 0
        assert output.stat().st_size < 0.6 * (tmp_path / "x.pt").stat().st_size
        found.append(load_checkpoint(output))
    assert found[1].provenance["iterations"] == 7 and found[1].system == "msdi"
    photo = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = generator().eval()(photo, [])
        for checkpoint in found:
            made = load_networks(checkpoint)["deblur"].eval()(photo, [])
            torch.testing.assert_close(made, wanted, atol=2e-3, rtol=0)


def test_a_wider_network_computes_the_same_and_learns_otherwise(tmp_path: Path) -> None:
    torch.manual_seed(3)
    narrow, wide = (JointGenerator(width, injection="none", unshuffle=2) for width in (4, 8))
    trained, output = tmp_path / "narrow.pt", tmp_path / "wide.pt"
    save_checkpoint(Checkpoint({"deblur": narrow.state_dict()}, "msdi"), trained)
    assert main(["widen", str(trained), "-o", str(output)]) == 0
    wide.load_state_dict(load_checkpoint(output).networks["deblur"])
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    made = wide(image)
    torch.testing.assert_close(made, narrow(image), atol=1e-5, rtol=1e-5)
    assert main(["widen", str(trained), "-o", str(output)]) == 1  # exists
    made.square().mean().backward()
    gradient = wide.get_parameter("down_path_1.0.conv_1.weight").grad
    assert gradient is not None
    assert (gradient[0::2] - gradient[1::2]).abs().max() > 0.01 * gradient.abs().max()


def test_a_compressed_checkpoint_is_smaller_and_the_same(tmp_path: Path) -> None:
    file = Path(shutil.copy(WEIGHTS / "kernel_space.pt", tmp_path))
    before, size = load_checkpoint(file), file.stat().st_size
    assert main(["compress", str(file)]) == 0
    after = load_checkpoint(file)
    assert file.stat().st_size < 0.95 * size
    assert after.provenance == before.provenance
    torch.testing.assert_close(after.networks, before.networks, rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".pt"] == [file.name]


CARDS = sorted((ROOT / "examples" / "cards").glob("*.tsv"))


@pytest.mark.parametrize("table", CARDS, ids=lambda path: path.stem)
def test_a_shipped_file_says_what_the_page_says(table: Path) -> None:
    page = (ROOT / "docs" / "weights.md").read_text().splitlines()
    with table.open(newline="") as file:
        _, *rows = csv.reader(file, csv.excel_tab)
    for row in rows:
        assert f"| {' | '.join(row)} |" in page
    assert load_checkpoint(WEIGHTS / f"{table.stem}.pt").provenance["trained_on"] == card(table)


def test_every_shipped_file_has_a_card_that_info_shows_line_by_line() -> None:
    told = invoke("info", WEIGHTS / "msdi.pt").out.decode().splitlines()
    start = told.index("    trained_on:") + 1
    lines = card(ROOT / "examples" / "cards" / "msdi.tsv")
    assert [line.strip() for line in told[start : start + len(lines)]] == lines
    assert {path.stem for path in WEIGHTS.glob("*.pt")} == {path.stem for path in CARDS}


def test_a_card_changes_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, table = tmp_path / "enc.pt", tmp_path / "data.tsv"
    save_checkpoint(first_stage(steered()), file)
    before = load_checkpoint(file)
    rows = ["data number use terms", "photos 20 blurred CC0", "films 3 averaged none-stated"]
    table.write_text("\n".join(rows).replace(" ", "\t") + "\n")
    assert main(["describe", str(table), str(file)]) == 0
    after = load_checkpoint(file)
    lines = ["photos (20): blurred; terms: CC0", "films (3): averaged; terms: none-stated"]
    assert after.provenance == before.provenance | {"trained_on": lines}
    assert (after.system, after.configuration) == (before.system, before.configuration)
    for role, state in before.networks.items():
        for key, value in state.items():
            assert value.equal(after.networks[role][key]), key
    assert f"trained_on: {', '.join(lines)}\n" in invoke("info", file).out.decode()

    content = file.read_bytes()
    for bad in ("", "data\tterms\nmy photos\tCC0\n", "data\tnumber\tuse\tterms\nphotos\t20\n"):
        table.write_text(bad)
        assert main(["describe", str(table), str(file)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {table}: ")
    assert file.read_bytes() == content


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file beside its checkpoint, net.pt."""
    folder = tmp_path_factory.mktemp("exported")
    joint = steered()
    stages = [first_stage(joint), second_stage(whole(joint))]
    save_checkpoint(pack(stages, {"date": "2026-01-03"}), folder / "net.pt")
    done("export", folder / "net.pt", "--half", "-o", folder / "net.onnx")
    return folder / "net.onnx"


@pytest.mark.slow
def test_results_are_the_same_and_the_file_is_small(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, weights = tmp_path / "net.onnx", tmp_path / "net.pt"
    shutil.copy(exported, network)
    shutil.copy(exported.with_suffix(".pt"), weights)
    image = write(tmp_path / "photo.png", photo(0, 96, 128))
    done("deblur", image, "-c", network, "-o", tmp_path / "before.png")
    before = network.stat().st_size
    assert main(["refer", str(network), str(weights)]) == 0
    assert network.stat().st_size < before / 3
    assert f"{network.stat().st_size:,} bytes" in capsys.readouterr().err
    done("deblur", image, "-c", network, "-o", tmp_path / "after.png")
    for file in (network, weights):  # as some installers put them
        (tmp_path / "links").mkdir(exist_ok=True)
        (tmp_path / "links" / file.name).symlink_to(file)
    done("deblur", image, "-c", tmp_path / "links" / "net.onnx", "-o", tmp_path / "linked.png")
    names = ("before", "after", "linked")
    expected, *others = (imageio.imread(tmp_path / f"{name}.png") for name in names)
    np.testing.assert_equal(others, [expected] * 2)
    weights.unlink()
    ran = invoke("deblur", image, "-c", network, "-o", tmp_path / "without.png")
    assert ran.status == 1 and "net.onnx" in ran.lines[-1]


def test_the_shipped_network_refers_to_the_shipped_weights() -> None:
    assert (WEIGHTS / "msdi.onnx").stat().st_size < 1_000_000
    assert load_checkpoint(WEIGHTS / "msdi.pt").networks["deblur"]


def test_errors_are_one_line(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, weights = tmp_path / "net.onnx", tmp_path / "other.pt"
    shutil.copy(exported, network)
    before = network.read_bytes()
    weights.write_bytes(b"no weights")
    torch.save({"step": 1}, tmp_path / "y.state.pt")
    broken = write(tmp_path / "broken.png", photo(0)).rename(tmp_path / "broken.onnx")
    save_checkpoint(Checkpoint({"network": {"a": torch.ones(2, 2)}}), tmp_path / "other_network.pt")
    out = ("-o", tmp_path / "out.pt")
    for arguments, words in (
        (("widen", tmp_path / "other_network.pt", *out), "holds no deblurring network of MSDI-Net"),
        (("halve", tmp_path / "no.state.pt", *out), "no such file"),
        (("halve", tmp_path / "y.state.pt", *out), "is not the saved state"),
        (("compress", weights), str(weights)),
        (("refer", network, weights), "contains no weights of"),
        (("refer", network, exported.with_suffix(".pt")), "has to be in the folder"),
        (("refer", network, tmp_path / "missing.pt"), "cannot be read"),
        (("refer", tmp_path / "missing.onnx", weights), "cannot be read"),
        (("refer", broken, weights), "damaged, or not an ONNX file"),
    ):
        assert main([*map(str, arguments)]) == 1
        told = capsys.readouterr().err
        assert words in told and told.count("\n") == 1
    assert network.read_bytes() == before and weights.read_bytes() == b"no weights"
