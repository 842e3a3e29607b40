"""Words for radiographs: captions with attribute keys, prompts of each task, a bank of captions.

Rows of the cohort table, or facts of reports, come in; sentences and integer keys go out. What
captions may name is said by the caller and held by a phase, so that a label that is asked later
can't slip in.
"""

from bonelib.captions.attributes import attribute_prompts, attribute_weights, site_prompts
from bonelib.captions.bank import drop_tail, pairs, read_bank, tells
from bonelib.captions.clinical import CLINICAL, clinical_sentences
from bonelib.captions.facts import facts_table, from_reports, own_words
from bonelib.captions.grammar import (
    AGE_GROUPS,
    BONE_AGES,
    FIELDS,
    OUTLINES,
    OWN,
    PHASES,
    REGISTERS,
    SIGNS,
    age_group,
    bone_age_group,
    gives_away,
    key_values,
    keys,
    known,
    label_free,
    languages,
    supervision,
    words,
    write,
)
from bonelib.captions.outlines import outline_facts, outline_keys, outline_sentence
from bonelib.captions.prompting import (
    STYLES,
    class_words,
    prompt_classes,
    prompt_values,
    prompts,
    styles,
)
from bonelib.captions.variants import check_prompts, variants
