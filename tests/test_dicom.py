# Protects what a radiologist would see: the order of look-up tables, polarity, axes, and refusals.
import gc
import io
import os
import warnings
from pathlib import Path

import dicom_files as made
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import JPEG2000Lossless, RLELossless

from bonelib import dicom
from bonelib.dicom import decoder_process, frames, grey

TOP = 65535


@pytest.fixture
def radiographs():
    """Give the folder of real DICOM radiographs, or skip."""
    path = Path(os.environ.get("BONELIB_DATA", "")) / "dicom-radiographs"
    if "BONELIB_DATA" not in os.environ or not path.is_dir():
        pytest.skip("needs dicom-radiographs in the folder BONELIB_DATA")
    return path


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def refused(content, *parts, **options):
    with pytest.raises(ValueError) as error:
        dicom.read(content, **options)
    for part in parts:
        assert part in str(error.value), str(error.value)


def full(bits=12):
    """The whole range of values, so that no window is needed to know each grey."""
    return np.arange(2**bits, dtype=np.uint16).reshape(-1, 64)


# ---------------------------------------------------------------------------------- axes, polarity
def test_rows_and_columns_stay_what_they_are_and_bright_stays_bright():
    array = made.ramp(40, 60)
    pixels, facts = dicom.read(made.film(array))
    assert pixels.shape == (40, 60) == (facts["rows"], facts["columns"])
    assert pixels.dtype == np.uint16 and pixels[0, 0] == 0 and pixels[-1, -1] == TOP
    assert (np.diff(pixels.astype(int), axis=1) >= 0).all()
    assert not facts["inverted"] and "no window" in " ".join(facts["notes"])
    small, _ = dicom.read(made.film(array), bits=8)
    assert small.dtype == np.uint8
    assert np.abs(small / 255 - pixels / TOP).max() < 0.003


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted", "odd"),
    [
        ("MONOCHROME2", None, False, False),
        ("MONOCHROME2", "IDENTITY", False, False),
        ("MONOCHROME1", None, True, False),
        ("MONOCHROME1", "INVERSE", True, False),  # one inversion, said twice
        ("MONOCHROME2", "INVERSE", True, True),
        ("MONOCHROME1", "IDENTITY", True, True),
    ],
)
def test_a_picture_is_inverted_once_or_not_at_all(photometric, shape, inverted, odd):
    elements = {"PhotometricInterpretation": photometric}
    elements |= {"PresentationLUTShape": shape} if shape else {}
    content = made.film(full(), WindowCenter=2048, WindowWidth=4096, **elements)
    pixels, facts = dicom.read(content)
    assert facts["inverted"] is inverted
    assert (pixels[0, 0], pixels[-1, -1]) == ((TOP, 0) if inverted else (0, TOP))
    assert any("contradict" in note for note in facts["notes"]) is odd


def test_inversion_comes_after_the_window():
    """Inverting stored values first would show 1000 as if it were 3095."""
    array = np.array([[0, 1000, 2000, 4095]], np.uint16)
    window = {"WindowCenter": 1000.5, "WindowWidth": 2001}
    pixels, _ = dicom.read(made.film(array, PhotometricInterpretation="MONOCHROME1", **window))
    assert pixels[0].tolist() == [TOP, round(TOP / 2), 0, 0]


# ---------------------------------------------------------------------------- the order of the LUTs
def test_windows_follow_the_equations_of_the_standard():
    x = np.arange(-50, 300, 0.5)
    for c, w in ((100, 80), (100, 1), (40.5, 2)):
        told = []
        for value in x:  # PS3.3 C.11.2.1.2.1, as pseudo-code
            if value <= c - 0.5 - (w - 1) / 2:
                told.append(0.0)
            elif value > c - 0.5 + (w - 1) / 2:
                told.append(1.0)
            else:
                told.append((value - (c - 0.5)) / (w - 1) + 0.5)
        np.testing.assert_allclose(grey.window(x, c, w), told)
    exact = grey.window(x, 100, 80, "LINEAR_EXACT")
    np.testing.assert_allclose(exact, np.clip((x - 100) / 80 + 0.5, 0, 1))
    smooth = grey.window(x, 100, 80, "SIGMOID")
    np.testing.assert_allclose(smooth, 1 / (1 + np.exp(-4 * (x - 100) / 80)))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_whole_path_agrees_with_pydicom_where_pydicom_goes(function):
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    header = made.header(
        full(), RescaleSlope="1.5", RescaleIntercept="-100", WindowCenter=[2500, 9],
        WindowWidth=[3000, 9], VOILUTFunction=function,
    )  # fmt: skip
    ours, facts = dicom.read(made.file_bytes(header))
    values = apply_modality_lut(full(), header)
    theirs = apply_voi_lut(values, header)
    low, high = -100, 4095 * 1.5 - 100
    np.testing.assert_allclose(ours / TOP, (theirs - low) / (high - low), atol=2e-5)
    assert facts["voi"] == "window 2500/3000"


