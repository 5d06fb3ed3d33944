"""The tables of docs/benchmarks.md and README.md, made of docs/benchmarks/quality.json.

python -m tests.benchmarks.quality_pages      writes them anew from the results that are there
"""

from __future__ import annotations

import cmath
import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from blurkit.reports.plain import to_json
from blurkit.reports.tables import markdown_table
from blurkit.tasks.decoupling import PAPER, indicators
from tests.shared import ROOT

RESULTS = ROOT / "docs" / "benchmarks" / "quality.json"
OURS = "blurkit"
CLASSICAL = ("unsharp masking", "Richardson-Lucy", "Wiener")
DMPHN = {"gopro": 5.85, "gopro_avg": 1.70, "reds_180p": -1.24}
"""Gains in dB of DMPHN(1-2-4) by set, over all of its pairs, measured separately."""

FIRST = {"gopro": 0.86, "gopro_avg": 0.43, "reds_180p": 0.89, "shake": 1.04}
"""Gains in dB of the first weights that came with blurkit (SHA-256 36b06ec6f95a), by set."""

Results = Mapping[str, Any]

# ---- the arithmetic ------------------------------------------------------------------------------


def gains(pairs: Sequence[Results], method: str = OURS) -> list[float]:
    """Per pair, by how many dB a method's PSNR exceeds that of the blurry image."""
    return [p["scores"][method]["psnr"] - p["scores"]["blurry"]["psnr"] for p in pairs]


def mean_gains(sets: Results, method: str = OURS) -> dict[str, float]:
    """By set, the mean of `gains`."""
    return {name: statistics.fmean(gains(each["pairs"], method)) for name, each in sets.items()}


def least_gain(sets: Results) -> float:
    """The smallest gain of a pair in any set: below 0, the largest loss."""
    return min(min(gains(each["pairs"])) for each in sets.values())


def goals(results: Results) -> list[tuple[str, str, bool]]:
    """What was aimed at, what was measured, and whether that is enough."""
    real = mean_gains(results["held_out"])
    mean, shaken = statistics.fmean(real.values()), mean_gains(results["shake"])
    mark = statistics.fmean(DMPHN.values())
    least = min(least_gain(results["held_out"]), least_gain(results["shake"]))
    more = min(gain - FIRST[name] for name, gain in (real | shaken).items())
    sharp = min(_finite(value for each in results["sharp"].values() for value in each.values()))
    photo, large = (results["cost"][size] for size in ("1280x720", "4000x3000"))
    seconds, memory = photo["seconds"], large["peak_mib"] / 1024
    size = results["weights"]["bytes_in_all"] / 1e6
    return [
        (
            f"mean of the real sets: more than DMPHN's {signed(mark)} dB",
            f"{signed(mean)} dB",
            mean > mark,
        ),
        (
            "camera shake: more than +1.50 dB",
            f"{signed(shaken['shake'])} dB",
            shaken["shake"] > 1.5,
        ),
        (
            "every set: more than with blurkit's first weights",
            f"{signed(more)} dB in the worst",
            more > 0,
        ),
        ("no pair loses more than 0.10 dB", f"{signed(least)} dB in the worst", least >= -0.1),
        ("sharp photos come back at 38 dB or more", f"{sharp:.2f} dB in the worst", sharp >= 38),
        ("a 1280x720 photo in 8 s, starting included", f"{seconds:.1f} s", seconds <= 8),
        ("a 4000x3000 photo in less than 3 GiB", f"{memory:.2f} GiB", memory < 3),
        ("40 MB or less of weights in all", f"{size:.1f} MB", size <= 40),
    ]


def signed(value: float) -> str:
    """Decibels with their sign and two decimals; nothing is never less than nothing."""
    return f"{round(value, 2) + 0:+.2f}"


def _finite(values: Any) -> list[float]:
    """Without the pictures that came back the same, whose PSNR is infinite: null in JSON."""
    return [value for value in values if value is not None and value != float("inf")]


# ---- tables --------------------------------------------------------------------------------------


def goals_table(results: Results) -> str:
    """`goals`, in words."""
    rows = [(what, measured, "yes" if met else "**no**") for what, measured, met in goals(results)]
    return markdown_table(["goal", "measured", "met"], rows)


def score_table(sets: Results) -> str:
    """Mean PSNR and SSIM by set and method."""
    methods = list(next(iter(sets.values()))["pairs"][0]["scores"])

    def cell(pairs: Sequence[Results], method: str) -> str:
        psnr, ssim = (
            statistics.fmean(p["scores"][method][key] for p in pairs) for key in ("psnr", "ssim")
        )
        return f"{psnr:.2f} / {ssim:.3f}"

    rows = [
        (_counted(name, each["pairs"]), *(cell(each["pairs"], method) for method in methods))
        for name, each in sets.items()
    ]
    return markdown_table(["PSNR in dB / SSIM", *methods], rows)


