#!/usr/bin/env python3
"""Time our training step against TensorFlow's: the same graph, batches and cores, turn by turn in one run.

    training_step.py --graph graph.pb                    ours and TensorFlow's, batch 500
    training_step.py --graph graph.pb --batch 500 32 1   several batch sizes
    training_step.py --graph graph.pb --also evaluate summarize    the 10,000 test images: accuracy, and all summaries
    training_step.py --graph graph.pb --tensorflow-only  no program of ours needed

The graph comes from `lenet export --graph-def graph.pb --seed 1`. Each side is a child process that speaks this protocol,
lines on standard input and output:

    (start)        ->  ready                  data loaded, variables initialized
    step N         ->  N SECONDS              N training steps, timed inside the process
    losses N       ->  K OBJECTIVE COST       one line a step, measured before its update; K counts on from 0 over all
                       done                   commands of the process
    evaluate N         ->  N SECONDS              N times the accuracy on the 10,000 test images
    summarize N        ->  N SECONDS              N times the merged summary over the 10,000 test images
    (end of input)     the process ends

Ours is called as `<--ours> --optimizer OPTIMIZER --seed 1 --batch B --threads T --data DIR` (T 0: all cores). A step fetches
objective and cost with the train op; batch k is rows k*B .. k*B+B of the 55,000 training images in file order, from the
start again after the last whole one; keep probability 0.5.

One side works while the other waits. After a warm-up round each, rounds alternate; a round's figure is its seconds over
its steps. Printed: the median of the rounds, the quartiles, least and most, and the ratio of the medians (below 1: we are
faster). With --at-most R the exit status is 1 where a ratio is above R.
"""
import argparse
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
OURS = os.path.join(HERE, os.pardir, os.pardir, "target", "release", "examples", "training_step")


class Side:
    """A child that trains on request."""

    def __init__(self, title, command):
        self.title = title
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                      stderr=subprocess.DEVNULL if title == "TensorFlow" else None)
        self.expect("ready")

    def line(self):
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.title}: the process ended with status {self.child.wait()}")
        return line.strip()

    def expect(self, text):
        line = self.line()
        if line != text:
            raise RuntimeError(f"{self.title}: expected `{text}`, got `{line}`")

    def ask(self, command):
        self.child.stdin.write(command + "\n")
        self.child.stdin.flush()

    def time(self, command, count):
        """Milliseconds of one of so many."""
        self.ask(f"{command} {count}")
        done, seconds = self.line().split()
        if int(done) != count:
            raise RuntimeError(f"{self.title}: ran {done} times `{command}`, not {count}")
        return float(seconds) / count * 1e3

    def losses(self, count):
        self.ask(f"losses {count}")
        found = [tuple(map(float, self.line().split())) for _ in range(count)]
        self.expect("done")
        return found

    def close(self):
        self.child.stdin.close()
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def describe(title, times):
    low, middle, high = statistics.quantiles(times, n=4)
    print(f"  {title:10}  median {middle:9.3f} ms   quartiles {low:.3f} .. {high:.3f}   least {min(times):.3f}   most {max(times):.3f}")
    return middle


def times_for(side, command, seconds):
    """How often the command fills about that long."""
    side.time(command, 2)
    return max(1, round(seconds * 1e3 / side.time(command, 3)))


def alternate(sides, command, arguments):
    """Times the command turn by turn; gives the ratio of the medians, or None where only TensorFlow runs."""
    counts = [times_for(side, command, arguments.seconds) for side in sides]
    times = [[] for _ in sides]
    for k in range(arguments.rounds):
        turns = list(zip(sides, counts, times))
        for side, count, into in turns if k % 2 == 0 else reversed(turns):  # neither side always goes first
            into.append(side.time(command, count))
    medians = [describe(side.title, into) for side, into in zip(sides, times)]
    print(f"  {arguments.rounds} rounds of {' and '.join(map(str, counts))} times `{command}`")
    if len(medians) == 1:
        return None
    ratio = medians[1] / medians[0]
    print(f"  ours / TensorFlow = {ratio:.3f}")
    return ratio


def measure(batch, commands, arguments):
    """Gives the ratios, None where only TensorFlow runs."""
    sides = [
        Side("TensorFlow", [sys.executable, os.path.join(HERE, "tensorflow_step.py"), arguments.graph, "--data", arguments.data,
                            "--batch", str(batch), "--threads", str(arguments.threads)])
    ]
    try:
        if not arguments.tensorflow_only:
            sides.append(Side("ours", [arguments.ours, "--optimizer", arguments.optimizer, "--seed", "1", "--batch", str(batch),
                                       "--threads", str(arguments.threads), "--data", arguments.data]))
            theirs, ours = (side.losses(3) for side in sides)
            worst = max(abs(a - b) / max(abs(b), 1e-30) for x, y in zip(ours, theirs) for a, b in zip(x[1:], y[1:]))
            print(f"batch {batch}: losses of the first 3 steps agree to {worst:.2g} (relative)")
            if not worst < 1e-4:
                raise RuntimeError(f"the two do not train the same net: ours {ours}, TensorFlow's {theirs}")
        else:
            print(f"batch {batch}:")
        ratios = []
        for command in commands:
            if command != "step":
                print(f"{command}, 10,000 images:")
            ratios.append(alternate(sides, command, arguments))
        return ratios
    finally:
        for side in sides:
            side.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", required=True)
    parser.add_argument("--ours", default=OURS, help="our program (default: target/release/examples/training_step)")
    parser.add_argument("--optimizer", default="adam", choices=("adam", "rmsprop", "sgd"), help="as the graph was exported")
    parser.add_argument("--data", default=os.path.join(HERE, os.pardir, os.pardir, "data"))
    parser.add_argument("--batch", type=int, nargs="+", default=[500])
    parser.add_argument("--also", nargs="*", default=[], choices=("evaluate", "summarize"), help="beside training steps")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.5, help="about how long a round lasts (default: 1.5)")
    parser.add_argument("--tensorflow-only", action="store_true")
    parser.add_argument("--at-most", type=float, metavar="R", help="fail where ours / TensorFlow is above R")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("--rounds: at least 2")
    if not arguments.tensorflow_only and not os.path.exists(arguments.ours):
        parser.error(f"{arguments.ours}: not built (cargo build --release -p lenet --example training_step)")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} at the start, threads {arguments.threads or 'all'}")
    try:
        ratios = []
        for index, batch in enumerate(arguments.batch):
            ratios += measure(batch, ["step"] + (arguments.also if index == 0 else []), arguments)
    except RuntimeError as error:
        sys.exit(f"FAIL {error}")
    print(f"load {os.getloadavg()[0]:.2f} at the end")
    if arguments.at_most is not None and any(ratio is None or ratio > arguments.at_most for ratio in ratios):
        sys.exit(1)


if __name__ == "__main__":
    main()
