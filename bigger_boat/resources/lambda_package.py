"""The code of the Lambda function as a zip: small, and the same bytes for the same sources, wherever it is made.

What belongs elsewhere: what the function does (``serving/lambda_entry.py``), where the zip goes (``gateway_api.py``).
"""

import hashlib
import io
import zipfile
from pathlib import Path

HANDLER = "bigger_boat.serving.lambda_entry.handler"
SOURCES = (
    "__init__.py",
    "data/__init__.py",
    "data/vocabulary.py",
    "errors.py",
    "serving/__init__.py",
    "serving/contract.py",
    "serving/handler.py",
    "serving/lambda_entry.py",
)
"""Files of our package: the entry, and all that it imports of ours."""

_PACKAGE = Path(__file__).resolve().parent.parent
_EPOCH = (1980, 1, 1, 0, 0, 0)


def build_package() -> bytes:
    """Return the zip. Nothing in it depends on time, machine or order; it is not compressed, so nor on a library."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in SOURCES:
            member = zipfile.ZipInfo(f"{_PACKAGE.name}/{name}", _EPOCH)
            member.create_system, member.external_attr = 3, 0o644 << 16
            archive.writestr(member, (_PACKAGE / name).read_bytes())
    return packed.getvalue()


def package_name(package: bytes) -> str:
    """Return a name that says what is inside: another content, another name."""
    return f"lambda-{hashlib.sha256(package).hexdigest()[:16]}.zip"
