"""Towers that several test files use, made once a session; who changes one takes a copy."""

import pytest


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """A folder with a small random BERT of Hugging Face and MiniLM's tokenizer."""
    import torch
    import transformers

    from bonelib import encoders

    folder = tmp_path_factory.mktemp("bert")
    tokenizer = encoders.text("packaged:minilm", cached=False)._tokenizer
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = transformers.BertConfig(
            **sizes,
            intermediate_size=64,
            vocab_size=tokenizer.vocab_size,
            max_position_embeddings=64,
            pad_token_id=0,
        )
        transformers.BertModel(config).save_pretrained(folder)
    return folder
