import contextlib
import io
import os
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from consisid_runtime.errors import ImageTooLarge, ImageTooSmall, ImageUnreadable
from consisid_runtime.files.image_file import MAX_BYTES, image_bytes, read_file
from consisid_runtime.stages.face.image import read_pixels

RAMP = np.linspace(0, 255, 96).astype(np.uint8)[None].repeat(80, axis=0)
COLOUR = np.stack([RAMP, RAMP[:, ::-1], np.full_like(RAMP, 40)], axis=-1)


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims this size and holds one row of nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_files_come_back_as_they_were(format: str) -> None:
    pixels = read_pixels(encode(Image.fromarray(COLOUR), format, **({"lossless": True} if format == "WEBP" else {})))
    np.testing.assert_array_equal(pixels, COLOUR)
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and pixels.flags.writeable


def test_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side: shown after a quarter turn clockwise
    pixels = read_pixels(encode(Image.fromarray(COLOUR), "PNG", exif=exif))
    np.testing.assert_array_equal(pixels, np.rot90(COLOUR, -1))


def test_transparency_is_laid_on_white() -> None:
    alpha = np.zeros_like(RAMP)
    alpha[:, 48:] = 255
    expected = COLOUR.copy()
    expected[:, :48] = 255
    np.testing.assert_array_equal(read_pixels(encode(Image.fromarray(np.dstack([COLOUR, alpha])))), expected)
    grey = read_pixels(encode(Image.fromarray(np.dstack([RAMP, alpha]), "LA")))
    np.testing.assert_array_equal(grey[..., 0], np.where(alpha, RAMP, 255))


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.fromarray((RAMP > 128).astype(np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    pixels = read_pixels(encode(image, "PNG", transparency=0))
    assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[0, -1].tolist() == [40, 50, 60]
    opaque = read_pixels(encode(image, "PNG"))
    assert opaque[0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("image", [Image.fromarray(RAMP), Image.fromarray(RAMP > 128)], ids=["grey", "1 bit"])
def test_grey_becomes_three_equal_channels(image: Image.Image) -> None:
    pixels = read_pixels(encode(image))
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("L"))[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(format: str) -> None:
    wide = np.linspace(0, 65535, RAMP.size).astype(np.uint16).reshape(RAMP.shape)
    pixels = read_pixels(encode(Image.fromarray(wide), format))
    np.testing.assert_array_equal(pixels[..., 1], np.round(wide / 257).astype(np.uint8))
    assert pixels[0, 0, 0] == 0 and pixels[-1, -1, 0] == 255


def test_sixteen_bit_colour_is_scaled() -> None:
    raw = b"".join(b"\0" + (COLOUR[row].astype(">u2") * 257).tobytes() for row in range(80))
    file = png_header(96, 80).replace(struct.pack(">IIB", 96, 80, 8), struct.pack(">IIB", 96, 80, 16))
    begin, body = file.index(b"IHDR"), struct.pack(">IIBBBBB", 96, 80, 16, 2, 0, 0, 0)
    data = zlib.compress(raw)
    file = (
        file[:begin]
        + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
        + struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
        + file[-12:]
    )  # fmt: skip
    np.testing.assert_array_equal(read_pixels(file), COLOUR)


def test_a_sixteen_bit_grey_level_may_be_transparent() -> None:
    wide = np.linspace(0, 65535, RAMP.size).astype(np.uint16).reshape(RAMP.shape)
    file = encode(Image.fromarray(wide))
    data = struct.pack(">H", wide[3, 5])
    chunk = struct.pack(">I", 2) + b"tRNS" + data + struct.pack(">I", zlib.crc32(b"tRNS" + data))
    body = file.index(b"IDAT") - 4
    pixels = read_pixels(file[:body] + chunk + file[body:])
    expected = np.round(wide / 257).astype(np.uint8)
    expected[3, 5] = 255
    np.testing.assert_array_equal(pixels[..., 0], expected)


def test_white_may_be_zero() -> None:
    wide = np.linspace(0, 65535, RAMP.size).astype(np.uint16).reshape(RAMP.shape)
    file = encode(Image.fromarray(wide), "TIFF")
    black_is_zero = struct.pack("<HHII", 262, 3, 1, 1)
    assert file.count(black_is_zero) == 1
    pixels = read_pixels(file.replace(black_is_zero, struct.pack("<HHII", 262, 3, 1, 0)))
    np.testing.assert_array_equal(pixels[..., 2], np.round((65535 - wide.astype(int)) / 257).astype(np.uint8))


def swapped_profile() -> bytes:
    """An sRGB profile whose red and green have changed places."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = [128 + 4 + 12 * i for i in range(struct.unpack(">I", profile[128:132])[0])]
    red, green = (next(at for at in tags if profile.startswith(name, at)) for name in (b"rXYZ", b"gXYZ"))
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_colour_profile_is_applied(mode: str) -> None:
    image = Image.fromarray(COLOUR).convert(mode)
    plain = read_pixels(encode(image)).astype(int)
    pixels = read_pixels(encode(image, icc_profile=swapped_profile()))
    assert np.abs(pixels - plain[..., [1, 0, 2]]).max() <= 2


@pytest.mark.parametrize("profile", [b"no profile", swapped_profile()[:200]], ids=["text", "truncated"])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_a_broken_colour_profile_is_ignored(profile: bytes, format: str) -> None:
    pixels = read_pixels(encode(Image.fromarray(COLOUR), format, icc_profile=profile))
    np.testing.assert_array_equal(pixels, COLOUR)


def test_a_profile_for_other_pixels_is_ignored() -> None:
    pixels = read_pixels(encode(Image.fromarray(RAMP), icc_profile=swapped_profile()))
    np.testing.assert_array_equal(pixels[..., 0], RAMP)


def test_print_colours_are_converted() -> None:
    pixels = read_pixels(encode(Image.fromarray(COLOUR).convert("CMYK"), "TIFF"))
    assert np.abs(pixels.astype(int) - COLOUR).max() <= 1
    assert read_pixels(encode(Image.new("CMYK", (80, 80)), "JPEG"))[0, 0].tolist() == [255, 255, 255]


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (80, 80), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    pixels = read_pixels(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert (pixels == (255, 0, 0)).all()


def test_thirty_thousand_squared_costs_nothing() -> None:
    bomb = png_header(30_000, 30_000)
    tracemalloc.start()
    with pytest.raises(ImageTooLarge, match="megapixels"):
        read_pixels(bomb)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(("width", "height"), [(8001, 8000), (13_000, 10_000), (2**31 - 1, 64)])
def test_too_many_pixels_are_refused_from_the_header(width: int, height: int) -> None:
    with pytest.raises(ImageTooLarge, match="megapixels"):
        read_pixels(png_header(width, height))


def test_a_heavy_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageTooLarge, match=r"64\.0 MiB"):
        image_bytes(bytes(MAX_BYTES + 1))
    heavy = tmp_path / "heavy.png"
    with heavy.open("wb") as file:
        file.truncate(MAX_BYTES * 1000)
    with pytest.raises(ImageTooLarge, match="64000"):
        read_file(heavy)


@pytest.mark.parametrize(("width", "height"), [(63, 200), (200, 63), (1, 1), (64 * 16 + 1, 64), (80, 1300)])
def test_small_and_ribbon_images_are_refused(width: int, height: int) -> None:
    with pytest.raises(ImageTooSmall, match=f"{width}×{height}"):
        read_pixels(encode(Image.new("RGB", (width, height))))


@pytest.mark.parametrize("size", [(64, 64), (1024, 64)])
def test_the_smallest_images_are_read(size: tuple[int, int]) -> None:
    assert read_pixels(encode(Image.new("RGB", size))).shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7\n", bytes(1000)),
        *(b"\x89PNG\r\n\x1a\n", b"BM", b"\0\0\0 ftypheic\0\0\0\0", b"\0\0\0 ftypavif\0\0\0\0"),
    ],
    ids=["empty", "text", "svg", "pdf", "zeros", "png magic", "bmp magic", "heic", "avif"],
)
def test_what_is_no_image_is_unreadable(data: bytes) -> None:
    with pytest.raises(ImageUnreadable, match="JPEG"):
        read_pixels(data)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_unreadable(format: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    whole = encode(Image.fromarray(noise), format)
    with pytest.raises(ImageUnreadable):
        read_pixels(whole[: int(kept * len(whole))])


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_range_are_refused(mode: str) -> None:
    with pytest.raises(ImageUnreadable, match="8 or 16 bits"):
        read_pixels(encode(Image.new(mode, (80, 80)), "TIFF"))


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ImageUnreadable, match="No such file"):
        read_file(tmp_path / "none.png")
    with pytest.raises(ImageUnreadable, match="null byte"):
        read_file("none\0.png")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ImageUnreadable, match="is a directory, device or pipe"):
            read_file(path)


@pytest.mark.parametrize("image", [None, memoryview(b"bytes"), 3])
def test_what_is_neither_path_nor_bytes(image: Any) -> None:
    with pytest.raises(ImageUnreadable, match=f"must be a path or a file's bytes, got {type(image).__name__}"):
        read_file(image)


def corrupt_exif(data: bytes) -> bytes:
    return data.replace(b"Exif\0\0II", b"Exif\0\0XX").replace(b"Exif\0\0MM", b"Exif\0\0XX")


@pytest.mark.parametrize(
    "make",
    [
        lambda: png_header(12_000, 9_000),
        lambda: corrupt_exif(encode(Image.fromarray(COLOUR), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0")),
        lambda: encode(Image.fromarray(RAMP, "P"), "PNG", transparency=b"\x80" * 256),
    ],
    ids=["bomb", "exif", "palette"],
)
def test_no_warning_gets_out_and_no_filter_changes(make: Callable[[], bytes]) -> None:
    data = make()
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with contextlib.suppress(ImageTooLarge):
            read_pixels(data)
    assert not caught and warnings.filters == before


def test_every_way_of_damaging_a_file_is_typed() -> None:
    """Flipped bytes: either pixels or one of the three errors, never another exception."""
    random = np.random.default_rng(1)
    for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF"):
        whole = np.frombuffer(encode(Image.fromarray(COLOUR), format), np.uint8)
        refused = 0
        for _ in range(60):
            damaged = whole.copy()
            damaged[random.integers(0, min(400, len(whole)), 6)] = random.integers(0, 256, 6)
            try:
                pixels = read_pixels(damaged.tobytes())
            except (ImageUnreadable, ImageTooLarge, ImageTooSmall):
                refused += 1
            else:
                assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        assert refused, f"no damage to a {format} was noticed"
