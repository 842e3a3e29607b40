# Protects files outside the standard but common: read right with a note, or refused with a reason.
import io
import os
import warnings
from pathlib import Path

import dicom_files as made
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended

from bonelib import __main__ as command_line
from bonelib import datasets, dicom
from bonelib.dicom import frames

TOP = 65535
J2K, HTJ2K, LOSSLESS, LS = (f"1.2.840.10008.1.2.4.{n}" for n in ("90", "201", "70", "80"))
EXTENDED = "1.2.840.10008.1.2.4.51"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


@pytest.fixture
def cases(case):
    """The folder of the shared cases."""
    return case()


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def read(content):
    pixels, facts = dicom.read(content)
    return pixels, " | ".join(facts["notes"])


def coded(array, syntax, bits, signed=False):
    """Encode values as ``bits`` bits; kinds without a sign get the patterns of two's complement."""
    imagecodecs = pytest.importorskip("imagecodecs")
    pattern = (array.astype(np.int64) & ((1 << bits) - 1)).astype(np.uint8 if bits == 8 else "u2")
    if syntax == J2K:
        utils = pytest.importorskip("openjpeg.utils")
        values = array.astype(np.int16) if signed else pattern
        return bytes(utils.encode_array(values, bits_stored=bits, codec_format=0))
    if syntax == HTJ2K:  # its encoder takes the precision from the type
        return imagecodecs.htj2k_encode(pattern, reversible=True)
    if syntax == LOSSLESS:
        return imagecodecs.ljpeg_encode(pattern, bitspersample=bits)
    return imagecodecs.jpegls_encode(pattern)  # of 8 or 16 bits, whatever the values


