# Protects against damaged DICOM files: none crashes, hangs or changes shape or polarity in silence.
import os
import signal
import time
import warnings

import dicom_files as made
import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from bonelib import dicom
from bonelib.dicom import decoder_process

gdcm = pytest.importorskip("gdcm")
pytest.importorskip("openjpeg")


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def smooth(rng, rows=60, columns=45):
    import cv2

    coarse = cv2.resize(rng.normal(0, 1, (6, 5)), (columns, rows), interpolation=cv2.INTER_CUBIC)
    return np.clip(2000 + 800 * coarse + rng.normal(0, 20, coarse.shape), 0, 4095).astype(np.uint16)


def transcoded(content, syntax, folder):
    """Write the same file in a syntax that GDCM alone can write."""
    before, after = str(folder / "before"), str(folder / "after")
    (folder / "before").write_bytes(content)
    reader = gdcm.ImageReader()
    reader.SetFileName(before)
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(after)
    assert writer.Write()
    return (folder / "after").read_bytes()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """One picture, MONOCHROME1, in five syntaxes."""
    folder, array = tmp_path_factory.mktemp("sound"), smooth(np.random.default_rng(0))
    told = {"WindowCenter": 2048, "WindowWidth": 4096, "PhotometricInterpretation": "MONOCHROME1"}
    kinds = {"plain": made.film(array, **told)}
    for name, syntax in (("rle", RLELossless), ("jpeg2000", JPEG2000Lossless)):
        header = made.header(array, **told)
        header.compress(syntax, generate_instance_uid=False)
        kinds[name] = made.file_bytes(header)
    for name, syntax in (
        ("jpeg lossless", gdcm.TransferSyntax.JPEGLosslessProcess14_1),
        ("jpeg-ls", gdcm.TransferSyntax.JPEGLSLossless),
    ):
        kinds[name] = transcoded(kinds["plain"], syntax, folder)
    return kinds


def damaged(content, rng):
    content, way = bytearray(content), rng.integers(3)
    # Half of the damage falls on the header, which is most of what can mislead.
    end = len(content) if rng.random() < 0.5 else min(1200, len(content))
    if way == 0:
        for place in rng.integers(128, end, rng.integers(1, 5)):
            content[place] ^= 1 << int(rng.integers(8))
    elif way == 1:
        del content[int(rng.integers(len(content))) :]
    else:
        place, length = int(rng.integers(128, end)), int(rng.integers(1, 40))
        content[place : place + length] = bytes(len(content[place : place + length]))
    return bytes(content)


def test_five_syntaxes_are_one_picture(sound):
    arrays = [dicom.read(content)[0] for content in sound.values()]
    assert all(np.array_equal(arrays[0], other) for other in arrays)


def test_a_thousand_damaged_copies_are_refused_or_keep_shape_type_and_polarity(sound):
    rng = np.random.default_rng(7)
    before, _ = dicom.read(sound["plain"])
    refused, silent = dict.fromkeys(sound, 0), dict.fromkeys(sound, 0)
    alike = []
    signal.alarm(240)  # a hang ends the test run instead of hanging it
    try:
        for number in range(1000):
            kind = list(sound)[number % len(sound)]
            content = damaged(sound[kind], rng)
            try:
                pixels, facts = dicom.read(content)  # anything but ValueError fails the test
            except ValueError as error:
                assert str(error).strip() and str(error).isprintable()
                refused[kind] += 1
                continue
            silent[kind] += content != sound[kind]
            assert pixels.shape == before.shape and pixels.dtype == np.uint16
            assert facts["inverted"]
            alike.append(np.corrcoef(pixels.ravel(), before.ravel())[0, 1])
    finally:
        signal.alarm(0)
    assert min(refused.values()) > 60
    # A decoder that lost its place draws noise, and a wrong first difference of JPEG lossless wraps
    # all greys behind it; neither is a negative of the picture, which would be -1.
    assert min(alike) > -0.7 and np.mean(np.array(alike) > 0.9) > 0.6


def test_damaged_copies_of_twelve_bit_jpeg_keep_their_shape_or_are_refused():
    imagecodecs = pytest.importorskip("imagecodecs")
    rng, array = np.random.default_rng(3), smooth(np.random.default_rng(0))
    frame = imagecodecs.jpeg8_encode(array, bitspersample=12, level=95)
    header = made.header(array, PhotometricInterpretation="MONOCHROME1")
    content, refused = made.compressed(header, "1.2.840.10008.1.2.4.51", frame), 0
    for _ in range(100):
        try:
            pixels, facts = dicom.read(damaged(content, rng))
        except ValueError as error:
            assert str(error).strip() and str(error).isprintable()
            refused += 1
            continue
        assert pixels.shape == array.shape and facts["inverted"]
    assert 30 < refused < 90


def test_every_cut_of_a_file_is_refused(sound):
    for kind, content in sound.items():
        for share in (0.3, 0.6, 0.9, 0.99):
            with pytest.raises(ValueError):
                dicom.read(content[: int(share * len(content))])
                pytest.fail(f"{kind} cut at {share} was read")


def test_another_size_in_the_header_is_refused_in_every_syntax(sound):
    import io

    import pydicom

    for kind, content in sound.items():
        for keyword, value in (("Rows", 50), ("Rows", 61), ("Columns", 44), ("Columns", 90)):
            header = pydicom.dcmread(io.BytesIO(content))
            setattr(header, keyword, value)
            with pytest.raises(ValueError, match="pixels|bytes"):
                dicom.read(made.file_bytes(header))
                pytest.fail(f"{kind} with {keyword} {value} was read")


def test_what_a_codec_prints_about_damage_is_believed(sound):
    """The last coded bytes zeroed: libjpeg only says so and fills the gap."""
    content = bytearray(sound["jpeg lossless"])
    end = bytes(content).rfind(b"\xff\xd9")
    content[end - 600 : end - 300] = b"\xff\x00" * 150
    told = ""
    try:
        dicom.read(bytes(content))
    except ValueError as error:
        told = str(error)
    assert "Corrupt JPEG" in told or "damaged" in told


def test_a_decoder_that_dies_costs_one_file_and_not_the_caller(sound):
    dicom.read(sound["jpeg-ls"])
    worker = decoder_process._THREAD.worker
    os.kill(worker.process.pid, signal.SIGKILL)
    with pytest.raises(ValueError, match="broke down"):
        dicom.read(sound["jpeg-ls"])
    assert dicom.read(sound["jpeg-ls"])[0].shape == (60, 45)
    assert decoder_process._THREAD.worker is not worker


def test_a_decoder_that_does_not_end_is_ended(sound, monkeypatch):
    dicom.read(sound["jpeg-ls"])
    os.kill(decoder_process._THREAD.worker.process.pid, signal.SIGSTOP)
    monkeypatch.setattr(decoder_process, "SECONDS", 0.2)
    started = time.monotonic()
    with pytest.raises(ValueError, match="did not end"):
        dicom.read(sound["jpeg-ls"])
    assert time.monotonic() - started < 20
    monkeypatch.undo()
    assert dicom.read(sound["jpeg-ls"])[0].shape == (60, 45)
