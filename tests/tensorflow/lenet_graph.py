"""The tutorial's training graph, imported into real TensorFlow and run there."""
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf  # noqa: E402  (the environment must be set before)

v1 = tf.compat.v1
TRAIN_OPS = {"adam": "train/adam", "rmsprop": "train/rmsprop", "sgd": "train/gradient_descent"}


class LenetGraph:
    """A session over an imported GraphDef (or MetaGraphDef, with its saver), with the ends that the checks need."""

    def __init__(self, path, threads=0, meta=False):
        self.graph = tf.Graph()
        with self.graph.as_default():
            if meta:
                self.saver = v1.train.import_meta_graph(path)
                definition = self.graph.as_graph_def()
            else:
                definition = v1.GraphDef()
                with open(path, "rb") as file:
                    definition.ParseFromString(file.read())
                tf.import_graph_def(definition, name="")
        self.definition = definition
        names = {node.name for node in definition.node}
        found = [optimizer for optimizer, op in TRAIN_OPS.items() if op in names]
        if len(found) != 1:
            raise ValueError(f"{path}: expected one of {', '.join(TRAIN_OPS.values())}, found {found}")
        self.optimizer = found[0]
        self.train = self.graph.get_operation_by_name(TRAIN_OPS[self.optimizer])
        self.init = self.graph.get_operation_by_name("init")
        self.images = self.tensor("dataset_inputs/images")
        self.labels = self.tensor("dataset_inputs/labels")
        self.keep = self.tensor("dropout_probability")
        # A scalar summary's second input is the tensor that it reports.
        self.objective = self.summarized("objective/obj")
        self.cost = self.summarized("objective/cross-entropy/cost")
        self.accuracy = self.summarized("test/accuracy_1")
        # Before the activation, which the logits' layer has none of.
        self.logits_tensor = self.tensor("logits_layer/pre-activation")
        self.session = v1.Session(
            graph=self.graph,
            config=v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads),
        )
        self.session.run(self.init)

    def tensor(self, name):
        return self.graph.get_tensor_by_name(f"{name}:0")

    def summarized(self, name):
        return self.graph.get_operation_by_name(name).inputs[1]

    def variables(self):
        """The names of all variables, the optimizer's among them."""
        return [op.name for op in self.graph.get_operations() if op.type == "VariableV2"]

    def make_saver(self, names):
        """TensorFlow's Saver of the variables of these names."""
        with self.graph.as_default():
            return v1.train.Saver({name: self.tensor(name) for name in names})

    # Outside of its graph, a Saver takes the program for an eager one.
    def save(self, saver, prefix, **options):
        with self.graph.as_default():
            return saver.save(self.session, prefix, write_meta_graph=False, **options)

    def restore(self, saver, prefix):
        with self.graph.as_default():
            saver.restore(self.session, prefix)

    def logits(self, images):
        return self.session.run(self.logits_tensor, {self.images: images, self.keep: 1.0})

    def parameters(self):
        """The trained variables' values, by name, as they are now."""
        names = [name for name in self.variables() if not name.startswith("train/")]
        return dict(zip(names, self.session.run([self.tensor(f"{name}/read") for name in names])))

    def step(self, batch, keep=0.5):
        """One update; objective and cost are those before it."""
        images, labels = batch
        _, objective, cost = self.session.run(
            (self.train, self.objective, self.cost),
            {self.images: images, self.labels: labels, self.keep: keep},
        )
        return float(objective), float(cost)

    def test_accuracy(self, images, labels):
        return float(self.session.run(self.accuracy, {self.images: images, self.labels: labels, self.keep: 1.0}))
