#!/usr/bin/env python3
"""Time our training step against those of other engines: the same network, batches and cores, turn by turn in one run.

    training_step.py --graph graph.pb                    ours and TensorFlow's, batch 500
    training_step.py --graph graph.pb --batch 500 32 1   several batch sizes
    training_step.py --graph graph.pb --also epoch                 epochs of 100 batches, with what it takes to feed them
    training_step.py --graph graph.pb --also evaluate summarize    the 10,000 test images: accuracy, and all summaries
    training_step.py --graph graph.pb --peers tensorflow pytorch jax    PyTorch's and JAX's too
    training_step.py --graph graph.pb --peers pytorch jax --check       whether these train the same network
    training_step.py --graph graph.pb --peers pytorch jax --device gpu [--tf32]    on a GPU; TensorFlow stays on the CPU
    training_step.py --graph graph.pb --no-ours          no program of ours needed

The graph comes from `lenet export --graph-def graph.pb --seed 1`. PyTorch and JAX build the network themselves, as a good
user of each would; requirements.txt names their versions. A peer whose package is missing is skipped. Each side is a child
process that speaks this protocol, lines on standard input and output:

    (start)        ->  ready                  data loaded, variables initialized
    step N         ->  N SECONDS              N training steps, timed inside the process
    losses N       ->  K OBJECTIVE COST       one line a step, measured before its update; K counts on from 0 over all
                       done                   commands of the process
    epoch N            ->  N SECONDS              N times 100 training steps, their batches made ready as they are needed, within
                                                  the time; they do not count among those of `losses`
    evaluate N         ->  N SECONDS              N times the accuracy on the 10,000 test images
    summarize N        ->  N SECONDS              N times the merged summary over the 10,000 test images
    accuracy 1     ->  ACCURACY               on the 10,000 test images; only the peers know it
    (any)          ->  refused: WHY           instead of an answer, or of `ready`: not to be had here
    (end of input)     the process ends

Ours is called as `<--ours> --optimizer OPTIMIZER --seed 1 --batch B --threads T --data DIR` (T 0: all cores). A step fetches
objective and cost with the train op; batch k is rows k*B .. k*B+B of the 55,000 training images in file order, from the
start again after the last whole one; keep probability 0.5.

One side works while the others wait. After a warm-up round each, rounds alternate; a round's figure is its seconds over
its steps. Printed: the median of the rounds, the quartiles, least and most, and for each peer the ratio of the medians
(below 1: we are faster), and behind each command the most memory that the processes have held. With --at-most R the exit status is 1 where a ratio is above R.

With --check nothing is timed. Each peer but TensorFlow starts twice. From TensorFlow's initial values and with nothing
dropped, objective and cost of the first step must agree with TensorFlow's to 1e-4, those of the two steps behind it to 5e-3
(PyTorch's Adam adds its epsilon elsewhere), and the accuracy to two images. From its own initial values, with dropout, its
objective must start within 5 % of ours and fall by as much in 50 steps, within a quarter.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
OURS = os.path.join(HERE, os.pardir, os.pardir, "target", "release", "examples", "training_step")
TITLES = {"tensorflow": "TensorFlow", "pytorch": "PyTorch", "jax": "JAX"}


class Refused(Exception):
    """A side cannot do what it was asked, and said why."""


class Side:
    """A child that trains on request."""

    def __init__(self, title, command):
        self.title = title
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                      stderr=subprocess.DEVNULL if title == "TensorFlow" else None)
        try:
            self.expect("ready")
        except Refused:
            self.close()
            raise

    def line(self):
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.title}: the process ended with status {self.child.wait()}")
        if line.startswith("refused: "):
            raise Refused(line.strip().removeprefix("refused: "))
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

    def accuracy(self):
        self.ask("accuracy 1")
        return float(self.line())

    def peak_memory(self):
        """The most memory that the process has held, in MB; None where the system does not tell (Linux does)."""
        try:
            with open(f"/proc/{self.child.pid}/status") as status:
                found = [line.split()[1] for line in status if line.startswith("VmHWM:")]
        except OSError:
            return None
        return int(found[0]) / 1000 if found else None

    def close(self):
        self.child.stdin.close()
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def describe(title, times, nodes):
    """Prints the times, in microseconds of one node where they are of many; gives the median."""
    low, middle, high = statistics.quantiles(times, n=4)
    scale, unit = (1, "ms") if nodes is None else (1e3 / nodes, "us")
    median, *others = [f"{time * scale:.3f}" for time in (middle, low, high, min(times), max(times))]
    low, high, least, most = others
    print(f"  {title:10}  median {median:>9} {unit}   quartiles {low} .. {high}   least {least}   most {most}")
    return middle


def describe_memory(sides):
    """Prints what each side's process has held at most so far."""
    peaks = [(side.title, peak) for side in sides if (peak := side.peak_memory())]
    if peaks:
        print("  peak memory so far: " + ", ".join(f"{title} {peak:,.0f} MB" for title, peak in peaks))


