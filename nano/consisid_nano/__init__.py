"""The trained nano ConsisID: a small checkpoint, the drawn world it knows, and judges of what it makes."""

from consisid_nano.package import DataDamaged, DataMissing, checkpoint, judges

__all__ = ["DataDamaged", "DataMissing", "checkpoint", "judges"]
