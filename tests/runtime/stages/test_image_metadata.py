"""Metadata that decoding does not need never decides: orientation, profile and pixels are read, whatever it is."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import hostile_images as make
import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from consisid_runtime.stages.face.formats.orientation import orientation
from consisid_runtime.stages.face.image import read_pixels

CORPUS = Path(__file__).parents[2] / "corpus" / "pictures"
SHORT, LONG, ASCII, RATIONAL, UNDEFINED = 3, 4, 2, 5, 7
TURN = 0x0112


def exif_segment(tiff: bytes) -> bytes:
    return make.jpeg_segment(0xE1, b"Exif\0\0" + tiff)


def ICC(size: int) -> bytes:
    """sRGB's profile, padded to this many bytes."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile += bytes(size - len(profile))
    profile[:4] = struct.pack(">I", len(profile))
    return bytes(profile)


def as_jpeg(*segments: bytes) -> bytes:
    return make.jpeg(*segments, quality=95)


def broken_crc(kind: bytes, body: bytes) -> bytes:
    return make.chunk(kind, body)[:-4] + b"oops"


PNG_FILES: dict[str, Callable[[], bytes]] = {
    "ICC of 2 MiB": lambda: make.png(make.chunk(b"iCCP", b"big\0\0" + zlib.compress(ICC(2 * 2**20)))),
    "ICC of 60 MiB": lambda: make.png(make.chunk(b"iCCP", b"big\0\0" + zlib.compress(bytes(60 * 2**20)))),
    "truncated ICC": lambda: make.png(make.chunk(b"iCCP", b"cut\0\0" + zlib.compress(ICC(9000))[:300])),
    "ICC without a name": lambda: make.png(make.chunk(b"iCCP", b"")),
    "text of 3 MiB": lambda: make.png(make.chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 3 * 2**20))),
    "international text of 3 MiB": lambda: make.png(
        make.chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"x" * 3 * 2**20))
    ),
    "90 MiB of text in all": lambda: make.png(
        *[make.chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 1000 * 1000))] * 90
    ),
    "text that is not compressed as it says": lambda: make.png(make.chunk(b"zTXt", b"Comment\0\7garbage")),
    "wrong checksum of a text": lambda: make.png(broken_crc(b"tEXt", b"Comment\0x")),
    "short pHYs, gAMA, cHRM, sRGB": lambda: make.png(
        *[make.chunk(kind, b"\1") for kind in (b"pHYs", b"gAMA", b"cHRM", b"sRGB")]
    ),
    "a private chunk": lambda: make.png(make.chunk(b"prVt", bytes(10**6))),
    "EXIF of nothing": lambda: make.png(make.chunk(b"eXIf", b"")),
    "EXIF of noise": lambda: make.png(make.chunk(b"eXIf", bytes(range(256)))),
    "an animation without frames": lambda: make.png(make.chunk(b"acTL", struct.pack(">II", 0, 0))),
    "an animation of billions": lambda: make.png(make.chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))),
    "pixels in between": lambda: make.png(make.chunk(b"tEXt", b"a\0b"), make.chunk(b"IDAT", b"")),
}
JPEG_FILES: dict[str, Callable[[], bytes]] = {
    "EXIF of noise": lambda: as_jpeg(exif_segment(bytes(range(256)) * 200)),
    "EXIF cut short": lambda: as_jpeg(exif_segment(make.directory(*[(n, SHORT, 1, 1) for n in range(50)])[:99])),
    "EXIF twice": lambda: as_jpeg(exif_segment(make.directory((271, ASCII, 1, 0))), exif_segment(b"MM")),
    "broken XMP": lambda: as_jpeg(make.jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta \xff\xfe")),
    "short JFIF": lambda: as_jpeg(make.jpeg_segment(0xE0, b"JFIF\0")),
    "short Photoshop": lambda: as_jpeg(make.jpeg_segment(0xED, b"Photoshop 3.0\x008BIM\3")),
    "ICC in missing parts": lambda: as_jpeg(make.jpeg_segment(0xE2, b"ICC_PROFILE\0\1\3" + bytes(99))),
    "ICC without numbers": lambda: as_jpeg(make.jpeg_segment(0xE2, b"ICC_PROFILE\0")),
    "truncated ICC": lambda: as_jpeg(make.jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1" + ICC(9000)[:300])),
    "broken index of further images": lambda: as_jpeg(make.jpeg_segment(0xE2, b"MPF\0MM\0*\0\0\0\x08\xff\xff")),
    "noise behind the end": lambda: as_jpeg() + bytes(range(256)) * 100,
    "a comment of 64 KiB": lambda: as_jpeg(make.jpeg_segment(0xFE, bytes(65533))),
    "fill bytes": lambda: as_jpeg().replace(b"\xff\xdb", b"\xff" * 1000 + b"\xdb"),
}
TAGS = {
    "a resolution in words": [(282, ASCII, 4, 0x00414141)],
    "a number where text belongs": [(270, LONG, 1, 2**32 - 1)],
    "unknown types": [(number, 99, 2**31, 8) for number in range(275, 375)],
    "values beyond the end": [(305, ASCII, 2**31, 2**31)],
    "directories in a circle": [(0x8769, LONG, 1, 8), (0x8825, LONG, 1, 8), (0xA005, LONG, 1, 8)],
    "directories that are none": [(0x8769, ASCII, 3, 0x00414141), (0x8825, RATIONAL, 1, 8)],
    "a division by zero": [(282, RATIONAL, 1, 0), (283, RATIONAL, 10**6, 8)],
}
"""Most of them Pillow reads and cannot write back, which it does to remove the orientation."""


@pytest.mark.parametrize("name", TAGS)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_an_image_is_turned_whatever_else_its_exif_has(format: str, name: str) -> None:
    exif = make.directory((TURN, SHORT, 1, 6), *TAGS[name])
    if format == "JPEG":
        data, plain = as_jpeg(exif_segment(exif)), as_jpeg()
    elif format == "PNG":
        data, plain = make.png(make.chunk(b"eXIf", exif)), make.png()
    else:
        data, plain = (make.encode(make.photograph(96), "WEBP", exif=each) for each in (exif, b""))
    np.testing.assert_array_equal(read_pixels(data), np.rot90(read_pixels(plain), -1))


@pytest.mark.parametrize("name", PNG_FILES)
def test_a_png_is_read_whatever_its_metadata(name: str) -> None:
    np.testing.assert_array_equal(read_pixels(PNG_FILES[name]()), np.full((80, 80, 3), 128))


@pytest.mark.parametrize("name", JPEG_FILES)
def test_a_jpeg_is_read_whatever_its_metadata(name: str) -> None:
    np.testing.assert_array_equal(read_pixels(JPEG_FILES[name]()), read_pixels(as_jpeg()))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("exif", [b"", b"II", bytes(range(256)) * 9, make.directory((TURN, SHORT, 9, 6))])
def test_broken_exif_in_every_other_format(format: str, exif: bytes) -> None:
    image = make.photograph(96)
    options = {"lossless": True} if format == "WEBP" else {}
    if format != "TIFF":
        options["exif"] = b"Exif\0\0" + exif  # type: ignore[assignment]
    data = make.encode(image, format, **options)
    np.testing.assert_array_equal(read_pixels(data), np.asarray(image))


@pytest.mark.parametrize("value", [0, 9, 65535])
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_orientation_that_is_none_is_upright(value: int, order: str) -> None:
    packed = value if order == "<" else value << 16
    data = as_jpeg(exif_segment(make.directory((TURN, SHORT, 1, packed), order=order)))
    np.testing.assert_array_equal(read_pixels(data), read_pixels(as_jpeg()))


@pytest.mark.parametrize(
    ("exif", "turned"),
    [
        (make.directory((TURN, SHORT, 1, 6)), 6),
        (make.directory((TURN, SHORT, 1, 6 << 16), order=">"), 6),
        (make.directory((TURN, LONG, 1, 8)), 8),
        (b"Exif\0\0" + make.directory((271, ASCII, 1, 0), (TURN, SHORT, 1, 3)), 3),
        (make.directory((TURN, SHORT, 1, 3), (TURN, SHORT, 1, 6)), 3),
        (make.directory((TURN, ASCII, 2, 0x36)), 1),
        (make.directory((TURN, RATIONAL, 1, 8)), 1),
        (make.directory((TURN, UNDEFINED, 1, 6)), 1),
        (make.directory((TURN, SHORT, 2, 6)), 1),
        (make.directory((TURN, SHORT, 0, 6)), 1),
        (make.directory((TURN, LONG, 1, 2**32 - 1)), 1),
        (make.directory((0x8769, LONG, 1, 8))[:-4] + struct.pack("<I", 8), 1),
        (struct.pack("<2sHIH", b"II", 42, 8, 65535) + bytes(99), 1),
        (struct.pack("<2sHI", b"II", 42, 2**32 - 1), 1),
        (b"XX*\0\x08\0\0\0\0\0", 1),
        (b"", 1),
    ],
)
def test_the_orientation_is_a_whole_number_of_the_first_directory(exif: bytes, turned: int) -> None:
    assert orientation(exif) == turned
    pixels = read_pixels(as_jpeg(exif_segment(exif.removeprefix(b"Exif\0\0"))))
    assert np.array_equal(pixels, read_pixels(as_jpeg())) == (turned == 1)


@pytest.mark.parametrize(
    ("xmp", "turned"),
    [
        (b'<rdf:Description tiff:Orientation="6"/>', 6),
        (b"<tiff:Orientation>8</tiff:Orientation>", 8),
        (b'tiff:Orientation="0"', 1),
        (b"tiff:Orientation=", 1),
        (b"\xff\xfe" * 1000, 1),
    ],
)
def test_xmp_turns_where_exif_does_not(xmp: bytes, turned: int) -> None:
    assert orientation(None, xmp) == orientation(make.directory((271, ASCII, 1, 0)), xmp) == turned
    assert orientation(make.directory((TURN, SHORT, 1, 3)), xmp) == 3
    assert orientation(make.directory((TURN, SHORT, 1, 9)), xmp) == 1
    expected = np.rot90(read_pixels(as_jpeg()), {1: 0, 6: -1, 8: 1}[turned])
    in_jpeg = make.jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp)
    np.testing.assert_array_equal(read_pixels(as_jpeg(in_jpeg)), expected)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["eXIf", "XMP", "ImageMagick"])
