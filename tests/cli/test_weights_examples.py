"""The script that trains the networks that ship on datasets of the user's own, rehearsed."""

from __future__ import annotations

from pathlib import Path

import pytest

from blurkit.io.checkpoints import load_checkpoint
from tests.cli.command import plant_pair
from tests.cli.test_msfs import plant_realblur
from tests.cli.test_table_examples import script

pytestmark = pytest.mark.slow


def test_datasets_make_one_file_like_the_shipped_one(tmp_path: Path) -> None:
    gopro = tmp_path / "GOPRO_Large"
    for number in range(4):
        split = "train" if number % 2 else "test"
        plant_pair(gopro / split, f"GOPR000{number}/000001", number, height=96, width=112)
    realblur = tmp_path / "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
    plant_realblur(realblur)
    more = tmp_path / "more"  # without pairs to score
    plant_pair(more / "train", "GOPR0009/000001", 9, height=96, width=112)
    card = tmp_path / "card.tsv"
    card.write_text("data\tnumber\tuse\tterms\nGoPro\t2 pairs\tunchanged\tmine\n")
    tiny = "--iterations 2 --width 8 --hidden 8 --crop 64 --batch 2 --validate-on 0 --device cpu"
    script(
        "weights_datasets",
        f"{gopro} {realblur} {more} -- {tiny}",
        tmp_path,
        FOLDER="out",
        CARD=card,
    )
    made = load_checkpoint(tmp_path / "out/msdi.pt")
    assert set(made.networks) == {"encoder", "latents", "reblur", "deblur"}
    assert made.provenance["trained_on"] == ["GoPro (2 pairs): unchanged; terms: mine"]
    assert made.provenance["deblur"]["records"] == 4  # of all three
    for name in ("GOPRO_Large", realblur.name):
        assert "psnr" in (tmp_path / f"out/{name}.md").read_text().lower()
