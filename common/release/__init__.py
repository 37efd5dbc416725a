"""Releases: packing a bundle, checking it, getting it, exporting its networks, and beginning a new one."""

from common.release.download import download
from common.release.manifest import Finding, verify_bundle
from common.release.package import package

__all__ = ["Finding", "download", "package", "verify_bundle"]
