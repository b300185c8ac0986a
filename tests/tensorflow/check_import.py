#!/usr/bin/env python3
"""Import a GraphDef of ours into real TensorFlow, train it there, and compare the losses with ours.

The batches are the reference run's: rows step*500 .. step*500+500 of the 55,000 training images in file order, keep
probability 0.5. The losses file holds a line `step objective cost` for each step, from step 0 on, as measured before that
step's update; lines that do not begin with a number are skipped, so the output of `training_step` can be given as it is.

A bound STEPS:RELATIVE asks for that relative agreement of both figures in all steps before STEPS; several bounds may
follow one another (5:1e-5 10:1e-3: to 1e-5 for five steps, then to 1e-3 for five more). Without --bound they are, by
optimizer: sgd 50:1e-5 100:3e-5, rmsprop 20:1e-5, adam 5:1e-5 10:1e-3. (TensorFlow 1.15 and 2.21 themselves come apart by
2.5e-6 in 50 steps of sgd and 9.4e-6 in 100.)
Exit status 0 when everything agrees, 1 when something does not.
"""
import argparse
import math
import os
import sys

BOUNDS = {"sgd": [(50, 1e-5), (100, 3e-5)], "rmsprop": [(20, 1e-5)], "adam": [(5, 1e-5), (10, 1e-3)]}


def parse_bound(text):
    steps, _, bound = text.partition(":")
    try:
        steps, bound = int(steps), float(bound)
        if steps > 0 and bound >= 0:
            return steps, bound
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not STEPS:RELATIVE")


def read_losses(path):
    """{step: (objective, cost)}"""
    losses = {}
    with open(path) as file:
        for number, line in enumerate(file, 1):
            fields = line.split()
            if not fields or not fields[0].isdigit():
                continue
            if len(fields) != 3:
                raise ValueError(f"{path}:{number}: expected `step objective cost`")
            losses[int(fields[0])] = float(fields[1]), float(fields[2])
    return losses


def relative(ours, theirs):
    if not (math.isfinite(ours) and math.isfinite(theirs)):
        return math.inf
    return abs(ours - theirs) / max(abs(theirs), 1e-30)


def compare(graph, batches, losses, bounds, keep):
    """Prints a line a bound and gives the number of failures."""
    failures, step = 0, 0
    for end, bound in bounds:
        begin, worst, worst_step = step, 0.0, step
        while step < end:
            theirs = graph.step(batches[step], keep)
            difference = max(map(relative, losses[step], theirs))
            if difference > worst or math.isinf(difference):
                worst, worst_step = difference, step
            if not difference <= bound:
                print(f"  step {step}: ours {losses[step]}, TensorFlow {theirs}, relative difference {difference:.3g}")
            step += 1
        good = worst <= bound
        failures += not good
        print(f"{'ok  ' if good else 'FAIL'} steps {begin}..{end - 1}: worst relative difference {worst:.3g} "
              f"(step {worst_step}), asked for {bound:g}")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", help="GraphDef written by `lenet export --graph-def`")
    parser.add_argument("--losses", required=True, help="our losses: lines `step objective cost`")
    parser.add_argument("--bound", action="append", type=parse_bound, metavar="STEPS:RELATIVE")
    parser.add_argument("--data", default="data", help="folder of MNIST's .gz files (default: data)")
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--keep", type=float, default=0.5, help="probability to keep a unit (default: 0.5)")
    arguments = parser.parse_args()
    for path in (arguments.graph, arguments.losses):
        if not os.path.isfile(path):
            parser.error(f"{path}: no such file")

    import mnist
    from lenet_graph import LenetGraph, tf

    graph = LenetGraph(arguments.graph)
    print(f"TensorFlow {tf.__version__} imported {len(graph.definition.node)} nodes, optimizer {graph.optimizer}")
    losses = read_losses(arguments.losses)
    bounds = sorted(arguments.bound or BOUNDS[graph.optimizer])
    missing = [step for step in range(bounds[-1][0]) if step not in losses]
    if missing:
        sys.exit(f"FAIL {arguments.losses}: no losses for step {missing[0]} ({len(missing)} missing)")
    failures = compare(graph, mnist.TrainingBatches(arguments.data, arguments.batch), losses, bounds, arguments.keep)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
