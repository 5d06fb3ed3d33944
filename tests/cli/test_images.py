"""Images as people have them: in pipes, in formats that are not read, and JPEG like its source."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from blurkit.data.sources import read_records
from blurkit.io.images import write_image
from tests.cli.command import assert_failed, files, fresh, piped, run
from tests.cli.invoke import assert_each_refused, done, invoke
from tests.cli.pictures import photo


@pytest.fixture(scope="module")
def jpeg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG of 64x48 with coarse tables and chroma of half the size."""
    path = tmp_path_factory.mktemp("jpeg") / "b.jpg"
    PIL.Image.fromarray(photo(0)).save(path, quality=70, subsampling=2)
    return path


def opened(data: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(data))


def test_an_image_through_a_pipe(checkpoint: Path, jpeg: Path) -> None:
    command = f"cat {jpeg} | blurkit deblur - -c {checkpoint} -q"
    piped(f"{command} -o x.png && {command} -o - --format png > z.png")
    assert Path("z.png").read_bytes() == Path("x.png").read_bytes()
    done("deblur", jpeg, "-c", checkpoint, "-o", "y.png", "-q")
    with PIL.Image.open("x.png") as x, PIL.Image.open("y.png") as y:
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".avif", ".jxl", ".jp2", ".heic"])
def test_every_format_is_recognised_by_its_bytes(
    suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if suffix == ".heic":
        pytest.importorskip("pillow_heif")
    write_image(Path(f"a{suffix}"), photo(0))
    data = Path(f"a{suffix}").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    (record,) = read_records(["-"], image="sharp")
    assert record.name == "stdin" and list(record.images) == ["sharp"]
    assert record.attrs["suffix"] == suffix and record.attrs["source"] == "stdin"
    assert np.abs(record.images["sharp"].astype(float) - photo(0)).mean() < 4


def test_an_image_on_standard_output(checkpoint: Path, joint: Path, jpeg: Path) -> None:
    ran = invoke("deblur", jpeg, "-c", checkpoint, "-q", "-o", "-", "--format", "tif")
    done("deblur", jpeg, "-c", checkpoint, "-q", "-o", "x.tif")
    assert opened(ran.out).format == "TIFF" and ran.out == Path("x.tif").read_bytes()
    for command in (("reblur", "-", "--like", jpeg), ("transfer", "-", jpeg, jpeg)):
        given = ("-c", joint, "-q", "-o", "-", "--format", "png")
        assert opened(done(*command, *given, input=jpeg.read_bytes()).out).size == (64, 48)


def test_what_a_pipe_of_images_cannot_be(checkpoint: Path, jpeg: Path) -> None:
    command = ("deblur", "-c", checkpoint, "-q", jpeg)
    cases = {
        ("-", "--format", "xcf"): "--format xcf: use one of png jpg",
        ("x.png", "--format", "jpg"): "--format jpg contradicts -o x.png",
        ("x.h5", "--format", "jpg"): "-o x.h5 holds records, not images",
        ("-", "--quality", "5"): "-o - holds records, not images",
        ("-", "--format", "png", "--json"): "both write to standard output",
        ("x.gif",): "-o x.gif is one film, but",
    }
    assert_each_refused(cases, *command, "-o")
    Path("c.jpg").write_bytes(jpeg.read_bytes())
    ran = invoke(*command, "c.jpg", "-o", "-", "--format", "png")
    assert ran.status == 2 and "is one image, but there are more" in ran.err
    assert [path.name for path in Path().iterdir()] == ["c.jpg"]


def test_bytes_that_are_neither(checkpoint: Path, jpeg: Path) -> None:
    command = ("deblur", "-", "-c", checkpoint, "-o", "x.png", "-q")
    for data, words in (
        (b"hello", "stdin: is neither a stream of records nor an image"),
        (jpeg.read_bytes()[:-200], "stdin: damaged or truncated"),
    ):
        assert_failed(invoke(*command, input=data), "stdin", words)
    (told,) = run("info", "-", "--json", input=jpeg.read_bytes()).json
    assert (told["kind"], told["file_bytes"]) == ("image", jpeg.stat().st_size)


def test_a_jpeg_is_written_like_its_source(checkpoint: Path, jpeg: Path) -> None:
    command = f"blurkit deblur - -c {checkpoint} -q -o"
    piped(
        f"cat {jpeg} | {command} direct.jpg && cat {jpeg} | {command} fine.jpg --quality 98 && "
        f"blurkit prepare {jpeg} -o - -q | {command} shard.jpg"
    )
    with PIL.Image.open(jpeg) as source:
        for name, alike in (("direct", True), ("shard", True), ("fine", False)):
            with PIL.Image.open(f"{name}.jpg") as written:
                assert (written.quantization == source.quantization) == alike  # type: ignore[attr-defined]
                assert (written.layer == source.layer) == alike  # type: ignore[attr-defined]


def planted(folder: Path, *names: str) -> Path:
    folder.mkdir()
    PIL.Image.fromarray(photo(0)).save(folder / "grey.png")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"something")
    return folder


