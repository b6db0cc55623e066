"""Checks a Parquet file's pages against the checksums that some writers put into them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

_MAGIC = 4  # bytes of "PAR1"; the first page follows
_I32 = 0x15  # Thrift compact protocol: the next field (number + 1), a 32-bit integer


def verify_pages(path: Path) -> None:
    """Read all pages where they carry checksums; a flipped bit raises pyarrow's error.

    Files without checksums are not read: their pages are checked as far as decompression does it, when they are used.
    """
    if has_checksums(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        for group in range(file.metadata.num_row_groups):
            file.read_row_group(group)


def has_checksums(path: Path) -> bool:
    """Say whether the first page's header has a ``crc``.

    apache/parquet-format, ``parquet.thrift``: PageHeader has type, uncompressed and compressed size (fields 1 to 3,
    always there), then the optional crc (field 4), each an i32. The footer is not asked where the page lies: pyarrow
    25 ends the process over some damaged ones (``RowGroupMetaData.column``), beyond the reach of any ``except``.
    """
    with path.open("rb") as stream:
        stream.seek(_MAGIC)
        header = stream.read(32)
    place = 0
    for _ in range(3):
        if place >= len(header) or header[place] != _I32:
            return False
        place += 1
        while place < len(header) and header[place] & 0x80:  # a variable-length integer goes on
            place += 1
        place += 1
    return place < len(header) and header[place] == _I32
