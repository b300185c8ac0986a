#!/usr/bin/env python3
"""PyTorch's side of training_step.py: the same network, eager, trained on request (the protocol is described there)."""
import peer


class PyTorch:
    def __init__(self, arguments):
        import torch
        from torch import nn
        from torch.nn import functional

        torch.set_num_threads(arguments.threads)
        self.device = "cuda" if arguments.device == "gpu" else "cpu"
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ImportError("this PyTorch sees no GPU")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = arguments.tf32
        torch.manual_seed(1)
        self.torch, self.functional = torch, functional
        self.dropped = 1 - arguments.keep
        layers = {
            "conv_1": nn.Conv2d(1, 20, 5),
            "conv_2": nn.Conv2d(20, 50, 3),
            "dot_1": nn.Linear(1250, 800),
            "dot_2": nn.Linear(800, 800),
            "logits_layer": nn.Linear(800, 10),
        }
        # Channels last: the faster of the two layouts here.
        self.net = nn.ModuleDict(layers).to(memory_format=torch.channels_last)
        values = peer.initial_values(arguments)
        with torch.no_grad():
            for name, layer in layers.items():
                weights = torch.from_numpy(values[f"{name}/weights"])
                # TensorFlow has the outputs last, PyTorch first: [H, W, I, O] becomes [O, I, H, W], [I, O] becomes [O, I].
                layer.weight.copy_(weights.permute(3, 2, 0, 1) if weights.dim() == 4 else weights.t())
                layer.bias.copy_(torch.from_numpy(values[f"{name}/bias"]))
        self.net.to(self.device)
        self.bands = [self.band(layers[name].out_channels) for name in ("conv_1", "conv_2")]
        self.weights = [layer.weight for layer in layers.values()]
        adam = peer.ADAM
        self.optimizer = torch.optim.Adam(
            # Its epsilon is added behind the correction of the moments, TensorFlow's before.
            self.net.parameters(), adam["rate"], (adam["beta1"], adam["beta2"]), adam["epsilon"], fused=True
        )
        # On a GPU with CUDA graphs: one launch for the forward pass and one for the backward.
        mode = "reduce-overhead" if self.device == "cuda" else None
        self.losses = torch.compile(self.plain_losses, mode=mode) if arguments.compile else self.plain_losses
        self.logits = torch.compile(self.plain_logits, mode=mode) if arguments.compile else self.plain_logits

    def band(self, channels):
        """The filter of a 1x1 convolution that adds up the channels within LRN's radius."""
        index = self.torch.arange(channels)
        band = ((index[:, None] - index).abs() <= peer.LRN_RADIUS).float()
        return band[:, :, None, None].to(self.device), self.torch.ones(channels, device=self.device)

    def normalize(self, x, band):
        # Much faster than `functional.local_response_norm`, which pools in three dimensions.
        return x * self.functional.conv2d(x * x, *band).rsqrt()

    def plain_logits(self, images, dropped):
        f, net = self.functional, self.net
        x = images.view(-1, 1, 28, 28)
        x = self.normalize(f.max_pool2d(f.relu(net["conv_1"](x)), 2), self.bands[0])
        x = self.normalize(f.max_pool2d(f.relu(net["conv_2"](x)), 2), self.bands[1])
        x = x.permute(0, 2, 3, 1).flatten(1)  # rows in TensorFlow's order
        x = f.relu(net["dot_1"](f.dropout(x, dropped)))
        x = f.relu(net["dot_2"](f.dropout(x, dropped)))
        return net["logits_layer"](f.dropout(x, dropped))

    def plain_losses(self, images, labels):
        cost = self.functional.cross_entropy(self.plain_logits(images, self.dropped), labels)
        norms = sum(peer.L2 / 2 * w.square().sum() + peer.L1 * w.abs().sum() for w in self.weights)
        return cost + norms, cost

    def prepare(self, images, labels):
        return self.torch.from_numpy(images).to(self.device), self.torch.from_numpy(labels.argmax(1)).to(self.device)

    def step(self, batch):
        self.optimizer.zero_grad()
        objective, cost = self.losses(*batch)
        objective.backward()
        self.optimizer.step()
        return objective.item(), cost.item()

    def evaluate(self, split):
        # In pieces, as one evaluates here: a whole pass over all the images spends its time getting memory.
        with self.torch.inference_mode():
            pieces = zip(*(tensor.split(1000) for tensor in split))
            correct = sum((self.logits(images, 0.0).argmax(1) == labels).sum() for images, labels in pieces)
            return correct.item() / len(split[1])


def main():
    options = peer.parser(__doc__)
    options.add_argument("--compile", action="store_true", help="torch.compile (needs a C++ compiler)")
    peer.serve(PyTorch, peer.parse(options))


if __name__ == "__main__":
    main()
