"""Networks of convolutions, as tensors outside of layers: a kernel of out x in x k x k is multiplied once for each position that it
writes.

ResNets are those of He et al. 2015 (arXiv:1512.03385), table 1, with the stride on the 3x3 convolution as torchvision has it;
EfficientNets those of Tan and Le 2019 (arXiv:1905.11946), table 1. Batch norm has a gain and a bias; its running statistics are no
parameters.
"""

import math
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

from llmcalc.engines import flops, params
from tests.claims.ask import billions, listed, sketch
from tests.claims.judge import Check, Claim, Found, span, worst

Tensors = list[dict[str, Any]]


class Size(NamedTuple):
    """Parameters, and multiply-adds of one image."""

    params: int
    macs: int


def conv(out: int, into: int, kernel: int, side: int, *, norm: bool = True, bias: bool = False) -> Tensors:
    """A convolution that writes ``side`` x ``side`` positions, ``into`` the channels of one group; with its norm or bias."""
    shape = [out, into, kernel, kernel]
    found: Tensors = [{"name": "conv", "shape": shape, "times": side * side, "rows": "sequence"}]
    return found + [{"name": "vector", "shape": [out]}] * (2 * norm + bias)


def linear(out: int, into: int) -> Tensors:
    """The classifier."""
    return [{"name": "linear", "shape": [out, into], "times": 1, "rows": "sequence"}, {"name": "vector", "shape": [out]}]


