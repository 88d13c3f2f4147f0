"""Weak-boson fusion p p -> h j j, h -> gamma gamma, with the dimension-six operators O_W and O_W~.

Rooms, from the bottom: `constants`, `matrix_element` (|M|^2 as a polynomial in theta),
`parton_density` (x f from pythia8mc's own grid), `parton_level` (differential cross section),
`kinematics` (recoil, photons, cuts), `event_model` (the exact 14-dimensional density),
`phase_space` (adaptive proposals), `generator` (unweighted events).
"""