def test_a_modality_table_comes_before_the_voi_table_and_both_before_the_inversion():
    rng = np.random.default_rng(0)
    modality = rng.integers(0, 1024, 4096)
    voi = rng.integers(0, 65536, 512)
    content = made.film(
        full(), ModalityLUTSequence=[made.lut(modality)], VOILUTSequence=[made.lut(voi, first=100)],
        PhotometricInterpretation="MONOCHROME1",
    )  # fmt: skip
    pixels, facts = dicom.read(content)
    expected = TOP - voi[np.clip(modality[full()] - 100, 0, 511)]
    assert np.array_equal(pixels, expected) and facts["voi"] == "VOI LUT"


def test_a_voi_table_goes_before_a_window_and_may_start_below_zero():
    table = np.linspace(0, 4095, 200).round()
    content = made.film(
        full(), RescaleSlope="1", RescaleIntercept="-1000", WindowCenter=5, WindowWidth=10,
        VOILUTSequence=[made.lut(table, first=-50, bits=12)],
    )  # fmt: skip
    pixels, facts = dicom.read(content)
    expected = table[np.clip(full().astype(int) - 1000 + 50, 0, 199)] / 4095
    np.testing.assert_allclose(pixels / TOP, expected, atol=1e-5)
    assert facts["voi"] == "VOI LUT"


def test_a_window_without_width_is_passed_over_and_named():
    content = made.film(full(), WindowCenter=[100, 2048], WindowWidth=[0, 4096])
    pixels, facts = dicom.read(content)
    assert facts["voi"] == "window 2048/4096" and "impossible width" in facts["notes"][0]
    for width in (0, -5, 0.5):
        pixels, facts = dicom.read(made.film(full(), WindowCenter=100, WindowWidth=width))
        assert facts["voi"] == "none" and len(facts["notes"]) == 2
        assert (pixels.min(), pixels.max()) == (0, TOP)
    _, facts = dicom.read(
        made.film(full(), WindowCenter=9, WindowWidth=0.5, VOILUTFunction="LINEAR_EXACT")
    )
    assert facts["voi"] == "window 9/0.5"


def test_padding_does_not_stretch_the_greys():
    array = made.ramp() // 2 + 100
    array[:5] = 4000
    plain, _ = dicom.read(made.film(array))
    padded, _ = dicom.read(made.film(array, PixelPaddingValue=4000))
    assert plain[5:].max() < 0.6 * TOP and padded[5:].max() == TOP and padded[5:].min() == 0


@pytest.mark.parametrize("bits", range(8, 17))
def test_every_depth_spans_the_whole_range(bits):
    allocated = 8 if bits == 8 else 16
    pixels, _ = dicom.read(made.film(full(bits), bits=bits, allocated=allocated))
    expected = np.rint(full(bits) / (2**bits - 1) * TOP)
    assert np.array_equal(pixels, expected)


def test_bits_above_the_stored_ones_are_no_picture_and_signs_are_kept():
    array = full(10)
    overlaid = array | np.where(np.arange(64) % 2, 0xF000, 0).astype(np.uint16)
    plain, _ = dicom.read(made.film(array, bits=10))
    assert np.array_equal(dicom.read(made.film(overlaid, bits=10))[0], plain)
    signed = (array.astype(np.int16) - 512).astype(np.int16)
    assert np.array_equal(dicom.read(made.film(signed, bits=10))[0], plain)


def test_odd_byte_counts_and_eight_bits_are_read():
    array = np.arange(15, dtype=np.uint16).reshape(3, 5)
    pixels, _ = dicom.read(made.film(array, bits=8, allocated=8))
    assert np.array_equal(pixels, np.rint(array / 14 * TOP))


