"""Columns of tables: cells, the rules that read them, and the column schema that encodes them."""
