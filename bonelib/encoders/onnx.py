"""Towers in ONNX files, read by onnxruntime: for weights that no library here knows. Frozen.

The file and a JSON beside it come in (``tower.json`` for ``tower.onnx``); a network whose only
tensor is the file itself goes out: its hash is that of the content, and a bundle holds it. The JSON
says what the model does not, ``{"size": 224, "mean": [0.5], "std": [0.5]}``:

- ``size``: side of the input in pixels. ``mean`` and ``std``: of the 0–1 grey value, one number or
  one a channel. ``layout``: ``NCHW`` or ``NHWC``.
- ``output``: which one, where there are several. ``pooling``: ``class token`` or ``token mean``,
  where it gives tokens ``(B, T, D)``.
"""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bonelib.encoders import pooling

KEYS = ("size", "mean", "std", "layout", "output", "pooling")
LAYOUTS = ("NCHW", "NHWC")
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Network(nn.Module):
    """An ONNX model that maps ``(B, C, H, W)`` to ``(B, width)``.

    Attributes:
        model: The file, uint8.
        width: How many features it puts out.
    """

    def __init__(self, length: int, width: int, layout: str, output: str, pooling: str = ""):
        super().__init__()
        self.register_buffer("model", torch.zeros(length, dtype=torch.uint8))
        self.width, self.layout, self.output, self.pooling = width, layout, output, pooling
        self._session: Any = None

    def described(self) -> dict[str, Any]:
        """Return what makes this network again, but for the file."""
        known = dict(width=self.width, layout=self.layout, output=self.output)
        return known | {"length": len(self.model), "pooling": self.pooling}

    def forward(self, image: Tensor) -> Tensor:
        """Return pooled features.

        Raises:
            ValueError: It is being trained.
        """
        if self.training and torch.is_grad_enabled():
            raise ValueError(
                "A tower in an ONNX file is frozen: no gradient reaches its weights. Use its "
                "features with a head (notebook 02), or bring the weights as a file of timm, "
                "open_clip or transformers to train them."
            )
        found = self.put_out(image)
        if found.ndim == 3:
            return pooling.pool(found, self.pooling, prefix=1)
        return found.mean(dim=(2, 3)) if found.ndim == 4 else found

    def put_out(self, image: Tensor) -> Tensor:
        """Return what the model gives, not pooled.

        Raises:
            ValueError: It is not one row an image.
        """
        session, rows = self.session(), []
        asked = session.get_inputs()[0]
        pixels = image.detach().cpu().numpy().astype(TYPES[asked.type], copy=False)
        if self.layout == "NHWC":
            pixels = pixels.transpose(0, 2, 3, 1)
        fixed = asked.shape[0] if isinstance(asked.shape[0], int) else len(pixels)
        for start in range(0, len(pixels), fixed):
            part = pixels[start : start + fixed]
            # A model of one size of batch gets the last image over and over.
            full = np.concatenate([part, np.repeat(part[-1:], fixed - len(part), axis=0)])
            (out,) = session.run([self.output], {asked.name: full})
            if len(out) != fixed:
                raise ValueError(
                    f"Expected a row an image: {self.output} is {out.shape} of {fixed}."
                )
            rows.append(out[: len(part)])
        return torch.from_numpy(np.concatenate(rows)).float().to(image.device)

    def session(self) -> Any:
        """Return the running model; it is started at first use."""
        if self._session is None:
            self._session = _session(self.model.cpu().numpy().tobytes())
        return self._session

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_session": None}  # it can't be copied, and starts anew


