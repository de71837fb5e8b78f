"""Holds nano, a small trained ConsisID checkpoint, the drawn world that it was trained on, and judges of its videos.

This module, `package` and `digests` need only the standard library, `world` also NumPy and OpenCV. The other modules
may import consisid-runtime and consisid-export. None imports `consisid_training`.
"""

from consisid_nano.package import DataDamaged, DataMissing, checkpoint, judges

__all__ = ["DataDamaged", "DataMissing", "checkpoint", "judges"]
