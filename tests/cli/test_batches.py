"""Batches: names, parts, what was finished before, and what is refused before torch is loaded."""

import os
import signal
import tarfile
import unicodedata
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest

from blurkit import write_records
from blurkit.io.records import Record
from tests.cli.command import assert_failed, assert_refused, files, fresh, records, start
from tests.cli.invoke import assert_each_refused, done, invoke, timeless
from tests.cli.pictures import photo, plant_photos, write
from tests.cli.test_interrupts import end, wait_for
from tests.io.films import make_video, pictures
from tests.io.scenes import assert_all_same

pytestmark = pytest.mark.usefixtures("one_thread")


def test_files_of_one_stem_have_a_result_each(checkpoint: Path) -> None:
    folder = Path("in")
    for number, name in enumerate(("b.png", "b.tif", "b.bmp", "c.png")):
        write(folder / name, photo(number))
    results = ["b.bmp", "b.png", "b.tif", "c.png"]
    options = ["-c", checkpoint, "-q"]
    done("deblur", folder, *options, "-o", "out/")
    assert [*files("out")] == results
    named = [folder / name for name in ("c.png", "b.tif", "b.png", "b.bmp")]
    done("deblur", *named, *options, "-o", "other/")
    assert files("other") == files("out")
    done("deblur", folder, *options)
    beside = [f"{name[0]}.deblurred{name[1:]}" for name in results]
    assert {*files(folder)} == {*results, *beside}
    *rows, _ = done("eval", "out", folder, "--json", "-q").json
    assert {row["name"] for row in rows} == {"b.bmp", "b.png", "b.tif", "c"}
    assert min(row["psnr"] for row in rows) > 30