# ------------------------------------------------------------------------------ presentation states
def state_for(image, **elements):
    state = Dataset()
    state.file_meta = image.file_meta.copy()
    state.SOPClassUID, state.SOPInstanceUID, state.Modality = made.STATE, "1.2.9", "PR"
    reference, series = Dataset(), Dataset()
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    series.ReferencedImageSequence = [reference]
    state.ReferencedSeriesSequence = [series]
    for keyword, value in elements.items():
        setattr(state, keyword, value)
    return state


def test_a_presentation_state_replaces_tables_and_polarity_of_the_header():
    image = made.header(
        full(), PhotometricInterpretation="MONOCHROME1", RescaleSlope="3", RescaleIntercept="7",
        WindowCenter=5, WindowWidth=10,
    )  # fmt: skip
    item = Dataset()
    item.WindowCenter, item.WindowWidth = 2048, 4096
    state = state_for(image, SoftcopyVOILUTSequence=[item], PresentationLUTShape="IDENTITY")
    content = made.file_bytes(image)
    pixels, facts = dicom.read(content, state=made.file_bytes(state))
    assert not facts["inverted"] and facts["voi"] == "window 2048/4096"
    np.testing.assert_allclose(pixels / TOP, full() / 4095, atol=2e-5)
    state.PresentationLUTShape, state.ImageHorizontalFlip = "INVERSE", "Y"
    inverse, facts = dicom.read(content, state=made.file_bytes(state))
    assert np.array_equal(inverse, TOP - pixels) and "mirrors" in facts["notes"][-1]
    table = made.lut(np.arange(4096)[::-1], bits=12)
    state = state_for(image, SoftcopyVOILUTSequence=[item], PresentationLUTSequence=[table])
    turned, _ = dicom.read(content, state=made.file_bytes(state))
    assert np.abs(turned / TOP + full() / 4095 - 1).max() < 3e-4
    state.ReferencedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPInstanceUID = "1.2"
    refused(content, "names 1 images and not this one", state=made.file_bytes(state))
    refused(made.file_bytes(state), "a presentation state")


# ---------------------------------------------------------------------------------------- the facts
def test_view_side_spacing_and_age_come_from_wherever_the_header_has_them():
    def facts(**elements):
        return dicom.read(made.film(full(), **elements))[1]

    for position, view in (
        ("AP", "frontal"), ("PA", "frontal"), ("LL", "lateral"), ("RLO", "oblique"), ("", None),
    ):  # fmt: skip
        assert facts(ViewPosition=position)["view"] == view
    code = Dataset()
    code.CodeMeaning = "medio-lateral oblique"
    assert facts(ViewCodeSequence=[code])["view"] == "oblique"
    assert facts(ImageLaterality="L")["side"] == "left" and facts(Laterality="R")["side"] == "right"
    both = facts(ImageLaterality="L", Laterality="R")
    assert both["side"] is None and "both sides" in both["notes"][-1]
    assert facts(Laterality="B")["side"] is None
    found = facts(PixelSpacing=[0.2, 0.2], ImagerPixelSpacing=[0.25, 0.25])
    assert found["spacing"] == (0.2, 0.2) and found["spacing_at"] == "patient"
    assert facts(ImagerPixelSpacing=[0.1, 0.1])["spacing_at"] == "detector"
    assert facts(PixelSpacing=[0, 0])["spacing"] is None
    assert "not square" in " ".join(facts(PixelSpacing=[0.1, 0.2])["notes"])
    assert facts(PatientAge="018M")["age"] == 1.5
    assert facts(PatientBirthDate="20000615", StudyDate="20200614")["age"] == 19
    assert facts(StudyDate="2020.01.02")["date"] == "20200102"
    mirrored = facts(ViewPosition="AP", PatientOrientation=["R", "F"])
    assert mirrored["orientation"] == ("R", "F") and "mirrored" in mirrored["notes"][-1]