def test_what_is_not_read_is_counted(checkpoint: Path) -> None:
    named = ("a.psd", "b.psd", "below/c.PSD", "d.xcf", "notes.txt", "x.json", "README", ".z.psd")
    folder, reason = planted(Path("photos"), *named), "(not an image format that blurkit reads)"
    for command in (["deblur", "-c", checkpoint, "-o", "out/"], ["info"], ["eval", "out"]):
        ran = invoke(*command, folder, "-q")
        assert ran.status == 1, ran.err
        assert ran.lines[-1] == f"skipped 4: 3 .psd {reason}, 1 .xcf {reason}"
    assert (Path("out") / "grey.png").exists()
    ran = invoke("deblur", folder / "a.psd", "-c", checkpoint, "-o", "k/", "-q")
    assert_failed(ran, "a.psd", "film or shard that can be read; not an image")


def test_texts_do_not_count(checkpoint: Path) -> None:
    folder = planted(Path("photos"), "notes.txt", "x.json", "a.md", "b.csv", "c.zip", "Makefile")
    done("deblur", folder, "-c", checkpoint, "-o", "out/", "-q")


WITHOUT_EXTRAS = """
import sys
sys.modules["pillow_heif"] = sys.modules["rawpy"] = None  # as if they were not installed
from blurkit.__main__ import main
for name in ("photos", "photos/a.heic"):
    sys.argv = ["blurkit", "prepare", name, "-o", "x.h5", "-q", "--jobs", "1", "--force"]
    try:
        main()
    except SystemExit as ended:
        print(ended.code)
"""


def test_the_line_says_what_to_install() -> None:
    planted(Path("photos"), "a.heic", "b.HEIC", "c.cr2", "d.arw")
    ran = fresh("-c", WITHOUT_EXTRAS)
    assert ran.out.split() == [b"1", b"1"]
    heic, raw = (f"pip install 'blurkit[{extra}]'" for extra in ("heic", "raw"))
    assert ran.lines[0] == f"skipped 4: 2 .heic ({heic}), 1 .arw ({raw}), 1 .cr2 ({raw})"
    assert f"film or shard that can be read; {heic}" in ran.lines[1]


def test_formats_that_are_not_written_become_others(checkpoint: Path) -> None:
    pytest.importorskip("rawpy")
    from tests.io.test_images import write_raw

    write_raw(Path("raw.dng"), photo(0, 64, 64))
    PIL.Image.fromarray(photo(0)).save("still.gif")
    before = files()
    for _ in range(2):  # the second run does not take the results of the first for photos
        done("deblur", ".", "-c", checkpoint, "-q", "--force")
    assert before.items() <= files().items()
    assert files().keys() - before.keys() == {"raw.deblurred.tif", "still.deblurred.png"}
    with PIL.Image.open("raw.deblurred.tif") as written:
        assert written.tag_v2[258] == (16, 16, 16)  # type: ignore[attr-defined]
    done("deblur", "raw.dng", "-c", checkpoint, "-o", "x.jpg", "-q")
    assert opened(Path("x.jpg").read_bytes()).format == "JPEG"


def test_what_does_not_come_along_is_one_line_a_file(checkpoint: Path, jpeg: Path) -> None:
    Path("film.jpg").write_bytes(jpeg.read_bytes() + b"\0\0\0\x08ftyp")
    with PIL.Image.open(jpeg) as source:
        indexed = source.quantize(8)
    indexed.save("pages.tif", save_all=True, append_images=[indexed.rotate(180)])
    done("prepare", "film.jpg", "-o", "film.h5")
    for name, result, lost in (
        ("film.jpg", "a.webp", "film"),
        ("film.h5", "b.webp", "film"),
        ("film.jpg", "c.jpg", None),
        ("pages.tif", "d.tif", "palette"),
    ):
        ran = done("deblur", name, "-c", checkpoint, "-o", result)
        lines = [line for line in ran.lines if "did not come along" in line]
        assert len(lines) == bool(lost)
        assert lost is None or f"the source's {lost} did not come along" in lines[0]
    assert Path("c.jpg").read_bytes().endswith(b"ftyp")
