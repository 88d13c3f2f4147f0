"""From partons or hadrons to what a detector sees: any process, in batches of events.

Rooms, from the bottom: `jagged` (lists of objects per event), `distances`, `pdg` (what a detector
makes of a particle), `text_files`, `lhe` and `hepmc` (files of partons and of hadrons), `shower`
(Pythia), `response` (efficiencies and resolutions), `detector` (energy-flow objects),
`isolation`, `jets`, `reconstruction` (all of it, and the selection), `event_file` (what is
written), `user_files` (a user's own LHE or HepMC file through the chain).
"""
