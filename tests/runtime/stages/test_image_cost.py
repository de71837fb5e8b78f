"""What decoding costs, measured in a process of its own: what asks for too much is refused, all else is bounded."""

import io
import json
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile_images as make
import numpy as np
import pytest
from PIL import Image, ImageOps

from consisid_runtime.errors import ImageTooLarge, ImageUnreadable
from consisid_runtime.stages.face.formats.opening import FORMATS
from consisid_runtime.stages.face.image import read_photo, read_pixels

SECONDS = 10
"""Of one CPU core, the bound for any file."""
MEMORY = 640 * 2**20
"""Bytes beside the file, the bound for any file: 512 MiB while it decodes, and what Python takes."""

CHILD = """
import json, os, sys
from consisid_runtime.errors import ConsisIDError
from consisid_runtime.stages.face.image import read_pixels

for path in sys.argv[1:]:
    data = open(path, "rb").read()
    before = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            result = list(read_pixels(data).shape)
        except ConsisIDError as error:
            result = error.code
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    _, _, used = os.wait4(child, 0)
    print(json.dumps([json.loads(os.read(reader, 999)), used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 - before]))
"""


def measure(folder: Path, *files: bytes) -> list[tuple[Any, float, int]]:
    """For each file: the shape or the error's code, CPU seconds, and bytes at the peak beside the file."""
    paths = [folder / str(number) for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    done = subprocess.run([sys.executable, "-c", CHILD, *paths], capture_output=True, text=True, check=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_the_largest_healthy_files_are_bounded(tmp_path: Path) -> None:
    """Takes more than five seconds for the bound of 64 megapixels is what is measured.

    The files are of one colour, which changes neither what the decoders hold nor how often they look at it.
    """
    size = make.EDGE, make.EDGE
    files = [
        (1, make.clear_png(make.EDGE)),
        (1, make.encode(Image.new("RGBA", size, (9, 8, 7, 99)), "WEBP", lossless=True, method=0)),
        (4, make.encode(Image.new("CMYK", size), "JPEG", progressive=True)),
    ]
    found = measure(tmp_path, *(data for _, data in files))
    print(*found, sep="\n")
    for (parts, _), (result, seconds, memory) in zip(files, found, strict=True):
        assert result == [make.EDGE // parts, make.EDGE // parts, 3]
        assert seconds < SECONDS and memory < MEMORY


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"quality": 30}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_large_webp_file_has_the_bits_of_a_small_one(
    mode: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV and Pillow hold the same decoder."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = make.photograph(200).crop((0, 0, 200, 90)).convert(mode)
    if mode == "RGBA":
        image.putalpha(make.photograph(200, "L").crop((0, 0, 200, 90)))
    data = make.encode(image, "WEBP", exif=exif, **options)
    expected = read_pixels(data)
    monkeypatch.setattr("consisid_runtime.stages.face.image.MAX_MEMORY", 10**5)
    monkeypatch.setattr("consisid_runtime.stages.face.image._STRIPE", 1000)
    np.testing.assert_array_equal(read_pixels(data), expected)
    with pytest.raises(ImageTooLarge, match="200×90 pixels and needs"):
        read_pixels(make.encode(image, "WEBP", save_all=True, append_images=[Image.new("RGB", image.size)]))
    with pytest.raises(ImageUnreadable, match="damaged"):
        read_pixels(data[: len(data) // 2])


def test_a_colour_profile_costs_what_its_tables_cost() -> None:
    """One whose floating-point transform repeats a curve four thousand times: eight seconds for each thousand."""
    data = make.encode(make.photograph(96), "PNG", icc_profile=make.long_profile(4000))
    begin = time.thread_time()
    assert np.abs(read_pixels(data).astype(int) - np.asarray(make.photograph(96))).max() <= 2
    assert time.thread_time() - begin < 1


BOMBS: dict[str, Callable[[], bytes]] = {
    "progressive scans": lambda: make.scan_bomb(1000, 3000),
    "sequential scans": lambda: sequential_scans(1000, 3000),
    "comment segments": lambda: make.jpeg(make.jpeg_segment(0xFE, b"") * 10**6),
    "EXIF segments": lambda: make.jpeg(make.jpeg_segment(0xE1, b"Exif\0\0" + bytes(20)) * 10**5),
    "chunks of pixels": lambda: make.png(make.chunk(b"IDAT", b"") * 10**6),
    "extensions": lambda: b"GIF89a" + struct.pack("<HH3B", 99, 99, 0, 0, 0) + b"!\xfe\1A\0" * 10**6,
    "sub-blocks": lambda: b"GIF89a" + struct.pack("<HH3B", 99, 99, 0, 0, 0) + b"!\xfe" + b"\1A" * 10**7,
    "runs": lambda: make.bmp_rle(2000, b"\1\7" * 4 * 10**6),
    "runs of pixels": lambda: make.bmp_rle(make.EDGE, b"\xff\7" * 2 * 10**6),
    "one tile": lambda: make.tiled_tiff(100, 10_000),
    "strips again and again": lambda: make.repeated_strips(1000, 10**5),
    "directory": lambda: make.directory(*[(tag, 7, 10**5, 8) for tag in range(300, 5300)], after=bytes(10**5)),
    "WebP chunks": lambda: webp_with(b"JUNK\0\0\0\0" * 10**6),
    "canvas": lambda: webp_canvas(16_383),
}


def test_of_many_profiles_and_texts_one_is_inflated() -> None:
    """Each of a few kilobytes, and megabytes inside."""
    large = zlib.compress(bytes(8 * 2**20), 9)
    chunks = [make.chunk(b"iCCP", b"a\0\0" + large), make.chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + large)]
    begin = time.thread_time()
    assert read_pixels(make.png(*chunks * 2000)).shape == (80, 80, 3)
    assert time.thread_time() - begin < 1


def sequential_scans(edge: int, scans: int) -> bytes:
    """A baseline JPEG whose only scan is repeated."""
    whole = make.encode(Image.new("L", (edge, edge), 128), "JPEG")
    begin = whole.index(b"\xff\xda")
    return whole[:begin] + whole[begin:-2] * scans + whole[-2:]


def webp_with(chunks: bytes) -> bytes:
    whole = make.encode(make.photograph(96), "WEBP", exif=b"II*\0\x08\0\0\0\0\0\0\0\0\0")
    return whole[:4] + struct.pack("<I", len(whole) + len(chunks) - 8) + whole[8:] + chunks


def webp_canvas(edge: int) -> bytes:
    """A small frame on a large canvas."""
    frames = [Image.new("RGB", (80, 80), colour) for colour in ("red", "blue")]
    whole = make.encode(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    at = whole.index(b"VP8X") + 12
    return whole[:at] + struct.pack("<I", edge - 1)[:3] * 2 + whole[at + 6 :]


@pytest.mark.parametrize("name", BOMBS)
def test_what_asks_for_too_much_is_refused_before_it_is_decoded(name: str) -> None:
    data = BOMBS[name]()
    begin = time.thread_time()
    with pytest.raises((ImageTooLarge, ImageUnreadable)):
        read_photo(data)
    assert time.thread_time() - begin < 1


def test_every_format_that_is_read_has_its_bombs() -> None:
    found = {name for bomb in BOMBS.values() for name, (begins, _) in FORMATS.items() if begins(bomb())}
    assert found == set(FORMATS)


def test_scans_are_counted_as_the_decoder_finds_them() -> None:
    """Not inside of segments with a length, and not behind the end of the image: thumbnails and further images."""
    decoys = make.jpeg_segment(0xE1, b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 6000)
    whole = make.jpeg(decoys, *[decoys] * 20, edge=1000, progressive=True) + make.scan_bomb(1000, 3000)
    assert read_pixels(whole).shape == (1000, 1000, 3)
    with pytest.raises(ImageTooLarge, match="3006 scans that visit 3006 million samples, at most 1600 million"):
        read_photo(make.scan_bomb(1000, 3000))
    # A restart marker, a fill byte and stuffing end no scan.
    assert read_pixels(make.scan_bomb(1000, 300)).shape == (1000, 1000, 3)


@pytest.mark.parametrize("edge", [1024, 3000])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 1}])
def test_ordinary_files_are_decoded_to_the_same_bits_as_by_pillow(edge: int, options: dict[str, Any]) -> None:
    data = make.encode(make.photograph(edge), "JPEG", **options)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(read_pixels(data), np.asarray(image))


def test_a_reduced_photograph_knows_its_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned by its EXIF, and reduced as if there were less memory."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = make.photograph(1600).crop((0, 0, 1600, 801))
    data = make.encode(image, "JPEG", progressive=True, exif=exif, quality=95)
    monkeypatch.setattr("consisid_runtime.stages.face.image.MAX_MEMORY", 8 * 10**6)
    reduced = read_photo(data)
    assert (reduced.width, reduced.height) == (801, 1600) and reduced.pixels.shape == (800, 401, 3)
    expected = np.rot90(np.asarray(image.resize((800, 401), Image.Resampling.BOX)), -1)
    assert np.abs(reduced.pixels.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_in_several_stripes(orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consisid_runtime.stages.face.image._STRIPE", 1000)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = make.encode(make.photograph(200).crop((0, 0, 200, 90)), "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    photo = read_photo(data)
    np.testing.assert_array_equal(photo.pixels, expected)
    assert (photo.height, photo.width) == expected.shape[:2]
    assert photo.pixels.flags.c_contiguous and photo.pixels.flags.writeable