def gain_table(sets: Results, compared: bool = True) -> str:
    """Mean gain by set and method, the least of a pair, and how many are better and worse.

    Sets that are `compared` have DMPHN's gains beside theirs, and the mean of the sets below.
    """
    known = list(next(iter(sets.values()))["pairs"][0]["scores"])
    methods = [method for method in known if method != "blurry"]
    columns = {method: mean_gains(sets, method) for method in methods}
    columns |= {"DMPHN(1-2-4)": DMPHN} if compared else {}
    ours = {name: gains(each["pairs"]) for name, each in sets.items()}

    def row(head: str, values: Iterable[float], found: Sequence[float]) -> list[str]:
        counted = f"{sum(g > 0 for g in found)}, {sum(g < 0 for g in found)}"
        return [head, *map(signed, values), signed(min(found)), counted]

    rows = [
        row(_counted(name, found), (column[name] for column in columns.values()), found)
        for name, found in ours.items()
    ]
    if compared:
        means = (statistics.fmean(column[name] for name in sets) for column in columns.values())
        rows.append(row("mean of the sets", means, [g for found in ours.values() for g in found]))
    heads = ["gain in dB", *columns, f"{OURS}: least of a pair", "pairs better, worse"]
    return markdown_table(heads, rows)


def settings_table(sets: Results) -> str:
    """By set, the settings of the classical methods that were best there."""
    rows = [(name, *each["settings"].values()) for name, each in sets.items()]
    return markdown_table(["best guess", *CLASSICAL], rows)


def sharp_table(sharp: Results) -> str:
    """By set, mean and smallest PSNR of what deblurring makes of sharp photos to themselves."""
    rows = []
    for name, each in sharp.items():
        values = _finite(each.values())
        rows.append(
            [f"{name} ({len(each)})", f"{statistics.fmean(values):.2f}", f"{min(values):.2f}"]
        )
    return markdown_table(["sharp photos", "mean PSNR, dB", "smallest"], rows)


def cost_tables(results: Results) -> tuple[str, str]:
    """Seconds per megapixel of each method, and what whole commands took."""
    large = [p for each in results["held_out"].values() for p in each["pairs"] if _is_large(p)]
    methods = list(large[0]["seconds"])
    rows = [
        (method, f"{statistics.median(p['seconds'][method] / p['megapixels'] for p in large):.2f}")
        for method in methods
    ]
    speed = markdown_table(["method", "seconds per megapixel"], rows)
    commands = [
        (f"a {size} photo", f"{found['seconds']:.1f} s", f"{found['peak_mib']:.0f} MiB")
        for size, found in results["cost"].items()
    ]
    return speed, markdown_table(["`blurkit deblur`", "time", "peak memory"], commands)


def reblur_table(sets: Results) -> str:
    """By set, how near pairs come to their own blur, and how many lose energy at every step."""
    rows = []
    for name, pairs in sets.items():
        made, sharp = (
            [p[key] for p in pairs] for key in ("reblurred_psnr", "reblurred_psnr_sharp")
        )
        nearer = sum(a > b for a, b in zip(made, sharp, strict=True))
        falling = sum(all(a > b for a, b in pairwise(p["energies"])) for p in pairs)
        means = f"{statistics.fmean(made):.2f}", f"{statistics.fmean(sharp):.2f}"
        rows.append(
            [
                _counted(name, pairs),
                *means,
                f"{nearer} of {len(pairs)}",
                f"{falling} of {len(pairs)}",
            ]
        )
    heads = [
        "PSNR to the blurry image",
        "reblurred, dB",
        "sharp, dB",
        "nearer",
        "energy falls at every step",
    ]
    return markdown_table(heads, rows)


def direction_table(sets: Results) -> str:
    """By set, how blur changes the direction of gradients, and how reblurring does.

    A change is that of `quality.direction` from the sharp image, a vector at twice the angle.
    """
    rows = []
    for name, pairs in sets.items():
        changes = {
            role: [_complex(p, role) - _complex(p, "sharp") for p in pairs]
            for role in ("blur", "reblurred")
        }
        sizes = [statistics.fmean(map(abs, found)) for found in changes.values()]
        both = list(zip(*changes.values(), strict=True))
        angles = [abs(cmath.phase(b * a.conjugate())) / 2 for a, b in both]
        weights = [abs(a) for a, _ in both]
        angle = math.degrees(statistics.fmean(angles, weights))
        kept = sum((b * a.conjugate()).real for a, b in both) / sum(abs(a) ** 2 for a, _ in both)
        cells = [f"{size:.3f}" for size in sizes] + [f"{kept:.0%}", f"{angle:.0f}°"]
        rows.append([_counted(name, pairs), *cells])
    heads = ["change of anisotropy", "by blur", "by reblurring", "kept", "angle off by"]
    return markdown_table(heads, rows)


