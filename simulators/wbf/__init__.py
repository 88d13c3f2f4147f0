"""Weak-boson fusion p p -> h j j, h -> gamma gamma, with the dimension-six operators O_W and O_W~.

Rooms, from the bottom: `constants`, `matrix_element` (|M|^2 as a polynomial in theta),
`parton_density` (x f from pythia8mc's own grid), `parton_level` (differential cross section),
`kinematics` (recoil, photons, cuts), `event_model` (the exact 14-dimensional density),
`phase_space` (adaptive proposals), `acceptance` (accept/reject), `generator` (unweighted events).
For the full chain: `parton_proposals`, `flavours`, `parton_events` (partons with morphing weights)
and `full_chain` (shower, detector and jets of `simulators.chain`; intractable, with joint scores).
"""
