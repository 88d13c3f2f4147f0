"""Points drawn from known densities on circle, spheres, tori and a polynomial surface.

And from the Lorenz attractor, whose density nobody knows.

One parameter theta in [-1, 1] moves or widens the density; its exact value with respect to the
surface's own volume travels in the file.

Rooms: `surfaces` (points, densities, scores), `lorenz` (trajectories), `event_file` (columns,
metadata, the flat TTree).
"""