def times_for(side, command, seconds):
    """How often the command fills about that long."""
    side.time(command, 2)
    return max(1, round(seconds * 1e3 / side.time(command, 3)))


def alternate(sides, command, arguments, nodes=None):
    """Times the command turn by turn; gives the ratio of the medians for each peer beside ours. Where a command is of so many
    nodes, one of them is told."""
    turns = []
    for side in sides:
        try:
            turns.append((side, times_for(side, command, arguments.seconds), []))
        except Refused as reason:
            print(f"  {side.title:10}  skipped: {reason}")
    if not turns:
        return []
    for k in range(arguments.rounds):
        first = k % len(turns)  # no side always goes first
        for side, count, into in turns[first:] + turns[:first]:
            into.append(side.time(command, count))
    medians = {side.title: describe(side.title, into, nodes) for side, _, into in turns}
    print(f"  {arguments.rounds} rounds of {', '.join(str(count) for _, count, _ in turns)} times `{command}`")
    ours = medians.pop("ours", None)
    if ours is None:
        return []
    for title, median in medians.items():
        print(f"  ours / {title} = {ours / median:.3f}")
    return [ours / median for median in medians.values()]


def device_options(arguments):
    return ["--device", arguments.device, *(["--tf32"] if arguments.tf32 else [])]


def start_ours(batch, arguments):
    return Side("ours", [arguments.ours, "--optimizer", arguments.optimizer, "--seed", "1", "--batch", str(batch),
                         "--threads", str(arguments.threads), "--data", arguments.data, *device_options(arguments)])


def start_peer(name, batch, arguments, *options):
    script = [sys.executable, os.path.join(HERE, f"{name}_step.py")]
    graph = [arguments.graph] if name == "tensorflow" else []
    compiled = ["--compile"] if name == "pytorch" and arguments.compile else []
    return Side(TITLES[name], [*script, *graph, *compiled, "--data", arguments.data, "--batch", str(batch),
                               "--threads", str(arguments.threads),
                               *([] if name == "tensorflow" else device_options(arguments)), *options])


def apart(ours, theirs):
    """The largest relative difference between objectives, and between costs, of the same steps."""
    return max(abs(a - b) / max(abs(b), 1e-30) for x, y in zip(ours, theirs) for a, b in zip(x[1:], y[1:]))


def measure(batch, commands, arguments):
    """Gives the ratios."""
    sides = []
    try:
        print(f"batch {batch}:")
        for name in arguments.peers:
            try:
                sides.append(start_peer(name, batch, arguments))
            except Refused as reason:
                print(f"  {TITLES[name]:10}  skipped: {reason}")
        if not arguments.no_ours:
            sides.append(start_ours(batch, arguments))
            graph_peers = [side for side in sides if side.title == "TensorFlow"]
            ours = sides[-1].losses(3) if graph_peers else None
            for side in graph_peers:
                theirs = side.losses(3)
                worst = apart(ours, theirs)
                print(f"  ours and {side.title}: losses of the first 3 steps agree to {worst:.2g} (relative)")
                if not worst < 1e-4:
                    raise RuntimeError(f"the two do not train the same net: ours {ours}, {side.title}'s {theirs}")
        ratios = []
        for command in commands:
            if command != "step":
                print(f"{command}, 100 batches:" if command == "epoch" else f"{command}, 10,000 images:")
            ratios += alternate(sides, command, arguments)
            describe_memory(sides)
        return ratios
    finally:
        for side in sides:
            side.close()


def answers(side, steps):
    """The accuracy at the start, where the side tells it, and the losses of the first steps; the side ends."""
    try:
        return None if side.title == "ours" else side.accuracy(), side.losses(steps)
    finally:
        side.close()