def load(path: Path, *, size: int = 0) -> tuple[Network, dict[str, Any]]:
    """Return the network of an ONNX file and what its pixels must look like.

    Args:
        size: Side of the input in pixels; 0 takes that of the JSON, or of the model.

    Raises:
        FileNotFoundError: No such file.
        ImportError: onnxruntime is not installed.
        ValueError: It can't be read, takes or gives something else, or leaves something open.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No file {path}. Pass onnx:/path/to/tower.onnx.")
    known = _beside(path) | ({"size": size} if size else {})
    content = path.read_bytes()
    session = _session(content, name=path.name)
    layout, channels, side = _input(path.name, session, known)
    output = _output(path.name, session, known)
    network = Network(len(content), 0, layout, output, str(known.get("pooling", ""))).eval()
    network.model = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    with _naming(f"{path.name} can't see images of {side} px"):
        found = network.put_out(torch.zeros(2, channels, side, side))
    if found.ndim not in (2, 3, 4) or not found.isfinite().all():
        raise ValueError(
            f"{path.name} gives {output} {tuple(found.shape)}. Expected (B, D), tokens (B, T, D) "
            "or maps (B, D, H, W), finite."
        )
    if found.ndim == 3 and network.pooling not in (pooling.CLASS, pooling.TOKENS):
        raise ValueError(
            f'{path.name} gives {found.shape[1]} tokens an image. Say "pooling": "class token" or '
            f'"token mean" in {path.with_suffix(".json").name}.'
        )
    network.width = found.shape[1 if found.ndim == 4 else -1]
    pixels = {key: _numbers(path, known, key, channels) for key in ("mean", "std")}
    return network, pixels | {"size": side, "channels": channels}


def _beside(path: Path) -> dict[str, Any]:
    file = path.with_suffix(".json")
    if not file.is_file():
        return {}
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}.") from error
    odd = sorted(set(known) - set(KEYS)) if isinstance(known, dict) else ["no table"]
    if odd:
        raise ValueError(f"{file} holds {', '.join(odd)}. Expected a table of {', '.join(KEYS)}.")
    return known


def _session(content: bytes, *, name: str = "The model") -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "onnx: towers are read by onnxruntime, which is not installed. Run: "
            "pip install -c requirements.lock onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads())
    options.log_severity_level = 3
    cure = "weights that lie in a file of their own must be saved into it"
    with _naming(f"{name} can't be read by onnxruntime ({cure})"):
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say what failed where onnxruntime raises one of its errors, which have no class in common."""
    from onnxruntime.capi import onnxruntime_pybind11_state as raised

    unreadable = (raised.InvalidProtobuf, raised.InvalidGraph, raised.NotImplemented)
    try:
        yield
    except (*unreadable, raised.InvalidArgument, raised.RuntimeException, raised.Fail) as error:
        raise ValueError(f"{what}: {' '.join(str(error).split())[:200]}") from error


def _input(name: str, session: Any, known: dict[str, Any]) -> tuple[str, int, int]:
    """Return layout, channels and side of the only input."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in TYPES:
        told = "; ".join(f"{one.name} {one.shape} {one.type}" for one in inputs)
        raise ValueError(f"{name} takes {told}. Expected one batch of images, four axes of floats.")
    shape = inputs[0].shape
    fits = [layout for layout in LAYOUTS if shape[layout.index("C")] in (1, 3)]
    layout = known.get("layout") or (fits[0] if len(fits) == 1 else "")
    if layout not in fits:
        raise ValueError(
            f'{name} takes {shape}: the layout is {layout or "not clear"}. Say "layout": "NCHW" '
            'or "NHWC" (1 or 3 channels) in the JSON beside it.'
        )
    axes = dict(zip(layout, shape, strict=True))
    sides = {axes[axis] for axis in "HW" if isinstance(axes[axis], int)}
    side = known.get("size") or next(iter(sides), 0)
    if not isinstance(side, int) or side < 1 or sides - {side}:
        raise ValueError(
            f"{name} takes {shape}, asked for {side or 'no size'}. Pass the side of its square "
            'images in pixels as size, or "size" in the JSON beside it.'
        )
    return layout, axes["C"], side


def _output(name: str, session: Any, known: dict[str, Any]) -> str:
    outputs = {one.name: one.shape for one in session.get_outputs()}
    output = known.get("output") or (next(iter(outputs)) if len(outputs) == 1 else "")
    if output not in outputs:
        told = ", ".join(f"{key} {shape}" for key, shape in outputs.items())
        asked = f"not {output!r}" if output else "several outputs"
        raise ValueError(f'{name} has {asked}: {told}. Say which is meant: "output" in the JSON.')
    return output


def _numbers(path: Path, known: dict[str, Any], key: str, channels: int) -> tuple[float, ...]:
    value = known.get(key, ())
    value = (value,) if isinstance(value, int | float) else value
    sound = isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value)
    sound = sound and len(value) in (1, channels) and all(math.isfinite(v) for v in value)
    if not sound or key == "std" and not all(v > 0 for v in value):
        raise ValueError(
            f"{path.name} needs the {key} of the pixels it was trained on, one number or "
            f"{channels}; found {value or 'none'}. Write it into {path.with_suffix('.json').name}: "
            '{"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}'
        )
    return tuple(float(v) for v in value) * (channels if len(value) == 1 else 1)
