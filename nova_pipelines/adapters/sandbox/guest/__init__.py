"""The guest runner: the only code of NOVA inside a sandbox, started by `main`. Standard library alone (pypdfium2
and pdfplumber when a job needs them) and relative imports, so that the folder can be copied anywhere.

A job is a file: 4 bytes length, JSON header, JSON of the context, then the bytes of the job's files.
"""
