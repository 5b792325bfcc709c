"""Linear attenuation of what a hip radiograph is made of, at two energies for a spectrum.

Two effective energies (50 and 70 keV, equal weight) give the beam hardening that makes metal look
as it does. Values per mm, rounded from NIST's tables of mass attenuation coefficients (XCOM) times
usual densities; the ceramic is alumina toughened with a quarter of
zirconia, the cement holds a tenth of barium sulphate.
"""

from __future__ import annotations

from enum import Enum


class Material(Enum):
    """A material and its linear attenuation per mm at 50 and 70 keV."""

    AIR = (0.0, 0.0)
    SOFT_TISSUE = (0.0227, 0.0193)
    FAT = (0.0198, 0.0175)
    POLYETHYLENE = (0.0194, 0.0176)
    CANCELLOUS_BONE = (0.0405, 0.0290)
    CORTICAL_BONE = (0.0810, 0.0490)
    BONE_CEMENT = (0.1000, 0.0540)
    CERAMIC = (0.5800, 0.2700)
    TITANIUM = (0.5460, 0.2500)
    COBALT_CHROME = (1.6200, 0.7000)
    LEAD = (9.1000, 3.9000)

    @property
    def is_bone(self) -> bool:
        """Whether trabecular texture belongs to it."""
        return self in (Material.CANCELLOUS_BONE, Material.CORTICAL_BONE)
