"""Compare exiftool's listing of files of all kinds before and after `deblur` and `prepare`.

    python -m tests.tools.listing [FOLDER]     files are kept in FOLDER, which must not exist

Files are the examples of the table in docs/formats.md, and more kinds of pictures, animations and
films, in which exiftool writes whatever tags it can. A value that a result lacks counts, in
whichever group of tags it was, unless it says how pixels are stored or a line explains it. It ends
with status 1 if there are any. Needs exiftool, and packages for HEIC and RAW files.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image

from tests.io import test_carried as carried

TAGS = """
EXIF:Make=a camera|EXIF:Model=a model|EXIF:Artist=an artist|EXIF:Copyright=mine
EXIF:DateTimeOriginal=2001:02:03 04:05:06|EXIF:OffsetTimeOriginal=+02:00|EXIF:ExposureTime=1/50
EXIF:FNumber=2.8|EXIF:ISO=200|EXIF:LensModel=a lens|EXIF:UserComment=a remark
EXIF:ImageDescription=a title|EXIF:GPSLatitude=48.1|EXIF:GPSLatitudeRef=N|EXIF:GPSLongitude=11.5
EXIF:GPSLongitudeRef=E|EXIF:GPSAltitude=500|EXIF:Orientation#=6|EXIF:XPKeywords=words
EXIF:Software=maker|XMP-dc:Title=a title|XMP-dc:Subject=one|XMP-dc:Subject=two|XMP-dc:Creator=who
XMP-xmp:Rating=4|XMP-photoshop:City=town|XMP-xmpMM:DocumentID=xmp.did:1|XMP-iptcCore:Location=here
XMP-lr:HierarchicalSubject=a or b|IPTC:Keywords=one|IPTC:Keywords=two|IPTC:City=town
IPTC:Caption-Abstract=a caption|IPTC:CodedCharacterSet=UTF8|Photoshop:URL=https://example.org
JFIF:XResolution=300|JFIF:YResolution=150|JFIF:ResolutionUnit=inches|PNG:Title=a title
PNG:Author=who|PNG:PixelsPerUnitX=11811|Comment=a comment|QuickTime:Title=a film
QuickTime:CreateDate=2001:02:03 04:05:06|Keys:Make=a maker|Keys:Model=a phone|Keys:Software=17.1
Keys:GPSCoordinates=48.1, 11.5, 500|Keys:CreationDate=2001:02:03 04:05:06+02:00
UserData:Author=who|ItemList:Comment=a comment
"""

STORAGE = re.compile(
    r"""Adobe|.*0x.*|.*(Offset|Chunk|Bitrate|Unknown).*|(Strip|Tile|Preview|MP|Thumbnail)Image.*
    |(Strip|Tile).*|File(Type|TypeExtension|Size)|MIMEType|MediaData.*|.*ToSample.*|Sync.*|Sample.*
    |Compress.*|Predictor|CompatibleBrands|Bit(s|Depth).*|Planar.*|Photometric.*|BMP.*|JPEGTables
    |ColorMap|Palette|HasColorMap|NumColors|NumImportant.*|.*Config.*|CodecPrivate|RowsPer.*
    |Constraint.*|.*Profile(IDC|Compat.*)?Flags|SeqProfile|ChromaFormat|Jpeg2000.*|GIFVersion
    |Image(Length|Width|Height)|.*CRC.*|.*Position|.*UID|Duration|Audio.*Sample.*|MaxDataRate
    |VideoCodec|HandlerVendor.*|.*AndDisposable.*|ColorResolution.*|BackgroundColor|APP14.*
    |DCTEncode.*|Color(Transform|Components|Type)|NumberOfComponents|.*Mask|TransparentColor
    |MajorBrand|GenProfile.*|GeneralProfile.*|ProfileDataOffset""",
    re.VERBOSE,
)
"""Names of tags that say how a file stores what it holds."""

UPRIGHT = ("Orientation", "Rotation", "ImageSpatialExtent")
"""Names of tags of pictures that are stored upright now."""

SENSOR = re.compile(r"CFA.*|.*Level|ColorMatrix.*|CalibrationIllum.*|AsShot.*|DNG.*|UniqueCamera.*")
"""Names of tags of what a RAW file's pixels were before they were developed."""

