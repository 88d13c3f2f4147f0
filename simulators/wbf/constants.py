"""Constants of the weak-boson-fusion simulator: electroweak inputs, operator scale, event model.

The electroweak inputs (alpha, G_F, M_Z) and all derived couplings are those of the parameter card
of the published M-flow study (arXiv:2003.13913); GeV, pb.
"""

import math

ALPHA = 1 / 127.9
FERMI_CONSTANT = 1.16637e-5
Z_MASS = 91.1876
HIGGS_MASS = 125.0
W_MASS = math.sqrt(
    Z_MASS**2 / 2
    + math.sqrt(Z_MASS**4 / 4 - math.pi * ALPHA * Z_MASS**2 / (math.sqrt(2) * FERMI_CONSTANT))
)
SIN2_WEAK = 1 - W_MASS**2 / Z_MASS**2
COS2_WEAK = 1 - SIN2_WEAK
SIN_WEAK = math.sqrt(SIN2_WEAK)
COS_WEAK = math.sqrt(COS2_WEAK)
CHARGE = math.sqrt(4 * math.pi * ALPHA)
WEAK_COUPLING = CHARGE / SIN_WEAK

BEAM_ENERGY_SUM = 13000.0
"""sqrt(S) in GeV."""

PB_GEV2 = 0.3893793721e9
"""(hbar c)^2 in pb GeV^2."""

FACTORISATION_SCALE = W_MASS

EFT_SIGN = -1
"""Sign of f_W in the EWdim6 UFO model relative to D = d + i g W (Hagiwara et al.)."""

DUAL_FACTOR = 2
"""The UFO's dual field strength carries no 1/2: eps W instead of (1/2) eps W."""

SCALE_PER_TEV2 = {"tuned": 33.04, "paper": 165.2}
"""c/Lambda^2 in TeV^-2 for theta = 1, by setting."""

PARAMETERS = ("CWL2", "CPWL2")
"""Names of theta_0 (coefficient of O_W) and theta_1 (of its CP-odd partner), as in the UFO."""

EXPONENTS = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
"""Powers of (theta_0, theta_1) of the six morphing components."""

JET_MASS_OFFSET = 4.5
JET_MASS_SLOPE = 0.08
JET_MASS_WIDTH = 0.45
"""ln m_j ~ N(ln(4.5 + 0.08 pT), 0.45^2)."""

PHOTON_PAIR_MASS = HIGGS_MASS
PHOTON_PAIR_WIDTH = 2.0
"""m_aa ~ N(125, 2^2)."""

RECOIL_SCALE = 25.0
RECOIL_POWER = 2.5
"""rho(K) = (n - 1)/(pi k0^2) (1 + K^2/k0^2)^-n."""

JET_PT_MIN = 20.0
JET_ETA_MAX = 5.0
PHOTON_PT_MIN = 10.0
PHOTON_ETA_MAX = 2.5
DELTA_R_MIN = 0.4
PHOTON_PAIR_MASS_RANGE = (115.0, 135.0)

PARTON_PT_MIN = 18.0
PARTON_ETA_MAX = 5.0
HIGGS_RAPIDITY_MAX = 2.5
"""Cuts of the parton level of the full chain, which efficiencies are relative to.

The quarks' pT is that of the published study, their |eta| MadGraph's usual choice (the study's own
was not checked).  The pair of photons in |eta| < 2.5 has a rapidity below 2.5, so that the cut on
the Higgs boson costs nothing but events with a wrong photon.  Efficiencies do depend on it: at
theta ~ N(0, 1)^2, setting paper, 0.52 of the events behind the cuts on the quarks alone are
selected, 0.54 behind all of them, and 0.49 without any.
"""
