"""Storage of the aws profile: versions lie on S3, and under the data folder what this machine wrote or read of them.

What belongs elsewhere: how a version is copied (``object_store.py``), the interface (``storage.py``).
"""

from functools import lru_cache
from pathlib import Path, PurePosixPath

from pydantic import Field

from bigger_boat.errors import CloudError
from bigger_boat.resources.object_store import ObjectStore
from bigger_boat.resources.storage import AddressIOManager, Storage, never_made

ADDRESSES = "addresses"
_UNSET = "BIGGER_BOAT_STORAGE is not set: there is no place on S3 for data sets and bundles."


class S3Storage(Storage):
    """Versions on S3; ``base_dir`` holds copies, verified on arrival, which may be deleted at any time."""

    root: str = Field(description="s3://bucket/path, or another address that UPath knows")
    kms_key: str = Field("", description="ARN of the KMS key that encrypts objects; empty: the bucket's own (SSE-S3)")

    @property
    def store(self) -> ObjectStore:
        """The objects."""
        return object_store(self.root, self.kms_key)

    @property
    def bucket_and_path(self) -> tuple[str, str]:
        """Return the bucket, and the path in it with a slash at its end ("" for the bucket itself)."""
        bucket, _, path = self.root.removeprefix("s3://").partition("/")
        return bucket, f"{path.strip('/')}/" if path.strip("/") else ""

    def publish(self, path: Path) -> str:
        """Upload the version that ``path`` lies in. Raises CloudError, and FileExistsError for another content."""
        address = self.address(path)
        version = version_of(address)
        self.store.upload(Path(self.base_dir) / version, version)
        return address

    def fetch(self, address: str) -> Path:
        """Return the folder of a version, downloaded if it is not here. Raises CloudError and DatasetError."""
        version, path = version_of(address), Path(self.base_dir) / address
        local = Path(self.base_dir) / version
        if not local.is_dir():
            local.parent.mkdir(parents=True, exist_ok=True)
            self.store.download(version, local)
        if not path.is_dir():
            raise never_made(address, self.root)
        return path


class S3AddressIOManager(AddressIOManager):
    """Hands addresses from asset to asset by small objects under the storage's root."""

    kms_key: str = ""

    def _write(self, file: str, text: str) -> None:
        object_store(self.base_dir, self.kms_key).write_text(f"{ADDRESSES}/{file}", text + "\n")

    def _read(self, file: str) -> str | None:
        return object_store(self.base_dir, self.kms_key).read_text(f"{ADDRESSES}/{file}")


@lru_cache(maxsize=8)
def object_store(root: str, kms_key: str = "") -> ObjectStore:
    """Return the store of a root: one for this process, which keeps its connections. Raises CloudError without one."""
    if not root:
        raise CloudError(_UNSET, "Set it to s3://bucket/path; docs/aws.md says what the bucket needs.")
    return ObjectStore(root, kms_key)


def version_of(address: str) -> str:
    """Return ``kind/name/version`` of an address at or below a version."""
    return PurePosixPath(*PurePosixPath(address).parts[:3]).as_posix()
