"""The tables of docs/benchmarks.md and README.md, made of docs/benchmarks/quality.json.

python -m tests.benchmarks.quality_pages      writes them anew from the results that are there
"""

import cmath
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from blurkit.reports.tables import markdown_table
from blurkit.tasks.decoupling import PAPER, indicators
from tests.benchmarks import pages
from tests.shared import ROOT

NETWORK = "network alone"
"""MSDI-Net: `blurkit deblur --method network`."""
FREE = "`free.pt` alone"
"""The network that has seen freely licensed pictures alone."""
DEFAULT = "`blurkit deblur`"
"""Without options: the estimated blur undone where that should be better than the network."""
CLASSICAL = ("unsharp masking", "Richardson-Lucy", "Wiener")
DMPHN = {"gopro": 5.85, "gopro_avg": 1.70, "reds_180p": -1.24}
"""Gains in dB of DMPHN(1-2-4) by set, over all of its pairs, measured separately."""

FIRST = {"gopro": 0.86, "gopro_avg": 0.43, "reds_180p": 0.89, "shake": 1.04}
"""Gains in dB of the first weights that came with blurkit (SHA-256 36b06ec6f95a), by set."""

Results = Mapping[str, Any]

# ---- the arithmetic ------------------------------------------------------------------------------


def ours(sets: Results) -> list[str]:
    """The ways of blurkit's that were measured."""
    known = next(iter(sets.values()))["pairs"][0]["scores"]
    return [way for way in (NETWORK, FREE, DEFAULT) if way in known]


def gains(pairs: Sequence[Results], method: str) -> list[float]:
    """Per pair, by how many dB a method's PSNR exceeds that of the blurry image."""
    return [p["scores"][method]["psnr"] - p["scores"]["blurry"]["psnr"] for p in pairs]


def mean_gain(pairs: Sequence[Results], method: str) -> float:
    return statistics.fmean(gains(pairs, method))


def goals(results: Results, method: str) -> list[tuple[str, str, bool]]:
    """What was aimed at, what was measured of one of `ours`, and whether that is enough."""
    sets = results["held_out"] | results["shake"]
    found = {name: mean_gain(each["pairs"], method) for name, each in sets.items()}
    mean, shake = statistics.fmean(found[name] for name in results["held_out"]), found["shake"]
    mark = statistics.fmean(DMPHN.values())
    least = min(min(gains(each["pairs"], method)) for each in sets.values())
    more = min(gain - FIRST[name] for name, gain in found.items())
    kept = [value for each in results["sharp"].values() for value in each[method].values()]
    sharp = min(_kept(kept))
    photo, large = (results["cost"][method][size] for size in ("1280x720", "4000x3000"))
    seconds, memory = photo["seconds"], large["peak_mib"] / 1024
    size = results["weights"]["bytes_in_all"] / 1e6
    return [
        (f"mean of the real sets: more than DMPHN's {signed(mark)} dB", f"{signed(mean)} dB",
         mean > mark),
        ("camera shake: more than +1.50 dB", f"{signed(shake)} dB", shake > 1.5),
        ("every set: more than with blurkit's first weights", f"{signed(more)} dB in the worst",
         more > 0),
        ("no pair loses more than 0.10 dB", f"{signed(least)} dB in the worst", least >= -0.1),
        ("sharp photos come back at 38 dB or more", f"{sharp:.2f} dB in the worst", sharp >= 38),
        ("a sharp 1280x720 photo in 8 s, starting included", f"{seconds:.1f} s", seconds <= 8),
        ("a sharp 4000x3000 photo in less than 3 GiB", f"{memory:.2f} GiB", memory < 3),
        ("40 MB or less of weights in all", f"{size:.1f} MB", size <= 40),
    ]  # fmt: skip


def signed(value: float) -> str:
    """Decibels with their sign and two decimals; nothing is never less than nothing."""
    return f"{round(value, 2) + 0:+.2f}"


def _kept(values: Iterable[float | None]) -> list[float]:
    """The PSNR of pictures; of those that came back the same it is infinite: null in JSON."""
    return [math.inf if value is None else value for value in values]


def _told(decibels: float) -> str:
    return "unchanged" if math.isinf(decibels) else f"{decibels:.2f}"


# ---- tables --------------------------------------------------------------------------------------


