"""Peer of the stage `selection`: torch.topk over the gradients of all candidates."""

import math

import torch
from common import arguments, serve


def restore_largest(weights, targets, gradients, count):
    """Sets the `count` weights of largest gradient, of those that a descent step moves to their target, to it."""
    towards = [(weight - target) * gradient > 0 for weight, target, gradient in zip(weights, targets, gradients)]
    sizes = torch.cat([gradient[mask].abs() for gradient, mask in zip(gradients, towards)])
    threshold = torch.topk(sizes, min(count, len(sizes)), sorted=False).values.min()
    restored = 0
    for weight, target, gradient, mask in zip(weights, targets, gradients, towards):
        chosen = mask & (gradient.abs() >= threshold)
        weight[chosen] = target[chosen]
        restored += int(chosen.sum())
    equal = sum(int((weight == target).sum()) for weight, target in zip(weights, targets))
    return restored, equal


def main():
    plan, _, dtype = arguments()
    draw = lambda size: torch.empty(size, dtype=dtype).uniform_(-1, 1)
    weights, targets, gradients = ([draw(size) for size in plan["sizes"]] for _ in range(3))
    count = math.ceil(plan["rate"] * sum(plan["sizes"]))
    serve(lambda: "restored {}, equal {}".format(*restore_largest(weights, targets, gradients, count)))


if __name__ == "__main__":
    main()
