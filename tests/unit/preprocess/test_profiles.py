"""Profiles are told by what they do to colours; those of the tests are made here."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from preprocess.decode import decode
from preprocess.header import read_header
from preprocess.profiles import profile_note

SRGB = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
ADOBE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", *["AVIF"] * features.check("avif")]


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def profile(name: str, primaries=SRGB, curve=SRGB_CURVE, gray: bool = False) -> bytes:
    """An ICC profile, version 2.4 with the parametric curves of version 4, which readers take."""
    text = name.encode("ascii") + b"\0"
    form = 3 if len(curve) == 5 else 0
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78),
        b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642) + fixed(1) + fixed(0.8249),
    }
    trc = b"para" + bytes(4) + struct.pack(">HH", form, 0) + b"".join(map(fixed, curve))
    if gray:
        tags[b"kTRC"] = trc
    else:
        for letter, xyz in zip("rgb", primaries, strict=True):
            tags[f"{letter}XYZ".encode()] = b"XYZ " + bytes(4) + b"".join(map(fixed, xyz))
            tags[f"{letter}TRC".encode()] = trc
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        table += tag + struct.pack(">II", at + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I", 128 + len(table) + len(body)) + bytes(4) + b"\x02\x40\0\0mntr"
    head += (b"GRAY" if gray else b"RGB ") + b"XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += fixed(0.9642) + fixed(1) + fixed(0.8249)
    return head.ljust(128, b"\0") + table + body


def encoded(file_format: str, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (40, 36), 90).save(buffer, file_format, **options)
    return buffer.getvalue()


def note(name: str) -> tuple[str, ...]:
    return (f"colour profile {name!r}",)


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize(("name", "primaries"), [("Adobe RGB (1998)", ADOBE), ("Display P3", P3)])
def test_other_colours_are_named(file_format, name, primaries):
    data = encoded(file_format, icc_profile=profile(name, primaries, SRGB_CURVE))
    assert profile_note(data) == decode(data).notes == note(name)


@pytest.mark.parametrize("file_format", FORMATS)
def test_srgb_is_told_by_its_colours_whatever_its_name(file_format):
    for icc in (profile("c2"), profile("IEC 61966-2.1, nearly", curve=(2.4, 0.948, 0.052, 0.0774, 0.0405))):
        data = encoded(file_format, icc_profile=icc)
        assert profile_note(data) == decode(data).notes == ()
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert profile_note(encoded(file_format, icc_profile=own)) == ()


def test_a_name_alone_makes_no_srgb():
    assert profile_note(encoded("PNG", icc_profile=profile("sRGB", ADOBE))) == note("sRGB")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
def test_gray_of_another_gamma_is_named(file_format):
    data = encoded(file_format, "L", icc_profile=profile("Gray Gamma 1.8", curve=(1.8,), gray=True))
    assert decode(data, channels="gray").notes == note("Gray Gamma 1.8")
    assert decode(encoded(file_format, "L", icc_profile=profile("sGray", gray=True))).notes == ()


def test_a_profile_in_several_segments_is_put_together():
    icc = profile("Wide", ADOBE)
    data = encoded("JPEG")
    parts = [icc[:200], icc[200:]]
    segments = b""
    for number in (2, 1):  # in any order
        body = b"ICC_PROFILE\0" + bytes([number, 2]) + parts[number - 1]
        segments += b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body
    assert profile_note(data[:2] + segments + data[2:]) == note("Wide")


def test_what_is_stated_by_numbers_is_named():
    data = encoded("PNG")

    def with_cicp(*values: int) -> bytes:
        body = b"cICP" + bytes(values)
        return data[:33] + struct.pack(">I", len(values)) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]

    assert profile_note(with_cicp(1, 13, 0, 1)) == ()
    assert profile_note(with_cicp(12, 13, 0, 1)) == decode(with_cicp(12, 13, 0, 1)).notes == note("Display P3")
    assert profile_note(with_cicp(9, 16, 0, 1)) == note("BT.2020 PQ")


def test_no_profile_no_word():
    for file_format in FORMATS:
        data = encoded(file_format)
        assert profile_note(data) == ()
        assert not getattr(read_header(data), "profile", False)


def test_a_broken_profile_is_said_and_nothing_is_raised():
    for file_format in FORMATS:
        assert profile_note(encoded(file_format, icc_profile=b"nonsense" * 40)) == note("that cannot be read")
    for data in (encoded(name, icc_profile=profile("Adobe", ADOBE)) for name in FORMATS):
        for end in range(0, len(data), 7):
            profile_note(data[:end])


def test_colours_stay_as_they_are():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8))
    plain, other = io.BytesIO(), io.BytesIO()
    image.save(plain, "PNG")
    image.save(other, "PNG", icc_profile=profile("Adobe", ADOBE))
    assert np.array_equal(decode(plain.getvalue()).image, decode(other.getvalue()).image)
