"""wip"""
from __future__ import annotations
from headwater.kit.simulate.run import Simulation
from tests.simulation.cluster_story import alone, anything, play

def any_faults(sim: Simulation) -> None:
    play(sim)

def faults_alone(sim: Simulation) -> None:
    play(sim, kind=alone)

def faults_together(sim: Simulation) -> None:
    play(sim, kind=anything)

def faults_alone_w(sim: Simulation) -> None:
    from headwater.node.standby import backed
    from tests.simulation.cluster_world import Parts
    play(sim, Parts(patches=((backed, "WAIT_S", 10.0),)), kind=alone)