# ---------------------------------------------------------------------- fewer bits than Bits Stored
@pytest.mark.parametrize("syntax", [J2K, HTJ2K, LOSSLESS, LS])
@pytest.mark.parametrize("stored", [12, 14, 16])
def test_fewer_bits_without_a_sign_are_the_same_values(syntax, stored):
    """pydicom issue 2012: JPEG 2000 of 14 bits in a header of 16."""
    bits = 8 if syntax in (HTJ2K, LS) else 10
    array = made.ramp(bits=bits)
    header = {"bits": stored, "WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}
    plain, _ = read(made.film(array, **header))
    pixels, notes = read(
        made.compressed(made.header(array, **header), syntax, coded(array, syntax, bits))
    )
    assert np.array_equal(pixels, plain)
    assert f"has {bits} bits, the header stores {stored}" in notes


@pytest.mark.parametrize("syntax", [J2K, LOSSLESS, LS])
@pytest.mark.parametrize("stored", [11, 12, 16])
@pytest.mark.parametrize("slope", ["1", "-1"])
def test_fewer_bits_with_a_sign_are_extended_from_their_own_highest(syntax, stored, slope):
    bits = 8 if syntax == LS else 10
    array = (made.ramp(bits=bits).astype(np.int32) - 2 ** (bits - 1)).astype(np.int16)
    header = {"bits": stored, "WindowCenter": 0, "WindowWidth": 2**bits, "RescaleSlope": slope}
    header |= {"RescaleIntercept": "0"}
    plain, _ = read(made.film(array, **header))
    frame = coded(array, syntax, bits, signed=True)
    pixels, notes = read(made.compressed(made.header(array, **header), syntax, frame))
    assert np.array_equal(pixels, plain) and len(np.unique(pixels)) > 200
    assert f"has {bits} bits" in notes


def test_more_bits_than_allocated_and_another_size_stay_refused():
    array = made.ramp()
    frame = coded(array, J2K, 12)
    for header in ({"bits": 8, "allocated": 8}, {"Rows": 41}, {"Columns": 59}):
        allocated = made.header(made.ramp(bits=8) if "bits" in header else array, **header)
        with pytest.raises(ValueError, match="12 bits|pixels"):
            dicom.read(made.compressed(allocated, J2K, frame))


def test_a_codestreams_sign_that_matters_is_refused_and_one_that_does_not_is_noted():
    """pydicom issue 1149: the sign of JPEG 2000 against Pixel Representation."""
    ramp = made.ramp(bits=11)  # fits 12 bits with and without a sign
    plain, _ = read(made.film(ramp, **WINDOW))
    header = made.header(ramp, **WINDOW)  # unsigned
    pixels, notes = read(made.compressed(header, J2K, coded(ramp, J2K, 12, signed=True)))
    assert np.array_equal(pixels, plain) and "is signed, the header says unsigned" in notes
    header = made.header(ramp.astype(np.int16), **WINDOW)
    pixels, notes = read(made.compressed(header, J2K, coded(ramp, J2K, 12)))
    assert np.array_equal(pixels, plain) and "is unsigned, the header says signed" in notes
    below = ramp.astype(np.int16) - 1024
    with pytest.raises(ValueError, match="is signed, the header says unsigned"):
        dicom.read(made.compressed(made.header(ramp, **WINDOW), J2K, coded(below, J2K, 12, True)))
    # As many bits without a sign: patterns, as of 693_J2KR.dcm of pydicom's test files.
    pixels, notes = read(
        made.compressed(made.header(below, **WINDOW), J2K, coded(below & 4095, J2K, 12))
    )
    assert np.array_equal(pixels, read(made.film(below, **WINDOW))[0]) and "unsigned" in notes
    with pytest.raises(ValueError, match="is unsigned, the header says signed"):
        dicom.read(made.compressed(made.header(below, bits=16), J2K, coded(below & 4095, J2K, 12)))


def test_the_shared_codestreams_equal_their_references(cases):
    folder = cases / "dicom-j2k-fewer-bits"
    assert np.array_equal(
        dicom.read(folder / "dx.dcm")[0], dicom.read(folder / "reference_uncompressed.dcm")[0]
    )
    header = pydicom.dcmread(folder / "dx.dcm")
    values = frames.stored(header, J2K, [])
    assert np.array_equal(values, np.load(folder / "expected_stored.npy"))
    folder = cases / "dicom-j2k-sign"
    reference, _ = dicom.read(folder / "reference_uncompressed.dcm")
    for name in ("cr", "cr_signed_codestream_right"):
        assert np.array_equal(dicom.read(folder / f"{name}.dcm")[0], reference)
    with pytest.raises(ValueError, match="is signed, the header says unsigned"):
        dicom.read(folder / "cr_signed_codestream_unsigned_header.dcm")


@pytest.mark.parametrize(
    "name", ["JLSL/RG2_JLSL", "JLSN/RG3_JLSN", "JPLL/RG3_JPLL", "J2KR/RG3_J2KR"]
)
def test_real_codestreams_of_ten_bits_are_the_same_values_in_a_header_of_sixteen(name):
    folder = Path(os.environ.get("BONELIB_DATA", "")) / "dicom-radiographs"
    if "BONELIB_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("needs dicom-radiographs in the folder BONELIB_DATA")
    header = pydicom.dcmread(folder / "nema-wg04-compsamples" / name)
    before, _ = read(made.file_bytes(header))
    header.BitsStored, header.HighBit = 16, 15
    pixels, notes = read(made.file_bytes(header))
    assert np.array_equal(pixels, before) and "has 10 bits, the header stores 16" in notes


# ------------------------------------------------------------------------------- 12-bit JPEG
def extended(array):
    imagecodecs = pytest.importorskip("imagecodecs")
    return imagecodecs.jpeg8_encode(array, bitspersample=12, level=95)


@pytest.mark.parametrize("bits", [10, 12])
def test_jpeg_extended_of_twelve_bits_is_read_and_one_cut_in_it_is_not(bits):
    """imagecodecs 2026.3.6: pydicom 3.0.2 with Pillow and GDCM refuses this syntax."""
    array = made.ramp(64, 84, bits=bits)
    header = {"bits": bits, "WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}
    plain, _ = read(made.film(array, **header))
    frame = extended(array)
    content = made.compressed(made.header(array, **header), EXTENDED, frame)
    pixels, facts = dicom.read(content)
    assert facts["lossy"] and np.abs(pixels / TOP - plain / TOP).mean() < 0.005
    rng = np.random.default_rng(0)
    noisy = rng.integers(0, 2**bits, (64, 84)).astype(np.uint16)
    frame = extended(noisy)
    for share in (0.3, 0.6, 0.9):
        cut = frame[: int(share * len(frame))]
        for data in (cut, cut + b"\xff\xd9"):
            with pytest.raises(ValueError, match="cut off|Premature"):
                dicom.read(made.compressed(made.header(noisy, **header), EXTENDED, data))


def test_a_missing_decoder_of_twelve_bits_is_named(monkeypatch):
    frame = extended(made.ramp(bits=10))
    content = made.compressed(made.header(made.ramp(bits=10), bits=10), EXTENDED, frame)
    monkeypatch.setattr(frames.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install imagecodecs"):
        dicom.read(content)


# ------------------------------------------------------------------------------- wrappers
@pytest.mark.parametrize("table", ["empty", "basic", "extended", "padded", "two fragments"])
def test_offset_tables_and_fragments_do_not_matter(table):
    array = made.ramp()
    frame = coded(array, J2K, 12)
    header = made.header(array, **WINDOW)
    if table == "extended":
        data, offsets, lengths = encapsulate_extended([frame])
        header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths = offsets, lengths
        content = made.compressed(header, J2K, frame)
        header = pydicom.dcmread(io.BytesIO(content))
        header.PixelData = data
    else:
        header.file_meta.TransferSyntaxUID = J2K
        frame += b"\0" * 128 if table == "padded" else b""
        header.PixelData = encapsulate(
            [frame], fragments_per_frame=1 + (table == "two fragments"), has_bot=table == "basic"
        )
    header["PixelData"].VR, header["PixelData"].is_undefined_length = "OB", True
    assert np.array_equal(read(made.file_bytes(header))[0], read(made.film(array, **WINDOW))[0])


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", ""])
@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_depths_signs_polarities_and_slopes_go_together(syntax, bits, signed, photometric):
    """The expected grey is the standard's chain, worked out here on the values themselves."""
    values = made.ramp(bits=bits).astype(np.int32) - signed * 2 ** (bits - 1)
    array = values.astype(np.int16 if signed else np.uint16)
    for slope in (2, -1):
        middle = slope * (0 if signed else 2 ** (bits - 1))
        header = made.header(
            array, bits=bits, RescaleSlope=str(slope), RescaleIntercept="0", WindowCenter=middle,
            WindowWidth=2**bits, VOILUTFunction="LINEAR_EXACT",
            PhotometricInterpretation=photometric, PixelPaddingValue=int(array[0, 0]),
        )  # fmt: skip
        header.file_meta.TransferSyntaxUID = syntax or "1.2.840.10008.1.2.2"
        if not syntax:
            header.PixelData = array.astype(array.dtype.newbyteorder(">")).tobytes()
        expected = np.clip((values * slope - middle) / 2**bits + 0.5, 0, 1)
        expected = 1 - expected if photometric == "MONOCHROME1" else expected
        expected[values == values[0, 0]] = 0
        pixels, notes = read(made.file_bytes(header))
        np.testing.assert_allclose(pixels / TOP, expected, atol=1e-5)
        assert "Padding" in notes


# ------------------------------------------------------------------------------- a dark LUT
def test_a_picture_that_uses_little_of_its_greys_says_so():
    """cornerstoneWADOImageLoader issue 36: 12-bit entries in a LUT that says 16 bits."""
    for highest, noted in ((4095, True), (16383, True), (65535, False)):
        table = made.lut(np.linspace(0, highest, 4096).astype(int), bits=16)
        _, notes = read(made.film(made.ramp(bits=12), VOILUTSequence=[table]))
        assert ("uses little of its greys" in notes) is noted, highest
    _, notes = read(made.film(made.ramp(), WindowCenter=2048, WindowWidth=60000))
    assert "uses little" in notes
    _, notes = read(made.film(np.full((40, 60), 700, np.uint16), **WINDOW))
    assert "one grey everywhere" in notes and "uses little" not in notes


# ------------------------------------------------------------------------------- padding
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("how", ["window", "none", "lut", "modality"])
@pytest.mark.parametrize("value", [0, 4095])
def test_padding_is_background_and_does_not_stretch_the_rest(photometric, how, value):
    """OHIF Viewers issue 4449; PS3.3 C.7.5.1.1.2."""
    inner = made.ramp() // 2 + 1000
    array = inner.copy()
    array[:8] = value
    elements = {"PhotometricInterpretation": photometric, "PixelPaddingValue": value}
    table = made.lut(np.linspace(0, 4095, 4096).astype(int) ** 2 // 4096, bits=12)
    elements |= {
        "window": WINDOW, "none": {}, "lut": {"VOILUTSequence": [table]},
        "modality": {"ModalityLUTSequence": [table]},
    }[how]  # fmt: skip
    pixels, notes = read(made.film(array, **elements))
    alone, _ = read(made.film(inner[8:], **elements))
    assert not pixels[:8].any() and np.array_equal(pixels[8:], alone)
    assert "Pixel Padding Value" in notes
    assert "Padding" not in read(made.film(inner, **elements))[1]  # named, and not there


@pytest.mark.parametrize(
    ("first", "last", "hidden"),
    [
        (-2000, None, (-2000, -2000)),
        (63536, None, (-2000, -2000)),  # the same, written as US
        (2096, None, (-2000, -2000)),  # the same, as its 12 bits
        (-2000, -1900, (-2000, -1900)),
        (-1900, -2000, (-2000, -1900)),  # either end may come first
        (-2000, 5, (-2000, 5)),
    ],
)
def test_padding_of_signed_pixels_is_found_however_it_is_written(first, last, hidden):
    array = (made.ramp().astype(np.int32) - 2040).astype(np.int16)
    header = made.header(array, **WINDOW)
    for keyword, value in (("PixelPaddingValue", first), ("PixelPaddingRangeLimit", last)):
        if value is not None:
            header.add_new(keyword, "SS" if value < 0 else "US", value)
    array[0, :3] = (hidden[0], hidden[1], hidden[1] + 1)
    header.PixelData = array.tobytes()
    header.WindowCenter = -100
    pixels, _ = read(made.file_bytes(header))
    padded = (array >= hidden[0]) & (array <= hidden[1])
    assert not pixels[padded].any() and pixels[~padded & (array > -1500)].all()


def test_a_range_and_the_whole_word_are_padding_too():
    array = made.ramp() // 2 + 200
    array[:3], array[3:6] = 4000, 4095
    for value, limit in ((4000, 4095), (4095, 4000)):
        options = {"PixelPaddingValue": value, "PixelPaddingRangeLimit": limit} | WINDOW
        pixels, _ = read(made.film(array, **options))
        assert not pixels[:6].any() and pixels[6:].all()
    word = array.copy()
    word[:6] = 0xFFFF  # 12 bits stored, and the padding fills the word
    pixels, _ = read(made.film(word, PixelPaddingValue=0xFFFF, **WINDOW))
    assert not pixels[:6].any() and pixels[6:].all()


def test_the_shared_frames_are_background(cases):
    for path in sorted((cases / "dicom-pixel-padding").glob("*.dcm")):
        pixels, notes = read(path)
        header = pydicom.dcmread(path)
        padded = header.pixel_array == header.PixelPaddingValue
        assert padded.any() and not pixels[padded].any() and "Padding" in notes, path.name
        assert pixels[~padded].mean() > 0.2 * TOP


# ------------------------------------------------------------------------------- left-justified
@pytest.mark.parametrize("high", [12, 13, 15])
@pytest.mark.parametrize("signed", [False, True])
def test_left_justified_values_are_shifted_and_their_overlay_is_masked(high, signed):
    """Old CR units justify their values to the left."""
    values = made.ramp().astype(np.int32) - signed * 2048
    pattern = ((values & 4095) << (high - 11)).astype(np.uint16)
    rng = np.random.default_rng(0)
    overlay = rng.integers(0, 2 ** (high - 11), values.shape).astype(np.uint16)
    window = {"WindowCenter": 0 if signed else 2048, "WindowWidth": 4096}
    plain, _ = read(made.film(values.astype(np.int16 if signed else np.uint16), **window))
    for bits in (pattern, pattern | overlay):
        header = made.header(bits, HighBit=high, PixelRepresentation=int(signed), **window)
        pixels, notes = read(made.file_bytes(header))
        assert np.array_equal(pixels, plain) and f"High Bit is {high}" in notes
        bare = frames.bare_pixels(header, "1.2.840.10008.1.2.1")
        assert np.array_equal(np.frombuffer(bare.value, np.uint16).reshape(40, 60), pattern)
        whole = made.header(bits, bits=16)  # pydicom's encoder would mask the upper bits
        whole.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
        header.PixelData, header.file_meta = whole.PixelData, whole.file_meta
        header["PixelData"].VR, header["PixelData"].is_undefined_length = "OB", True
        assert np.array_equal(read(made.file_bytes(header))[0], plain)


def test_a_high_bit_that_the_values_do_not_reach_is_refused():
    for high in (12, 15):
        with pytest.raises(ValueError, match=f"High Bit is {high}, expected 11.*no value reaches"):
            dicom.read(made.film(made.ramp(), HighBit=high))
    for high in (10, 16):
        with pytest.raises(ValueError, match=f"High Bit is {high}, expected 11"):
            dicom.read(made.film(made.ramp(), HighBit=high))


def test_the_shared_left_justified_file_shows_its_upper_bits(cases):
    path = cases / "dicom-left-justified" / "cr.dcm"
    pixels, notes = read(path)
    stored = np.frombuffer(pydicom.dcmread(path).PixelData, "<u2").reshape(pixels.shape) >> 4
    expected = np.clip((stored - 2047.5) / 4095 + 0.5, 0, 1)
    np.testing.assert_allclose(pixels / TOP, expected, atol=1e-5)
    assert "shifted down" in notes


# ------------------------------------------------------------------------------- for processing
def raw(array, *, sign=1, relation="LIN", **elements):
    given = {"SOPClassUID": f"{DX}.1", "Modality": "DX"}
    given |= {"PresentationIntentType": "FOR PROCESSING"}
    given |= {"PixelIntensityRelationship": relation, "PixelIntensityRelationshipSign": sign}
    given |= {"PhotometricInterpretation": "MONOCHROME2"} | elements
    return made.film(array, bits=14, **{k: v for k, v in given.items() if v is not None})


THICKNESS = np.linspace(0, 6, 2400).reshape(40, 60)  # attenuation: what should be bright
EXPOSURE = np.rint(16000 * np.exp(-THICKNESS)).astype(np.uint16)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("slope", ["1", "-1"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("relation", ["LIN", "LOG"])
def test_raw_pictures_have_bright_bone_whatever_else_the_header_says(
    photometric, slope, sign, relation
):
    """breast_cancer_classifier issue 17; PS3.3 C.8.11.3.1.2."""
    array = EXPOSURE if sign == 1 else (16000 - EXPOSURE).astype(np.uint16)
    elements = {"PhotometricInterpretation": photometric, "RescaleSlope": slope}
    elements |= {"RescaleIntercept": "0" if slope == "1" else "16383"}
    for window in ({}, {"WindowCenter": 8192, "WindowWidth": 16384}):
        pixels, notes = read(raw(array, sign=sign, relation=relation, **elements, **window))
        assert (np.diff(pixels.ravel().astype(int)) >= 0).all() and pixels[-1, -1] > pixels[0, 0]
        assert "FOR PROCESSING: bone bright" in notes
        logged = relation == "LIN" and sign == 1 and slope == "1" and not window
        assert ("log of a linear exposure" in notes) is logged


def test_the_log_of_an_exposure_is_even_in_attenuation_and_a_dead_pixel_does_not_spoil_it():
    pixels, _ = read(raw(EXPOSURE))
    dead = EXPOSURE.copy()
    dead[0, 0] = 0
    for seen in (pixels, read(raw(dead))[0]):
        inner = slice(200, 2200)
        assert np.corrcoef(seen.ravel()[inner], THICKNESS.ravel()[inner])[0, 1] > 0.999
        assert seen[20, 0] / TOP == pytest.approx(0.5, abs=0.03)


def test_raw_pictures_without_a_sign_say_that_their_polarity_is_a_guess():
    for sign in (None, 0):
        pixels, notes = read(raw(EXPOSURE, sign=sign))
        assert "may be wrong" in notes and pixels[0, 0] > pixels[-1, -1]
    pixels, notes = read(raw(EXPOSURE, PresentationIntentType=None))  # the class says it too
    assert "FOR PROCESSING: bone bright" in notes
    shown = raw(EXPOSURE, SOPClassUID=DX, PresentationIntentType="FOR PRESENTATION")
    pixels, notes = read(shown)  # there the photometric interpretation is the law
    assert "FOR PROCESSING" not in notes and pixels[0, 0] == TOP


def test_the_shared_raw_pictures_have_bright_bone(cases):
    for name in ("dx_lin", "dx_lin_mono1"):
        path = cases / "dicom-for-processing" / f"{name}.dcm"
        pixels, notes = read(path)
        exposure = pydicom.dcmread(path).pixel_array
        assert np.corrcoef(pixels.ravel(), -np.log(exposure.ravel()))[0, 1] > 0.99
        assert "FOR PROCESSING" in notes


@pytest.mark.parametrize("tie", ["source", "event", "second", "time", "nothing"])
def test_raw_and_processed_pictures_of_one_exposure_are_one_radiograph(tie, tmp_path):
    source = Dataset()
    source.ReferencedSOPInstanceUID = "1.2.3.1"
    both = {"event": {"IrradiationEventUID": "1.2.9"}}
    both["second"] = {"AcquisitionDateTime": "20240105101500.123"}
    both["time"] = {"AcquisitionDate": "20240105", "AcquisitionTime": "101500.5"}
    same = both.get(tie, {}) | {"AcquisitionNumber": 1, "PatientID": "P1"}
    shown = {"SourceImageSequence": [source]} if tie == "source" else {}
    shown |= {"SOPInstanceUID": "1.2.3.2", "PresentationIntentType": "FOR PRESENTATION"} | same
    shown |= {"SOPClassUID": DX, "Modality": "DX"}
    (tmp_path / "a_raw").write_bytes(raw(EXPOSURE, SOPInstanceUID="1.2.3.1", **same))
    (tmp_path / "b_shown").write_bytes(made.film(made.ramp(), **shown, **WINDOW))
    other = {"SOPInstanceUID": "1.2.3.3", "AcquisitionDateTime": "20240105101700"}
    (tmp_path / "c_raw").write_bytes(raw(EXPOSURE, **same | other | {"IrradiationEventUID": "1.8"}))
    files, _ = dicom.walk(tmp_path)
    assert files["reason"].isna().all()  # each of them can be read, and copied
    table = datasets.read("dicom", tmp_path)
    kept = ["b_shown", "c_raw"] if tie != "nothing" else ["a_raw", "b_shown", "c_raw"]
    assert table["image_id"].tolist() == kept
    told = [row["reason"] for row in table.attrs["refused"]]
    assert all("FOR PROCESSING" in reason for reason in told) and len(told) == 3 - len(kept)


# ------------------------------------------------------------------------------- trailing bytes
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"])
def test_bytes_behind_the_pixels_are_left_out_and_said(syntax):
    array = made.ramp(64, 64)
    plain, notes = read(made.film(array))
    rng = np.random.default_rng(0)
    # 8,320 for 8,192; a block of zeros of any length
    for tail in (rng.bytes(128), bytes(2), bytes(128), bytes(4096), b"\xff" * 512, rng.bytes(200)):
        header = made.header(array)
        header.file_meta.TransferSyntaxUID = syntax
        header.PixelData += tail
        pixels, notes = read(made.file_bytes(header))
        assert np.array_equal(pixels, plain) and "bytes follow the pixels" in notes
        bare = frames.bare_pixels(header, syntax)
        assert len(bare.value) == 8192


def test_a_header_with_shorter_rows_than_the_picture_is_no_picture_with_bytes_behind_it():
    rng = np.random.default_rng(0)
    array = made.ramp(64, 64) + rng.integers(0, 9, (64, 64)).astype(np.uint16)
    array[:, :20] //= 3
    for columns in (63, 62, 61):  # rows of 64 in the file
        with pytest.raises(ValueError, match="hold 8,192 bytes.*: its header is wrong"):
            dicom.read(made.film(array, Columns=columns))
    for rows in (50, 32):
        with pytest.raises(ValueError, match="its header is wrong"):
            dicom.read(made.film(array, Rows=rows))
    with pytest.raises(ValueError, match="cut off"):
        dicom.read(made.film(array, Rows=65))


# ------------------------------------------------------------------------------- a DICOMDIR's names
def listing(*names):
    made_of = Dataset()
    made_of.file_meta = FileMetaDataset()
    made_of.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    made_of.SOPClassUID, made_of.SOPInstanceUID = "1.2.840.10008.1.3.10", "1.2.3"
    records = []
    for name in names:
        record = Dataset()
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", name.split("/")
        records.append(record)
    made_of.DirectoryRecordSequence = records
    return made.file_bytes(made_of)


@pytest.mark.parametrize("directory", ["DICOMDIR", "dicomdir", "Dicomdir.dcm", "DICOMDIR;1"])
@pytest.mark.parametrize(
    "change",
    [
        str, str.lower, str.title, lambda name: f"{name}.dcm", lambda name: f"{name.lower()}.DCM",
        lambda name: f"{name}.ima", lambda name: f"{name};1", lambda name: f"{name}.;1",
    ],
)  # fmt: skip
def test_a_disc_whose_names_changed_on_the_way_is_read_as_it_was(directory, change, tmp_path):
    """Weasis issue 272."""
    names = [f"PAT{n}/IM0000" for n in range(3)]
    for number, name in enumerate(names):
        path = tmp_path / change(name)
        path.parent.mkdir()
        path.write_bytes(made.film(SOPInstanceUID=f"1.2.3.{number}"))
    (tmp_path / directory).write_bytes(listing(*names))
    for root in (tmp_path, tmp_path / directory):
        files, notes = dicom.walk(root)
        assert len(files) == 3 and files["reason"].isna().all()
        text = " ".join(notes)
        assert ("names 3 files that are there under another case" in text) is (change is not str)
        assert "not there" not in text and "not named" not in text
        assert len(datasets.read("dicom", root)) == 3


def test_a_name_that_two_files_could_bear_is_not_guessed(tmp_path):
    for number, name in enumerate(("im.dcm", "IM.ima", "X")):
        (tmp_path / name).write_bytes(made.film(SOPInstanceUID=f"1.2.3.{number}"))
    (tmp_path / "DICOMDIR").write_bytes(listing("IM", "X"))
    files, notes = dicom.walk(tmp_path / "DICOMDIR")
    assert files["file"].tolist() == ["X"] and "1 files that are not there" in " ".join(notes)
    (tmp_path / "IM").write_bytes(made.film(SOPInstanceUID="1.2.3.9"))  # its very name goes first
    files, notes = dicom.walk(tmp_path / "DICOMDIR")
    assert files["file"].tolist() == ["IM", "X"] and not notes


def test_the_shared_disc_is_three_radiographs_each_way(cases):
    for folder in sorted((cases / "dicomdir-names").iterdir()):
        directory = next(p for p in folder.iterdir() if p.name.lower() == "dicomdir")
        for root in (folder, directory):
            files, notes = dicom.walk(root)
            assert files["reason"].isna().sum() == len(files) == 3, root
            assert len(notes) == (folder.name != "upper")


# ------------------------------------------------------------------------------- as a user sees it
def test_the_command_tells_what_was_assumed_without_decoding_into_a_cache(tmp_path, capsys):
    for number in range(7):
        blank = np.full((40, 60), 700, np.uint16)
        content = made.film(
            blank, SOPClassUID=DX, Modality="DX", SOPInstanceUID=f"1.2.3.{number}", **WINDOW
        )
        (tmp_path / f"blank{number}").write_bytes(content)
        (tmp_path / f"ct{number}").write_bytes(made.film(Modality="CT"))
    assert command_line.main(["data", "dicom", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "note: 7 files: one grey everywhere, e.g. blank0" in told
    assert told.count("left out:") == 1 and "and 2 more: not a radiograph" in told
    assert "0 of 7 files can't be read" in told
    decoded = ["data", "dicom", str(tmp_path), "--decode", "16"]
    assert command_line.main(decoded) == 0
    assert "note: 7 files: one grey everywhere" in capsys.readouterr().out


def test_a_note_of_the_header_is_told_once(tmp_path, capsys):
    (tmp_path / "a").write_bytes(made.film(PixelSpacing=[0.1, 0.2], **WINDOW))
    assert command_line.main(["data", "dicom", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("not square") == 1
