"""The pixels of a PNG without its metadata."""

MAGIC = b"\x89PNG\r\n\x1a\n"
_FRAME = 12
"""Bytes of a chunk beside its content: length, kind and checksum."""


def without_metadata(data: bytes) -> bytes:
    """A PNG of the same pixels: of its chunks those that decoding needs and tRNS, each as it is.

    Text, colour profiles and the like may be damaged, cut off at the end, or expand to more than memory holds
    while the pixels are fine. What is no chunk stays where it is, with all that follows.
    """
    chunks, start = [data[: len(MAGIC)]], len(MAGIC)
    while start < len(data):
        kind = data[start + 4 : start + 8]
        end = start + _FRAME + int.from_bytes(data[start : start + 4])
        if len(kind) < 4 or not kind.isalpha():
            end = len(data)
        if not kind[:1].islower() or kind == b"tRNS":  # a small letter: not needed for decoding
            chunks.append(data[start:end])
        start = end
    return b"".join(chunks)
