from __future__ import annotations
from stretto.simulate.site import Site
from stretto.simulate.graph import graph
from stretto.simulate.play import play
def simulate(program, cluster, *, stack, faults=()):
    g=graph(Site(program,cluster,stack,tuple(faults)))
    return g,*play(g,contention=float(stack.contention))