# ----------------------------------------------------------------------------------------- refusals
def test_what_is_no_radiograph_is_refused_by_name():
    colour = made.header(full(8), bits=8, allocated=8, SamplesPerPixel=3, PlanarConfiguration=0)
    colour.PhotometricInterpretation = "RGB"
    refused(made.file_bytes(colour), "not a radiograph: a colour picture (3 samples, RGB)")
    report = "1.2.840.10008.5.1.4.1.1.88.67"
    refused(made.film(SOPClassUID=report, Modality="SR"), "X-Ray Radiation Dose SR", "SR")
    refused(made.film(Modality="MG"), "modality MG")
    refused(
        made.film(SOPClassUID=made.SECONDARY, Modality="CR", SeriesDescription="Dose Report"),
        "it calls itself 'Dose Report'",
    )
    refused(made.film(ImageType=["DERIVED", "SECONDARY", "DOSE_INFO"]), "DOSE_INFO")
    refused(made.film(NumberOfFrames=3), "3 frames")
    assert dicom.read(made.film(SOPClassUID=made.SECONDARY, Modality="CR"))[0].shape == (40, 60)


def test_a_header_that_contradicts_itself_or_its_pixels_is_refused_with_the_reason(tmp_path):
    for elements, part in (
        ({"HighBit": 15}, "High Bit is 15, expected 11"),
        ({"BitsAllocated": 32}, "32 bits allocated"),
        ({"BitsStored": 17, "HighBit": 16}, "17 of 16 bits stored"),
        ({"PixelRepresentation": 2}, "Pixel Representation is 2"),
        ({"PhotometricInterpretation": "MONOCHROME3"}, "not a radiograph"),
        ({"PhotometricInterpretation": None}, "Photometric Interpretation is not there"),
        ({"PresentationLUTShape": "INVERTED"}, "'INVERTED'"),
        ({"RescaleSlope": "0"}, "Rescale Slope is 0"),
        ({"VOILUTFunction": "CUBIC", "WindowCenter": 1, "WindowWidth": 5}, "CUBIC"),
        ({"VOILUTSequence": [Dataset()]}, "lacks its descriptor"),
        ({"Rows": 41}, "need 4,920: the file is cut off"),
        ({"Columns": 30}, "hold 4,800 bytes"),
        ({"PixelData": None}, "no pixel data"),
        ({"PixelData": b""}, "0 bytes"),
        ({"Rows": 0}, "60 × 0 pixels"),
    ):
        refused(made.film(**elements), part)
    for name, content, part in (
        ("empty", b"", "0 bytes"),
        ("text", b"<html>" * 50, "not a DICOM file"),
        ("cut", made.film()[:300], ""),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        refused(path, part)
    refused(tmp_path, "not a file")
    with pytest.raises(FileNotFoundError):
        dicom.read(tmp_path / "none")


def test_a_file_without_preamble_is_read_and_says_so():
    content = made.film()
    pixels, _ = dicom.read(content)
    bare, facts = dicom.read(content[132:])
    assert np.array_equal(bare, pixels) and "no preamble" in facts["notes"][0]
    for implicit in (True, False):
        stream = io.BytesIO()
        plain = made.header(made.ramp())
        del plain.file_meta
        pydicom.dcmwrite(stream, plain, implicit_vr=implicit, little_endian=True)
        assert np.array_equal(dicom.read(stream.getvalue())[0], pixels)


def test_big_endian_and_deflated_files_give_the_same_greys():
    pixels, _ = dicom.read(made.film())
    big = made.header(made.ramp())
    big.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"
    big.PixelData = made.ramp().astype(">u2").tobytes()
    assert np.array_equal(dicom.read(made.file_bytes(big))[0], pixels)
    flat = made.header(made.ramp())
    flat.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    assert np.array_equal(dicom.read(made.file_bytes(flat))[0], pixels)


# ----------------------------------------------------------------------------------------- codecs
def jpeg2000(array):
    pytest.importorskip("openjpeg")
    header = made.header(array)
    header.compress(JPEG2000Lossless, generate_instance_uid=False)
    return next(generate_frames(header.PixelData, number_of_frames=1))


def rle(header):
    header.compress(RLELossless, generate_instance_uid=False)
    return made.file_bytes(header)


def test_compressed_files_give_the_greys_of_the_plain_one():
    plain, _ = dicom.read(made.film())
    assert np.array_equal(dicom.read(rle(made.header(made.ramp())))[0], plain)
    frame = jpeg2000(made.ramp())
    content = made.compressed(made.header(made.ramp()), "1.2.840.10008.1.2.4.90", frame)
    pixels, facts = dicom.read(content)
    assert np.array_equal(pixels, plain) and not facts["lossy"]
    assert facts["transfer_syntax"].endswith(".90")


def test_eight_bit_jpeg_is_read_and_a_cut_one_is_not():
    from PIL import Image

    array = np.rint(made.ramp(64, 80, bits=8)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG", quality=95)
    for syntax in ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"):
        header = {"bits": 8, "allocated": 8, "WindowCenter": 128, "WindowWidth": 256}
        content = made.compressed(made.header(array, **header), syntax, stream.getvalue())
        pixels, facts = dicom.read(content, bits=8)
        assert facts["lossy"] and np.abs(pixels.astype(int) - array).max() < 6
        cut = stream.getvalue()[:-200]
        refused(made.compressed(made.header(array, **header), syntax, cut), "cut off")
        closed = made.compressed(made.header(array, **header), syntax, cut + b"\xff\xd9")
        refused(closed, "JPEG")


def test_threads_decode_side_by_side_and_leave_no_process_behind(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    content = made.compressed(
        made.header(made.ramp()), "1.2.840.10008.1.2.4.90", jpeg2000(made.ramp())
    )
    plain, _ = dicom.read(made.film())
    workers = []

    def one(_):
        pixels, _ = dicom.read(content)
        workers.append(decoder_process._THREAD.worker.process)
        return np.array_equal(pixels, plain)

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(one, range(8)))
    gc.collect()
    assert all(worker.poll() is not None for worker in workers)


def test_a_codestream_that_is_another_than_the_header_says_is_refused():
    frame = jpeg2000(made.ramp())

    def coded(syntax="1.2.840.10008.1.2.4.90", data=frame, **elements):
        return made.compressed(made.header(made.ramp(), **elements), syntax, data)

    refused(coded(Rows=60, Columns=40), "the JPEG 2000 is 60 × 40 pixels, the header says 40 × 60")
    narrow = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    refused(coded(**narrow), "12 bits, the header stores 8 in 8")
    refused(coded("1.2.840.10008.1.2.4.80"), "JPEG-LS", "the pixel data are JPEG 2000")
    refused(coded(data=frame[: len(frame) // 2]), "cut off")
    refused(coded(data=b"\0" * 64), "hold no such picture")
    refused(coded("1.2.840.10008.1.2.4.100"), "MPEG2", "not one that radiographs have")
    content = made.film().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")
    refused(content, "RLE Lossless", "not compressed so")
    content = rle(made.header(made.ramp()))
    refused(content.replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.1\0"), "compressed")


def test_a_missing_decoder_is_named_with_its_package(monkeypatch):
    from pydicom.pixels import get_decoder

    frame = jpeg2000(made.ramp())
    content = made.compressed(made.header(made.ramp()), "1.2.840.10008.1.2.4.90", frame)
    monkeypatch.setattr(get_decoder("1.2.840.10008.1.2.4.90"), "_available", {})
    refused(content, "JPEG 2000", "pip install pylibjpeg-openjpeg")


def test_no_syntax_needs_a_package_under_the_gpl():
    assert "pylibjpeg-libjpeg" not in {row["package"] for row in frames.syntaxes().values()}


# ------------------------------------------------------------------------------------- real files
LOSSLESS = ("REF/RG3_UNC", "RLE/RG3_RLE", "JPLL/RG3_JPLL", "JLSL/RG3_JLSL", "J2KR/RG3_J2KR")


def test_one_radiograph_in_five_lossless_syntaxes_is_one_array_with_bright_bone(radiographs):
    folder = radiographs / "nema-wg04-compsamples"
    arrays = [dicom.read(folder / name)[0] for name in LOSSLESS]
    assert all(np.array_equal(arrays[0], other) for other in arrays)
    image = arrays[0] / TOP
    assert image.shape == (1760, 1760)
    # The shaft of the tibia is brighter than the muscle beside it, the air darker than both;
    # the long axis of the leg runs down the rows, not across.
    tibia, muscle, air = image[300:500, 930:950], image[300:500, 700:750], image[300:500, 520:560]
    assert tibia.mean() > muscle.mean() + 0.1 > air.mean() + 0.3
    for name in ("JLSN/RG3_JLSN", "J2KI/RG3_J2KI"):
        lossy, facts = dicom.read(folder / name)
        assert facts["lossy"] and 0 < np.abs(lossy / TOP - image).max() < 0.1


def plain(facts):
    """Hold that nothing is assumed of a real file that is not so."""
    odd = ("uses little", "Padding", "follow", "PROCESSING", "bits", "signed")
    assert not any(word in " ".join(facts["notes"]) for word in odd)


def test_each_of_the_sixteen_files_is_decoded_or_refused_with_its_reason(radiographs):
    # Shape, inverted, VOI, and 8-bit greys at (1/4, 1/4), (1/2, 1/2), (3/4, 1/2), (1/2, 3/4) of
    # rows and columns: the window's equation worked out by hand for the stored values there.
    wide, chest = "window 550/1024", "window 15000/30000"
    nema = "nema-wg04-compsamples"
    golden = {
        "dwv/gdcm-CR-MONO1-10-chest.dcm": ((440, 440), True, wide, (97, 193, 206, 98)),
        "fo-dicom/CR-ModalitySequenceLUT.dcm": ((1576, 1976), True, "none", (0, 174, 147, 150)),
        "highdicom/dx_image.dcm": ((169, 211), True, "window 128/256", (148, 80, 96, 134)),
        f"{nema}/J2KI/RG1_J2KI": ((1955, 1841), True, chest, (127, 227, 223, 150)),
        f"{nema}/J2KI/RG2_J2KI": ((2140, 1760), False, "window 511/1024", (143, 101, 0, 84)),
        f"{nema}/JLSL/RG2_JLSL": ((2140, 1760), False, "window 511/1024", (143, 101, 0, 84)),
    }
    for name in (*LOSSLESS, "JLSN/RG3_JLSN", "J2KI/RG3_J2KI"):
        golden[f"{nema}/{name}"] = ((1760, 1760), True, wide, (208, 188, 154, 233))
    for name, (shape, inverted, voi, greys) in golden.items():
        pixels, facts = dicom.read(radiographs / name, bits=8)
        plain(facts)
        assert (pixels.shape, facts["inverted"], facts["voi"]) == (shape, inverted, voi), name
        places = ((1, 1), (2, 2), (3, 2), (2, 3))
        seen = [int(pixels[shape[0] * i // 4, shape[1] * j // 4]) for i, j in places]
        assert np.abs(np.subtract(seen, greys)).max() <= 2 * facts["lossy"], (name, seen)
    pytest.importorskip("imagecodecs")
    for name in ("RG2_JPLY", "RG3_JPLY"):
        other = {"RG2_JPLY": "JLSL/RG2_JLSL", "RG3_JPLY": "REF/RG3_UNC"}[name]
        pixels, facts = dicom.read(radiographs / nema / "JPLY" / name)
        plain(facts)
        lossless, _ = dicom.read(radiographs / nema / other)
        assert facts["lossy"]  # of 1,023: 3.8 and 1.3 with imagecodecs 2026.3.6
        assert np.abs(pixels / TOP - lossless / TOP).mean() * 1023 < 4.5
    refused(radiographs / "vpop-pro" / "jpeg-baseline.dcm", "a colour picture", "YBR_FULL_422")
    found = [p for p in radiographs.rglob("*") if p.is_file() and p.suffix != ".txt"]
    assert len(found) == 16 == len(golden) + 3


def test_real_pictures_have_bright_bone_where_bone_is(radiographs):
    # (file, box of bone or dense tissue, box of air or lung), boxes as top, bottom, left, right
    for name, dense, dark in (
        ("dwv/gdcm-CR-MONO1-10-chest.dcm", (0.5, 0.7, 0.48, 0.55), (0.35, 0.45, 0.15, 0.3)),
        ("nema-wg04-compsamples/J2KI/RG1_J2KI", (0.4, 0.6, 0.43, 0.5), (0.3, 0.4, 0.2, 0.3)),
        ("nema-wg04-compsamples/JLSL/RG2_JLSL", (0.42, 0.5, 0.5, 0.55), (0.8, 0.95, 0.2, 0.4)),
        ("highdicom/dx_image.dcm", (0.27, 0.33, 0.3, 0.9), (0.02, 0.1, 0.7, 0.95)),
        ("fo-dicom/CR-ModalitySequenceLUT.dcm", (0.7, 0.75, 0.3, 0.36), (0.05, 0.3, 0.1, 0.9)),
    ):
        pixels, _ = dicom.read(radiographs / name)
        rows, columns = pixels.shape
        means = [
            pixels[int(a * rows) : int(b * rows), int(c * columns) : int(d * columns)].mean()
            for a, b, c, d in (dense, dark)
        ]
        assert means[0] > means[1] + 0.1 * TOP, (name, means)
