"""Scores of records: what is measured, in which order, and the set's mean."""

import numpy as np
import pytest
import skimage.data

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Record
from blurkit.metrics.scores import Measures
from blurkit.metrics.statistics import Scored, mean_scores
from tests.metrics.oracle import dataset, deep_pair, noisy, pairs


def test_depths_are_rounded_to_eight_bits() -> None:
    test, ref, expected = deep_pair()
    for change in (lambda image: image, lambda image: (image / 65535).astype(np.float32)):
        record = Record("u16", {"restored": change(test), "sharp": change(ref)})
        psnr = Measures().score(record)["psnr"]
        assert psnr == pytest.approx(expected["psnr_after_8bit_rounding"], abs=1e-6)


def test_the_mean_of_a_set() -> None:
    """The mean of the images' PSNR, which is not the PSNR of their mean error."""
    expected = dataset()
    rows = []
    for name in expected["pairs"]:
        test, ref, _ = pairs()[name]
        record = Record(name, {"restored": test, "sharp": ref})
        rows.append(Scored.of(record, Measures().score(record)))
    found = mean_scores(rows)
    assert found["psnr"] == pytest.approx(expected["mean_of_psnr"], abs=1e-6)
    assert found["ssim"] == pytest.approx(expected["mean_ssim_rgb_valid"], abs=1e-6)


def test_what_is_measured() -> None:
    photo = skimage.data.astronaut()[:40, :50]
    record = Record("a", {"blur": noisy(photo), "sharp": photo})
    found = Measures().score(record)
    assert [*found] == ["psnr", "ssim", "ssim_matlab", "psnr_blur"]
    assert found["psnr"] == found["psnr_blur"]
    measures = Measures(ssim=("basicsr-y", "basicsr-y", "matlab"), metrics=["psnr-y"])
    assert measures.keys == ("psnr", "ssim_y", "ssim_matlab", "psnr_y")
    assert [*measures.score(record)] == [*measures.keys, "psnr_blur"]
    assert [*measures.protocol()] == ["values", *measures.keys]
    assert measures.ranking == "psnr"
    record.images["restored"] = photo
    found = Measures().score(record)
    assert found["psnr"] == np.inf
    assert found["psnr_blur"] is not None and found["psnr_blur"] < 50
    del record.images["sharp"]
    with pytest.raises(BlurkitError, match="sharp is needed"):
        measures.score(record)
    with pytest.raises(UsageError, match="--ssim best: choose from basicsr, matlab"):
        Measures(ssim=("best",))
    with pytest.raises(UsageError, match="--metric best: choose from psnr-y, aligned"):
        Measures(metrics=["best"])
