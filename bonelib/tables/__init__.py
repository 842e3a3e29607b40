"""Tables that people bring, whatever program saved them: labels, reports, indexes, caption banks.

A CSV or an Excel sheet comes in; cells as text go out, with the line each row stands on. The
encoding (UTF-8, UTF-16, Windows-1252, Mac Roman), the separator and decimal commas are found by
what the file holds; `dates` reads the dates of a column. What had to be assumed, and how much was
not understood, is said in sentences that name the file but no cell: a cell may be a name.
"""

from bonelib.tables.dates import dates, parse_date
from bonelib.tables.letters import decode
from bonelib.tables.reading import TEXTS, beside, read, records, rows