def test_parts_make_the_files_of_one_run(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = plant_photos("in", 7)
    options = ["deblur", folder, "-c", checkpoint, "-q", "-o"]
    done(*options, "whole/")
    for part in (1, 2, 3):
        done(*options, "parts/", "--part", f"{part}/3")
        assert len(files("parts")) == (3, 5, 7)[part - 1]
    assert files("parts") == files("whole")
    refused = invoke("deblur", folder, "--part", "auto")
    assert_refused(refused, "--part auto: none of RANK, ", "is set", status=2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        told = done("prepare", folder / "0.png", "--part", "auto", "-o", f"{rank}.h5")
    assert "part 2/2 (RANK=1, WORLD_SIZE=2)" in told.lines
    assert len([*Path().glob("?.h5")]) == 1


ARRAYS = {
    "images": ("reblur photos --kernel k.npy", "-o out/", "-o whole/"),
    "shards": ("reblur photos --kernel k.npy", "--resume -o out/{part}.h5", "-o whole/0.h5"),
    "a dataset": ("prepare photos --crop 24 --jobs 1", "-o out/", "-o whole/"),
}


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_of_eight_that_lost_a_task(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ids are 0 to 7, of which 5 is lost and then started again, alone."""
    plant_photos("photos", 11)
    command, *ends = ARRAYS[kind]
    array, whole = ([*command.split(), *end.split()] for end in ends)
    done(*whole, "-q")
    status = [*array, "--part", "auto/8", "--status"]
    for name, value in (("COUNT", 8), ("MIN", 0), ("STEP", 1)):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    for task in (0, 1, 2, 3, 4, 6, 7):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        done(*array, "--part", "auto/8", "-q")
    told = done(*status)
    assert told.out == b"--array=5\n"
    assert told.lines[4].startswith("part 5/8: 0 of 1 ")
    assert told.lines[8].startswith("in all: 10 of 11 ")
    assert done(*status, "--json").json[-1] == {"done": 10, "missing": 1, "array": "5"}
    for name, value in (("COUNT", 1), ("MIN", 5), ("ID", 5)):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    done(*array, "--part", "auto/8", "-q")
    assert done(*status, "-q").out == b""
    if kind == "images":
        assert files("out") == files("whole")
        return
    shards = (timeless(records(*Path(folder).glob("*.h5"))) for folder in ("out", "whole"))
    assert_all_same(*(sorted(held, key=attrgetter("name")) for held in shards))


def test_what_status_cannot_know() -> None:
    plant_photos("in", 1)
    stream = "--status requires files as"
    refused = {
        ("in", "-o", "-"): stream,
        ("-", "-o", "out/"): stream,
        ("in", "-o", "out/", "--frames"): "leave out --frames",
        ("in", "-o", "out/", "--part", "auto"): "--part auto: none of RANK, ",
        ("in", "-o", "out/", "--part", "auto/x"): "--part 1/x: write I/N",
    }
    assert_each_refused(refused, "deblur", "--status")
    copies = {("in", "--random", "--copies", 2): "named after photos, not --copies"}
    assert_each_refused(copies, "reblur", "--status")
    assert [*files()] == ["in/0.png"]


def test_a_film_is_in_one_part(kernel: Path) -> None:
    plant_photos("in", 2)
    make_video(Path("in/clip.mov"), pictures(4), audio=False)
    command = ["reblur", "in", "--kernel", kernel, "-q", "-o"]
    done(*command, "whole/")
    done(*command, "frames.h5")
    for number in (1, 2, 3):
        done(*command, "parts/", "--part", f"{number}/3")
        assert len(files("parts")) == number
        done("reblur", "frames.h5", *command[2:], "again/", "--part", f"{number}/3")
        assert len(files("again")) == number
    assert files("parts") == files("whole")
    assert files("again").keys() == files("whole").keys()


def test_several_results_in_one_file_are_refused_before_any_work(shard: Path, kernel: Path) -> None:
    folder = plant_photos("in", 2)
    one = {("-o", "one.png"): "-o one.png is one image, but there are more; name a folder/"}
    for inputs in ([folder / "0.png", folder / "1.png"], [folder], [shard]):
        assert_each_refused(one, "deblur", *inputs)
        assert_each_refused(one, "reblur", *inputs, "--kernel", kernel)
        assert_each_refused(one, "blind-deblur", *inputs)
    assert_each_refused(one, "prepare", folder, "-q")
    stream = {("-o", "-", "--format", "png"): "-o - with --format is one image, but there are more"}
    assert_each_refused(stream, "deblur", folder)
    assert_each_refused(one, "reblur", folder / "0.png", "--random", "--copies", 2)
    assert not Path("one.png").exists()


def test_a_name_without_an_ending_is_a_folder_for_several(shard: Path, kernel: Path) -> None:
    folder = plant_photos("in", 2)
    command = ["--kernel", kernel, "-q", "-o"]
    for number, inputs in enumerate(([folder], [folder / "0.png", folder / "1.png"], [shard])):
        done("reblur", *inputs, *command, f"out{number}")
        assert len(files(f"out{number}")) == (4 if inputs == [shard] else 2)
    done("prepare", folder, "-q", "-o", "shards.2")
    assert [*files("shards.2")] == ["train-00000.h5"]
    refused = {("-o", "out"): "-o out: name an image, a film, a folder (end it with /)"}
    assert_each_refused(refused, "deblur", folder / "0.png")


def test_what_blurkit_wrote_is_skipped_among_named_files(checkpoint: Path) -> None:
    plant_photos("", 2)
    done("deblur", "0.png", "1.png", "-c", checkpoint, "--compare", "-q")
    named = sorted(Path().glob("*.*g"))
    assert len(named) == 6
    ran = done("deblur", *named, "-c", checkpoint, "-o", "out", "--json")
    assert [line["name"] for line in ran.json] == ["0", "1"]
    skipped = "0.compare.jpg, 0.deblurred.png, 1.compare.jpg, ..."
    assert ran.lines[0] == f"skipped 4 written by blurkit itself: {skipped}"
    assert ran.lines[0] in done("prepare", *named, "-o", "a.h5").lines


def test_forms_of_one_name_are_one_name(checkpoint: Path) -> None:
    """As files come from a Mac, whose archives have another form of Unicode."""
    Path("tars").mkdir()
    forms = [unicodedata.normalize(form, "caf\xe9") for form in ("NFC", "NFD")]
    for side, form in zip(("blur", "sharp"), forms, strict=True):
        write(Path(f"pairs/{side}/{form}.png"), photo(0))
        write(Path(f"both/{form}.png"), photo(0))
        with tarfile.open(f"tars/{side}.tar", "w") as tar:
            tar.add(f"pairs/{side}/{form}.png", f"{form}.png")
    done("prepare", "tars", "-o", "tars.h5", "-q")
    Path("pairs/trainlist.txt").write_text(f"{forms[1]}.png\n")
    done("prepare", "pairs", "-o", "pairs.h5", "-q", "--list", "pairs/trainlist.txt")
    for record in records("pairs.h5", "tars.h5"):
        assert record.name == forms[0] and {"blur", "sharp"} <= record.images.keys()
    ran = invoke("deblur", "both", "-c", checkpoint, "-o", "out/")
    assert_failed(ran, "1 failed, 1 deblurred", f"its name '{forms[0]}.png' is taken by ")
    assert [*files("out")] == [f"{forms[0]}.png"]


def test_files_without_an_ending_and_open_ones_are_read_by_content(kernel: Path) -> None:
    jpeg, command = write("photo.jpg", photo(0)).read_bytes(), ["--kernel", kernel, "-q"]
    Path("photo.jpg").rename("photo")
    make_video(Path("clip.mov"), pictures(2), audio=False).rename("clip")
    done("prepare", "photo", "--as", "sharp", "-o", "one.h5", "-q")
    Path("one.h5").rename("one")
    done("reblur", "photo", "clip", *command)
    assert {"photo.reblurred.jpg", "clip.reblurred.mov"} <= files().keys()
    assert [info["kind"] for info in done("info", "photo", "clip", "one", "--json").json] == [
        *("image", "film", "shard")
    ]
    reads = []
    for content in (jpeg, Path("one").read_bytes()):
        end, source = os.pipe()
        os.write(source, content)
        os.close(source)
        reads.append(end)
    pipes = [f"/dev/fd/{end}" for end in reads]
    for number, inputs in enumerate((pipes, ["one"])):
        done("reblur", *inputs, *command, "-o", f"out{number}/")
    assert {*files("out0")} == {f"{reads[0]}.jpg", "photo.jpg"} and [*files("out1")] == [
        "photo.jpg"
    ]


def test_an_output_that_cannot_be_opened_is_said_once(checkpoint: Path) -> None:
    folder = plant_photos("in", 3)
    for output in ("/proc/out/", "in/0.png/out/"):
        for command in (["deblur", folder, "-c", checkpoint], ["prepare", folder, "-q"]):
            assert_refused(invoke(*command, "-o", output), ": cannot be written")


@pytest.mark.parametrize("command", ["deblur", "blind-deblur", "interpolate"])
def test_a_refusal_behind_the_opened_output_leaves_nothing(command: str) -> None:
    plant_photos("in", 2)
    Path("bad.pt").write_text("no checkpoint")
    inputs = ("in/0.png", "in/1.png") if command == "interpolate" else ("in/0.png",)
    before = files()
    ran = invoke(command, *inputs, "-c", "bad.pt", "-o", "out.h5", "--resume")
    assert_refused(ran, "bad.pt: is not a checkpoint")
    assert files().keys() - before.keys() <= {".out.h5.options.json"}


def test_a_refusal_behind_the_opened_folder_of_shards_leaves_nothing() -> None:
    plant_photos("in", 2)
    Path("bad.pt").write_text("no checkpoint")
    done("prepare", "in", "-o", "out/", "-q")
    changed = Path("out/train-00000.h5").stat().st_mtime_ns + 1
    os.utime("in/1.png", ns=(changed, changed))
    command = ["prepare", "in", "-o", "out/", "-q", "--resume", "--transfer-from", "in"]
    assert_refused(invoke(*command, "-c", "bad.pt"), "bad.pt: is not a checkpoint")
    assert [path.name for path in Path("out").iterdir()] == ["train-00000.h5"]


# ---- resuming ------------------------------------------------------------------------------------


def test_a_folder_is_resumed(checkpoint: Path) -> None:
    folder, output = plant_photos("in", 4), Path("out")
    command = ["deblur", folder, "-c", checkpoint, "-o", f"{output}/"]
    done(*command)
    whole = files(output)
    (output / "1.png").unlink()
    (output / "2.png").write_bytes(b"")
    os.utime(output / "3.png", (1, 1))  # older than its input
    (output / "0.png").write_bytes(b"finished")
    ran = done(*command, "--resume")
    assert ran.lines[-2] == f"wrote 3 images to {output}/"
    assert ran.lines[-1].startswith("deblurred 3 images in ")
    assert ran.lines[-1].endswith(", 1 finished before")
    assert (output / "0.png").read_bytes() == b"finished"
    (output / "0.png").unlink()
    done(*command, "--resume", "-q")
    made = files(output)
    assert made.pop(".options.json") and made == whole
    wrong = {
        ("--resume", "--strength", 0.5): "strength was 1.0 and is 0.5 now",
        ("--resume", "--force"): "choose one",
        ("--resume", "-o", "-"): "'-o -' cannot be continued",
    }
    assert_each_refused(wrong, *command)
    done(*command, "--force", "--strength", 0.5, "-q")
    assert files(output).keys() == whole.keys()


def test_pairs_whose_photo_has_changed_are_made_again(kernel: Path) -> None:
    folder = plant_photos("in", 2)
    command = ["reblur", folder, "--kernel", kernel, "--pairs", "-o", "out/", "--resume"]
    done(*command)
    newer = Path("out/train-00000.h5").stat().st_mtime_ns + 1
    write(folder / "1.png", photo(7))
    os.utime(folder / "1.png", ns=(newer, newer))
    assert done(*command).lines[-1].endswith(", 1 finished before")
    made = {record.name: record.images["sharp"] for record in records(*Path("out").glob("*.h5"))}
    assert [*made] == ["0", "1"]
    np.testing.assert_array_equal(made["1"], photo(7))


def test_images_beside_and_other_commands_are_resumed(joint: Path) -> None:
    for name, *more in (("reblur", "--like", "B"), ("transfer", "A", "B", "--system", "msdi")):
        folder = plant_photos(name, 2, 64, 64)
        pair = {"A": folder / "0.png", "B": folder / "1.png"}
        command = [name, folder, *(pair.get(word, word) for word in more), "-c", joint, "-q"]
        done(*command)
        before = files(folder)
        kept = next(folder.glob("0.*ed.png"))
        kept.write_bytes(b"finished")
        next(folder.glob("1.*ed.png")).unlink()
        done(*command, "--resume")
        assert kept.read_bytes() == b"finished"
        kept.unlink()
        done(*command, "--resume")
        assert files(folder) == before


def test_records_that_come_from_no_file_are_resumed(kernel: Path) -> None:
    made = (Record(f"{n}", {"sharp": photo(n, 24, 24)}) for n in range(2))
    write_records(made, "in.h5")
    command = ["reblur", "in.h5", "--kernel", kernel, "--resume", "-o", "out.h5"]
    assert "reblurred 2 images in " in done(*command).err
    again = done(*command).lines[-1]
    assert again.startswith("reblurred 0 ") and again.endswith(", 2 finished before")


def test_pairs_of_an_interpolation_are_resumed(joint: Path, tree: Path) -> None:
    command = ["interpolate", tree, "-c", joint, "--steps", 2, "-q", "-o", "out/"]
    done(*command)
    whole = files("out")
    Path("out/scene0/1/0.png").unlink()
    Path("out/scene0/0/1.png").write_bytes(b"finished")
    done(*command, "--resume")
    assert Path("out/scene0/0/1.png").read_bytes() == b"finished"
    made = files("out")
    assert made.keys() == whole.keys() | {".options.json"}
    assert made["scene0/1/0.png"] == whole["scene0/1/0.png"]


def test_a_killed_run_loses_one_record_of_a_shard(checkpoint: Path) -> None:
    folder, output = plant_photos("in", 4, 64, 64), Path("out.h5")
    options = ["deblur", folder, "-c", checkpoint, "-q", "-o"]
    done(*options, "whole.h5")
    process = start(*options, output, "--resume")
    unfinished = Path(".out.h5.unfinished")
    record = 2 * 64 * 64 * 3  # bytes
    wait_for(lambda: unfinished.is_file() and unfinished.stat().st_size > record, 60)
    end(process, signal.SIGKILL)
    assert not output.exists()
    with unfinished.open("ab") as file:  # as if it had been killed while it wrote
        file.write(unfinished.read_bytes()[:5000])
    assert "finished before" in done(*options[:-2], "-o", output, "--resume").lines[-1]
    assert_all_same(timeless(records(output)), timeless(records("whole.h5")))
    left = {path.name for path in Path().iterdir()}
    assert left == {"in", "out.h5", "whole.h5", ".out.h5.options.json"}
    before = output.read_bytes()
    done(*options, output, "--resume")
    assert output.read_bytes() == before
    write(folder / "9.png", photo(9))
    done(*options, output, "--resume")
    assert [record.name for record in records(output)] == [*"0123", "9"]
    write(folder / "1.png", photo(8, 64, 64))
    os.utime(folder / "1.png", ns=(output.stat().st_mtime_ns + 1,) * 2)
    done(*options, output, "--resume")
    made = {record.name: record.images["blur"] for record in records(output)}
    assert [*made] == [*"023", "9", "1"]
    np.testing.assert_array_equal(made["1"], photo(8, 64, 64))


# ---- errors first --------------------------------------------------------------------------------

HEAVY = ("torch", "torchvision", "scipy", "skimage", "cv2", "tifffile", "imagecodecs", "imageio")
HEAVY += ("av", "pillow_heif", "rawpy", "jinja2", "rich", "matplotlib")
"""Modules that take long to import, and that a command therefore must not need to refuse."""

IN_TURN = f"""
import contextlib, io, json, sys
from blurkit.cli.app import main
sys.modules.update(dict.fromkeys({HEAVY!r}))  # importing them fails
for line in sys.stdin:
    sys.argv, said = ["blurkit", *line.split()], io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            main()
    except SystemExit as end:
        print(json.dumps([end.code or 0, said.getvalue().splitlines()]))
"""

READERS = ("deblur {}", "deblur {} -o new/", "reblur {} --random", "interpolate {} -o new/")
READERS += ("transfer {} photo.png photo.png", "prepare {} -o new/", "eval {}")
UNREADABLE = {
    "missing.jpg": "missing.jpg: no such file",
    "empty": "empty: holds no image",
    "notes.txt": "notes.txt: is not an image",
}
REFUSED = {
    "deblur photo.png --strength 7": "--strength 7: must be from 0",
    "deblur photo.png --device nonsense": "--device nonsense: use auto, cpu",
    "deblur photo.png --kernel no.png": "no.png: no such file",
    "reblur photo.png": "photo.png: holds no pair of a sharp and a blurry image; name what",
    "reblur photo.png --like no.png": "no.png: no such file or folder",
    "reblur photo.png --kernel no.mat": "no.mat: no such file",
    "reblur photo.png --search": "photo.png: holds no pair of a sharp and a blurry image",
    "transfer photo.png photo.png": "photo.png: holds no pair of a sharp and a blurry image",
    "transfer photo.png no.png photo.png": "no.png: no such file",
    "interpolate photo.png": "photo.png: holds no pair of a sharp and a blurry image",
    "interpolate no.png photo.png": "no.png: no such file",
    "interpolate photo.png no.png": "no.png: no such file",
    "interpolate photo.png b.png -o b.png": "b.png: exists already; give --force",
    "eval photo.png no.png": "no.png: no such file",
    "eval photo.png b.png --metric no": "--metric no: choose from",
    "eval photo.png b.png -o x.txt": "-o x.txt: name a file that ends in",
    "eval photo.png b.png -o photo.png": "-o photo.png: name a file that ends in",
    "eval photo.png b.png --lpips no.pth": "no.pth: no such file (from --lpips)",
    "eval photo.png b.png --html b.png": "--html b.png: is a file",
    "eval --merge no.json": "no.json: cannot be read",
    "prepare photo.png -o b.png": "b.png",
    "train-deblur no.h5 -o x.pt": "--encoder FILE: name the checkpoint",
    "train-deblur no.h5 --encoder no.pt -o x.pt": "no.pt: no such file (from --encoder)",
    "train-deblur no.h5 --system msfs -o x.pt": "no.h5: no such shard or folder",
    "train-reblur empty -o x.pt": "empty: holds no train-*.h5",
    "train-reblur empty -o x.pt --crop 250": "--crop 250: must be a multiple of 16",
    "train-reblur empty -o x.png": "-o x.png: name a checkpoint",
    "train-reblur empty --features no.pth": "no.pth: no such file (from --features)",
    "contextual-sim no.png photo.png": "no.png: no such file",
    "contextual-sim photo.png b.png --features no.pth": "no.pth: no such file",
    "blind-deblur no.png": "no.png: no such file",
    "info no.png": "no.png: no such file",
    # Outputs that cannot be written.
    "deblur there/photo.png": "there/photo.deblurred.png: exists already; give --force",
    "deblur photo.png -o out/": "out/photo.png: exists already",
    "deblur photo.png -o out/photo.png": "out/photo.png: exists already",
    "deblur photo.png -o photo.png/x.png": "photo.png: cannot be written",
    "deblur photo.png -o x.xyz": "-o x.xyz: name an image, a film, a folder",
    "deblur photo.png -o y.png -c no.pt": "no.pt: no such checkpoint",
    "reblur there/photo.png --random": "there/photo.reblurred.png: exists already",
    "transfer there/photo.png photo.png b.png": "there/photo.transferred.png: exists already",
}


def test_what_cannot_work_is_refused_without_torch() -> None:
    """One process runs all commands in turn, which takes less time than a process for each."""
    for number, name in enumerate(("photo.png", "b.png", "there/photo.png", "out/photo.png")):
        write(Path(name), photo(number))
    for made in ("deblurred", "reblurred", "transferred"):
        write(f"there/photo.{made}.png", photo(0))
    Path("empty").mkdir()
    Path("notes.txt").write_text("no image")
    before = files()
    unreadable = [(line.format(n), words) for line in READERS for n, words in UNREADABLE.items()]
    cases = [*unreadable, *REFUSED.items(), ("deblur there/photo.png --resume", "")]
    ran = fresh("-c", IN_TURN, input="\n".join(line for line, _ in cases), BLURKIT_LPIPS="")
    assert ran.status == 0, ran.err
    *refused, finished = zip(cases, ran.json, strict=True)
    for (line, words), (status, lines) in refused:
        assert status in (1, 2) and words in lines[0], (line, lines)
    for (line, _), (status, lines) in refused[: len(unreadable)]:
        assert status == 1
        assert f"1 failed, 0 {line.split()[0].removesuffix('e')[:6]}" in lines[-1], (line, lines)
    assert finished[1][0] == 0 and finished[1][1][-1].endswith(", 1 finished before")
    assert files() == before
