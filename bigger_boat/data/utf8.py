"""Finding where a stream of bytes stops being UTF-8. Only used to name the line in an error."""

import codecs


def first_line_that_is_not_utf8(stream) -> int | None:
    """Return the 1-based number of the first line of a binary stream that is not valid UTF-8, or None if all are."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    while chunk := stream.read(1 << 20):
        pending = decoder.getstate()[0]
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            return line + (pending + chunk)[: error.start].count(b"\n")
        line += chunk.count(b"\n")
    return line if decoder.getstate()[0] else None
