"""Reading texts: documents, tables, conversations, source code and tokenizers."""