def _complex(pair: Results, role: str) -> complex:
    return complex(*pair["directions"][role])


def decoupling_table(found: Results) -> str:
    """The averages of the decoupling experiment beside the paper's."""
    rows = [
        (
            name,
            *(f"{values[key]:.2f}" for key in PAPER),
            *(f"{values[f'ratio_{kind}']:.2f}" for kind in ("blurred", "reblurred")),
        )
        for name, values in (
            (f"here, {found['pairs']} pairs", found),
            ("paper, 555 pairs of GoPro", PAPER | indicators(PAPER)),
        )
    ]
    heads = ["contextual distance", "blur A, A", "reblurred A, A", "blur A, B", "reblurred A, B"]
    return markdown_table([*heads, "ratio blurred", "ratio reblurred"], rows)


def _counted(name: str, pairs: Sequence[Any]) -> str:
    return f"{name} ({len(pairs)})"


def _is_large(pair: Results) -> bool:
    return bool(pair["megapixels"] > 0.5)


# ---- pages ---------------------------------------------------------------------------------------


def tables(results: Results) -> list[str]:
    """The tables of the sets that were never trained on."""
    sets = results["held_out"]
    return [
        score_table(sets),
        gain_table(sets),
        settings_table(sets),
        sharp_table(results["sharp"]),
        reblur_table(results["reblurring"]),
    ]


def benchmarks(results: Results) -> str:
    """The generated block of docs/benchmarks.md."""
    weights = results["weights"]
    scores, gained, settings, sharp, reblurred = tables(results)
    parts = [
        f"Measured {results['date']} with `{weights['file']}` (SHA-256 `{weights['sha256'][:12]}`) "
        f"on {results['machine']}.",
        goals_table(results),
        "### Real pairs never trained on",
        scores,
        gained,
        settings,
        "### Camera shake, by the network alone",
        gain_table(results["shake"], compared=False),
        "### Sharp in, sharp out",
        sharp,
        "### Time and memory on two processors",
        *cost_tables(results),
        "### More pairs never trained on",
        gain_table(results["others"], compared=False),
        "### Seen in training",
        gain_table(results["trained_on"], compared=False),
        "### Blur made and moved",
        reblurred,
        direction_table(results["reblurring"] | {"shake": results["shake_reblurring"]}),
        decoupling_table(results["decoupling"]),
    ]
    return "\n\n".join(part.strip() for part in parts)


def readme(results: Results) -> str:
    """The generated block of README.md: the means by set of what matters most."""
    rows = []
    for name, each in results["held_out"].items():
        pairs = each["pairs"]
        blurry = statistics.fmean(p["scores"]["blurry"]["psnr"] for p in pairs)
        ours = gains(pairs)
        gain = statistics.fmean(ours)
        guess = max(statistics.fmean(gains(pairs, method)) for method in CLASSICAL)
        told = (gain, min(ours), guess, DMPHN[name])
        cells = [f"{blurry:.2f}", f"{blurry + gain:.2f}", *map(signed, told)]
        rows.append([_counted(name, pairs), *cells])
    heads = ["blurry", "deblurred", "gain", "least of a pair", "best classical", "DMPHN(1-2-4)"]
    return markdown_table(["PSNR in dB", *heads], rows).strip()


def filled(page: str, text: str) -> str:
    """A page's text with `text` between its marks. Raises ValueError when it has none."""
    block = re.compile(r"(?<=<!-- quality -->\n).*?(?=<!-- end quality -->)", re.DOTALL)
    if not block.search(page):
        raise ValueError("the page has no <!-- quality --> and <!-- end quality -->")
    return block.sub(lambda _: f"\n{text}\n\n", page)


def write_pages(results: Results) -> None:
    """Write the results and the blocks made of them."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(to_json(results, indent=1) + "\n")
    for page, block in PAGES.items():
        page.write_text(filled(page.read_text(), block(json.loads(RESULTS.read_text()))))


PAGES = {ROOT / "docs" / "benchmarks.md": benchmarks, ROOT / "README.md": readme}

if __name__ == "__main__":
    write_pages(json.loads(RESULTS.read_text()))
