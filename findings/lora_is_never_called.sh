#!/usr/bin/env bash
# peft 0.21.2 on timm 1.0.31: in BEiT, EVA-02 and Swin V2, LoRA on qkv counts as trained and does nothing.
#
# Input: timm's vit_tiny, eva02_tiny, beit_base and swinv2_tiny with random weights from a fixed seed;
#   LoRA of rank 4 on the layers called qkv, the usual target. The B matrices are drawn at random, so
#   that adapters that are called must change the features. One random picture; one backward pass.
# Guess: a layer that exists, is a Linear and is found by its name is called, so that its adapter
#   changes the features and gets a gradient. peft raises an error where a target is not found.
# Seen: so in vit_tiny. In the three others every adapter is counted as trainable, none is ever
#   called: the features stay as they are and no gradient arrives, without an error or a
#   warning. Their attention adds a bias of its own and so passes qkv.weight to the functional linear,
#   past the layer's forward. A "LoRA" run of them compares an untrained tower. (peft's issue 2556
#   describes the same of the projections in Mamba.)
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  peft==0.21.2 timm==1.0.31 torch==2.14.1 torchvision==0.29.1 transformers==5.23.0 numpy==2.4.6

cat > "$folder/seen" <<'SEEN'
peft 0.21.2  timm 1.0.31
tower                     adapters  trainable  with gradient  features change
vit_tiny_patch16_224            24         24             24              yes
eva02_tiny_patch14_224          24         24              0               no
beit_base_patch16_224           24         24              0               no
swinv2_tiny_window8_256         24         24              0               no
warnings about adapters 0
SEEN

cat > "$folder/run.py" <<'PY'
import warnings
from importlib.metadata import version

import timm
import torch
from peft import LoraConfig, get_peft_model

TOWERS = (
    "vit_tiny_patch16_224",
    "eva02_tiny_patch14_224",
    "beit_base_patch16_224",
    "swinv2_tiny_window8_256",
)

print("peft", version("peft"), " timm", version("timm"))
print("tower                     adapters  trainable  with gradient  features change")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for name in TOWERS:
        torch.manual_seed(0)
        tower = timm.create_model(name, num_classes=0).eval()
        picture = torch.randn(1, *tower.default_cfg["input_size"]).requires_grad_()
        before = tower(picture).detach()
        adapted = get_peft_model(tower, LoraConfig(r=4, target_modules=["qkv"])).eval()
        matrices = {key: w for key, w in adapted.named_parameters() if "lora_" in key}
        for key, weight in matrices.items():
            if "lora_B" in key:
                torch.nn.init.normal_(weight)
        after = adapted(picture)
        after.square().sum().backward()
        trainable = sum(w.requires_grad for w in matrices.values())
        reached = sum(w.grad is not None for w in matrices.values())
        moved = (after.detach() - before).norm() / before.norm()
        change = "no" if moved < 1e-4 else "yes"
        print(f"{name:<26}{len(matrices):>8}  {trainable:>9}  {reached:>13}  {change:>15}")
print("warnings about adapters", sum("lora" in str(each.message).lower() for each in said))
PY

"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
