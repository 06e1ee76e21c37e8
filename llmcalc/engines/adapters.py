"""Fine-tuning methods: which parameters are trained, and which are added.

Counts follow peft. LoRA (Hu et al. 2021): r (in + out) per linear; DoRA (Liu et al. 2024): one magnitude per output more; IA3
(Liu et al. 2022): a vector on the outputs of keys and values and on the input of the FFN's last linear; prefix tuning (Li and
Liang 2021): keys and values of n virtual tokens in every layer; prompt tuning (Lester et al. 2021): n embeddings; bottleneck
adapters (Houlsby et al. 2019): two linears with biases after each sub-layer.
"""

from typing import Any, NamedTuple

from llmcalc.blueprint.parts import ONE, Blueprint, Weight, product
from llmcalc.blueprint.scored import SCORES
from llmcalc.engines.recipe import PROMPTS, Recipe
from llmcalc.errors import NoAnswer
from llmcalc.quantity import Dim

LINEARS = ("q", "k", "v", "o", "gate", "up", "down")
TOWERS = ("vision", "audio")
# What transformers calls them.
OTHER_NAMES = {f"{role}_proj": role for role in LINEARS}


class Added(NamedTuple):
    """A parameter that a method adds, one in each of ``layers`` (none: outside of them), ``beside`` a linear, an operation or a
    block."""

    name: str
    beside: str
    shape: tuple[Any, ...]
    depth: Any
    layers: tuple[int, ...]
    copies: Any = ONE
    feeds: bool = False  # of IA3: on the linear's input

    @property
    def elements(self) -> Any:
        """Elements in all layers."""
        return product((self.depth, self.copies, *self.shape))


class Linear(NamedTuple):
    """A linear as it is stored: one weight, or several fused ones."""

    name: str
    roles: tuple[str, ...]
    weights: tuple[Weight, ...]

    @property
    def out(self) -> Any:
        """Outputs of all together."""
        total = self.weights[0].shape[0]
        for weight in self.weights[1:]:
            total = total + weight.shape[0]
        return total

    @property
    def into(self) -> Any:
        """Inputs."""
        return self.weights[0].shape[1]


def role_of(weight: Weight) -> str:
    """A linear's role without what says where it stands: expert_gate is a gate."""
    role = weight.role
    for prefix in ("expert_", "shared_", "dense_", "cross_"):
        role = role.removeprefix(prefix)
    return role


def linears(blueprint: Blueprint) -> list[Linear]:
    """The linears of the text stacks' layers, fused ones as one; routers and gates of experts left out, as nobody adapts them."""
    found: dict[str, list[Weight]] = {}
    for weight in blueprint.weights:
        inner = weight.layers and weight.kind == "matrix" and weight.stack not in TOWERS
        if inner and weight.part != "router" and weight.role != "shared_expert_gate":
            found.setdefault(weight.fused or weight.name, []).append(weight)
    return [Linear(name, tuple(map(role_of, group)), tuple(group)) for name, group in found.items()]


def targeted(blueprint: Blueprint, targets: tuple[str, ...]) -> list[Linear]:
    """The linears that a method adapts. ``all``: every one. Of fused linears that are meant in part, each part is adapted by
    itself, as litgpt does. Raises NoAnswer for a target that the model has not."""
    there = linears(blueprint)
    if targets == ("all",):
        return there
    wanted = {OTHER_NAMES.get(name, name) for name in targets}
    known = {role for linear in there for role in linear.roles} | {weight.role for linear in there for weight in linear.weights}
    if wanted - known:
        raise NoAnswer(
            f"{blueprint.name} has no {', '.join(sorted(wanted - known))} to adapt; --targets {','.join(sorted(known))} or all"
        )
    found = []
    for linear in there:
        parts = [Linear(w.name, (role_of(w),), (w,)) for w in linear.weights if wanted & {w.role, role_of(w)}]
        found += [linear] if len(parts) == len(linear.weights) else parts
    return found


def added(blueprint: Blueprint, recipe: Recipe) -> list[Added]:
    """The parameters that the recipe's method adds to the model."""
    if not recipe.adapts:
        return []
    r = Dim(recipe.rank, "r")
    if recipe.method in PROMPTS:
        return _virtual(blueprint, recipe.method, Dim(recipe.rank, "n"))
    if recipe.method == "adapter":
        return _bottlenecks(blueprint, r)
    found = []
    for linear in targeted(blueprint, recipe.targets):
        first = linear.weights[0]
        many = first.depth, first.layers, first.copies
        if recipe.method == "ia3":
            feeds = bool({"gate", "up", "down"} & {*linear.roles})
            width = linear.into if feeds else linear.out
            found.append(Added(f"{linear.name}.ia3", linear.name, (width,), *many, feeds=feeds))
            continue
        found.append(Added(f"{linear.name}.lora_A", linear.name, (r, linear.into), *many))
        found.append(Added(f"{linear.name}.lora_B", linear.name, (linear.out, r), *many))
        if recipe.method == "dora":
            found.append(Added(f"{linear.name}.magnitude", linear.name, (linear.out,), *many))
    return found


def _virtual(blueprint: Blueprint, method: str, n: Dim) -> list[Added]:
    """Virtual tokens: embeddings (prompt), or keys and values of every layer (prefix), which is the cache they would fill."""
    if method == "prompt":
        if not any(op.kind == "lookup" and op.reads[0] == "tokens" for op in blueprint.ops):
            return []  # a pipeline's later stage
        h = Dim(blueprint.stacks[-1].hidden, "h")
        stacks = sum(stack.name not in TOWERS for stack in blueprint.stacks)
        return [Added("prompt", "prompt", (n, h), Dim(stacks, "stacks"), ())]
    keys = [cache for cache in blueprint.caches if cache.kind == "kv"]
    if not keys:
        raise NoAnswer(f"{blueprint.name}: prefix tuning needs keys and values to put before others")
    return [
        Added(f"{cache.name}.prefix", cache.name.rpartition(".")[0], (n, cache.width), cache.depth, cache.layers) for cache in keys
    ]


def _bottlenecks(blueprint: Blueprint, m: Dim) -> list[Added]:
    """Down and up again, with biases, on what each attention and each FFN adds to the residual stream."""
    found = []
    for op in blueprint.ops:
        if op.kind == "add" and op.name.endswith(("attention_residual", "ffn_residual")) and op.rows in ("token", "encoder_token"):
            h = op.width
            for name, shape in (("down", (m, h)), ("down.bias", (m,)), ("up", (h, m)), ("up.bias", (h,))):
                found.append(Added(f"{op.name}.{name}", op.name, shape, op.depth, op.layers))
    return found


def trained(blueprint: Blueprint, recipe: Recipe) -> list[Weight]:
    """The model's own weights that are trained. Towers before the decoder stay as they are: a step on text does not use them.

    A head of one output is new, so every method trains it (peft: ``modules_to_save``).
    """
    scores = [w for w in blueprint.weights if w.role in SCORES]
    if recipe.adapts:
        return scores
    own = [w for w in blueprint.weights if not w.tied_to and not w.buffer and w.stack not in TOWERS and w.part not in TOWERS]
    if recipe.method == "ln":
        norms = {op.weight for op in blueprint.ops if op.kind == "norm"}
        return [w for w in own if w.name in norms or w.name.removesuffix(".bias") in norms] + scores
    if recipe.method == "bitfit":
        return [w for w in own if w.kind == "bias" and w not in scores] + scores
    if recipe.method == "head":
        return [w for w in own if w.part == "lm_head" and w not in scores] + scores
    return own