def check(batch, arguments):
    """Whether the peers train the network that TensorFlow and we train; raises RuntimeError where not."""
    steps = 50
    with tempfile.TemporaryDirectory() as folder:
        weights = os.path.join(folder, "weights.npz")
        accuracy, kept = answers(start_peer("tensorflow", batch, arguments, "--keep", "1", "--save-weights", weights), 3)
        _, dropped = answers(
            start_peer("tensorflow", batch, arguments) if arguments.no_ours else start_ours(batch, arguments), steps)
        objectives = [objective for _, objective, _ in dropped]
        print(f"batch {batch}: objective {objectives[0]:.4f}, after {steps - 1} steps {objectives[-1]:.4f}")
        for name in arguments.peers:
            if name == "tensorflow":
                continue
            try:
                same = start_peer(name, batch, arguments, "--keep", "1", "--weights", weights)
            except Refused as reason:
                print(f"  {TITLES[name]:10}  skipped: {reason}")
                continue
            their_accuracy, theirs = answers(same, 3)
            _, own = answers(start_peer(name, batch, arguments), steps)
            first, behind = apart(theirs[:1], kept[:1]), apart(theirs[1:], kept[1:])
            start, end = own[0][1], own[-1][1]
            fall = (start - end) / (objectives[0] - objectives[-1])
            print(f"  {TITLES[name]:10}  same values, nothing dropped: losses apart {first:.1e}, in the next 2 steps "
                  f"{behind:.1e}, accuracy {abs(their_accuracy - accuracy):.1e}\n"
                  f"  {'':10}  own values: objective {start:.4f}, after {steps - 1} steps {end:.4f} ({fall:.3f} of our fall)")
            holds = {
                "the first losses": first < 1e-4,
                "the losses behind": behind < 5e-3,
                "the accuracy": abs(their_accuracy - accuracy) < 2.5e-4,
                "where the objective starts": abs(start / objectives[0] - 1) < 0.05,
                "how far the objective falls": abs(fall - 1) < 0.25,
            }
            if wrong := [what for what, right in holds.items() if not right]:
                raise RuntimeError(f"{TITLES[name]} does not train the same net: {', '.join(wrong)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", required=True)
    parser.add_argument("--ours", default=OURS, help="our program (default: target/release/examples/training_step)")
    parser.add_argument("--optimizer", default="adam", choices=("adam", "rmsprop", "sgd"), help="as the graph was exported")
    parser.add_argument("--data", default=os.path.join(HERE, os.pardir, os.pardir, "data"))
    parser.add_argument("--batch", type=int, nargs="+", default=[500])
    parser.add_argument("--also", nargs="*", default=[], choices=("epoch", "evaluate", "summarize"), help="beside training steps")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--tf32", action="store_true", help="on a GPU, products of matrices in TensorFloat-32")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.5, help="about how long a round lasts (default: 1.5)")
    parser.add_argument("--peers", nargs="+", default=["tensorflow"], choices=list(TITLES), help="default: tensorflow")
    parser.add_argument("--compile", action="store_true", help="PyTorch through torch.compile (needs a C++ compiler)")
    parser.add_argument("--no-ours", action="store_true", help="only the peers")
    parser.add_argument("--check", action="store_true", help="time nothing: do PyTorch and JAX train the same network?")
    parser.add_argument("--at-most", type=float, metavar="R", help="fail where ours / a peer is above R")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("--rounds: at least 2")
    if arguments.optimizer != "adam" and set(arguments.peers) - {"tensorflow"}:
        parser.error("PyTorch and JAX are written for --optimizer adam")
    if not arguments.no_ours and not os.path.exists(arguments.ours):
        parser.error(f"{arguments.ours}: not built (cargo build --release -p lenet --example training_step)")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} at the start, threads {arguments.threads or 'all'}")
    try:
        ratios = []
        for index, batch in enumerate(arguments.batch):
            if arguments.check:
                check(batch, arguments)
                continue
            ratios += measure(batch, ["step"] + (arguments.also if index == 0 else []), arguments)
    except (RuntimeError, Refused) as error:
        sys.exit(f"FAIL {error}")
    print(f"load {os.getloadavg()[0]:.2f} at the end")
    if arguments.at_most is not None and (not ratios or max(ratios) > arguments.at_most):
        sys.exit(1)


if __name__ == "__main__":
    main()