def measure(tensors: Iterable[dict[str, Any]]) -> Size:
    """Through the blueprint: a stack without layers of its own."""
    named = [{**tensor, "name": f"{tensor['name']}_{index}"} for index, tensor in enumerate(tensors)]
    blueprint = sketch(type="encoder", hidden=1, attention=False, ffn=0, norm="none", outside=named)
    return Size(params.count(blueprint).parts["other"], flops.count(blueprint, 1).forward // 2)


@cache
def resnet(*depths: int, side: int = 224) -> Size:
    """A ResNet of bottleneck blocks."""
    tensors, into, side = conv(64, 3, 7, side // 2), 64, side // 4
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        for block in range(depth):
            half = 2 if stage and not block else 1
            tensors += conv(width, into, 1, side)
            side //= half
            tensors += conv(width, width, 3, side) + conv(4 * width, width, 1, side)
            if not block:
                tensors += conv(4 * width, into, 1, side)
            into = 4 * width
    return measure(tensors + linear(1000, into))


# expansion, kernel, stride, channels, repeats
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def rounded(channels: float) -> int:
    """To the nearest multiple of 8, and not below nine tenths."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


@cache
def efficientnet(width: float, depth: float, side: int) -> Size:
    """An EfficientNet at these multipliers: inverted bottlenecks with squeeze and excitation of a quarter of what goes in."""
    side = math.ceil(side / 2)
    into = rounded(32 * width)
    tensors = conv(into, 3, 3, side)
    for expansion, kernel, stride, channels, repeats in STAGES:
        out = rounded(channels * width)
        for block in range(math.ceil(repeats * depth)):
            inner, squeezed = into * expansion, max(1, into // 4)
            tensors += conv(inner, into, 1, side) if expansion > 1 else []
            side = math.ceil(side / (stride if not block else 1))
            tensors += conv(inner, 1, kernel, side)
            tensors += conv(squeezed, inner, 1, 1, norm=False, bias=True) + conv(inner, squeezed, 1, 1, norm=False, bias=True)
            tensors += conv(out, inner, 1, side)
            into = out
    head = rounded(1280 * width)
    return measure(tensors + conv(head, into, 1, side) + linear(1000, head))


def b(number: int) -> Size:
    """B0, B4 and B7 as published."""
    return efficientnet(*{0: (1.0, 1.0, 224), 4: (1.4, 1.8, 380), 7: (2.0, 3.1, 600)}[number])


def resnets(claim: Claim) -> Found:
    small, large = resnet(3, 4, 6, 3), resnet(3, 8, 36, 3)
    verdict = worst(claim.near("25M", small.params), claim.near("60M", large.params))
    text = (
        f"{billions(small.params)} and {billions(large.params)}; {small.macs / 1e9:.2f} and {large.macs / 1e9:.2f} billion"
        " multiply-adds at 224 pixels."
    )
    return Found([small.params, large.params], verdict, text)


def bottleneck(claim: Claim) -> Found:
    said = claim.said("70% fewer")[0]

    def block(width: int) -> int:
        return measure(conv(width, 4 * width, 1, 56) + conv(width, width, 3, 56) + conv(4 * width, width, 1, 56)).macs

    def stacked(width: int) -> int:
        return measure(conv(width, width, 3, 56) * 2).macs

    fewer = {times: 1 - block(64) / stacked(64 * times) for times in (1, 2, 4)}
    least = next(width for width in range(64, 257) if 1 - block(64) / stacked(width) >= said)
    text = (
        f"Against two 3x3 convolutions on all 256 channels that the block takes in {100 * fewer[4]:.1f}% fewer; on the 64 of its"
        f" middle, as ResNet-34 has them, {100 * fewer[1]:.1f}%; on 128 {100 * fewer[2]:.1f}%. 70% is reached at {least} channels,"
        " which no ResNet has."
    )
    readings = (fewer[1], fewer[4])
    return Found(None, "holds" if all(abs(each - said) <= claim.tolerance for each in readings) else "wrong", text)


def depthwise(claim: Claim) -> Found:  # noqa: ARG001
    def ratio(channels: int, kernel: int = 3) -> float:
        whole = measure(conv(channels, channels, kernel, 56)).macs
        return measure(conv(channels, 1, kernel, 56) + conv(channels, channels, 1, 56)).macs / whole

    exact = all(math.isclose(ratio(n, k), 1 / n + 1 / k**2, rel_tol=1e-12) for n in (32, 64, 512) for k in (3, 5))
    times = {n: 1 / ratio(n) for n in (32, 64, 128, 256, 512, 1024)}
    first = next(n for n in range(1, 1024) if 1 / ratio(n) >= 8)
    usual = span(8, 9, [each for n, each in times.items() if n >= first])
    text = (
        f"1/N + 1/K^2 to the last digit, N the channels that go out: for 3x3"
        f" {listed([f'{each:.2f} times less at N = {n:,}' for n, each in times.items()])}. 8 times from N = {first} on, never 9;"
        f" 5x5 {1 / ratio(256, 5):.1f} at 256."
    )
    return Found(None, worst("holds" if exact else "wrong", usual), text)


def efficientnets(claim: Claim) -> Found:
    zero, four, seven = b(0), b(4), b(7)
    figures = {"5.3M": zero.params, "0.39B": zero.macs, "19M": four.params, "66M": seven.params, "37B": seven.macs}
    verdict = worst(*(claim.near(figure, ours) for figure, ours in figures.items()))
    text = f"{listed([f'{billions(size.params)} and {size.macs / 1e9:.3g}B multiply-adds' for size in (zero, four, seven)])}."
    return Found([zero.params, four.params, seven.params], verdict, text)


def compound(claim: Claim) -> Found:
    depth, width, side = (claim.said(phrase)[0] for phrase in ("1.2^phi", "1.1^phi", "1.15^phi"))
    ours = depth * width**2 * side**2
    base = b(0).macs
    steps = [efficientnet(width**phi, depth**phi, round(224 * side**phi)).macs / base for phi in (1, 2, 3, 4)]
    verdict = "holds" if abs(ours / 2 - 1) <= claim.tolerance else "wrong"
    text = (
        f"1.2 x 1.1^2 x 1.15^2 = {ours:.3f} a step. B0 scaled so, channels rounded to eights and layers up, takes"
        f" {listed([f'{each:.2f}' for each in steps])} times at phi 1 to 4, where doubling would be 2, 4, 8 and 16."
    )
    return Found(ours, verdict, text)


def b4_and_resnet(claim: Claim) -> Found:
    large, four = resnet(3, 8, 36, 3), b(4)
    ours = large.macs / four.macs
    same = resnet(3, 8, 36, 3, side=380).macs / four.macs
    text = (
        f"{ours:.2f} times: {large.macs / 1e9:.2f} billion multiply-adds at 224 pixels against {four.macs / 1e9:.2f} at 380. At"
        f" 380 pixels both, {same:.1f} times."
    )
    return Found(ours, claim.near("10 times", ours), text)


CHECKS: dict[str, Check] = {
    "resnet50-params": resnets,
    "resnet-bottleneck": bottleneck,
    "depthwise-ratio": depthwise,
    "efficientnet-sizes": efficientnets,
    "efficientnet-compound": compound,
    "b4-vs-resnet152": b4_and_resnet,
}
