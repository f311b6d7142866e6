"""Tables: one reader of their rows, the roles of their columns, and their numbers and times."""

SPREADSHEETS = frozenset({".xlsx", ".xlsm"})
SUFFIXES = frozenset({".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"}) | SPREADSHEETS
DATA_BASES = frozenset({".db", ".sqlite", ".sqlite3"})
TABLES = SUFFIXES | DATA_BASES  # of files that are tables by their names