def test_every_orientation_of_a_png(kind: str, compressed: bool) -> None:
    image, info, exif = make.photograph(96), PngImagePlugin.PngInfo(), Image.Exif()
    if kind == "eXIf":
        exif[TURN] = 6
    elif kind == "XMP":
        info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>', zip=compressed)
    else:
        digits = make.directory((TURN, SHORT, 1, 6)).hex()
        info.add_text("Raw profile type exif", f"\nexif\n      26\n{digits[:20]}\n{digits[20:]}\n", zip=compressed)
    data = make.encode(image, "PNG", pnginfo=info, exif=exif)
    np.testing.assert_array_equal(read_pixels(data), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_file_is_turned_once(compression: str | None, big: bool) -> None:
    exif = Image.Exif()
    exif[TURN] = 6
    image = make.photograph(96).crop((0, 0, 96, 70))
    data = make.encode(image, "TIFF", exif=exif, compression=compression, big_tiff=big)
    np.testing.assert_array_equal(read_pixels(data), np.rot90(np.asarray(image), -1))


def test_of_several_images_the_first_is_taken() -> None:
    """The MPO files of cameras with two lenses, and the pages of a TIFF file."""
    first, second = make.photograph(96), Image.new("RGB", (96, 96), "red")
    mpo = make.encode(first, "MPO", save_all=True, append_images=[second], quality=95)
    np.testing.assert_array_equal(read_pixels(mpo), read_pixels(as_jpeg()))
    pages = make.encode(first.copy(), "TIFF", save_all=True, append_images=[second.copy()])
    np.testing.assert_array_equal(read_pixels(pages), np.asarray(first))


@pytest.mark.parametrize("file", sorted(path.name for path in CORPUS.iterdir()))
def test_the_corpus_is_read(file: str) -> None:
    assert read_pixels((CORPUS / file).read_bytes()).shape == (80, 80, 3)
