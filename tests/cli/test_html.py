"""`--html`: a report that opens offline, with the numbers of `--json` and harmless names."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

import blurkit
from blurkit.io.records import Record
from tests.cli.command import assert_failed, files, records
from tests.cli.invoke import assert_each_refused, done, invoke
from tests.cli.pictures import blurred, photo, plant_photos, write
from tests.io.films import make_video, pictures

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
EVIL = "<script>alert(1)</script>&\"'</script>"


class Page(HTMLParser):
    """What a page holds: tags with their attributes, the texts of tables, and the data."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self._inside: list[str] = []
        self.data: Any = None
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        script = self.tags[-1] if self.tags else ("", {})
        if script == ("script", {"type": "application/json", "id": "data"}) and self.data is None:
            self.data = json.loads(data)
        elif {"td", "th"} & {*self._inside} and data.strip():
            self.cells.append(data.strip())

    def sources(self) -> set[str]:
        """What the page refers to."""
        return {str(a[k]) for _, a in self.tags for k in ("src", "href") if k in a}


@pytest.fixture
def two_runs(inside: None) -> None:
    """The current folder: three images of 64x48 in ours/, theirs/, blur/, sharp/; ours is best."""
    for number in range(3):
        sharp = photo(number)
        soft = ((blurred(sharp).astype(int) + sharp) // 2).astype(np.uint8)
        images = {"sharp": sharp, "ours": soft, "theirs": blurred(sharp)}
        for side, image in (images | {"blur": blurred(blurred(sharp))}).items():
            write(f"{side}/{number}.png", image)


def test_eval_of_one_run(two_runs: None) -> None:
    command = ["eval", "ours", "sharp", "--blurry", "blur", "--confidence", 0.95, "--json"]
    plain, ran = done(*command), done(*command, "--html", "report")
    assert ran.out == plain.out and "wrote report/index.html" in ran.err
    page = Page(Path("report/index.html"))
    *rows, last = ran.json
    assert page.data["report"] == {**last, "images": rows}
    shown = {f"{row['psnr']:.2f}" for row in rows} | {f"{last['total']['psnr']:.2f}"}
    low, high = last["confidence"]["psnr"]
    assert {*shown, f"[{low:.2f}, {high:.2f}]", "mean of 3", "95 % interval"} <= {*page.cells}
    for image in page.data["images"]:
        captions = [picture["caption"] for picture in image["pictures"]]
        assert captions == ["before", "ours", "reference"]
        for picture, side in zip(image["pictures"], ("blur", "ours", "sharp"), strict=True):
            stored = imageio.imread(Path("report") / picture["file"]).astype(int)
            original = imageio.imread(Path(side) / f"{image['name']}.png")
            assert stored.shape == original.shape and np.abs(stored - original).mean() < 6
    worst = [image["score"] for image in page.data["images"]]
    assert worst == sorted(worst) == pytest.approx(sorted(row["psnr"] for row in rows))

    # Nothing comes from elsewhere.
    text = Path("report/index.html").read_text()
    assert not re.search(r"https?:|url\(|@import|\bfetch\(|XMLHttpRequest|import\(", text)
    named = page.sources() | {p["file"] for i in page.data["images"] for p in i["pictures"]}
    assert named | {"index.html"} == files("report").keys()
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images and all(a["loading"] == "lazy" and a["alt"] == "" for a in images)


def test_two_runs(two_runs: None) -> None:
    command = ["eval", "ours", "theirs", "--reference", "sharp", "--confidence", 0.95, "--json"]
    *rows, last = done(*command, "--html", "report").json
    page = Page(Path("report/index.html"))
    assert page.data["report"] == {**last, "images": rows}
    assert {"ours", "theirs", "PSNR, dB, ours", "SSIM, theirs", "wins"} <= {*page.cells}
    captions = [picture["caption"] for picture in page.data["images"][0]["pictures"]]
    assert captions == ["ours", "theirs", "reference"]
    text = Path("report/index.html").read_text()
    assert "Lowest PSNR" in text and "Most changed" not in text, "there is no picture before"
    assert len({image["pictures"][2]["file"] for image in page.data["images"]}) == 3


def test_names_are_harmless(two_runs: None) -> None:
    pair = {"restored": blurred(photo(0)), "sharp": photo(0)}
    blurkit.write_records([Record(EVIL, pair), Record("plain", pair)], "evil.h5")
    done("eval", "evil.h5", "--html", "report", "-q")
    page = Page(Path("report/index.html"))
    assert [tag for tag, _ in page.tags].count("script") == 2, "the data and ours"
    assert EVIL in page.cells, "shown as text"
    assert {image["name"] for image in page.data["images"]} == {EVIL, "plain"}
    assert all(re.fullmatch(r"[\w./]+", name) for name in page.sources())


def test_deblur_and_python(checkpoint: Path, tree: Path) -> None:
    ran = done("deblur", tree, "-c", checkpoint, "-o", "out.h5", "--json", "--html", "report")
    page = Page(Path("report/index.html"))
    by_name = {image["name"]: image for image in page.data["report"]["images"]}
    for line in ran.json:
        for key in ("sharpness_before", "sharpness_after", "restored_change"):
            assert by_name[line["name"]][key] == line[key]
    scored = done("eval", "out.h5", "--json").json[:-1]
    assert {n: i["psnr"] for n, i in by_name.items()} == {s["name"]: s["psnr"] for s in scored}
    assert "sharpness_after" in page.data["report"]["protocol"]
    words = {"PSNR, dB", "SSIM", "sharpness after", "change, levels of 255", "time, s"}
    first = ran.json[0]
    words |= {f"{first['sharpness_after']:.3f}", f"{first['restored_change']:#.3g}"}
    assert words <= {*page.cells}
    assert not any("_" in cell or "interval" in cell for cell in page.cells), "four images are few"
    made = blurkit.html_report(records("out.h5"), Path("again"))
    assert made == Path("again/index.html")
    assert Page(made).data == page.data
    with pytest.raises(blurkit.BlurkitError, match="no record to report"):
        blurkit.html_report([], Path("empty"))


@pytest.mark.parametrize("output", ["out/", "out.h5"])
def test_a_resumed_run_reports_everything(output: str, checkpoint: Path) -> None:
    plant_photos("in", 2)
    make_video(Path("in/film.mp4"), pictures(2))
    command = ["deblur", "in", "-c", checkpoint, "-o", output, "-q"]
    done(*command[:1], "in/0.png", "in/film.mp4", *command[2:], "--resume")
    for _ in range(2):  # the second time, nothing is left to do
        done(*command, "--resume", "--html", "report")
        shown = {i["name"]: i["pictures"] for i in Page(Path("report/index.html")).data["images"]}
        assert {*shown} == {"0", "1", "film/000000", "film/000001"}
        assert {len(pictures) for pictures in shown.values()} == {2}


def test_records_whose_images_were_finished_are_reported(checkpoint: Path, shard: Path) -> None:
    done("deblur", shard, "-c", checkpoint, "-o", "out/", "-q", "--resume")
    Path("out/scene0/1.png").unlink()
    ran = done("deblur", shard, "-c", checkpoint, "-o", "out/", "--resume", "--html", "report")
    assert ran.lines[-1].endswith(", 3 finished before")
    assert len(Page(Path("report/index.html")).data["images"]) == 4


def test_a_resumed_evaluation_reports_everything(two_runs: None) -> None:
    command = ["eval", "ours", "sharp", "-q", "--confidence", 0.9, "-o", "a.json", "--resume"]
    done(*command)
    Path("a.json").unlink()
    done(*command, "--html", "report")
    assert len(Page(Path("report/index.html")).data["images"]) == 3


def test_existing_folders(two_runs: None) -> None:
    command = ["eval", "ours", "sharp", "-q", "--html"]
    done(*command, "report")
    first = files("report")
    refused = {
        ("report",): "report/index.html: exists already; give --force",
        ("sharp",): "sharp: holds other files (0.png)",
        ("ours/0.png",): "is a file",
    }
    assert_each_refused(refused, *command, status=1)
    done("eval", "theirs", "sharp", "-q", "--html", "report", "--force")
    second = files("report")
    assert len(second) == len(first) and second != first, "old pictures are gone"


def test_what_cannot_be_scored_is_left_out(two_runs: None) -> None:
    write("ours/1.png", photo(1, 40, 64))
    ran = invoke("eval", "ours", "sharp", "--html", "report", "--json", "-q")
    assert_failed(ran, "1", "restored is 64x40")
    assert {i["name"] for i in Page(Path("report/index.html")).data["images"]} == {"0", "2"}


def test_the_pictures_are_no_input(checkpoint: Path) -> None:
    write("in/photo.png", photo(0))
    command = ["deblur", Path("in"), "-c", checkpoint, "--html", "in/report"]
    done(*command)
    assert [line["name"] for line in done(*command, "--force", "--json").json] == ["photo"]


def test_large_pictures_are_shrunk() -> None:
    wide = np.tile(photo(0, 400, 400), (2, 5, 1))
    scene = Record("a", {"blur": wide, "restored": wide}, {"restored_strength": 1.0})
    page = Page(blurkit.html_report([scene], Path("report")))
    with Image.open(Path("report") / page.data["images"][0]["pictures"][0]["file"]) as shown:
        assert shown.size == (1280, 512)


# ---- in a browser --------------------------------------------------------------------------------


def browse(page: Path, fragment: str) -> str:
    """The document that a browser makes of a page, after its script has run."""
    if BROWSER is None:
        pytest.skip(f"no {' or '.join(BROWSERS)} to open the report with")
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--virtual-time-budget=3000", f"{page.absolute().as_uri()}#{fragment}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_browser_shows_the_viewer(two_runs: None) -> None:
    images = {"restored": blurred(photo(0)), "sharp": photo(0)}
    blurkit.write_records([Record(EVIL, images)], "evil.h5")
    done("eval", "evil.h5", "--html", "report", "-q")
    page = Path("report/index.html")
    document = browse(page, "0/side")
    dialog = document.partition("<dialog")[2].partition("</dialog>")[0]
    assert " open" in dialog.partition(">")[0]
    assert dialog.count('class="pane"') == 2 and dialog.count("<img") == 2
    assert "&lt;script&gt;alert(1)" in dialog and "<script" not in dialog
    assert document.count('<button type="button">') >= 4, "the heads of tables sort"
    slider = browse(page, "0/slider")
    assert 'class="handle"' in slider and 'class="right-half"' in slider