EXPLAINED = {
    "colour profile": r"Profile.*|.*(Matrix|TRC|Point|Curve).*|Device.*|CMM.*|Primary.*"
    r"|Connection.*|RenderingIntent|Color.*|Media.*",
    "XMP": r"Creator|Subject|Title|Rating|City|DocumentID|Location|HierarchicalSubject|XMPToolkit",
    "auxiliary picture": "AuxiliaryImageType",
    "film": "MotionPhotoVideo",
    "aspect ratio of pixels": "PixelAspectRatio",
    "channel of unstated meaning": "ExtraSamples",
    "tags of a film": ".*",
    "uuid box": ".*",
    "oURs chunk": ".*oURs",
}
"""What a line about a file names, and the names of tags that its result may lack then."""

UNDATED = "0000:00:00 00:00:00"

Listing = dict[str, set[str]]


def make(folder: Path) -> None:
    """Write the files, with tags of exiftool."""
    folder.mkdir(parents=True)
    os.chdir(folder)  # where some of the examples are made
    for suffix, things in carried.EXAMPLES.items():
        for thing, example in things.items():
            Path(f"{suffix[1:]} {thing}{suffix}").write_bytes(example())
    made = [*pictures(), *animations(), *films()]
    arguments = [f"-{tag}" for tag in re.split(r"[|\n]", TAGS.strip())]
    for path in made:  # exiftool cannot write into all
        subprocess.run(
            ["exiftool", "-q", "-q", "-m", "-overwrite_original", *arguments, path],
            check=False,
            stderr=subprocess.DEVNULL,
        )


def pictures() -> Iterator[Path]:
    photo = PIL.Image.fromarray(carried.PHOTO)
    ways: dict[str, dict[str, Any]] = {
        **{"progressive.jpg": {"quality": 92, "progressive": True}, "plain.png": {}},
        **{"full chroma.jpg": {"quality": 92, "subsampling": 0}, "lossy.webp": {"quality": 90}},
        **{"lossless.webp": {"lossless": True}, "plain.tif": {}, "plain.gif": {}, "plain.bmp": {}},
        **{"lzw.tif": {"compression": "tiff_lzw"}, "jpeg.tif": {"compression": "jpeg"}},
        "plain.avif": {},
    }
    for name, options in ways.items():
        photo.save(name, **options)
        yield Path(name)
    photo.convert("L").save("gray.jpg")
    photo.convert("L").save("gray.tif")
    planes = np.ascontiguousarray(np.moveaxis(carried.PHOTO, 2, 0))
    for name, data in {
        **{"deep.heic": carried.heic(carried.DEEP), "plain.heic": carried.heic()},
        **{"plain.jp2": carried.jp2(), "plain.jxl": carried.jxl(), "two.jpg": carried.multi()},
        **{"raw.dng": carried.dng(), "half.tif": carried.tiff(carried.FLOAT.astype(np.float16))},
        "tiled.tif": carried.tiff(carried.DEEP, tile=(32, 32), compression="zlib"),
        "big.tif": carried.tiff(carried.DEEP, bigtiff=True, byteorder=">"),
        "planes.tif": carried.tiff(planes, planarconfig="separate"),
    }.items():
        Path(name).write_bytes(data)
    Path("a.dng").unlink()
    Path("deep.jxl").unlink()
    yield from map(Path, ("gray.jpg", "gray.tif", "deep.heic", "plain.heic", "plain.jp2"))
    yield from map(Path, ("plain.jxl", "two.jpg", "raw.dng", "half.tif", "tiled.tif", "planes.tif"))


def frames() -> list[np.ndarray]:
    return [np.ascontiguousarray(np.roll(carried.PHOTO, shift, 1)) for shift in range(4)]


def animations() -> Iterator[Path]:
    first, *others = map(PIL.Image.fromarray, frames())
    for suffix in (".gif", ".png", ".webp", ".avif"):
        path = Path(f"animation{suffix}")
        first.save(path, save_all=True, append_images=others, duration=120)
        yield path


