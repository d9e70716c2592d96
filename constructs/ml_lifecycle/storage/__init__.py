"""File systems that training reads faster than S3."""

from ml_lifecycle.storage.lustre import LustreCache
from ml_lifecycle.storage.shared_files import SharedFiles

__all__ = ["LustreCache", "SharedFiles"]
