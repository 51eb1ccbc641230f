"""Reading rows for `map`: planned units of files, row filters, and documents that are read on demand."""