def goals_table(results: Results) -> str:
    """`goals` of each of `ours` whose cost was measured, in words."""
    ways = list(results["cost"])
    rows = []
    for same in zip(*(goals(results, way) for way in ways), strict=True):
        told = [(measured, "yes" if met else "**no**") for _, measured, met in same]
        rows.append([same[0][0], *(cell for pair in told for cell in pair)])
    return markdown_table(["goal", *(head for way in ways for head in (way, "met"))], rows)


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
    """Mean gain by set and method; of each of `ours` the least, and how many pairs are worse.

    Sets that are `compared` have DMPHN's gains beside theirs, and the mean of the sets below.
    """
    known = list(next(iter(sets.values()))["pairs"][0]["scores"])
    methods = [method for method in known if method != "blurry"]
    columns: dict[str, Results] = {
        method: {name: mean_gain(each["pairs"], method) for name, each in sets.items()}
        for method in methods
    }
    columns |= {"DMPHN(1-2-4)": DMPHN} if compared else {}

    def row(head: str, values: Iterable[float], pairs: Sequence[Results]) -> list[str]:
        cells = [head, *map(signed, values)]
        for way in ours(sets):
            found = gains(pairs, way)
            cells.append(f"{signed(min(found))}, {sum(gain < 0 for gain in found)}")
        return cells

    rows = [
        row(_counted(name, each["pairs"]), (c[name] for c in columns.values()), each["pairs"])
        for name, each in sets.items()
    ]
    if compared:
        means = (statistics.fmean(column[name] for name in sets) for column in columns.values())
        everything = [pair for each in sets.values() for pair in each["pairs"]]
        rows.append(row("mean of the sets", means, everything))
    told = [f"{way}: least, pairs worse" for way in ours(sets)]
    return markdown_table(["gain in dB", *columns, *told], rows)


def settings_table(sets: Results) -> str:
    """By set, the settings of the classical methods that were best there."""
    rows = [(name, *each["settings"].values()) for name, each in sets.items()]
    return markdown_table(["best guess", *CLASSICAL], rows)


def sharp_table(sharp: Results) -> str:
    """By set and way, median and smallest PSNR of sharp photos, deblurred, to themselves."""
    ways = list(next(iter(sharp.values())))
    rows = []
    for name, each in sharp.items():
        cells = [_counted(name, each[ways[0]])]
        for way in ways:
            values = _kept(each[way].values())
            cells += [_told(statistics.median_low(values)), _told(min(values))]
        rows.append(cells)
    told = [head for way in ways for head in (f"{way}: median PSNR, dB", "smallest")]
    return markdown_table(["sharp photos", *told], rows)


def cost_tables(results: Results) -> tuple[str, str]:
    """Seconds per megapixel of each method, and what whole commands took."""
    every = (p for each in results["held_out"].values() for p in each["pairs"])
    large = [p for p in every if p["megapixels"] > 0.5]
    methods = list(large[0]["seconds"])
    rows = [
        (method, f"{statistics.median(p['seconds'][method] / p['megapixels'] for p in large):.2f}")
        for method in methods
    ]
    speed = markdown_table(["method", "seconds per megapixel"], rows)
    commands = [
        (f"{way}, {size}", f"{found['seconds']:.1f} s", f"{found['peak_mib']:.0f} MiB")
        for way, sizes in results["cost"].items()
        for size, found in sizes.items()
    ]
    return speed, markdown_table(["a sharp photo", "time", "peak memory"], commands)


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
        counts = (f"{count} of {len(pairs)}" for count in (nearer, falling))
        rows.append((_counted(name, pairs), *means, *counts))
    heads = ("PSNR to the blurry image", "reblurred, dB", "sharp, dB", "nearer")
    return markdown_table((*heads, "energy falls at every step"), rows)


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
    rows = []
    here = f"here, {found['pairs']} pairs"
    paper = "paper, 555 pairs of GoPro"
    for name, values in ((here, found), (paper, PAPER | indicators(PAPER))):
        shown = (*PAPER, "ratio_blurred", "ratio_reblurred")
        rows.append((name, *(f"{values[key]:.2f}" for key in shown)))
    heads = ["contextual distance", "blur A, A", "reblurred A, A", "blur A, B", "reblurred A, B"]
    return markdown_table([*heads, "ratio blurred", "ratio reblurred"], rows)


def _counted(name: str, pairs: Sequence[Any]) -> str:
    return f"{name} ({len(pairs)})"


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
        f"on {results['machine']}."
        + (f" Scores of {DEFAULT} are of {results['scored']}." if "scored" in results else ""),
        goals_table(results),
        "### Real pairs never trained on",
        scores,
        gained,
        settings,
        "### Camera shake",
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
        default, alone = (mean_gain(pairs, way) for way in (DEFAULT, NETWORK))
        guess = max(mean_gain(pairs, method) for method in CLASSICAL)
        told = (default, min(gains(pairs, DEFAULT)), alone, guess, DMPHN[name])
        rows.append([_counted(name, pairs), f"{blurry:.2f}", *map(signed, told)])
    heads = [DEFAULT, "least of a pair", NETWORK, "best classical", "DMPHN(1-2-4)"]
    return markdown_table(["gain in PSNR, dB", "blurry", *heads], rows).strip()


def write_pages(results: Results) -> None:
    """Write the results and the blocks made of them."""
    pages.keep("quality", results, indent=1)
    for page, block in PAGES.items():
        pages.fill("quality", block(pages.known("quality")), page)


PAGES = {pages.PAGE: benchmarks, ROOT / "README.md": readme}

if __name__ == "__main__":
    write_pages(pages.known("quality"))
