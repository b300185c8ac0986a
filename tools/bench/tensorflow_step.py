#!/usr/bin/env python3
"""TensorFlow's side of training_step.py: trains an exported graph on request (the protocol is described there)."""
import peer


class TensorFlow:
    def __init__(self, arguments):
        from lenet_graph import LenetGraph

        self.graph = graph = LenetGraph(arguments.graph, arguments.threads)
        self.keep = arguments.keep
        if arguments.save_weights:
            peer.np.savez(arguments.save_weights, **graph.parameters())
        # TensorFlow's fastest way to repeat a run.
        self.train = graph.session.make_callable(
            [graph.objective, graph.cost, graph.train], feed_list=[graph.images, graph.labels, graph.keep]
        )
        self.summary = graph.tensor("Merge/MergeSummary")

    def prepare(self, images, labels):
        return images, labels

    def step(self, batch):
        objective, cost, _ = self.train(*batch, self.keep)
        return float(objective), float(cost)

    def evaluate(self, split):
        return float(self.over(self.graph.accuracy, split))

    def summarize(self, split):
        return self.over(self.summary, split)

    def over(self, fetch, split):
        images, labels = split
        return self.graph.session.run(fetch, {self.graph.images: images, self.graph.labels: labels, self.graph.keep: 1.0})


def main():
    options = peer.parser(__doc__)
    options.add_argument("graph")
    options.add_argument("--save-weights", metavar="NPZ", help="write the parameters' initial values, by name")
    peer.serve(TensorFlow, options.parse_args())


if __name__ == "__main__":
    main()