def films() -> Iterator[Path]:
    for name, codec, pixels, sound in (
        *(("h264.mp4", "libx264", "yuv420p", "aac"), ("h264.mov", "libx264", "yuv420p", "aac")),
        *(("h264.mkv", "libx264", "yuv420p", "aac"), ("vp9.webm", "libvpx-vp9", "yuv420p", "")),
        *(("mpeg4.avi", "mpeg4", "yuv420p", ""), ("hevc.mp4", "libx265", "yuv420p10le", "aac")),
        ("prores.mov", "prores_ks", "yuv422p10le", "aac"),
    ):
        with av.open(name, "w") as file:
            about = {"title": "a film", "comment": "a comment", "artist": "who", "date": "2001"}
            file.metadata.update(about | {"location": "+48.1000+011.5000+500.000/"})
            stream: Any = file.add_stream(codec, 25, {"x265-params": "log-level=none"})
            stream.height, stream.width, stream.pix_fmt = *carried.PHOTO.shape[:2], pixels
            heard: Any = file.add_stream(sound, 48000) if sound else None
            for frame in frames():
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
            file.mux(stream.encode())
            if heard:
                quiet = np.zeros((2, 4608), np.float32)
                block = av.AudioFrame.from_ndarray(quiet, "fltp", "stereo")
                block.sample_rate = 48000
                file.mux([*heard.encode(block), *heard.encode()])
        yield Path(name)


def listed(folder: Path) -> dict[str, Listing]:
    """What exiftool lists of every file: the values of each tag, in whichever groups."""
    command = ["exiftool", "-q", "-j", "-G1", "-a", "-u", "-U", "-ee", "-b", "."]
    text = subprocess.run(command, cwd=folder, capture_output=True, check=False).stdout
    found = {}
    for entry in json.loads(text.decode(errors="replace")):
        path, listing = Path(entry.pop("SourceFile")), defaultdict[str, set[str]](set)
        for name, value in entry.items():
            group, tag = name.split(":")
            if group not in ("System", "ExifTool", "Composite"):
                values = value if isinstance(value, list) else [value]
                listing[re.sub("-(eng|und)$", "", tag)].update(map(str, values))
        found[path.name] = dict(listing)
    return found


def lost(name: str, before: Listing, after: Listing, said: str) -> Iterator[str]:
    """Yield the tags whose values a result lacks, unless something explains it."""
    there = set[str]().union(*after.values())
    explained = [names for what, names in EXPLAINED.items() if what in said]
    for tag, values in before.items():
        upright = tag in UPRIGHT and name.endswith((".heic", ".jxl", ".jp2", ".avif", ".dng"))
        raw = name.endswith(".dng") and SENSOR.fullmatch(tag)
        if STORAGE.fullmatch(tag) or upright or raw:
            continue
        if any(re.fullmatch(names, tag) for names in explained):
            continue
        if gone := values - there - {UNDATED}:
            yield f"{tag}: {', '.join(sorted(gone))[:100]}"


def compared(before: Mapping[str, Listing], results: Path, said: str) -> int:
    """Print what results lack of the files, and return how many lack anything."""
    after, failed = listed(results), 0
    for name, listing in before.items():
        stem = Path(name).stem
        own = (r for r in (name, f"{name}.png", f"{name}.tif", f"{stem}.png", f"{stem}.tif"))
        result = next((r for r in own if r in after), None)
        about = "\n".join(line for line in said.splitlines() if result and f"{result}: " in line)
        about += "\n".join(line for line in said.splitlines() if f"{name}: " in line)
        missing = ["no result"] if result is None else lost(name, listing, after[result], about)
        for what in missing:
            sys.stdout.write(f"{results.name}/{name}: {what}\n")
            failed += 1
    return failed


def blurkit(*arguments: str) -> str:
    """Run a command, and return what it said."""
    command = [sys.executable, "-m", "blurkit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp() + "/listing").absolute()
    make(folder / "files")
    os.chdir(folder)
    before = listed(Path("files"))
    network = ("--method", "network", "-o")
    failed = compared(before, Path("deblurred"), blurkit("deblur", "files", *network, "deblurred"))
    blurkit("prepare", "files", "-o", "shard.h5")
    pictures = {name: tags for name, tags in before.items() if not animated(name)}
    said = blurkit("deblur", "shard.h5", *network, "prepared")  # frames of films are pictures there
    failed += compared(pictures, Path("prepared"), said)
    kinds = len({Path(name).suffix for name in before})
    sys.stdout.write(f"{len(before)} files with {kinds} endings, {failed} values lost\n")
    sys.exit(1 if failed else 0)


def animated(name: str) -> bool:
    return name.startswith("animation") or name.endswith((".mp4", ".mov", ".mkv", ".webm", ".avi"))


if __name__ == "__main__":
    main()
