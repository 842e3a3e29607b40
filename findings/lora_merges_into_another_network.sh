#!/usr/bin/env bash
# peft 0.21.2 on timm 1.0.31: merging LoRA into weight-standardised convolutions changes the network.
#
# Input: timm's resnetv2_50x1_bit (Big Transfer), nf_resnet26 and, for comparison, resnet26, with
#   random weights from a fixed seed; LoRA of rank 4 on every convolution, with its B matrices drawn
#   at random, as after a training. Four random pictures of 64 x 64, in eval mode.
# Guess: merge_and_unload gives the same features as the network with adapters, to rounding.
# Seen: so for resnet26. For the two others the merged network is another one, without an error or a
#   warning, and safe_merge, which looks for NaN, lets it pass. Their convolutions subclass Conv2d
#   and standardise the weight at each call: with an adapter beside it the change is added to
#   the standardised result, merged it is standardised with the weight. A model that was chosen by
#   its validation score is then not the one that is saved.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  peft==0.21.2 timm==1.0.31 torch==2.14.1 torchvision==0.29.1 transformers==5.23.0 numpy==2.4.6

cat > "$folder/seen" <<'SEEN'
peft 0.21.2  timm 1.0.31
change of the features      by the adapters  by merging them
resnet26                                0.1             none
nf_resnet26                             0.1              0.1
resnetv2_50x1_bit                       0.8              0.8
warnings about merging 0
SEEN

cat > "$folder/run.py" <<'PY'
import warnings
from importlib.metadata import version

import timm
import torch
from peft import LoraConfig, get_peft_model

print("peft", version("peft"), " timm", version("timm"))
print("change of the features      by the adapters  by merging them")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for name in ("resnet26", "nf_resnet26", "resnetv2_50x1_bit"):
        torch.manual_seed(0)
        network = timm.create_model(name, num_classes=0).eval()
        pictures = torch.randn(4, 3, 64, 64)
        layers = [n for n, m in network.named_modules() if isinstance(m, torch.nn.Conv2d)]
        with torch.no_grad():
            plain = network(pictures)
            adapted = get_peft_model(network, LoraConfig(r=4, target_modules=layers)).eval()
            for key, weight in adapted.named_parameters():
                if "lora_B" in key:
                    weight.normal_(std=0.02)
            before = adapted(pictures)
            after = adapted.merge_and_unload(safe_merge=True)(pictures)
        by_adapters = float((before - plain).norm() / plain.norm())
        by_merging = float((after - before).norm() / before.norm())
        said_merging = f"{by_merging:.1f}" if by_merging > 0.05 else "none" if by_merging < 1e-4 else "?"
        print(f"{name:<28}{by_adapters:>15.1f}  {said_merging:>15}")
print("warnings about merging", sum("merg" in str(each.message).lower() for each in said))
PY

"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
