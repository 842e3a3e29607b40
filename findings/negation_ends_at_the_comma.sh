#!/usr/bin/env bash
# edsnlp 0.23.0: only the first finding of a list is denied, and "non déplacée" denies a fracture.
#
# Input: short plain sentences as French radiology reports have them; a pipeline of eds.normalizer,
#   eds.sentences, eds.matcher and eds.negation with their own settings.
# Guess: "Pas de fracture, luxation ou épanchement" denies all three. "Fracture non déplacée" is a
#   fracture: "non" belongs to the adjective behind it.
# Seen: a comma, and "et", end what a negation governs, so the later members of a list count as
#   present, also the last one behind "ou"; with "ni", or as bullets, all are denied. "non" behind a
#   term denies the term, so fractures that are "non déplacée" or "non consolidée" count as absent.
#   A label taken from such reports is wrong both ways. Its issues 245 and 256 are about other
#   negations.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  edsnlp==0.23.0 spacy==3.8.18 numpy==2.4.6

cat > "$folder/seen" <<'SEEN'
edsnlp 0.23.0
Pas de fracture.
    fracture absent
Pas de fracture, luxation ou épanchement.
    fracture absent
    luxation present
    épanchement present
Pas de fracture, de luxation, d'épanchement.
    fracture absent
    luxation present
    épanchement present
Absence de fracture et de luxation.
    fracture absent
    luxation present
Pas de fracture ni luxation ni épanchement.
    fracture absent
    luxation absent
    épanchement absent
Pas de : - fracture - luxation - épanchement
    fracture absent
    luxation absent
    épanchement absent
Fracture non déplacée du radius.
    fracture absent
Fracture non consolidée du tibia.
    fracture absent
Fracture peu déplacée du radius.
    fracture present
SEEN

cat > "$folder/run.py" <<'PY'
import warnings
from importlib.metadata import version

warnings.simplefilter("ignore")  # about torch, which is not needed here
import edsnlp
import edsnlp.pipes as eds

TERMS = ["fracture", "luxation", "épanchement"]
SENTENCES = (
    "Pas de fracture.",
    "Pas de fracture, luxation ou épanchement.",
    "Pas de fracture, de luxation, d'épanchement.",
    "Absence de fracture et de luxation.",
    "Pas de fracture ni luxation ni épanchement.",
    "Pas de :\n- fracture\n- luxation\n- épanchement",
    "Fracture non déplacée du radius.",
    "Fracture non consolidée du tibia.",
    "Fracture peu déplacée du radius.",
)

read = edsnlp.blank("eds")
for pipe in (
    eds.normalizer(),
    eds.sentences(),
    eds.matcher(terms={"finding": TERMS}, attr="LOWER"),
    eds.negation(),
):
    read.add_pipe(pipe)

print("edsnlp", version("edsnlp"))
for sentence in SENTENCES:
    print(sentence.replace("\n", " "))
    for term in read(sentence).ents:
        print("   ", term.text.lower(), "absent" if term._.negation else "present")
PY

"$folder/venv/bin/python" -I "$folder/run.py" | tee "$folder/now"
diff -u "$folder/seen" "$folder/now" || { echo "The behaviour has changed." >&2; exit 1; }
