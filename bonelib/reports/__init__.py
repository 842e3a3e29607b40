"""French and English radiology reports read: sources, sections, sentences, statements.

Texts come in; sections and facts go out. A language is rows in ``words.csv`` and
``vocabulary.csv``. Identities are the matter of ``bonelib.deidentify``: read a report after they
have gone, since a Mrs Hand is no hand.

    language = reports.language("fr")
    stated = reports.facts("Pas de fracture du fémur.", language)
"""

from bonelib.reports.languages import Language, language, names
from bonelib.reports.sources import PatientIndex, read
from bonelib.reports.statements import agreement, facts, table
from bonelib.reports.structure import sections
