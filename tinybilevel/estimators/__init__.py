"""What plugs into scikit-learn; importing this folder imports scikit-learn (the extra ``data``)."""

from tinybilevel.estimators.patches import PatchFeatures

__all__ = ["PatchFeatures"]
